"""COCO's and Pascal VOC's metrics on small made-up data, VOC's against a slow readable form; metrics as objects."""

import copy
import json
import pickle

import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pytest

from helpers import options
from lib.datasets.evaluation import coco_eval
from lib.datasets.evaluation.coco_boxes import CocoBoxes, coco_results
from lib.datasets.evaluation.coco_eval import BOX_METRICS, evaluate_coco
from lib.datasets.evaluation.metric_factory import create_metric
from lib.datasets.evaluation.packed import PackedResults
from lib.datasets.evaluation.voc_eval import Voc, evaluate_voc
from lib.utils import files
from lib.utils.errors import UserError


def box_row(image_id, category_id, box, **more):
    return {'image_id': image_id, 'category_id': category_id, 'bbox': list(box), **more}


@pytest.fixture
def truth():
    """Two images and two classes with odd ids; annotations without ids, area and iscrowd in part."""
    return {
        'images': [{'id': -7}, {'id': 4000000000}],
        'annotations': [
            box_row(-7, 90, (10, 10, 20, 20), id=0),
            box_row(-7, 3, (50, 50, 100, 120)),
            box_row(4000000000, 90, (5, 5, 50, 50), id=0, iscrowd=0, area=2500),
        ],
        'categories': [{'id': 90, 'name': 'cat'}, {'id': 3, 'name': 'dog'}],
    }


def perfect(truth):
    keys = ('image_id', 'category_id', 'bbox', 'keypoints')
    return [{key: row[key] for key in keys if key in row} | {'score': 0.9} for row in truth['annotations']]


def test_perfect_boxes_score_one(truth):
    """Guards the ends of the scale, odd ids (an annotation id of 0 too) and filled-in areas."""
    metrics = evaluate_coco(truth, perfect(truth))
    assert set(metrics) == {*BOX_METRICS, 'AP/cat', 'AP/dog'}
    assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0))


def test_classes_are_kept_apart(truth):
    """Guards the pairing of class names with their metrics."""
    metrics = evaluate_coco(truth, [row for row in perfect(truth) if row['category_id'] == 3])
    assert (metrics['AP/cat'], metrics['AP/dog'], metrics['AP']) == pytest.approx((0, 1, 0.5))


def test_caller_keeps_its_objects(truth):
    """Guards against pycocotools' writing into what it is given."""
    detections = perfect(truth)
    before = copy.deepcopy((truth, detections))
    evaluate_coco(truth, detections)
    evaluate_voc(truth, detections)
    assert (truth, detections) == before


def test_no_detections_and_no_truth(truth, capsys):
    """Guards the empty cases: nothing found is 0, nothing to find is -1 and said."""
    assert evaluate_coco(truth, [])['AP'] == 0
    assert evaluate_voc(truth, [])['mAP'] == 0
    capsys.readouterr()
    empty = truth | {'annotations': []}
    assert evaluate_coco(empty, perfect(truth))['AP'] == -1
    assert 'no ground truth' in capsys.readouterr().out
    assert evaluate_voc(empty, perfect(truth))['mAP'] == -1
    assert evaluate_coco({'images': [], 'annotations': [], 'categories': []}, [])['AP'] == -1


def test_bad_rows_are_named(truth, capsys):
    """Guards survival: rows of unknown images, unknown classes and broken boxes are counted, the rest is scored."""
    bad = [
        box_row(1, 90, (0, 0, 5, 5), score=1),
        box_row(-7, 91, (0, 0, 5, 5), score=1),
        box_row(-7, 90, (0, 0, float('nan'), 5), score=1),
        box_row(-7, 90, (0, 0, 5, 5)),
    ]
    assert evaluate_coco(truth, perfect(truth) + bad)['AP'] == pytest.approx(1)
    printed = capsys.readouterr().out
    for reason in ('image that the annotation file lacks: 1', 'unknown category: 91', 'usable bbox', 'usable score'):
        assert reason in printed


