"""Which detection found which object: COCO's matching at one IoU, of all images and classes at once.

What the metrics keep to themselves, and a report needs: for each detection the object that it is taken for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..categories import DROPPED, IGNORED_FOR_ALL, ignored_for
from .packed import PackedDetections

IOU = 0.5  # from which a detection is on an object
LEAST_IOU = 0.1  # under which two boxes have nothing to do with each other
MOST_FOUND = 100  # detections of a class in an image that count, as COCO's
PAIRS_AT_ONCE = 500_000
RECALLS = np.linspace(0, 1, 101)  # at which precision is averaged, as COCO's
# Areas in square pixels, both ends included, as COCO's.
SIZES = {'small': (0.0, 32.0**2), 'medium': (32.0**2, 96.0**2), 'large': (96.0**2, 1e10)}


@dataclass
class Truth:
    """Objects [m], in the order of their images' ids.

    Attributes:
        images: image ids.
        classes: 0-based, or one of the negative kinds of categories.py.
        boxes: [m, 4] float64, x y w h in image pixels.
        areas: in square pixels: an annotation's own, else its box's.
        ignored: bool; finding them is neither right nor wrong.
        crowd: bool; areas in which any number of detections may lie.
        rows: their annotations.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray
    rows: list[dict]

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Found:
    """Detections [n] that count, in the order of their images' ids, the best of an image first.

    Attributes:
        images: image ids.
        classes: 0-based.
        boxes: [n, 4] float64, x y w h in image pixels.
        scores: float64.
        positions: in the list of detections that they are of.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


class Pairs(NamedTuple):
    """Pairs [P] of a detection and an object of its image that overlap by `LEAST_IOU` or more.

    Attributes:
        found, truth: positions of both.
        iou: their IoU; with a crowd the share of the detection that lies in it.
        same: bool; the object is of the detection's class, or ignored for it.
    """

    found: np.ndarray
    truth: np.ndarray
    iou: np.ndarray
    same: np.ndarray


class Curve(NamedTuple):
    """Detections [k] of a class that are right or wrong, the best score first, and the number of objects."""

    scores: np.ndarray
    right: np.ndarray
    objects: int

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and recall after each detection, [k] each; recall is 0 where there is no object."""
        right = self.right.cumsum()
        return right / np.arange(1, len(right) + 1), right / max(self.objects, 1)

    def precision_at_recalls(self) -> np.ndarray:
        """Return the best precision at each of `RECALLS` or beyond, [101], as COCO interpolates; 0 beyond the last."""
        precision, recall = self.precision_recall()
        best = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, RECALLS)
        return np.append(best, 0.0)[at]

    def average_precision(self) -> float:
        """Return COCO's AP at this IoU; NaN without objects."""
        return float(self.precision_at_recalls().mean()) if self.objects else float('nan')


@dataclass
class Matched:
    """All detections of a dataset matched to its objects at `IOU`.

    Attributes:
        found, truth, pairs: what was matched.
        class_names: C names.
        taken: [n]; the object that a detection is matched to, or -1.
    """

    found: Found
    truth: Truth
    pairs: Pairs
    class_names: list[str]
    taken: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Return which detections [n] found an object that is not ignored."""
        return (self.taken >= 0) & ~self.on_ignored

    @property
    def on_ignored(self) -> np.ndarray:
        """Return which detections [n] are on an ignored object: neither right nor wrong."""
        return (self.taken >= 0) & np.append(self.truth.ignored, False)[self.taken]

    @property
    def wrong(self) -> np.ndarray:
        """Return which detections [n] are on no object."""
        return self.taken < 0

    @property
    def wanted(self) -> np.ndarray:
        """Return which objects [m] are to be found: those of a class, and not ignored."""
        return ~self.truth.ignored & (self.truth.classes >= 0)

    @property
    def detected(self) -> np.ndarray:
        """Return which objects [m] were found, whatever the score."""
        detected = np.zeros(len(self.truth), bool)
        detected[self.taken[self.taken >= 0]] = True
        return detected

    def curve(self, cls: int) -> Curve:
        """Return the curve of a class."""
        chosen = np.flatnonzero((self.found.classes == cls) & ~self.on_ignored)
        return make_curve(self.found.scores[chosen], self.right[chosen], self.objects_of(cls))

    def objects_of(self, cls: int) -> int:
        """Return the number of objects of a class that are to be found."""
        return int((self.wanted & (self.truth.classes == cls)).sum())

    def curves_of_size(self, size: str) -> list[Curve]:
        """Return each class's curve of objects whose area is in one of `SIZES`; those of others are ignored."""
        low, high = SIZES[size]
        truth, found = self.truth, self.found
        ignored = truth.ignored | (truth.areas < low) | (truth.areas > high)
        taken = match(found, truth, self.pairs, ignored)
        areas = found.boxes[:, 2] * found.boxes[:, 3]
        counts = np.where(taken >= 0, ~np.append(ignored, False)[taken], (areas >= low) & (areas <= high))
        curves = []
        for cls in range(len(self.class_names)):
            chosen = np.flatnonzero((found.classes == cls) & counts)
            objects = int((~ignored & (truth.classes == cls)).sum())
            curves.append(make_curve(found.scores[chosen], taken[chosen] >= 0, objects))
        return curves


def make_curve(scores: np.ndarray, right: np.ndarray, objects: int) -> Curve:
    """Sort scores [k] and whether they are right [k], which keep their order where scores are equal, into a curve."""
    order = np.argsort(-scores, kind='stable')
    return Curve(scores[order], right[order], objects)


