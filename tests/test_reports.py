"""Reports of an evaluation: their numbers by other means, their pages by a browser."""

import json
import os
import re
import sys
from argparse import Namespace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from browser import assert_page_is_shown, needs_chromium
from helpers import SMALL, options
from lib.datasets.categories import IGNORED_FOR_ALL, ignored_for
from lib.datasets.dataset_factory import get_dataset
from lib.datasets.evaluation.matching import SIZES, make_curve, match_all
from lib.datasets.evaluation.packed import PackedDetections
from lib.datasets.toy import make_toy_data
from lib.opts import opts
from lib.reports import evaluation
from lib.reports.boxes3d import errors_by_distance
from lib.reports.confusion import confusion_matrix
from lib.reports.curves import classes_shown, f1_plots, precision_plots
from lib.reports.errors import KINDS, find_errors
from lib.reports.events import add_events
from lib.reports.joints import joint_scores
from lib.reports.judged import best_threshold, f1_at
from lib.reports.page import Page, new_plot, pixels_of, plot_text
from lib.reports.worst import errors_of_images
from lib.utils.drawing import bird_view, draw_detections
from lib.utils.errors import UserError
from lib.utils.thresholds import over, read_thresholds, write_thresholds
from made_up import made_up_results

NAMES = ['ant', 'bee', 'cat']


# ------------------------------------------------------------------------------------------ made-up data


def boxes_data(seed=0, images=40, crowds=0.1):
    """A COCO dict of three classes, and detections of it with all kinds of errors and no two scores alike."""
    rng = np.random.RandomState(seed)  # whose numbers stay the same in all versions
    annotations, rows = [], []
    for image in range(1, images + 1):
        for _ in range(rng.randint(0, 6)):
            x, y, (w, h) = *(rng.rand(2) * 300).round(1), np.exp(rng.uniform(2.5, 5, 2)).round(1)
            category = int(rng.randint(1, 4))
            entry = {'id': len(annotations) + 1, 'image_id': image, 'category_id': category, 'bbox': [x, y, w, h]}
            annotations.append(entry | {'area': w * h * 0.8, 'iscrowd': int(rng.rand() < crowds)})
            for _ in range(rng.randint(0, 4)):
                off = rng.randn(4) * (0.15, 0.15, 0.1, 0.1)
                box = [x + off[0] * w, y + off[1] * h, w * np.exp(off[2]), h * np.exp(off[3])]
                rows.append((image, category if rng.rand() < 0.8 else int(rng.randint(1, 4)), box, rng.rand()))
        rows.append((image, int(rng.randint(1, 4)), [*(rng.rand(2) * 300), 40, 40], rng.rand()))
    categories = [{'id': number, 'name': name} for number, name in enumerate(NAMES, 1)]
    truth = {'images': [{'id': i, 'width': 400, 'height': 400} for i in range(1, images + 1)]}
    truth |= {'annotations': annotations, 'categories': categories}
    return truth, pack(rows)


def pack(rows):
    """Detections (image, category, box x y w h, score) as the metrics take them."""
    images, categories, boxes, scores = zip(*rows, strict=True)
    return PackedDetections(
        np.array(images), np.array(categories), np.round(np.array(boxes, float), 2), np.array(scores, float)
    )


def matched_boxes(truth, detections, **kwargs):
    return match_all(truth, detections, {1: 0, 2: 1, 3: 2}, NAMES, **kwargs)


def coco_precision(truth, detections):
    """pycocotools' precision [recalls, classes, areas] at IoU .5 and 100 detections."""
    coco = COCO()
    coco.dataset = json.loads(json.dumps(truth))
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes([detections[i] for i in range(len(detections))]), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval['precision'][0, :, :, :, -1]