def test_crowds_are_ignored(truth):
    """Guards iscrowd: what is found inside a crowd isn't wrong."""
    truth['annotations'].append(box_row(-7, 90, (100, 0, 100, 40), iscrowd=1))
    inside = box_row(-7, 90, (110, 5, 10, 10), score=0.99)
    assert evaluate_coco(truth, [*perfect(truth), inside])['AP/cat'] == pytest.approx(1)


@pytest.mark.parametrize('num_joints', [1, 5, 17])
def test_keypoints(num_joints):
    """Guards keypoints of any number: perfect ones score 1, num_keypoints is counted, others are left alone."""
    rng = np.random.default_rng(0)
    truth = {'images': [{'id': 1}, {'id': 2}], 'annotations': [], 'categories': [{'id': 1, 'name': 'person'}]}
    for image_id in (1, 2):
        joints = np.column_stack([rng.uniform(10, 90, (num_joints, 2)), np.full(num_joints, 2)])
        person = box_row(image_id, 1, (5, 5, 100, 100), keypoints=joints.ravel().tolist())
        truth['annotations'] += [person, box_row(image_id, 1, (300, 300, 50, 50))]
    detections = [row for row in perfect(truth) if 'keypoints' in row]
    metrics = evaluate_coco(truth, detections, 'keypoints')
    assert len(metrics) == 10
    assert metrics['kp_AP'] == metrics['kp_AR'] == pytest.approx(1)

    moved = copy.deepcopy(detections)
    for row in moved:
        row['keypoints'] = (np.array(row['keypoints']) + 8).tolist()
    scores = {}
    for sigma in (0.5, 0.01):
        truth['categories'] = [{'id': 1, 'name': 'person', 'sigmas': [sigma] * num_joints}]
        scores[sigma] = evaluate_coco(truth, moved, 'keypoints')['kp_AP']
    assert scores[0.5] > 0.9 and scores[0.01] == 0
    truth['categories'][0]['sigmas'] = [0.1] * num_joints + ['x']
    with pytest.raises(UserError, match=f"'person': expected sigmas to be {num_joints} numbers over 0"):
        evaluate_coco(truth, moved, 'keypoints')


def test_unusable_requests(truth):
    """Guards one-line errors: an unknown kind of metric, keypoints that nothing has."""
    with pytest.raises(UserError, match='iou_type'):
        evaluate_coco(truth, [], 'segm')
    with pytest.raises(UserError, match='keypoints'):
        evaluate_coco(truth, [], 'keypoints')


def slow_voc(truth, detections, class_id, difficult_keys=('ignore', 'difficult')):
    """VOC AP of one class, 11-point and area, one detection after the other."""
    objects = [dict(row, taken=False) for row in truth['annotations'] if row['category_id'] == class_id]
    is_difficult = [any(row.get(key) for key in difficult_keys) for row in objects]
    right, wrong, recalls, precisions = 0, 0, [], []
    for found in sorted((d for d in detections if d['category_id'] == class_id), key=lambda d: -d['score']):
        best, best_iou = None, 0
        for i, row in enumerate(objects):
            if row['image_id'] != found['image_id']:
                continue
            (ax, ay, aw, ah), (bx, by, bw, bh) = row['bbox'], found['bbox']
            width = min(ax + aw, bx + bw) - max(ax, bx) + 1
            height = min(ay + ah, by + bh) - max(ay, by) + 1
            if width > 0 and height > 0:
                shared = width * height
                iou = shared / ((aw + 1) * (ah + 1) + (bw + 1) * (bh + 1) - shared)
                if iou > best_iou:
                    best, best_iou = i, iou
        if best_iou > 0.5 and is_difficult[best]:
            continue
        if best_iou > 0.5 and not objects[best]['taken']:
            objects[best]['taken'] = True
            right += 1
        else:
            wrong += 1
        recalls.append(right / is_difficult.count(False))
        precisions.append(right / (right + wrong))
    points = [
        max((p for r, p in zip(recalls, precisions, strict=True) if r >= aim), default=0)
        for aim in np.arange(0, 1.1, 0.1)
    ]
    area, previous = 0.0, 0.0
    for i, recall in enumerate(recalls):
        area += (recall - previous) * max(precisions[i:])
        previous = recall
    return sum(points) / 11, area


