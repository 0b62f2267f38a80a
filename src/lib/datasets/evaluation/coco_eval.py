"""COCO's box and keypoint metrics of annotations and results held in memory, by faster-coco-eval.

It gives the values of pycocotools, several times as fast.
"""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...utils.errors import UserError
from ..categories import is_number, own_sigmas
from ..findings import Findings

if TYPE_CHECKING:
    from faster_coco_eval import COCO, COCOeval_faster

logger = logging.getLogger(__name__)

# The metrics in the order in which they are kept and printed.
BOX_METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')
KEYPOINT_METRICS = tuple(
    f'kp_{name}' for name in ('AP', 'AP50', 'AP75', 'APm', 'APl', 'AR', 'AR50', 'AR75', 'ARm', 'ARl')
)
METRICS = {'bbox': BOX_METRICS, 'keypoints': KEYPOINT_METRICS}
SHOWN = 120  # characters of a row that a message shows


def evaluate_coco(
    ground_truth: dict,
    detections: Sequence[dict],
    iou_type: str = 'bbox',
    categories: Sequence[dict] | None = None,
) -> dict[str, float]:
    """Compute COCO's AP and AR, and print the usual 12 (keypoints: 10) lines.

    Args:
        ground_truth: a COCO-format object (`images`, `annotations`, `categories`; ids are any integers). Keys
            that annotations lack are filled in: `iscrowd` 0, `area` that of the box, `num_keypoints` counted. An
            annotation without `keypoints` is ignored by the keypoint metric, as COCO does with num_keypoints 0.
            A category's `sigmas` are the OKS tolerances; by default COCO's for 17 joints, else 1/J each.
        detections: `{image_id, category_id, bbox [x, y, w, h], score}`; for keypoints also
            `keypoints` (3 J numbers x, y, anything), and `bbox` may be absent.
        iou_type: 'bbox' or 'keypoints'.
        categories: those of the ground truth that count; by default all, or for keypoints those that have any.

    Neither argument is changed. Rows that cannot be used are named, counted and left out.

    Returns:
        `{metric: value in 0..1}`, or -1 where there is nothing to find: AP AP50 AP75 APs APm APl AR1 AR10 AR100
        ARs ARm ARl and `AP/CLASSNAME` of each class; for keypoints kp_AP kp_AP50 kp_AP75 kp_APm kp_APl kp_AR
        kp_AR50 kp_AR75 kp_ARm kp_ARl.

    Raises:
        UserError: an unknown `iou_type`, keypoints whose number is unknown, sigmas that are no such numbers, or
            detections of which none can be used.
    """
    if iou_type not in METRICS:
        raise UserError(f"iou_type is 'bbox' or 'keypoints', found '{iou_type}'")
    num_joints = 0
    if iou_type == 'keypoints':
        num_joints = _count_joints(ground_truth)
        categories = categories_with_keypoints(ground_truth) if categories is None else categories
    elif categories is None:
        categories = ground_truth.get('categories', [])
    truth = usable_rows(ground_truth, ground_truth.get('annotations', []), {'bbox': 4}, 'annotations')
    wanted = {'keypoints': 3 * num_joints, 'score': 1} if num_joints else {'bbox': 4, 'score': 1}
    found = usable_rows(ground_truth, detections, wanted, 'detections')
    if not truth:
        logger.warning('coco: there is no ground truth: every metric is -1')
    if not ground_truth.get('images'):
        return dict.fromkeys(METRICS[iou_type], -1.0)

    from faster_coco_eval import COCOeval_faster  # half a second that programs which score nothing are spared

    evaluation = COCOeval_faster(
        _index(ground_truth, [_complete_truth(row, num_joints) for row in truth]),
        _index(ground_truth, [_complete_detection(row) for row in found]),
        iou_type,
        print_function=logger.info,
    )
    evaluation.params.catIds = [category['id'] for category in categories]
    if iou_type == 'keypoints':
        evaluation.params.kpt_oks_sigmas = _tolerances(categories, num_joints, evaluation.params.kpt_oks_sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    evaluation.summarize()
    metrics = dict(zip(METRICS[iou_type], map(float, evaluation.stats), strict=False))
    if iou_type == 'bbox':
        metrics |= _class_metrics(evaluation, list(categories))
    return metrics


def usable_rows(ground_truth: dict, rows: Sequence[dict], wanted: dict[str, int], kind: str) -> list[dict]:
    """Return the annotations or detections that can be scored; the others are named and counted.

    Args:
        ground_truth: a COCO-format object; rows of other images and categories than its own are left out.
        wanted: `{key: count}`, the finite numbers that a row must have (1: a bare number).
        kind: 'annotations' or 'detections', for messages.

    Raises:
        UserError: there are detections, and none can be used.
    """
    images = {image['id'] for image in ground_truth.get('images', [])}
    categories = {category['id'] for category in ground_truth.get('categories', [])}
    findings, kept = Findings('evaluation'), []
    for i, row in enumerate(rows):
        broken = next((key for key, count in wanted.items() if not _has_numbers(row.get(key), count)), None)
        if hashable(row.get('image_id')) not in images:
            findings.add(f'{kind} left out, of an image that the annotation file lacks', row.get('image_id'))
        elif hashable(row.get('category_id')) not in categories:
            findings.add(f'{kind} left out, of an unknown category', row.get('category_id'))
        elif broken:
            findings.add(f'{kind} left out, without a usable {broken} (positions in the list)', i)
        else:
            kept.append(row)
    findings.report()
    if rows and not kept and kind == 'detections':
        raise UserError(
            f'none of the {len(rows)} detections can be scored: expected an image_id and category_id of the '
            f'annotation file, and {", ".join(wanted)}, found {str(rows[0])[:SHOWN]}'
        )
    return kept


def hashable(value: object) -> int | str:
    """Return an id as it is where it can be one, else its text, so that a strange row is named and no fault."""
    return value if isinstance(value, (int, str)) else repr(value)


def _has_numbers(value: Any, count: int) -> bool:
    if count == 1:
        return is_number(value)
    return isinstance(value, Sequence | np.ndarray) and len(value) == count and all(map(is_number, value))


def categories_with_keypoints(ground_truth: dict) -> list[dict]:
    """Return the categories that have keypoints, in their own entries or in an annotation."""
    annotated = {row['category_id'] for row in ground_truth.get('annotations', []) if row.get('keypoints')}
    return [
        category
        for category in ground_truth.get('categories', [])
        if category.get('keypoints') or category['id'] in annotated
    ]


def _count_joints(ground_truth: dict) -> int:
    for category in ground_truth.get('categories', []):
        if category.get('keypoints'):
            return len(category['keypoints'])
    for annotation in ground_truth.get('annotations', []):
        if annotation.get('keypoints'):
            return len(annotation['keypoints']) // 3
    raise UserError('the keypoint metric needs keypoints: neither a category nor an annotation has any')


def _tolerances(categories: Sequence[dict], num_joints: int, coco: np.ndarray) -> np.ndarray:
    """Return the OKS sigmas [J] of the first category that has its own, else COCO's [17], or 1/J each."""
    for category in categories:
        if sigmas := own_sigmas(category, num_joints):
            return np.asarray(sigmas, dtype=np.float64)
    return coco if num_joints == len(coco) else np.full(num_joints, 1 / num_joints)


def _complete_truth(row: dict, num_joints: int) -> dict:
    _, _, width, height = row['bbox']
    complete = {'area': width * height, 'iscrowd': 0} | row
    complete.pop('segmentation', None)
    if num_joints:
        if not _has_numbers(row.get('keypoints'), 3 * num_joints):
            complete |= {'keypoints': [0] * (3 * num_joints), 'num_keypoints': 0}
        complete.setdefault('num_keypoints', sum(v > 0 for v in complete['keypoints'][2::3]))
    return complete


def _complete_detection(row: dict) -> dict:
    """Add the area of a detection: it decides whether one that matches nothing is within a size range."""
    if _has_numbers(row.get('bbox'), 4):
        _, _, width, height = row['bbox']
    else:
        width, height = np.ptp(row['keypoints'][0::3]), np.ptp(row['keypoints'][1::3])
    return row | {'area': width * height, 'iscrowd': 0}


def _index(ground_truth: dict, rows: list[dict]) -> 'COCO':
    """Return the evaluator's index of `rows`, numbered from 1: pycocotools took a match with id 0 for none."""
    from faster_coco_eval import COCO

    coco = COCO()
    coco.dataset = {
        'images': ground_truth['images'],
        'categories': ground_truth.get('categories', []),
        'annotations': [row | {'id': i} for i, row in enumerate(rows, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _class_metrics(evaluation: 'COCOeval_faster', categories: list[dict]) -> dict[str, float]:
    """Return the AP of each class, over all IoU thresholds, all sizes and 100 detections an image."""
    names = {category['id']: category.get('name', category['id']) for category in categories}
    precision = evaluation.eval['precision'][:, :, :, 0, -1]  # [IoUs, recalls, classes]
    metrics = {}
    for k, category_id in enumerate(evaluation.params.catIds):
        values = precision[:, :, k]
        known = values[values > -1]
        metrics[f'AP/{names[category_id]}'] = float(known.mean()) if len(known) else -1.0
    return metrics