@pytest.fixture(scope='module', params=['ctdet', 'multi_pose', 'exdet', 'ddd'])
def judged_task(request, tmp_path_factory):
    """Made-up results on 10 images of a task, scored and reported: opt, dataset, results, metrics, Judged."""
    task = request.param
    folder = tmp_path_factory.mktemp(task)
    make_toy_data(folder / 'data', task=task, train=1, val=10 if task != 'ddd' else 20, size=128)
    if task == 'ddd':
        opt = opts().parse([task, '--data_dir', str(folder / 'data'), *SMALL])
        dataset_class = get_dataset(opt.dataset, task)
        opts.update_dataset_info_and_set_heads(opt, dataset_class)
    else:
        opt, dataset_class = options(task, folder / 'data')
    dataset = dataset_class(opt, 'val')
    opt.save_dir, opt.load_model = str(folder / 'run'), str(folder / 'run/model_best.pth')
    os.makedirs(opt.save_dir)
    results = made_up_results(dataset)
    metrics = dataset.run_eval(results, opt.save_dir)
    return SimpleNamespace(
        task=task,
        opt=opt,
        dataset=dataset,
        results=results,
        metrics=metrics,
        folder=folder / 'run',
        judged=evaluation.report_safely(opt, dataset, results, metrics),
    )