def test_voc_equals_a_slow_form():
    """Guards VOC's matching and both averages on random boxes with ties of place, doubles and difficult objects."""
    rng = np.random.default_rng(3)
    truth = {
        'images': [{'id': i} for i in range(15)],
        'annotations': [],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
    }
    detections = []
    for image_id in range(15):
        for _ in range(5):
            box = [*rng.integers(0, 60, 2).tolist(), *rng.integers(10, 40, 2).tolist()]
            key = 'ignore' if image_id % 2 else 'difficult'
            category_id = int(rng.integers(1, 3))
            truth['annotations'].append(box_row(image_id, category_id, box, **{key: int(rng.random() < 0.2)}))
            for _ in range(int(rng.integers(0, 3))):
                moved = (np.array(box) + rng.integers(-4, 5, 4)).tolist()
                detections.append(box_row(image_id, category_id, moved, score=float(rng.random())))
    metrics = evaluate_voc(truth, detections)
    slow = {name: slow_voc(truth, detections, i) for i, name in ((1, 'a'), (2, 'b'))}
    assert 0.2 < metrics['AP/a'] < 0.9
    for name, (eleven_point, _) in slow.items():
        assert metrics[f'AP/{name}'] == pytest.approx(eleven_point)
    assert metrics['mAP'] == pytest.approx(np.mean([eleven_point for eleven_point, _ in slow.values()]))
    assert metrics['mAP_area'] == pytest.approx(np.mean([area for _, area in slow.values()]))


@pytest.mark.parametrize('key', ['ignore', 'difficult'])
def test_voc_difficult_is_neither_right_nor_wrong(truth, key):
    """Guards both keys for difficult objects, missed or found."""
    found = [row for row in perfect(truth) if row['category_id'] == 90]
    truth['annotations'][1][key] = 1
    on_it = [row for row in perfect(truth) if row['category_id'] == 3]
    for detections in (found, found + on_it):
        metrics = evaluate_voc(truth, detections)
        assert (metrics['mAP'], metrics['mAP_area'], metrics['AP/dog']) == pytest.approx((1, 1, -1))


def test_voc_counts_corner_pixels():
    """Guards the devkit's + 1: boxes 0..9 and 0..4 (10 and 5 pixels) overlap by half and not by 4/9."""
    truth = {
        'images': [{'id': 1}],
        'annotations': [box_row(1, 1, (0, 0, 9, 9))],
        'categories': [{'id': 1, 'name': 'a'}],
    }
    found = [box_row(1, 1, (0, 0, 4, 9), score=1)]
    assert evaluate_voc(truth, found, min_overlap=0.499)['mAP'] == pytest.approx(1)
    assert evaluate_voc(truth, found, min_overlap=0.501)['mAP'] == 0


# ------------------------------------------------------------------------------------------ metrics as objects

BOXES = {'box': slice(0, 4), 'score': 4}
POSES = BOXES | {'keypoints': slice(5, None)}
FACTS = {'class_names': ['cat', 'dog'], 'cat_ids': {90: 0, 3: 1, 5: -1}}


def test_metrics_state_what_they_need():
    """Guards the choice: the source's own, else the task's, else what --eval_metric names, if it fits the results."""
    assert isinstance(create_metric('', ('voc', 'bbox'), 'ctdet', BOXES, **FACTS), Voc)
    assert isinstance(create_metric('', ('', 'bbox'), 'ctdet', BOXES, **FACTS), CocoBoxes)
    assert isinstance(
        create_metric('', ('kitti', 'bbox'), 'ctdet', BOXES, **FACTS), CocoBoxes
    )  # which boxes cannot serve
    assert create_metric('keypoints', ('', 'bbox'), 'multi_pose', POSES, **FACTS).main == 'kp_AP'
    for name, words in (
        ('kitti', "'kitti' needs alpha, dim, location, rotation_y, which results of ctdet lack; bbox, voc can"),
        ('keypoints', "'keypoints' needs keypoints, which results of ctdet lack"),
        ('keypoint', "'keypoint' is not one of bbox, keypoints, voc, kitti; did you mean 'keypoints'"),
    ):
        with pytest.raises(UserError, match=words):
            create_metric(name, ('', 'bbox'), 'ctdet', BOXES, **FACTS)


