"""COCO's and Pascal VOC's metrics on small made-up data, VOC's against a slow readable form."""

import copy

import numpy as np
import pytest

from lib.datasets.evaluation.coco_eval import BOX_METRICS, evaluate_coco
from lib.datasets.evaluation.voc_eval import evaluate_voc
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
    figures = evaluate_coco(truth, perfect(truth))
    assert set(figures) == {*BOX_METRICS, 'AP/cat', 'AP/dog'}
    assert figures == pytest.approx(dict.fromkeys(figures, 1.0))


def test_classes_are_told_apart(truth):
    """Guards the pairing of class names with their figures."""
    figures = evaluate_coco(truth, [row for row in perfect(truth) if row['category_id'] == 3])
    assert (figures['AP/cat'], figures['AP/dog'], figures['AP']) == pytest.approx((0, 1, 0.5))


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
    figures = evaluate_coco(truth, detections, 'keypoints')
    assert len(figures) == 10
    assert figures['kp_AP'] == figures['kp_AR'] == pytest.approx(1)

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
    figures = evaluate_voc(truth, detections)
    slow = {name: slow_voc(truth, detections, i) for i, name in ((1, 'a'), (2, 'b'))}
    assert 0.2 < figures['AP/a'] < 0.9
    for name, (eleven_point, _) in slow.items():
        assert figures[f'AP/{name}'] == pytest.approx(eleven_point)
    assert figures['mAP'] == pytest.approx(np.mean([eleven_point for eleven_point, _ in slow.values()]))
    assert figures['mAP_area'] == pytest.approx(np.mean([area for _, area in slow.values()]))


@pytest.mark.parametrize('key', ['ignore', 'difficult'])
def test_voc_difficult_is_neither_right_nor_wrong(truth, key):
    """Guards both keys for difficult objects, missed or found."""
    found = [row for row in perfect(truth) if row['category_id'] == 90]
    truth['annotations'][1][key] = 1
    on_it = [row for row in perfect(truth) if row['category_id'] == 3]
    for detections in (found, found + on_it):
        figures = evaluate_voc(truth, detections)
        assert (figures['mAP'], figures['mAP_area'], figures['AP/dog']) == pytest.approx((1, 1, -1))


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
