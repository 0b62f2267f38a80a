"""Errors by kind, and the AP that each kind costs (Bolya et al., TIDE, 2020)."""

from dataclasses import dataclass

import numpy as np

from ..datasets.evaluation.matching import IOU, LEAST_IOU, Matched, make_curve
from .judged import Judged
from .page import COLORS, Page, new_plot

# Kinds of wrong detections, in the order in which they are asked: the first that fits is a detection's.
PLACE, CLASS, DUPLICATE, BACKGROUND, BOTH = 'place', 'class', 'duplicate', 'background', 'both'
WRONG_KINDS = (PLACE, CLASS, DUPLICATE, BACKGROUND, BOTH)
MISSED = 'missed'
KINDS = (CLASS, PLACE, BOTH, DUPLICATE, BACKGROUND, MISSED)  # as they are shown
MEANINGS = {
    CLASS: f'on an object (IoU {IOU} or more), but of another class',
    PLACE: f'of the right class, but on its object by an IoU of {LEAST_IOU} to {IOU} alone',
    BOTH: f'of another class, and on the object by an IoU of {LEAST_IOU} to {IOU} alone',
    DUPLICATE: 'on an object that a better detection has found',
    BACKGROUND: f'on nothing: no object overlaps by an IoU of {LEAST_IOU} or more',
    MISSED: 'an object that no detection is on, nor errs about in class or place',
}


@dataclass
class Errors:
    """The errors of a dataset.

    Attributes:
        kinds: [n]; the kind of each wrong detection, '' of the others.
        targets: [n]; the object that a detection errs about in class or place, or -1.
        missed: [m]; which objects are missed.
        average_precision: AP at IoU .5 as it is, the mean over classes; NaN without objects.
        costs: the AP that each of `KINDS` costs: what it would be higher by without them.
    """

    kinds: np.ndarray
    targets: np.ndarray
    missed: np.ndarray
    average_precision: float
    costs: dict[str, float]

    def counts(self) -> dict[str, int]:
        """Return the number of errors of each of `KINDS`."""
        return {kind: int((self.kinds == kind).sum()) for kind in KINDS} | {MISSED: int(self.missed.sum())}


def find_errors(matched: Matched) -> Errors:
    """Find the kind of every error, and what each kind costs."""
    kinds, targets = error_kinds(matched)
    missed = matched.wanted & ~matched.detected
    missed[targets[targets >= 0]] = False
    now = mean_precision(matched, matched.found.classes, matched.right, ~matched.on_ignored, matched.wanted)
    costs = {kind: precision_without(matched, kinds, targets, kind) - now for kind in KINDS if kind != MISSED}
    found_all = matched.wanted & ~missed
    costs[MISSED] = mean_precision(matched, matched.found.classes, matched.right, ~matched.on_ignored, found_all) - now
    return Errors(kinds, targets, missed, now, costs)


def error_kinds(matched: Matched) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind of each wrong detection [n] ('' of others) and the object [n] that it errs about (or -1)."""
    own, nearest_own = nearest(matched, own_class=True)
    other, nearest_other = nearest(matched, own_class=False)
    conditions = {
        PLACE: (own >= LEAST_IOU) & (own < IOU),
        CLASS: other >= IOU,
        DUPLICATE: own >= IOU,
        BACKGROUND: np.maximum(own, other) < LEAST_IOU,
        BOTH: np.ones(len(own), bool),
    }
    fitting = [matched.wrong & conditions[kind] for kind in WRONG_KINDS]
    kinds = np.select(fitting, WRONG_KINDS, '')
    targets = np.select([kinds == PLACE, kinds == CLASS], [nearest_own, nearest_other], -1)
    return kinds, targets


def nearest(matched: Matched, own_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """Find for each detection the object to be found that it overlaps most, of its own class or of the others.

    Returns:
        The IoU [n], 0 where there is none of `LEAST_IOU` or more, and the object [n], -1 there.
    """
    pairs = matched.pairs
    chosen = matched.wanted[pairs.truth] & (pairs.same == own_class)
    i, k, overlaps = pairs.found[chosen], pairs.truth[chosen], pairs.iou[chosen]
    order = np.lexsort((-overlaps, i))
    i, k, overlaps = i[order], k[order], overlaps[order]
    detections, first = np.unique(i, return_index=True)
    iou, objects = np.zeros(len(matched.found)), np.full(len(matched.found), -1)
    iou[detections], objects[detections] = overlaps[first], k[first]
    return iou, objects


def precision_without(matched: Matched, kinds: np.ndarray, targets: np.ndarray, kind: str) -> float:
    """Compute the AP if all wrong detections of a kind were put right.

    Those that err in class or place become right, unless another detection has found their object, or a better one
    errs about it, in class or place: then they are left out, as the wrong ones of other kinds are.

    Args:
        matched: n detections and m objects.
        kinds, targets: [n] each, as `error_kinds` gives them.
        kind: one of `WRONG_KINDS`.
    """
    found = matched.found
    of_kind = np.flatnonzero(kinds == kind)
    classes, right, counted = found.classes.copy(), matched.right, ~matched.on_ignored
    counted[of_kind] = False
    if kind in (PLACE, CLASS):
        errant = np.flatnonzero(targets >= 0)
        by_score = errant[np.argsort(-found.scores[errant], kind='stable')]
        objects, first = np.unique(targets[by_score], return_index=True)
        best = by_score[first][~matched.detected[objects]]
        best = best[kinds[best] == kind]
        counted[best] = right[best] = True
        classes[best] = matched.truth.classes[targets[best]]
    return mean_precision(matched, classes, right, counted, matched.wanted)


def mean_precision(
    matched: Matched, classes: np.ndarray, right: np.ndarray, counted: np.ndarray, wanted: np.ndarray
) -> float:
    """Compute the mean AP over the classes that have objects; NaN where none has.

    Args:
        matched: n detections and m objects.
        classes: [n] of the detections.
        right, counted: [n] bool; which are right, and which are right or wrong.
        wanted: [m] bool; the objects to be found.
    """
    values = []
    for cls in range(len(matched.class_names)):
        chosen = np.flatnonzero(counted & (classes == cls))
        objects = int((wanted & (matched.truth.classes == cls)).sum())
        if objects:
            values.append(make_curve(matched.found.scores[chosen], right[chosen], objects).average_precision())
    return float(np.mean(values)) if values else float('nan')


def add_errors(page: Page, judged: Judged) -> None:
    """Add the number of errors of each kind, and what they cost."""
    errors = find_errors(judged.matched)
    page.section(
        'Errors by kind',
        f'What AP at IoU {IOU} would gain if all errors of one kind, and no other, were put right (TIDE, Bolya et al. '
        '2020). It counts detections of any score: what costs much is wrong with high scores.',
    )
    if np.isnan(errors.average_precision):
        page.text('There is no object to find.')
        return
    counts = errors.counts()
    page.table(
        ['kind', 'errors', 'AP that it costs', 'what it is'],
        [[kind, counts[kind], errors.costs[kind], MEANINGS[kind]] for kind in KINDS],
        f'AP at IoU {IOU} is {errors.average_precision:.3f}',
    )
    figure, axes = new_plot(5.6, 2.8)
    costs = [errors.costs[kind] for kind in KINDS]
    bars = axes.bar(KINDS, costs, color=COLORS[1], width=0.6)
    axes.bar_label(bars, [f'{cost:.3f}' for cost in costs])
    axes.set(ylabel='AP that it costs', ylim=(min(0, *costs), max(0.01, *costs) * 1.12))
    page.plot(figure)