def test_eval_metric_is_refused_before_training(toy):
    """Guards the same at the door: `--eval_metric` is checked and used once the dataset's class is known."""
    dataset = options('ctdet', toy, '--eval_metric', 'voc', '--metric', 'mAP_area')[1]
    assert dataset.metrics == CocoBoxes.names and dataset.create_metric('voc').names == Voc.names
    with pytest.raises(UserError, match='results of ctdet lack'):
        options('ctdet', toy, '--eval_metric', 'kitti')
    with pytest.raises(UserError, match="--metric 'AP50'"):
        options('ctdet', toy, '--eval_metric', 'voc', '--metric', 'AP50')


def test_any_metric_scores_own_data(toy, tmp_path):
    """Guards `--eval_metric` through run_eval: the truth as results gives VOC's metrics and 1."""
    opt, dataset_class = options('ctdet', toy, '--eval_metric', 'voc')
    dataset = dataset_class(opt, 'val')
    results = {}
    for i, image_id in enumerate(dataset.index.image_ids.tolist()):
        objects = dataset.index.objects(i)
        rows = np.column_stack([objects.boxes, np.full(len(objects), 0.9)])
        results[image_id] = {cls + 1: rows[objects.classes == cls] for cls in range(dataset.num_classes)}
    metrics = dataset.run_eval(results, str(tmp_path))
    assert metrics['mAP'] == pytest.approx(1) and set(Voc.names) < set(metrics)
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics


def test_results_have_every_column(truth):
    """Guards results.json: box as x y w h, scores in full, joints with a 1, further columns under their names."""
    rows = np.array([[1, 2, 4.126, 6, 0.123456, 7, 8, 9, 10]])
    (row,) = coco_results({-7: {1: rows, 2: np.zeros((0, 5))}}, FACTS['cat_ids'], POSES)
    assert row['bbox'] == [1, 2, 3.13, 4] and row['score'] == 0.123456 and row['category_id'] == 90
    assert row['keypoints'] == [7, 8, 1, 9, 10, 1]
    (row,) = coco_results({-7: {2: rows[:, :8]}}, FACTS['cat_ids'], BOXES | {'depth': 5, 'size': slice(6, 8)})
    assert (row['category_id'], row['depth'], row['size']) == (3, 7, [8, 9])


def test_ignored_kinds_are_no_classes(truth, tmp_path):
    """Guards COCO's mean over classes on data with ignored kinds, such as DontCare: they are not scored."""
    truth['categories'].append({'id': 5, 'name': 'dontcare'})
    truth['annotations'].append(box_row(-7, 5, (0, 0, 9, 9)))
    results = {row['image_id']: {} for row in truth['annotations']}
    for row in truth['annotations'][:3]:
        x, y, w, h = row['bbox']
        results[row['image_id']].setdefault(FACTS['cat_ids'][row['category_id']] + 1, []).append(
            [x, y, x + w, y + h, 0.9]
        )
    metric = CocoBoxes(columns=BOXES, **FACTS)
    metrics = metric.score(truth, metric.save(results, tmp_path))
    assert metrics['AP'] == pytest.approx(1) and 'AP/dontcare' not in metrics


@pytest.mark.parametrize('evaluate', [evaluate_coco, evaluate_voc])
@pytest.mark.parametrize('row', [{'detections': []}, {'image_id': 1}, {'image_id': [1]}, {'category_id': {}}])
def test_results_of_another_kind_are_refused(truth, evaluate, row):
    """Guards against an AP of 0 where nothing could be read, and against values of any type."""
    wrong = [found | row for found in perfect(truth)] if 'detections' not in row else [row]
    with pytest.raises(UserError, match=f'none of the {len(wrong)} detections can be scored'):
        evaluate(truth, wrong)


def test_numbers_that_no_float_holds(truth):
    """Guards integers of 400 digits: a row of them is left out."""
    huge = perfect(truth)[0] | {'bbox': [10**400, 1, 1, 1]}
    assert evaluate_coco(truth, [*perfect(truth), huge])['AP'] == pytest.approx(1)