class Tables(HTMLParser):
    """The texts of a page's tables: `[table][row][cell]`, and all that would fetch something."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.inside, self.links = [], False, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == 'table':
            self.tables.append([])
        if tag == 'tr':
            self.tables[-1].append([])
        if tag in ('th', 'td'):
            self.tables[-1][-1].append('')
        self.inside = tag in ('th', 'td')
        self.links += [value for name, value in attributes if name in ('src', 'href', 'xlink:href')]

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data

    def table(self, first):
        """The rows of the table whose first heading is that, by their first cells."""
        (table,) = [table for table in self.tables if table[0][0] == first]
        return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}


# ------------------------------------------------------------------------------------------ matching


@pytest.mark.parametrize('seed', range(3))
def test_curves_are_those_of_pycocotools(seed):
    """Precision at every recall, for every class and size, with crowds: to the last bits what COCO computes."""
    truth, detections = boxes_data(seed)
    expected = coco_precision(truth, detections)
    matched = matched_boxes(truth, detections)
    curves = {0: [matched.curve(cls) for cls in range(3)]}
    curves |= {area: matched.curves_of_size(size) for area, size in enumerate(SIZES, 1)}
    assert len(detections) > 150
    for area, of_area in curves.items():
        for cls, curve in enumerate(of_area):
            if curve.objects:
                np.testing.assert_allclose(curve.precision_at_recalls(), expected[:, cls, area], atol=1e-12)
            else:
                assert (expected[:, cls, area] == -1).all()


def test_scores_alike_and_more_than_a_hundred_match_as_pycocotools_does():
    """Equal scores keep their order, and of a class in an image the best hundred count."""
    truth, detections = boxes_data(5, images=8)
    detections.scores = detections.scores.round(1)
    crowded = pack([(1, 1, [7 * i % 300, i, 30, 30], 0.5 + i / 1000) for i in range(130)])
    detections = PackedDetections(
        *(
            np.concatenate([getattr(part, name) for part in (crowded, detections)])
            for name in ('image_ids', 'category_ids', 'boxes', 'scores')
        )
    )
    matched, expected = matched_boxes(truth, detections), coco_precision(truth, detections)
    assert (matched.found.images == 1).sum() < (detections.image_ids == 1).sum()
    for cls in range(3):
        np.testing.assert_allclose(matched.curve(cls).precision_at_recalls(), expected[:, cls, 0], atol=1e-12)


def test_ignored_kinds_are_neither_right_nor_wrong():
    """A Van takes a detection of a Car, a DontCare area any number of any class; only where the metric says so."""
    truth = {
        'annotations': [
            {'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 10, 10]},
            {'image_id': 1, 'category_id': 2, 'bbox': [20, 0, 10, 10]},
            {'image_id': 1, 'category_id': 3, 'bbox': [40, 0, 30, 30]},
        ]
    }
    cat_ids = {1: 0, 2: ignored_for(0), 3: IGNORED_FOR_ALL, 4: 1}
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10], [41, 1, 8, 8], [50, 1, 8, 8]]
    detections = pack([(1, 1, box, 0.9 - i / 10) for i, box in enumerate(boxes)] + [(1, 4, [20, 0, 10, 10], 0.2)])
    matched = match_all(truth, detections, cat_ids, ['car', 'walker'], with_kinds=True)
    assert matched.right.tolist() == [True, False, False, False, False]
    assert matched.on_ignored.tolist() == [False, True, True, True, False]
    assert matched.wrong.tolist() == [False, False, False, False, True]  # a walker is no kind of van
    plain = match_all(truth, detections, cat_ids, ['car', 'walker'])
    assert plain.wrong.tolist() == [False, True, True, True, True]


# ------------------------------------------------------------------------------------------ F1


def f1_by_hand(truth, detections, category, threshold):
    """F1 of a class at a threshold, by a loop that knows nothing of ours."""
    right = wrong = 0
    taken = set()
    kept = [detections[i] for i in range(len(detections))]
    kept = [d for d in kept if d['category_id'] == category and d['score'] >= threshold]
    for d in sorted(kept, key=lambda d: -d['score']):
        best, choice = 0.5, None
        for a in truth['annotations']:
            if a['image_id'] != d['image_id'] or a['category_id'] != category or a['id'] in taken:
                continue
            (x, y, w, h), (u, v, s, t) = d['bbox'], a['bbox']
            shared = max(0, min(x + w, u + s) - max(x, u)) * max(0, min(y + h, v + t) - max(y, v))
            iou = shared / (w * h + s * t - shared)
            if iou >= best:
                best, choice = iou, a['id']
        if choice is None:
            wrong += 1
        else:
            right += 1
            taken.add(choice)
    objects = sum(a['category_id'] == category for a in truth['annotations'])
    return 2 * right / (right + wrong + objects)


def test_best_thresholds_are_those_of_brute_force():
    """F1 at the best threshold is the most that any threshold reaches, counted by loops at every score."""
    truth, detections = boxes_data(1, images=12, crowds=0)
    matched = matched_boxes(truth, detections)
    for cls in range(3):
        best = best_threshold(matched.curve(cls))
        tried = [f1_by_hand(truth, detections, cls + 1, score) for score in detections.scores]
        assert best.f1 == pytest.approx(max(tried), abs=1e-12)
        assert f1_by_hand(truth, detections, cls + 1, best.threshold) == pytest.approx(max(tried), abs=1e-12)
        assert best.threshold not in detections.scores  # it stands between two scores
        assert best.f1 == pytest.approx(2 * best.precision * best.recall / (best.precision + best.recall))
        grid = np.linspace(0, 1, 7)
        expected = [f1_by_hand(truth, detections, cls + 1, threshold) for threshold in grid]
        np.testing.assert_allclose(f1_at(matched.curve(cls), grid), expected, atol=1e-12)


def test_equal_scores_are_kept_together():
    """A threshold cannot part detections of one score: F1 between them is no choice."""
    curve = make_curve(np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, True, False, False]), 3)
    best = best_threshold(curve)
    assert (best.threshold, best.f1) == (pytest.approx(0.25), pytest.approx(4 / 7))  # not 4/5, after the second
    assert best_threshold(make_curve(np.array([0.9]), np.array([False]), 3)) is None
    assert best_threshold(make_curve(np.zeros(0), np.zeros(0, bool), 3)) is None


# ------------------------------------------------------------------------------------------ errors


def test_errors_are_those_of_the_reference_implementation():
    """Counts and costs of all kinds on made-up data, as tidecv 1.0.1 gives them (in percent).

    Of 41, 41 and 33 objects no recall falls on one of the 101 at which precision is averaged, where the two round
    otherwise.
    """
    errors = find_errors(matched_boxes(*boxes_data(1, images=53, crowds=0)))
    expected = {
        'class': (18, 6.0545),
        'place': (34, 6.6741),
        'both': (3, 0.1559),
        'duplicate': (56, 4.2369),
        'background': (51, 8.6101),
        'missed': (30, 10.63),
    }
    assert list(expected) == list(KINDS) and errors.counts() == {kind: count for kind, (count, _) in expected.items()}
    assert errors.average_precision * 100 == pytest.approx(30.5672, abs=1e-4)
    costs = {kind: 100 * cost for kind, cost in errors.costs.items()}
    assert costs == pytest.approx({kind: cost for kind, (_, cost) in expected.items()}, abs=1e-4)


def test_each_kind_of_error_by_hand():
    """One object of each fate; what each error costs follows from AP of two classes by hand."""
    objects = [(1, [0, 0, 10, 10]), (1, [100, 0, 10, 10]), (2, [200, 0, 10, 10]), (2, [300, 0, 10, 10])]
    truth = {
        'annotations': [
            {'id': i, 'image_id': 1, 'category_id': category, 'bbox': box} for i, (category, box) in enumerate(objects)
        ]
    }
    rows = [
        (1, 1, [0, 0, 10, 10], 0.9),  # right
        (1, 1, [0, 0, 10, 9], 0.8),  # a duplicate of it
        (1, 1, [105, 0, 10, 10], 0.7),  # its place is off: IoU 1/3
        (1, 1, [200, 0, 10, 10], 0.6),  # its class is off
        (1, 1, [205, 0, 10, 10], 0.5),  # both are
        (1, 1, [500, 0, 10, 10], 0.4),  # nothing is there
    ]
    errors = find_errors(matched_boxes(truth, pack(rows)))
    assert errors.kinds.tolist() == ['', 'duplicate', 'place', 'class', 'both', 'background']
    assert errors.missed.tolist() == [False, False, False, True]
    # class ant: 1 of 2 found at precision 1, which is 51 of 101 recalls; class bee: nothing found
    assert errors.average_precision == pytest.approx(51 / 101 / 2)
    expected = {
        'class': 51 / 101 / 2,  # bee: 1 of 2 found at precision 1
        'place': (51 + 50 * 2 / 3) / 101 / 2 - 51 / 101 / 2,  # ant: the second of two, after the duplicate
        'both': 0,
        'duplicate': 0,
        'background': 0,
        'missed': 0,
    }
    assert errors.costs == pytest.approx(expected)


def test_confusion_by_hand():
    """Right ones on the diagonal, other classes beside it, missed objects and inventions in the background."""
    objects = [(1, [0, 0, 10, 10]), (2, [100, 0, 10, 10]), (3, [200, 0, 10, 10]), (3, [300, 0, 10, 10])]
    truth = {
        'annotations': [
            {'id': i, 'image_id': 1, 'category_id': category, 'bbox': box, 'iscrowd': int(i == 3)}
            for i, (category, box) in enumerate(objects)
        ]
    }
    rows = [
        (1, 1, [0, 0, 10, 10], 0.5),  # right, though a better score of another class lies there
        (1, 2, [0, 0, 10, 10], 0.9),  # which finds nobody left
        (1, 3, [101, 0, 10, 10], 0.8),  # an ant's... a bee taken for a cat
        (1, 3, [302, 1, 5, 5], 0.8),  # in a crowd: not counted
        (1, 3, [200, 0, 10, 10], 0.1),  # under the threshold
    ]
    matched = matched_boxes(truth, pack(rows))
    matrix = confusion_matrix(matched, matched.found.scores >= 0.3)
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    truth, detections = boxes_data(3)
    matched = matched_boxes(truth, detections)
    shown = matched.found.scores >= 0.4
    matrix = confusion_matrix(matched, shown)
    assert np.diag(matrix)[:3].tolist() == [
        (matched.right & shown)[matched.found.classes == cls].sum() for cls in range(3)
    ]
    assert matrix[:3].sum(1).tolist() == [matched.objects_of(cls) for cls in range(3)]
    counted = shown & ~matched.on_ignored
    assert matrix[:, :3].sum(0).tolist() == [counted[matched.found.classes == cls].sum() for cls in range(3)]


# ------------------------------------------------------------------------------------------ reports of tasks


def test_report_has_the_metrics(judged_task):
    """Every number of metrics.json is on the page, and what the report computes itself equals it."""
    page = Tables((judged_task.folder / 'report.html').read_text())
    saved = json.loads((judged_task.folder / 'metrics.json').read_text())
    shown = page.table('metric')
    for name, value in saved.items():
        if '/' not in name:
            assert shown[name]['value'] == ('–' if value == -1 else f'{value:.3f}')
    classes, judged = page.table('class') if judged_task.task == 'multi_pose' else None, judged_task.judged
    curves = [curve.average_precision() for curve in judged.curves if curve.objects]
    errors = find_errors(judged.matched)
    assert errors.average_precision == pytest.approx(np.mean(curves))
    if 'AP50' in saved:
        assert np.mean(curves) == pytest.approx(saved['AP50'], abs=1e-9)
    if classes:
        assert classes['person']['AP'] == f'{saved["AP/person"]:.3f}'
        assert classes['all classes']['objects'] == str(judged.curve_of_all.objects)
    assert page.table('size')['small']['objects'] == str(
        sum(curve.objects for curve in judged.matched.curves_of_size('small'))
    )
    assert all(link.startswith(('#', 'data:')) for link in page.links)


def test_report_counts_as_by_hand(judged_task):
    """Objects, missed ones and wrong ones of the ten images, counted from the files."""
    judged, dataset = judged_task.judged, judged_task.dataset
    coco = json.loads(Path(dataset.annotation_file).read_text())
    ids = set(dataset.index.image_ids.tolist())
    classes = {row['id'] for row in coco['categories'] if row['name'] in dataset.class_names}
    learnt = [row for row in coco['annotations'] if row['category_id'] in classes and row['image_id'] in ids]
    assert judged.curve_of_all.objects == len(learnt) > 10
    images, missed, wrong = errors_of_images(judged)
    assert images.tolist() == sorted(ids)
    shown = judged.shown
    assert missed.sum() == len(learnt) - (judged.matched.right & shown).sum()
    assert wrong.sum() == (judged.matched.wrong & shown).sum()
    text = (judged_task.folder / 'report.html').read_text()
    captions = re.findall(r'<figcaption>(\S+): (\d+) missed, (\d+) wrong</figcaption>', text)
    counts = [int(a) + int(b) for _, a, b in captions]
    expected = sorted((count for count in missed + wrong if count), reverse=True)[:12]
    assert counts == expected and len(counts) > 3
    by_name = {dataset.index.name(i): int(dataset.index.image_ids[i]) for i in range(len(dataset))}
    for name, *of_image in captions:
        k = images.tolist().index(by_name[name])
        assert [int(count) for count in of_image] == [missed[k], wrong[k]]


def test_thresholds_file_has_the_best(judged_task):
    """thresholds.json has a threshold a class, at which F1 of the detections is that of the page."""
    judged = judged_task.judged
    saved = json.loads((judged_task.folder / 'thresholds.json').read_text())
    page = Tables((judged_task.folder / 'report.html').read_text())
    (table,) = [table for table in page.tables if table[0][:2] == ['class', 'objects'] and 'F1' in table[0]]
    rows = {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:]}
    assert saved['checkpoint'] == 'model_best.pth' and saved['classes'].keys() == set(judged.class_names)
    for cls, name in enumerate(judged.class_names):
        threshold, curve = saved['classes'][name], judged.curves[cls]
        if threshold is None:
            assert rows[name]['F1'] == '–' and not curve.right.any()
            continue
        right = curve.right[curve.scores >= threshold].sum()
        f1 = 2 * right / ((curve.scores >= threshold).sum() + curve.objects)
        assert rows[name]['F1'] == f'{f1:.3f}' and rows[name]['best threshold'] == f'{threshold:.3f}'


def test_plots_are_not_empty(judged_task):
    """The curves have ink of each class's colour."""
    shown = classes_shown(judged_task.judged)
    for plots in (precision_plots, f1_plots):
        for figure in plots(judged_task.judged, shown):
            pixels = pixels_of(figure).astype(int)
            assert (np.ptp(pixels, axis=2) > 60).sum() > 100


