"""The training targets of one object: Gaussians on heatmaps, values on dense regression maps."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...external.raster import raise_to_gaussian


def gaussian_radius(det_size: Sequence[float], min_overlap: float = 0.7) -> float:
    """Return how far (in cells) both corners of a box may move while its overlap with the box stays `min_overlap`.

    The smallest of three cases: one box shifted against the other, inside it, around it (Law & Deng 2018,
    section 3.2). Each takes the larger root and divides it by 2, not by 2a [keep: the published heatmaps
    were drawn so].

    Args:
        det_size: (height, width) of the box in cells of the map.
        min_overlap: IoU, 0 to 1.

    Returns:
        The radius in cells, not rounded.
    """
    height, width = det_size
    total, area, o = height + width, width * height, min_overlap
    cases = [
        (1, total, area * (1 - o) / (1 + o)),
        (4, 2 * total, (1 - o) * area),
        (4 * o, -2 * o * total, (o - 1) * area),
    ]
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in cases)


class Gaussian(NamedTuple):
    """A bump on a map: its cell, how far it reaches along each axis in cells, and its sigma in cells."""

    x: int
    y: int
    reach: int
    sigma: float


def umich_gaussian(center: Sequence[float] | np.ndarray, radius: int) -> Gaussian:
    """Return the Gaussian that `draw_umich_gaussian` draws at a centre [2], x and y on the map."""
    return Gaussian(int(center[0]), int(center[1]), radius, (2 * radius + 1) / 6)


def msra_gaussian(center: Sequence[float] | np.ndarray, sigma: float) -> Gaussian:
    """Return the Gaussian that `draw_msra_gaussian` draws at a centre [2], x and y on the map."""
    return Gaussian(int(center[0] + 0.5), int(center[1] + 0.5), int(3 * sigma), sigma or 1)


def draw_umich_gaussian(
    heatmap: np.ndarray, center: Sequence[float] | np.ndarray, radius: int, k: float = 1
) -> np.ndarray:
    """Raise a class's heatmap to a Gaussian bump at an object's centre (section 3 of the paper).

    sigma is a sixth of the diameter 2r + 1. (No value is under e^-9, so the published cut at eps * max
    never acts.)

    Args:
        heatmap: float32 [h, w], changed in place.
        center: (x, y), truncated to a cell; one outside the map leaves what reaches in.
        radius: cells, 0 for the centre alone.
        k: height of the bump.

    Returns:
        `heatmap`.
    """
    raise_to_gaussian(heatmap, *umich_gaussian(center, radius), k)
    return heatmap


def draw_msra_gaussian(heatmap: np.ndarray, center: Sequence[float] | np.ndarray, sigma: float) -> np.ndarray:
    """Raise a class's heatmap to a Gaussian bump of a given sigma, cut off at 3 sigma each way.

    Args:
        heatmap: float32 [h, w], changed in place.
        center: (x, y), rounded to a cell; one outside the map leaves what reaches in.
        sigma: cells; 0 marks the centre cell alone.

    Returns:
        `heatmap`.
    """
    raise_to_gaussian(heatmap, *msra_gaussian(center, sigma))
    return heatmap


def draw_dense_reg(
    regmap: np.ndarray,
    heatmap: np.ndarray,
    center: Sequence[float] | np.ndarray,
    value: Sequence[float],
    radius: int,
    is_offset: bool = False,
) -> np.ndarray:
    """Write an object's value where its Gaussian is not under the heatmap, that is where it is the strongest.

    Args:
        regmap: float32 [d, h, w], changed in place.
        heatmap: float32 [h, w], the Gaussians so far, this object's drawn or not.
        center: (x, y), truncated to a cell.
        value: [d].
        radius: that of the object's Gaussian, cells.
        is_offset: the value (then [2]) points from the centre, and every cell gets the vector from itself to
            the same target.

    Returns:
        `regmap`.
    """
    x, y = int(center[0]), int(center[1])
    rows, cols = _window(y, radius, heatmap.shape[0]), _window(x, radius, heatmap.shape[1])
    # both in float32: mixed precisions left about half of the cells untouched
    mine = _gaussian(rows, cols, x, y, (2 * radius + 1) / 6) >= heatmap[rows, cols]  # [r, c]
    values = np.asarray(value, np.float32).reshape(-1, 1, 1)  # [d, 1, 1]
    if is_offset:
        values = values - np.stack(np.meshgrid(_steps(cols, x), _steps(rows, y)))  # [2, r, c]
    np.copyto(regmap[:, rows, cols], values, where=mine, casting='same_kind')
    return regmap


def _window(middle: int, reach: int, length: int) -> slice:
    """Return the cells within `reach` of `middle` on an axis of `length`; an empty slice when there is none."""
    return slice(max(middle - reach, 0), max(min(middle + reach + 1, length), 0))


def _steps(window: slice, middle: int) -> np.ndarray:
    return np.arange(window.start, window.stop, dtype=np.float64) - middle


def _gaussian(rows: slice, cols: slice, x: int, y: int, sigma: float) -> np.ndarray:
    """Return exp(-(dx^2 + dy^2) / 2 sigma^2) on a window, float32 [rows, cols]; exactly 1 at (x, y)."""
    column = np.exp(_steps(rows, y) ** 2 / (-2 * sigma * sigma))  # [r]
    row = np.exp(_steps(cols, x) ** 2 / (-2 * sigma * sigma))  # [c]
    return np.outer(column, row).astype(np.float32)  # [r, c]