def test_tools_refuse_what_cannot_be_scored(tool, truth, tmp_path):
    """Guards status 1 for annotations with nothing to find, and that `--json` never replaces an input."""
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    (tmp_path / 'empty.json').write_text(json.dumps(truth | {'annotations': []}))
    (tmp_path / 'found.json').write_text(json.dumps(perfect(truth)))
    (tmp_path / 'link.json').symlink_to('found.json')
    for name in ('eval_coco', 'eval_voc'):
        assert 'no usable object' in tool(name, 'empty.json', 'found.json', code=1)
    for output in ('found.json', './truth.json', 'link.json'):
        assert 'which is read' in tool('eval_coco', 'truth.json', 'found.json', '--json', output, code=1)
    assert json.loads((tmp_path / 'found.json').read_text()) == perfect(truth)


def test_keypoints_without_boxes_give_the_joints_table_alone(tool, tmp_path):
    """Guards eval_coco_hp on results that have no boxes."""
    person = box_row(1, 1, (5, 5, 20, 20), keypoints=[10, 10, 2] * 17)
    coco = {'images': [{'id': 1}], 'annotations': [person], 'categories': [{'id': 1, 'name': 'person'}]}
    found = [{key: person[key] for key in ('image_id', 'category_id', 'keypoints')} | {'score': 0.5}]
    (tmp_path / 'truth.json').write_text(json.dumps(coco))
    (tmp_path / 'found.json').write_text(json.dumps(found))
    printed = tool('eval_coco_hp', 'truth.json', 'found.json', '--json', 'out.json')
    assert 'only joints are scored' in printed
    metrics = json.loads((tmp_path / 'out.json').read_text())
    assert metrics['kp_AP'] == pytest.approx(1) and 'AP' not in metrics


def random_scene(rng, iou_type):
    """Random truth and detections: crowds, areas of their own, images and classes without objects or detections."""
    images = [{'id': int(i)} for i in rng.permutation(40) * 7 - 50]
    categories = [{'id': int(i), 'name': f'c{i}'} for i in (90, 3, 17, 4)]
    truth, found = [], []
    for _ in range(150):
        box = [*rng.uniform(0, 300, 2).round(1), *rng.uniform(2, 150, 2).round(1)]
        row = box_row(images[rng.integers(30)]['id'], categories[rng.integers(3)]['id'], box)
        row |= {'area': box[2] * box[3] * rng.uniform(0.3, 1), 'iscrowd': int(rng.random() < 0.15)}
        joints = np.column_stack([rng.uniform(0, 300, (17, 2)), rng.integers(0, 3, 17)])
        row['keypoints'] = (joints * (rng.random() < 0.8)).ravel().tolist()
        row['num_keypoints'] = sum(v > 0 for v in row['keypoints'][2::3])
        truth.append(row)
        for _ in range(rng.integers(0, 5)):
            near = {'image_id': row['image_id'], 'category_id': row['category_id'], 'score': rng.integers(20) / 20}
            near['bbox'] = (np.array(box) + rng.normal(0, 3, 4)).round(2).tolist()
            near['keypoints'] = (joints + rng.normal(0, 4, (17, 3))).round(2).ravel().tolist()
            found.append(near)
    for _ in range(200):
        anywhere = found[rng.integers(len(found))] | {'score': float(rng.random())}
        place = {'image_id': images[rng.integers(40)]['id'], 'category_id': int(rng.choice([90, 3, 4]))}
        found.append(anywhere | place)
    if iou_type == 'keypoints':
        categories = [row | {'keypoints': ['j'] * 17} for row in categories]
    return {'images': images, 'annotations': truth, 'categories': categories}, found


