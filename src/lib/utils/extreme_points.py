"""Extreme points of an object's segmentation, on which exdet is trained (ExtremeNet, Zhou et al. 2019)."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .errors import UserError

# COCO writes coordinates to 2 decimals: vertices nearer than this to an edge of the box are on it.
FLAT = 0.01


def extreme_points(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the points where an object touches its box: top, left, bottom, right.

    Where a whole side of the object lies along the box, the point is the midpoint of the (longest) side.

    Args:
        segmentation: COCO's: a list of polygons `[x1, y1, x2, y2, ...]` whose own vertices are used, or an
            RLE dict (`counts` a string, bytes or a list), whose mask's pixels are.
        height, width: of the image, in pixels.

    Returns:
        float32 [4, 2]: x, y in image pixels. Each point lies on the outline of the object; in a mask that is
        its outermost pixel (column, row), which is how COCO's boxes of its RLE objects are measured.

    Raises:
        UserError: the segmentation is empty or malformed.
    """
    if isinstance(segmentation, dict):
        return _from_mask(_read_mask(segmentation, height, width))
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons([_read_polygon(flat) for flat in segmentation])
    raise UserError(f'a segmentation is a list of polygons or an RLE dict; found {segmentation!r:.60}')


def _read_polygon(flat: Any) -> np.ndarray:
    try:
        polygon = np.asarray(flat, dtype=np.float64).reshape(-1, 2)  # [V, 2]
    except (TypeError, ValueError, OverflowError):
        polygon = np.empty((0, 2))
    if len(polygon) < 3 or not np.isfinite(polygon).all():
        raise UserError(f'a polygon is 3 or more finite pairs x, y in one list; found {flat!r:.60}')
    return polygon


def _read_mask(rle: dict, height: int, width: int) -> np.ndarray:
    if rle.get('size') != [height, width]:
        raise UserError(f'the RLE of a {height} x {width} image has that `size`; found {rle.get("size")}')
    try:
        packed = coco_mask.frPyObjects(rle, height, width) if isinstance(rle['counts'], list) else rle
        mask = coco_mask.decode(packed)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f'an RLE has `size` and `counts`; found {rle!r:.60} ({error})') from None
    if not mask.any():
        raise UserError('the RLE of a segmentation is empty: no pixel is set')
    return mask  # [H, W]


def _from_polygons(polygons: list[np.ndarray]) -> np.ndarray:
    vertices = np.concatenate(polygons)  # [V, 2]
    low, high = vertices.min(0), vertices.max(0)
    sides = [(1, low[1]), (0, low[0]), (1, high[1]), (0, high[0])]  # (axis, where): top, left, bottom, right
    return np.array([_polygon_touch(polygons, *side) for side in sides], dtype=np.float32)


def _polygon_touch(polygons: list[np.ndarray], axis: int, where: float) -> np.ndarray:
    """Return the midpoint of the longest chain of vertices that lies on the line `coordinate[axis] == where`."""
    along = 1 - axis
    start = end = np.nan  # of the longest chain so far
    for polygon in polygons:
        on_line = np.abs(polygon[:, axis] - where) <= FLAT
        if on_line[0] and on_line[-1] and not on_line.all():
            shift = -int(np.argmin(on_line))  # a chain round the seam: begin with a vertex off the line
            polygon, on_line = np.roll(polygon, shift, axis=0), np.roll(on_line, shift)
        for first, last in _runs(on_line):
            chain = polygon[first:last, along]
            if np.isnan(start) or np.ptp(chain) > end - start:
                start, end = chain.min(), chain.max()
    point = np.empty(2)
    point[axis], point[along] = where, (start + end) / 2
    return point


def _from_mask(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    return np.array(
        [
            (_longest_run_middle(mask[top]), top),
            (left, _longest_run_middle(mask[:, left])),
            (_longest_run_middle(mask[bottom]), bottom),
            (right, _longest_run_middle(mask[:, right])),
        ],
        dtype=np.float32,
    )


def _longest_run_middle(line: np.ndarray) -> float:
    first, end = max(_runs(line), key=lambda run: run[1] - run[0])
    return (first + end - 1) / 2


def _runs(flags: np.ndarray) -> np.ndarray:
    """Return `[first, last + 1]` of each run of true values of `flags` [n]: [R, 2]."""
    steps = np.diff(np.concatenate(([0], np.asarray(flags, dtype=np.int8), [0])))
    return np.stack([np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)], axis=1)
