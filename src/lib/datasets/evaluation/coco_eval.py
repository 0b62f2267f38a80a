"""COCO's box and keypoint metrics of annotations and results held in memory, by faster-coco-eval.

It gives the values of pycocotools, several times as fast.
"""

import contextlib
import io
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...utils.errors import UserError
from ..categories import is_number, own_sigmas
from ..coco_file import collections_paused
from ..findings import Findings
from .packed import PackedDetections, ids_of

if TYPE_CHECKING:
    from faster_coco_eval import COCO, COCOeval_faster

logger = logging.getLogger(__name__)

# The metrics in the order in which they are kept and printed.
BOX_METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR1', 'AR10', 'AR100', 'ARs', 'ARm', 'ARl')
KEYPOINT_METRICS = tuple(
    f'kp_{name}' for name in ('AP', 'AP50', 'AP75', 'APm', 'APl', 'AR', 'AR50', 'AR75', 'ARm', 'ARl')
)
METRICS = {'bbox': BOX_METRICS, 'keypoints': KEYPOINT_METRICS}
BLOCK = 100_000  # detections that are Python objects at a time
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
    if not ground_truth.get('images') or not categories:
        return dict.fromkeys(METRICS[iou_type], -1.0)

    sigmas = tolerances(categories, num_joints) if iou_type == 'keypoints' else None
    with collections_paused():
        evaluation = _evaluate(truth, found, categories, iou_type, sigmas, num_joints)
    evaluation.print_function = logger.info
    evaluation.summarize()
    metrics = dict(zip(METRICS[iou_type], map(float, evaluation.stats), strict=False))
    if iou_type == 'bbox':
        metrics |= _class_metrics(evaluation, list(categories))
    return metrics


def _evaluate(
    truth: Sequence[dict],
    found: Sequence[dict],
    categories: Sequence[dict],
    iou_type: str,
    sigmas: np.ndarray | None,
    num_joints: int,
) -> 'COCOeval_faster':
    """Evaluate class by class, and the images of a class in blocks, so that few rows are Python objects at a time.

    Classes do not affect one another in COCO's metrics. The evaluator's own functions match, and then accumulate over
    the images in the order of their ids; only what they return is put together here.

    Returns:
        The evaluator, with precision [IoUs, recalls, C, areas, limits] and recall [IoUs, C, areas, limits] of the C
        classes in the order of their ids.
    """
    evaluation = _evaluator([], [], {'id': 0}, iou_type, sigmas)
    params = evaluation.params
    params.catIds = sorted({category['id'] for category in categories})
    shape = len(params.iouThrs), len(params.catIds), len(params.areaRng), len(params.maxDets)
    recall, precision = np.full(shape, -1.0), np.full((shape[0], len(params.recThrs), *shape[1:]), -1.0)
    complete_detection = partial(_complete_detection, has_box=iou_type == 'bbox')
    truth_of, found_of = _group_by_class(truth), _group_by_class(found)
    for k, category_id in enumerate(params.catIds):
        true_rows = truth_of.get(category_id, {})
        if not true_rows:
            continue  # its values stay -1: there is nothing to find
        of_class = _evaluate_class(
            _Rows(truth, true_rows, partial(_complete_truth, num_joints=num_joints)),
            _Rows(found, found_of.get(category_id, {}), complete_detection),
            {'id': category_id},
            iou_type,
            sigmas,
        )
        precision[:, :, k], recall[:, k] = of_class['precision'][:, :, 0], of_class['recall'][:, 0]
    evaluation.eval = {'precision': precision, 'recall': recall}
    return evaluation


class _Rows:
    """The rows of one class, complete for the evaluator when they are asked for.

    Args:
        rows: annotations or detections of all classes.
        of_image: image id -> positions in `rows`.
        complete: makes what the evaluator needs of a row.
    """

    def __init__(self, rows: Sequence[dict], of_image: Mapping[int, list[int]], complete: Callable[[dict], dict]):
        self.rows, self.of_image, self.complete = rows, of_image, complete

    def of(self, image_ids: Sequence[int]) -> list[dict]:
        """Return the rows of some images."""
        return [self.complete(self.rows[i]) for image_id in image_ids for i in self.of_image.get(image_id, ())]


def _group_by_class(rows: Sequence[dict]) -> dict[int, dict[int, list[int]]]:
    """Return the positions of rows: {category id: {image id: [positions]}}."""
    groups: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (category_id, image_id) in enumerate(ids_of(rows)):
        groups[category_id][image_id].append(i)
    return groups