def plain_evaluation(coco_class, evaluation_class, truth, found, iou_type):
    """An evaluator's values, all classes and images at once."""

    def indexed(rows):
        coco = coco_class()
        coco.dataset = {**truth, 'annotations': [row | {'id': i} for i, row in enumerate(rows, start=1)]}
        coco.createIndex()
        return coco

    detections = [row | {'area': row['bbox'][2] * row['bbox'][3], 'iscrowd': 0} for row in found]
    evaluation = evaluation_class(indexed(copy.deepcopy(truth['annotations'])), indexed(detections), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize('iou_type', ['bbox', 'keypoints'])
@pytest.mark.parametrize('seed', range(4))
def test_values_are_those_of_pycocotools(monkeypatch, iou_type, seed):
    """Guards the putting together of classes and blocks of images: equal to the last digit, ties in scores too.

    The library's own values are those of pycocotools but for the last digit.
    """
    monkeypatch.setattr(coco_eval, 'BLOCK', 30)
    truth, found = random_scene(np.random.default_rng(seed), iou_type)
    metrics = evaluate_coco(truth, found, iou_type)
    plain = plain_evaluation(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, truth, found, iou_type)
    values = [metrics[name] for name in coco_eval.METRICS[iou_type]]
    assert values == [float(value) for value in plain.stats[: len(values)]]
    first = plain_evaluation(pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval, truth, found, iou_type)
    assert values == pytest.approx(first.stats.tolist(), abs=1e-14)
    assert metrics['AP' if iou_type == 'bbox' else 'kp_AP'] > 0.1
    if iou_type == 'bbox':
        for k, category_id in enumerate(plain.params.catIds):
            precision = plain.eval['precision'][:, :, k, 0, -1]
            assert metrics[f'AP/c{category_id}'] == (precision.mean() if precision.max() > -1 else -1)


def test_packed_detections_are_the_list(tmp_path, capsys):
    """Guards results.json, scores and messages against the form in which detections are held."""
    rng = np.random.default_rng(0)
    truth, _ = random_scene(rng, 'keypoints')
    cat_ids = {row['id']: cls for cls, row in enumerate(truth['categories'])}
    results = PackedResults()
    for image in [*truth['images'], {'id': 10**12}]:
        rows = rng.uniform(0, 300, (6, 5 + 34)).astype(np.float32)
        results[image['id']] = {1: rows[:2], 2: rows[2:2], 3: rows[2:]}
    metric = CocoBoxes(columns=POSES | {'keypoints': slice(5, 39)}, **(FACTS | {'cat_ids': cat_ids}))
    packed = metric.save(results, tmp_path)
    rows = list(packed)
    assert (tmp_path / 'results.json').read_text() == json.dumps(rows) and len(rows) == 41 * 6
    for iou_type in ('bbox', 'keypoints'):
        capsys.readouterr()
        scored = evaluate_coco(truth, packed, iou_type), capsys.readouterr().out
        assert scored == (evaluate_coco(truth, rows, iou_type), capsys.readouterr().out)
        assert '6 detections left out, of an image' in scored[1]
    assert evaluate_voc(truth, packed) == evaluate_voc(truth, rows)


def test_packed_results_are_the_dict():
    """Guards what metrics are given: classes with rows, their types and values, images without any."""
    rows = np.arange(15, dtype=np.float32).reshape(3, 5)
    results = PackedResults()
    results[7] = {2: rows[:1], 1: rows[:0], 5: rows[1:]}
    results[8] = {1: rows[:0]}
    assert list(results) == [7, 8] and list(results[7]) == [2, 5] and results[8] == {}
    assert np.array_equal(results[7][5], rows[1:]) and results[7][5].dtype == np.float32
    assert np.array_equal(pickle.loads(pickle.dumps(results))[7][2], rows[:1])


def test_long_lists_are_written_in_blocks(tmp_path, monkeypatch):
    """Guards the bytes of a list of several blocks, an empty one, and the place of a number that JSON cannot hold."""
    monkeypatch.setattr(files, 'ENTRIES_AT_ONCE', 3)
    for entries in ([], [1], [{'a': i} for i in range(3)], [[i, 'x'] for i in range(7)]):
        files.write_json_list(tmp_path / 'l.json', entries)
        assert (tmp_path / 'l.json').read_text() == json.dumps(entries)
    with pytest.raises(UserError, match=r'\[4\]\.score is nan'):
        files.write_json_list(tmp_path / 'l.json', [{'score': 1.0}] * 4 + [{'score': float('nan')}])
