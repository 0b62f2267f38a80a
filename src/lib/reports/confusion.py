"""The confusion matrix: what objects of each class were taken for."""

import numpy as np
from matplotlib.figure import Figure

from ..datasets.evaluation.matching import IOU, Matched
from .judged import Judged
from .page import Page, new_plot, plot_text

MOST_NUMBERED = 15  # classes up to which the numbers stand in the matrix
MOST_NAMED = 150  # classes up to which the names stand beside it
MOST_CONFUSIONS = 20  # that are listed
BACKGROUND = 'background'


def add_confusion(page: Page, judged: Judged) -> None:
    """Add the matrix of the detections at their thresholds, and the list of what is confused most."""
    matrix = confusion_matrix(judged.matched, judged.shown)
    page.section(
        'Confusion',
        'A row for each class of objects, a column for each class of detections, of those at the best threshold of '
        f'their class or over it. An object that no detection is on by an IoU of {IOU} or more is in the last column, '
        'a detection that is on none in the last row. The shade is the share of the row.',
    )
    if not matrix.sum():
        page.text('There is neither an object nor a detection over its threshold.')
        return
    names = [*judged.class_names, BACKGROUND]
    page.plot(matrix_plot(matrix, names))
    confused = matrix[:-1, :-1].copy()
    np.fill_diagonal(confused, 0)
    order = np.argsort(-confused, axis=None, kind='stable')[:MOST_CONFUSIONS]
    pairs = [(*np.unravel_index(i, confused.shape), confused.flat[i]) for i in order if confused.flat[i] > 0]
    if pairs:
        objects = matrix[:-1].sum(1)
        page.table(
            ['object', 'taken for', 'times', "share of the class's objects"],
            [[names[row], names[column], int(times), float(times / objects[row])] for row, column, times in pairs],
            'what is confused most',
        )
    else:
        page.text('No object is taken for one of another class.')


def confusion_matrix(matched: Matched, shown: np.ndarray) -> np.ndarray:
    """Count what objects were taken for.

    The detections that are right come first, so that the diagonal counts them; the others then take, the best score
    first, the object of another class that they overlap most among those that are left.

    Args:
        matched: n detections and m objects of C classes.
        shown: [n] bool; the detections that count.

    Returns:
        int64 [C + 1, C + 1]; a row a class of objects, a column a class of detections, and the background.
    """
    found, truth, pairs = matched.found, matched.truth, matched.pairs
    background = len(matched.class_names)
    free = matched.wanted  # a new array
    right = matched.right & shown
    free[matched.taken[right]] = False
    column = np.full(len(truth), background)
    column[matched.taken[right]] = found.classes[right]
    left = matched.wrong & shown
    near = (pairs.iou >= IOU) & ~pairs.same & left[pairs.found] & free[pairs.truth]
    i, k = pairs.found[near], pairs.truth[near]
    order = np.lexsort((-pairs.iou[near], i, -found.scores[i]))
    for detection, thing in zip(i[order].tolist(), k[order].tolist(), strict=True):
        if left[detection] and free[thing]:
            left[detection] = free[thing] = False
            column[thing] = found.classes[detection]
    matrix = np.zeros((background + 1, background + 1), np.int64)
    wanted = matched.wanted
    np.add.at(matrix, (truth.classes[wanted], column[wanted]), 1)
    np.add.at(matrix, (background, found.classes[left]), 1)
    return matrix


def matrix_plot(matrix: np.ndarray, names: list[str]) -> Figure:
    """Return the plot of a matrix [C + 1, C + 1], shaded by the shares of each row, with the names of its rows."""
    count = len(names)
    side = min(3 + 0.32 * count, 11)
    figure, axes = new_plot(side + 1, side)
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    axes.grid(False)
    size = min(9.0, 330 / count)
    labels = [plot_text(name, 16) for name in names]
    if count <= MOST_NAMED + 1:
        axes.set_xticks(range(count), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(count), labels, fontsize=size)
    axes.set(xlabel='detections', ylabel='objects')
    if count <= MOST_NUMBERED + 1:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = 'white' if shares[row, column] > 0.6 else 'black'
            axes.text(column, row, f'{matrix[row, column]}', ha='center', va='center', color=color, fontsize=size)
    return figure