def match_all(
    ground_truth: Mapping,
    detections: PackedDetections,
    cat_ids: Mapping[int, int],
    class_names: Sequence[str],
    ignoring: Sequence[str] = ('iscrowd',),
    with_kinds: bool = False,
) -> Matched:
    """Match the detections of a dataset to its objects.

    Args:
        ground_truth: a COCO dict of usable annotations.
        detections: of its images, as `coco_results` makes them.
        cat_ids: category id -> class, or a negative kind of categories.py.
        class_names: names of the classes.
        ignoring: annotation keys of which each, where it is true, makes an object ignored.
        with_kinds: objects of negative kinds are ignored for what they say; else they are left out.
    """
    truth = truth_of(ground_truth, cat_ids, ignoring, with_kinds)
    found = found_of(detections, cat_ids)
    pairs = overlapping_pairs(found, truth)
    return Matched(found, truth, pairs, list(class_names), match(found, truth, pairs, truth.ignored))


def truth_of(
    ground_truth: Mapping, cat_ids: Mapping[int, int], ignoring: Sequence[str] = ('iscrowd',), with_kinds: bool = False
) -> Truth:
    """Return the objects of a COCO dict; arguments as `match_all` takes them."""
    rows = [
        row
        for row in ground_truth['annotations']
        if (cls := cat_ids[row['category_id']]) >= 0 or (with_kinds and cls != DROPPED)
    ]
    rows.sort(key=lambda row: row['image_id'])
    classes = np.array([cat_ids[row['category_id']] for row in rows], np.int64)
    boxes = np.array([row['bbox'] for row in rows], np.float64).reshape(-1, 4)
    areas = [row.get('area', width * height) for row, (_, _, width, height) in zip(rows, boxes, strict=True)]
    crowd = np.array([bool(row.get('iscrowd')) for row in rows], bool) | (classes == IGNORED_FOR_ALL)
    ignored = np.array([any(row.get(key) for key in ignoring) for row in rows], bool) | (classes < 0)
    images = np.array([row['image_id'] for row in rows], np.int64)
    return Truth(images, classes, boxes, np.array(areas, np.float64), ignored, crowd & ignored, rows)


def found_of(detections: PackedDetections, cat_ids: Mapping[int, int]) -> Found:
    """Return the detections that count: of each class in an image the `MOST_FOUND` best."""
    order = np.lexsort((-detections.scores, detections.image_ids))  # stable
    ids = detections.category_ids[order]
    known = np.array(sorted(cat_ids), np.int64)
    classes = np.array([cat_ids[category] for category in known.tolist()], np.int64)[np.searchsorted(known, ids)]
    images = detections.image_ids[order]
    by_class = np.lexsort((np.arange(len(order)), classes, images))  # the best of each class in an image first
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(images[by_class]) != 0) | (np.diff(classes[by_class]) != 0)
    places = np.arange(len(order))
    kept = np.zeros(len(order), bool)
    kept[by_class] = places - np.maximum.accumulate(np.where(begins, places, 0)) < MOST_FOUND
    order = order[kept]
    return Found(images[kept], classes[kept], detections.boxes[order], detections.scores[order], order.astype(np.int64))


def overlapping_pairs(found: Found, truth: Truth) -> Pairs:
    """Find the pairs of detections and objects of one image that overlap."""
    parts = [_overlapping(found, truth, *block) for block in _blocks(found.images, truth.images)]
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _blocks(images: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over all pairs [P] each of positions of equal values in two sorted arrays [n] and [m], in blocks."""
    start = np.searchsorted(others, images, 'left')
    counts = np.searchsorted(others, images, 'right') - start  # [n]
    ends = counts.cumsum()
    first = 0
    while first < len(images):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + PAIRS_AT_ONCE, 'right')))
        part = counts[first:last]
        within = np.arange(part.sum()) - np.repeat(part.cumsum() - part, part)
        yield np.repeat(np.arange(first, last), part), np.repeat(start[first:last], part) + within
        first = last


def _overlapping(found: Found, truth: Truth, i: np.ndarray, k: np.ndarray) -> Pairs:
    """Return those of the pairs of detections i [P] and objects k [P] that overlap."""
    a, b = found.boxes[i], truth.boxes[k]  # [P, 4] each
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = (high - low).clip(0).prod(1)  # [P]
    areas, others = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    whole = np.where(truth.crowd[k], areas, areas + others - shared)
    iou = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    near = iou >= LEAST_IOU
    i, k, iou = i[near], k[near], iou[near]
    kinds, classes = truth.classes[k], found.classes[i]
    same = (kinds == classes) | (kinds == IGNORED_FOR_ALL) | (kinds == ignored_for(classes))
    return Pairs(i, k, iou, same)


def match(found: Found, truth: Truth, pairs: Pairs, ignored: np.ndarray, least: float = IOU) -> np.ndarray:
    """Match detections to objects as COCO does: the best score chooses first, and takes what it overlaps most.

    An object that is not ignored is taken before any that is.

    Args:
        found, truth, pairs: n detections, m objects and how they overlap.
        ignored: [m] bool, in place of the objects' own.
        least: IoU from which a detection is on an object.

    Returns:
        [n] int64; the object that a detection is matched to, or -1.
    """
    on = pairs.same & (pairs.iou >= least)
    i, k = pairs.found[on], pairs.truth[on]
    order = np.lexsort((-k, -pairs.iou[on], ignored[k], i))  # of equal overlaps COCO takes the later object
    taken, used, crowd = [-1] * len(found), [False] * len(truth), truth.crowd.tolist()
    for detection, thing in zip(i[order].tolist(), k[order].tolist(), strict=True):
        if taken[detection] < 0 and not used[thing]:
            taken[detection] = thing
            used[thing] = not crowd[thing]
    return np.array(taken, np.int64)