@needs_chromium
def test_page_in_a_browser(judged_task, tmp_path):
    """Opened in headless Chromium: text and images at the top, and no plot without coloured ink."""
    report = judged_task.folder / 'report.html'
    assert assert_page_is_shown(report, tmp_path) >= 5 - (judged_task.task == 'ddd')
    text = report.read_text()
    images = text.count('data:image/jpeg')
    assert images == len(re.findall(r'\d+ missed, \d+ wrong</figcaption>', text)) > 3


def test_joints_are_scored_by_oks(judged_task):
    """A person's mean over the joints is COCO's OKS of the two, to the last bits."""
    if judged_task.task != 'multi_pose':
        assert 'Joints' not in re.findall('<h2[^>]*>(.*?)</h2>', (judged_task.folder / 'report.html').read_text())
        return
    judged = judged_task.judged
    scores = joint_scores(judged)
    matched = judged.matched
    right = np.flatnonzero(matched.right)
    coco = COCOeval(iouType='keypoints')
    assert len(scores.names) == 17 and scores.names[0] == 'nose' and len(right) == len(scores.labelled) > 5
    for row, i in enumerate(right):
        truth = matched.truth.rows[matched.taken[i]]
        found = {'keypoints': judged.detections.further['keypoints'][matched.found.positions[i]], 'score': 1}
        key = (1, 1)
        coco._gts, coco._dts = {key: [truth | {'ignore': 0}]}, {key: [found]}
        coco.params.maxDets = [20]
        oks = coco.computeOks(*key)[0, 0]
        seen = scores.labelled[row]
        assert scores.similarity[row, seen].mean() == pytest.approx(oks, abs=1e-9)


