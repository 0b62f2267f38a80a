"""Pascal VOC's mAP, 11-point (VOC2007) and area under the curve (VOC2010 on), in this process."""

import logging
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .coco_boxes import CocoBoxes, learnt_truth
from .coco_eval import usable_rows

logger = logging.getLogger(__name__)


class Voc(CocoBoxes):
    """VOC's mAP at IoU 0.5; results are saved as COCO's `results.json`."""

    names = ('mAP', 'mAP_area')
    main = 'mAP'
    ignoring = ('ignore', 'difficult')

    def score(self, ground_truth: dict, saved: Sequence[dict]) -> dict[str, float]:
        """Score detections by VOC's mAP: `{metric: value}`."""
        return evaluate_voc(learnt_truth(ground_truth, self.cat_ids), saved)


def evaluate_voc(ground_truth: dict, detections: Sequence[dict], min_overlap: float = 0.5) -> dict[str, float]:
    """Compute VOC's mean average precision, and print a line a class.

    Boxes are scored as the VOC devkit does: corners are pixels that belong to the box, so a side from x1 to x2
    is x2 - x1 + 1 long. This is not COCO's convention; VOC's published values rest on it, and small boxes
    overlap measurably more by it.

    Args:
        ground_truth: a COCO-format object. Annotations whose `ignore` or `difficult` is true are difficult:
            finding them is neither right nor wrong, and missing them costs nothing.
        detections: `{image_id, category_id, bbox [x, y, w, h], score}`; bad rows are named and left out.
        min_overlap: the IoU that a right detection exceeds.

    Raises:
        UserError: there are detections, and none can be used.

    Returns:
        `{'mAP': 11-point, 'mAP_area': area under curve, 'AP/CLASSNAME': 11-point}` in 0..1; -1 where
        there is no object to find. Means are over the classes that have objects.
    """
    truth = usable_rows(ground_truth, ground_truth.get('annotations', []), {'bbox': 4}, 'annotations')
    found = usable_rows(ground_truth, detections, {'bbox': 4, 'score': 1}, 'detections')
    truth_of, found_of = _by_category(truth), _by_category(found)
    eleven_point, area = {}, {}
    for category in ground_truth.get('categories', []):
        name, category_id = category.get('name', category['id']), category['id']
        recall, precision = _curve(truth_of[category_id], found_of[category_id], min_overlap)
        if recall is None or precision is None:
            eleven_point[name] = area[name] = -1.0
        else:
            eleven_point[name] = average_precision_11(recall, precision)
            area[name] = average_precision_area(recall, precision)
        logger.info('AP %-20s %.4f  area %.4f', name, eleven_point[name], area[name])
    metrics = {'mAP': _mean(eleven_point), 'mAP_area': _mean(area)}
    logger.info('mAP %.4f (11 points), %.4f (area under curve)', metrics['mAP'], metrics['mAP_area'])
    return metrics | {f'AP/{name}': value for name, value in eleven_point.items()}


def average_precision_11(recall: np.ndarray, precision: np.ndarray) -> float:
    """Average the best precision at recall 0, .1, ... 1 or beyond; recall and precision are [N]."""
    # [keep] 0.3, 0.6 and 0.7 come out one rounding step above themselves, as in the devkit, so that a recall of
    # exactly 3/10 does not reach them
    reached = recall[None] >= np.arange(0, 1.1, 0.1)[:, None]  # [11, N]
    return float(np.where(reached, precision[None], 0).max(1, initial=0).mean())


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the area under the curve of recall and precision [N], whose precision is made non-increasing."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * best).sum())


def _by_category(rows: Sequence[dict]) -> dict[int, list[dict]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row['category_id']].append(row)
    return groups


def _mean(values: dict[str, float]) -> float:
    known = [value for value in values.values() if value >= 0]
    return float(np.mean(known)) if known else -1.0


def _curve(
    truth: Sequence[dict], found: Sequence[dict], min_overlap: float
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Return one class's recall and precision after each detection, best score first; None without objects to find."""
    difficult = np.array([bool(row.get('ignore') or row.get('difficult')) for row in truth], dtype=bool)
    num_truth = int((~difficult).sum())
    if not num_truth:
        return None, None
    overlaps, nearest = _nearest_truth(truth, found)  # [N] each
    order = np.argsort([-row['score'] for row in found], kind='stable')
    overlaps, nearest = overlaps[order], nearest[order]
    matched = np.flatnonzero(overlaps > min_overlap)
    on_difficult = matched[difficult[nearest[matched]]]
    on_truth = matched[~difficult[nearest[matched]]]
    # of several detections of one object the best-scored is right, the others are wrong
    first = np.unique(nearest[on_truth], return_index=True)[1]
    right = np.zeros(len(found))
    right[on_truth[first]] = 1
    counts = np.ones(len(found))
    counts[on_difficult] = 0
    num_right, num_counted = right.cumsum(), counts.cumsum()
    return num_right / num_truth, num_right / np.maximum(num_counted, 1)


def _nearest_truth(truth: Sequence[dict], found: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Return each detection's largest IoU with an object of its image (0 if none), and that object's position."""
    truth_boxes, found_boxes = _corners(truth), _corners(found)
    truth_images = _positions_by_image(truth)
    overlaps, nearest = np.zeros(len(found)), np.zeros(len(found), dtype=int)
    for image_id, rows in _positions_by_image(found).items():
        if image_id in truth_images:
            candidates = truth_images[image_id]
            iou = _pixel_iou(found_boxes[rows], truth_boxes[candidates])  # [n, m]
            best = iou.argmax(1)
            overlaps[rows], nearest[rows] = iou[np.arange(len(rows)), best], np.array(candidates)[best]
    return overlaps, nearest


def _corners(rows: Sequence[dict]) -> np.ndarray:
    boxes = np.array([row['bbox'] for row in rows], dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)  # [N, 4]


def _positions_by_image(rows: Sequence[dict]) -> dict[int, list[int]]:
    positions = defaultdict(list)
    for i, row in enumerate(rows):
        positions[row['image_id']].append(i)
    return positions


def _pixel_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU [n, m] of boxes [n, 4] and [m, 4] x1 y1 x2 y2 whose corner pixels belong to them."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low + 1).clip(0).prod(-1)  # [n, m]
    areas_a, areas_b = (a[:, 2:] - a[:, :2] + 1).prod(1), (b[:, 2:] - b[:, :2] + 1).prod(1)
    return shared / (areas_a[:, None] + areas_b[None] - shared)
