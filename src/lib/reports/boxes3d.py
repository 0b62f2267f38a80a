"""How far 3D boxes are off, by the distance of the objects."""

from pathlib import Path

import numpy as np

from ..datasets.evaluation.kitti_eval import FOUND_OVERLAP, Kitti, depth_errors, found_objects, rotation_errors
from ..datasets.kitti_files import DIMS, LOCATION
from .judged import Judged
from .page import COLORS, Cell, Page, new_plot, plot_text

EDGES = (0, 10, 20, 30, 40, 60, np.inf)  # metres; of the ranges of distance


def add_boxes_3d(page: Page, judged: Judged, folder: Path) -> None:
    """Add the errors in depth, place, size and heading by distance, where KITTI's metric has scored 3D boxes.

    Args:
        page: grows.
        judged: the results, judged.
        folder: that the metric has written its files to.
    """
    metric = judged.dataset.metric
    if not isinstance(metric, Kitti):
        return
    page.section(
        '3D errors by distance',
        f'Medians over the objects whose 2D box is found (IoU {FOUND_OVERLAP} or more, whatever the score): how far '
        'depth, size and heading are off.',
    )
    saved = folder / 'results'
    pairs = found_objects(metric.labels_beside(saved), saved, metric.classes)
    lines = {name: errors_by_distance(truth, found) for name, (truth, found) in pairs.items() if len(truth)}
    if not lines:
        page.text('No object is found.')
        return
    page.table(
        [
            'class',
            'distance in metres',
            'objects',
            'depth, %',
            'depth, metres',
            'length, width, height, metres',
            'heading, degrees',
        ],
        [[name, *row] for name, rows in lines.items() for row in rows if row[1]],
    )
    for column, label in ((2, 'depth error, %'), (5, 'heading error, degrees')):
        figure, axes = new_plot(4.8, 3.0)
        for (name, rows), color in zip(lines.items(), COLORS, strict=False):
            ranges = rows[:-1]
            known = [(i, row[column]) for i, row in enumerate(ranges) if row[1]]
            axes.plot(*zip(*known, strict=True), marker='o', markersize=4, color=color, label=plot_text(name))
        axes.set_xticks(range(len(EDGES) - 1), [row[0] for row in ranges])
        axes.set(xlabel='distance in metres', ylabel=label)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        page.plot(figure)


def errors_by_distance(truth: np.ndarray, found: np.ndarray) -> list[list[Cell]]:
    """Return the medians of the errors of each range of distance, and of all.

    Args:
        truth, found: rows [n, 15] of label files and of result files, pair by pair.

    Returns:
        For each range, and for `all`: its name, the number of objects, and how far off their depths are in percent and
        in metres, their sizes in metres (the mean of length, width and height) and their headings in degrees.
    """
    depths = truth[:, LOCATION][:, 2]
    off = np.stack(
        [
            depth_errors(truth, found),
            np.abs(found[:, LOCATION][:, 2] - depths),
            np.abs(found[:, DIMS] - truth[:, DIMS]).mean(1),
            rotation_errors(truth, found),
        ],
        1,
    )  # [n, 4]
    rows: list[list[Cell]] = []
    for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
        chosen = (depths >= low) & (depths < high)
        name = f'{low:g} to {high:g}' if np.isfinite(high) else f'over {low:g}'
        rows.append([name, int(chosen.sum()), *medians(off[chosen])])
    return [*rows, ['all', len(off), *medians(off)]]


def medians(values: np.ndarray) -> list[float | None]:
    """Return the median of each column of values [n, k]; None each without a row."""
    return np.median(values, 0).tolist() if len(values) else [None] * values.shape[1]