def test_3d_errors_by_distance(judged_task):
    """Medians by hand, and over all distances those of metrics.json."""
    truth, found = np.zeros((4, 15)), np.zeros((4, 15))
    truth[:, 12], found[:, 12] = [5, 15, 15, 70], [6, 15, 18, 70]
    found[:, 13] = np.radians([0, 350, 10, 180])
    found[:, 7] = 0.3
    rows = {row[0]: row[1:] for row in errors_by_distance(truth, found)}
    assert rows['0 to 10'] == pytest.approx([1, 20, 1, 0.1, 0])
    assert rows['10 to 20'] == pytest.approx([2, 10, 1.5, 0.1, 10])
    assert rows['20 to 30'] == [0, None, None, None, None]
    assert rows['over 60'] == pytest.approx([1, 0, 0, 0.1, 180]) and rows['all'][0] == 4
    if judged_task.task == 'ddd':
        page = Tables((judged_task.folder / 'report.html').read_text())
        (table,) = [table for table in page.tables if 'distance in metres' in table[0]]
        for row in table[1:]:
            if row[1] == 'all':
                assert row[3] == f'{judged_task.metrics[f"{row[0]}_depth_error"]:.3f}'
                assert row[6] == f'{judged_task.metrics[f"{row[0]}_rotation_error"]:.3f}'