def _evaluate_class(truth: _Rows, found: _Rows, category: dict, iou_type: str, sigmas: np.ndarray | None) -> dict:
    """Evaluate one class; returns the evaluator's `eval`, with `precision` and `recall` of this class."""
    from faster_coco_eval import faster_eval_api_cpp

    image_ids = sorted({*truth.of_image, *found.of_image})
    matches: list[list] = []  # for each size range: those of its images
    start = 0
    while start < len(image_ids):
        end, count = start, 0
        while end < len(image_ids) and (end == start or count < BLOCK):
            count += len(found.of_image.get(image_ids[end], ()))
            end += 1
        block = image_ids[start:end]
        evaluation = _evaluator(truth.of(block), found.of(block), category, iou_type, sigmas, block)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
        of_block = evaluation._evalImgs_cpp  # of each size range its images, one after the other
        matches = matches or [[] for _ in evaluation.params.areaRng]
        for area, of_area in enumerate(matches):
            of_area += of_block[area * len(block) : (area + 1) * len(block)]
        start = end
    params = evaluation.params
    params.imgIds = image_ids
    parts = []
    for area, of_area in zip(list(params.areaRng), matches, strict=True):  # one at a time: what is given is copied
        params.areaRng = [area]
        parts.append(faster_eval_api_cpp.COCOevalAccumulate(params, of_area))
        of_area.clear()
    return {name: np.concatenate([part[name] for part in parts], axis=-2) for name in ('precision', 'recall')}


def _evaluator(
    truth: list[dict],
    found: list[dict],
    category: dict,
    iou_type: str,
    sigmas: np.ndarray | None,
    image_ids: Sequence[int] = (),
) -> 'COCOeval_faster':
    """Return an evaluator of the rows of one class, complete ones, in some images."""
    from faster_coco_eval import COCOeval_faster  # half a second that programs which score nothing are spared

    evaluation = COCOeval_faster(
        _index(truth, category, image_ids),
        _index(found, category, image_ids),
        iou_type,
        print_function=logger.debug,
        extra_calc=False,  # which detection found which object: a text for each pair
        separate_eval=True,
    )
    evaluation.params.catIds, evaluation.params.imgIds = [category['id']], list(image_ids)
    if sigmas is not None:
        evaluation.params.kpt_oks_sigmas = sigmas
    return evaluation


def usable_rows(ground_truth: dict, rows: Sequence[dict], wanted: dict[str, int], kind: str) -> Sequence[dict]:
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
    findings, unusable = Findings('evaluation'), set()
    suspects = rows.suspects(images, categories, wanted) if isinstance(rows, PackedDetections) else range(len(rows))
    for i in suspects:
        row = rows[i]
        broken = next((key for key, count in wanted.items() if not _has_numbers(row.get(key), count)), None)
        if hashable(row.get('image_id')) not in images:
            findings.add(f'{kind} left out, of an image that the annotation file lacks', row.get('image_id'))
        elif hashable(row.get('category_id')) not in categories:
            findings.add(f'{kind} left out, of an unknown category', row.get('category_id'))
        elif broken:
            findings.add(f'{kind} left out, without a usable {broken} (positions in the list)', i)
        else:
            continue
        unusable.add(i)
    findings.report()
    if rows and len(unusable) == len(rows) and kind == 'detections':
        raise UserError(
            f'none of the {len(rows)} detections can be scored: expected an image_id and category_id of the '
            f'annotation file, and {", ".join(wanted)}, found {str(rows[0])[:SHOWN]}'
        )
    if not unusable:
        return rows
    kept = [i for i in range(len(rows)) if i not in unusable]
    return rows.select(np.array(kept, np.int64)) if isinstance(rows, PackedDetections) else [rows[i] for i in kept]


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


def tolerances(categories: Sequence[dict], num_joints: int) -> np.ndarray:
    """Return the OKS sigmas [J] of the first category that has its own, else COCO's [17], or 1/J each."""
    from faster_coco_eval.core.cocoeval import Params

    coco = Params(iouType='keypoints').kpt_oks_sigmas
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


def _complete_detection(row: dict, has_box: bool) -> dict:
    """Add the area of a detection: it decides whether one that matches nothing is within a size range."""
    if has_box or _has_numbers(row.get('bbox'), 4):
        _, _, width, height = row['bbox']
    else:
        width, height = np.ptp(row['keypoints'][0::3]), np.ptp(row['keypoints'][1::3])
    return row | {'area': width * height, 'iscrowd': 0}


def _index(rows: list[dict], category: dict, image_ids: Sequence[int]) -> 'COCO':
    """Return the evaluator's index of `rows`, which are numbered here, from 1: id 0 would be taken for no match."""
    from faster_coco_eval import COCO

    for i, row in enumerate(rows, start=1):
        row['id'] = i
    coco = COCO()
    coco.dataset = {
        'images': [{'id': image_id} for image_id in image_ids],
        'categories': [category],
        'annotations': rows,
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
