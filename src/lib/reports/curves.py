"""Precision, recall and F1 of each class, and the thresholds of the best F1."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..datasets.evaluation.matching import IOU, RECALLS, Curve
from .judged import Judged, f1_at
from .page import COLORS, Page, new_plot, plot_text

THRESHOLDS = np.linspace(0, 1, 101)  # of the scores, at which F1 is drawn
CLASSES_A_PLOT, MOST_PLOTS = 8, 10

Line = Callable[[Curve], np.ndarray]


def add_curves(page: Page, judged: Judged) -> None:
    """Add the table of classes, and the curves of precision over recall and of F1 over the threshold."""
    page.section(
        'Classes',
        f'A detection is right where it overlaps an object of its class by an IoU of {IOU} or more, and no better one '
        'has found that object. The best threshold is the lowest score to keep for the best F1, the harmonic mean of '
        'precision and recall, which are those at that threshold. thresholds.json has them: --vis_thresh best draws by '
        'them.',
    )
    page.table(
        ['class', 'objects', 'AP', f'AP at IoU {IOU}', 'best threshold', 'F1', 'precision', 'recall'],
        [row_of_all(judged), *(class_row(judged, cls) for cls in range(len(judged.class_names)))],
    )
    shown = classes_shown(judged)
    if not shown:
        page.text('There is no object to find, so there are no curves.')
        return
    page.section(
        'Precision and recall',
        'Precision is the best that is reached at that recall or beyond. The dashed line is the mean of all classes.',
    )
    if len(shown) < sum(curve.objects > 0 for curve in judged.curves):
        page.text(f'The {len(shown)} classes with the most objects are drawn.')
    for figure in precision_plots(judged, shown):
        page.plot(figure)
    page.section('F1 over the threshold', 'The dashed line counts the detections and objects of all classes together.')
    for figure in f1_plots(judged, shown):
        page.plot(figure)


def class_row(judged: Judged, cls: int) -> list[str | int | float | None]:
    """Return a class's row of the table."""
    name, curve, best = judged.class_names[cls], judged.curves[cls], judged.best[cls]
    own = judged.metrics.get(f'AP/{name}', -1.0)
    precision = curve.average_precision() if curve.objects else None
    return [name, curve.objects, own if own >= 0 else None, precision, *(best or [None] * 4)]


def row_of_all(judged: Judged) -> list[str | int | float | None]:
    """Return the first row of the table: means of AP over classes, and the threshold that all classes share."""
    own = judged.metrics.get('AP', -1.0)
    return [
        'all classes',
        judged.curve_of_all.objects,
        own if own >= 0 else None,
        mean_precision_of(judged.curves),
        *(judged.best_of_all or [None] * 4),
    ]


def mean_precision_of(curves: Sequence[Curve]) -> float | None:
    """Return the mean AP of the curves that have objects; None without any."""
    values = [curve.average_precision() for curve in curves if curve.objects]
    return float(np.mean(values)) if values else None


def classes_shown(judged: Judged) -> list[int]:
    """Return the classes whose curves are drawn: those with objects, the most frequent ones where they are many."""
    present = [cls for cls, curve in enumerate(judged.curves) if curve.objects]
    frequent = sorted(present, key=lambda cls: -judged.curves[cls].objects)[: MOST_PLOTS * CLASSES_A_PLOT]
    return sorted(frequent)


def precision_plots(judged: Judged, classes: list[int]) -> Iterator[Figure]:
    """Make the plots of the classes' precision over recall."""
    return line_plots(judged, classes, Curve.precision_at_recalls, RECALLS, ('recall', 'precision'))


def f1_plots(judged: Judged, classes: list[int]) -> Iterator[Figure]:
    """Make the plots of the classes' F1 over the threshold."""
    return line_plots(judged, classes, lambda curve: f1_at(curve, THRESHOLDS), THRESHOLDS, ('threshold', 'F1'))


def line_plots(
    judged: Judged, classes: list[int], line: Line, x: np.ndarray, labels: tuple[str, str]
) -> Iterator[Figure]:
    """Make plots of a line of each class over the values x [101], `CLASSES_A_PLOT` classes a plot, and one of all."""
    of_all = summary_line(judged, line)
    for first in range(0, len(classes), CLASSES_A_PLOT):
        group = classes[first : first + CLASSES_A_PLOT]
        figure, axes = new_plot(7.2) if len(classes) <= CLASSES_A_PLOT else new_plot(5.8, 2.9)
        for cls, color in zip(group, COLORS, strict=False):
            axes.plot(x, line(judged.curves[cls]), color=color, linewidth=1.4, label=plot_text(judged.class_names[cls]))
        if len(classes) > 1:
            axes.plot(x, of_all, color='black', linewidth=1.8, linestyle='--', label='all classes')
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.03))
        axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
        yield figure


def summary_line(judged: Judged, line: Line) -> np.ndarray:
    """Return the line [101] of all classes: of precision their mean, of F1 that of all detections together."""
    if line is Curve.precision_at_recalls:
        return np.mean([line(curve) for curve in judged.curves if curve.objects], axis=0)
    return line(judged.curve_of_all)
