"""The results of a dataset, judged: all that the sections of a report are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..datasets.evaluation.coco_boxes import coco_results
from ..datasets.evaluation.matching import Curve, Matched, make_curve, match_all
from ..datasets.evaluation.metric import Results
from ..datasets.evaluation.packed import PackedDetections

DEFAULT_THRESHOLD = 0.3  # where nothing at all is right


class Best(NamedTuple):
    """The threshold at which F1 is best, and what holds there: detections of a score from it on count."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass
class Judged:
    """The detections of a dataset beside its objects.

    Attributes:
        dataset: a `TaskDataset`.
        metrics: as `metrics.json` has them.
        ground_truth: a COCO dict of the objects.
        detections: all of them.
        matched: detections and objects matched at IoU .5.
    """

    dataset: Any
    metrics: Mapping[str, float]
    ground_truth: dict
    detections: PackedDetections
    matched: Matched

    @property
    def class_names(self) -> list[str]:
        """Return the names of the classes."""
        return self.matched.class_names

    @cached_property
    def curves(self) -> list[Curve]:
        """The curve of each class."""
        return [self.matched.curve(cls) for cls in range(len(self.class_names))]

    @cached_property
    def curve_of_all(self) -> Curve:
        """The curve of all detections and objects, whatever their class."""
        scores = np.concatenate([curve.scores for curve in self.curves])
        right = np.concatenate([curve.right for curve in self.curves])
        return make_curve(scores, right, sum(curve.objects for curve in self.curves))

    @cached_property
    def best(self) -> list[Best | None]:
        """The best threshold of each class; None where nothing is right."""
        return [best_threshold(curve) for curve in self.curves]

    @cached_property
    def best_of_all(self) -> Best | None:
        """The best threshold that all classes share."""
        return best_threshold(self.curve_of_all)

    @cached_property
    def thresholds(self) -> list[float]:
        """The threshold of each class at which its detections count as shown."""
        shared = DEFAULT_THRESHOLD if self.best_of_all is None else self.best_of_all.threshold
        return [shared if best is None else best.threshold for best in self.best]

    @cached_property
    def shown(self) -> np.ndarray:
        """Which detections [n] of `matched` are at their class's threshold or over it."""
        return self.matched.found.scores >= np.array(self.thresholds)[self.matched.found.classes]


def judge(dataset: Any, results: Results, metrics: Mapping[str, float]) -> Judged:
    """Match results to the objects of their dataset.

    Args:
        dataset: a `TaskDataset`.
        results: `{image id: {1-based class: rows [n, columns]}}`, laid out as its `result_columns`.
        metrics: what `run_eval` returned of them.
    """
    metric = dataset.metric
    detections = coco_results(results, dataset.cat_ids, metric.columns)
    ground_truth = dataset.ground_truth()
    matched = match_all(
        ground_truth, detections, dataset.cat_ids, dataset.class_names, metric.ignoring, metric.ignores_kinds
    )
    return Judged(dataset, metrics, ground_truth, detections, matched)


def f1_scores(curve: Curve) -> np.ndarray:
    """Return F1 after each detection of a curve, [k]: twice the right ones over all detections and objects."""
    count = np.arange(1, len(curve.scores) + 1) + curve.objects
    return 2 * curve.right.cumsum() / count


def f1_at(curve: Curve, thresholds: np.ndarray) -> np.ndarray:
    """Return F1 of the detections whose score is at each of some thresholds [t] or over it, [t]."""
    after = np.searchsorted(-curve.scores, -thresholds, 'right')  # how many are
    return np.append(0.0, f1_scores(curve))[after]


def best_threshold(curve: Curve) -> Best | None:
    """Find the threshold of the best F1; of several the highest.

    It lies in the middle between the last score that it keeps and the first that it does not, so that scores that
    come out a little differently elsewhere stay on their side.

    Returns:
        None where no detection is right.
    """
    if not curve.right.any():
        return None
    lower = np.append(curve.scores[1:], 0.0)
    ends = np.flatnonzero(curve.scores > lower)  # equal scores stay together
    ends = ends if len(ends) else np.array([len(curve.scores) - 1])
    last = ends[f1_scores(curve)[ends].argmax()]
    threshold = float((curve.scores[last] + lower[last]) / 2)
    precision, recall = curve.precision_recall()
    return Best(threshold, float(f1_scores(curve)[last]), float(precision[last]), float(recall[last]))