def test_curves_are_in_tensorboard(judged_task, tmp_path):
    """A precision-recall curve a class, and both plots; logs/test has those of the last test alone."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        add_events(writer, judged_task.judged, 7)
    for folder in (tmp_path, judged_task.folder / 'logs/test'):
        events = EventAccumulator(str(folder)).Reload()
        tags = events.Tags()
        assert set(tags['images']) == {'precision', 'F1'} and 'precision_recall/all classes' in tags['tensors']
    (event,) = EventAccumulator(str(tmp_path)).Reload().Tensors('precision_recall/all classes')
    assert event.step == 7
    counts = (
        np.frombuffer(event.tensor_proto.tensor_content, np.float32).reshape(6, -1)
        if (event.tensor_proto.tensor_content)
        else np.array(event.tensor_proto.float_val).reshape(6, -1)
    )
    curve = judged_task.judged.curve_of_all
    assert counts[0, 0] == curve.right.sum() and counts[3, 0] == curve.objects - curve.right.sum()
    assert counts[5, 0] == pytest.approx(curve.right.sum() / curve.objects)


# ------------------------------------------------------------------------------------------ pages


def test_names_are_texts_and_nothing_else(tmp_path):
    """Markup, formulas, half characters and line breaks in names are shown as they are, everywhere on a page."""
    evil = '<script>alert(1)</script>"\'&$x_1$\ud800\0\n_é漢'
    page = Page(evil, evil)
    page.section(evil, evil)
    page.table([evil, 'n'], [[evil, float('nan')], [evil, None]], evil)
    figure, axes = new_plot()
    axes.plot([0, 1], [1, 0], label=plot_text('_under $\\frac{1}{2}$ <b> 漢字'))
    axes.set_title(plot_text(evil))
    axes.legend()
    page.plot(figure, evil)
    page.images([(np.zeros((4, 900, 3), np.uint8), evil), (np.zeros((1, 1), np.uint8), '')])
    page.write(tmp_path / 'page.html')
    text = (tmp_path / 'page.html').read_text()
    assert '<script' not in text and 'alert(1)' in text and '\0' not in text
    assert r'_under $\frac{1}{2}$ &lt;b&gt; 漢字' in text  # a text, not a drawn formula
    assert text.count('<td class="number">–</td>') == 2
    links = Tables(text).links
    assert links and all(link.startswith(('#', 'data:')) for link in links)
    assert '"default-src &#x27;none&#x27;' in text  # whatever it holds, a browser fetches nothing


def test_a_report_that_fails_loses_nothing(judged_task, monkeypatch, capsys, tmp_path):
    """A fault in a section, a full disk, results without a single detection: a line, and test.py goes on."""
    task = judged_task
    opt = Namespace(**{**vars(task.opt), 'save_dir': str(tmp_path / 'run')})
    monkeypatch.setattr(evaluation, 'add_sizes', lambda *_: 1 / 0)
    (tmp_path / 'run').mkdir()
    assert evaluation.report_safely(opt, task.dataset, task.results, task.metrics) is None
    said = capsys.readouterr().out
    assert 'the report cannot be written' in said and 'ZeroDivisionError' in said
    assert not (tmp_path / 'run/report.html').exists()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    assert evaluation.report_safely(opt, task.dataset, task.results, task.metrics) is not None
    said = capsys.readouterr().out
    assert 'no events for TensorBoard' in said and 'cannot' not in said and (tmp_path / 'run/report.html').is_file()
    (tmp_path / 'run/report.html').unlink()
    monkeypatch.undo()
    opt.save_dir = str(tmp_path / 'file')
    (tmp_path / 'file').write_text('mine')
    assert evaluation.report_safely(opt, task.dataset, task.results, task.metrics) is None
    said = capsys.readouterr().out
    assert said.count('\n') == 1 and 'Traceback' not in said
    opt.save_dir = str(tmp_path / 'run')
    judged = evaluation.report_safely(opt, task.dataset, {}, task.metrics)
    assert judged.best_of_all is None and (tmp_path / 'run/report.html').is_file()
    assert json.loads((tmp_path / 'run/thresholds.json').read_text())['all'] is None
    assert evaluation.report_safely(opt, task.dataset, {}, {}) is None  # a test set without objects has no metrics


# ------------------------------------------------------------------------------------------ thresholds


def test_thresholds_of_classes_choose_what_is_drawn(tmp_path):
    """Each class has its own; one without takes that of all; drawings and views go by them."""
    write_thresholds(tmp_path / 't.json', 0.5, {'ant': 0.2, 'bee': None, 'cat': 0.9})
    thresholds = read_thresholds(tmp_path / 't.json', ['cat', 'ant', 'bee', 'dog'])
    assert thresholds == [0.9, 0.2, 0.5, 0.5]
    scores, classes = np.array([0.9, 0.89, 0.2, 0.19, 0.5]), np.array([0, 0, 1, 1, 2])
    assert over(thresholds, scores, classes).tolist() == [True, False, True, False, True]
    assert over(0.5, scores, classes).tolist() == [True, True, False, False, True]
    image = np.full((60, 60, 3), 90, np.uint8)
    for class_id, drawn in ((1, False), (2, True)):
        detection = {'class': 'x', 'class_id': class_id, 'score': 0.4, 'box': [10, 30, 40, 50]}
        assert (draw_detections(image, [detection], thresholds) != image).any() == drawn
        solid = detection | {'dim': [1.5, 1.5, 4], 'location': [0, 1, 8], 'rotation_y': 0.3}
        assert (bird_view([solid], thresh=thresholds) != bird_view([])).any() == drawn


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        ('{"all": 0.5, "classes": {"dog": 0.3}}', 'of other classes (dog)'),
        ('{"all": null, "classes": {"ant": null}}', "no threshold for 'ant'"),
        ('{"all": 0.5}', 'no file of thresholds'),
        ('{"all": 2, "classes": {"ant": 0.3}}', 'no file of thresholds'),
        ('{"all": true, "classes": {"ant": 0.3}}', 'no file of thresholds'),
        ('[1]', 'no file of thresholds'),
        ('{', 'is not JSON'),
    ],
)
def test_other_files_are_no_thresholds(tmp_path, content, part):
    (tmp_path / 't.json').write_text(content)
    with pytest.raises(UserError, match=re.escape(part)):
        read_thresholds(tmp_path / 't.json', ['ant'])
