"""From detections on the output map to detections in the image.

Decoded rows are float32 arrays [B, K, columns]; `c` and `s` hold the centre and scale of each image, as they
went into `get_affine_transform`; h and w are the sides of the output map. Inputs are left untouched. Classes
come out 1-based, and each class keeps the order of the rows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .ddd_utils import alpha2rot_y, compute_box_3d, get_alpha, project_to_image, unproject_2d_to_3d
from .image import transform_preds
from .rows import DecodedBox3d as Decoded

if TYPE_CHECKING:
    from ..opts import Options

Detections = dict[int, np.ndarray]  # rows [n, columns] by 1-based class


def ctdet_post_process(
    dets: np.ndarray, c: Sequence, s: Sequence, h: int, w: int, num_classes: int
) -> list[Detections]:
    """Map boxes to image pixels.

    Args:
        dets: [B, K, 6] of box, score, class.
        c, s: centre [2] and scale of each image.
        h, w: sides of the output map.
        num_classes: classes are 0 to num_classes - 1 in `dets`.

    Returns:
        For each image {class: float32 [n, 5] of x1, y1, x2, y2, score}.
    """
    return _map_by_class(dets, c, s, h, w, num_classes)


def multi_pose_post_process(dets: np.ndarray, c: Sequence, s: Sequence, h: int, w: int) -> list[Detections]:
    """Map people to image pixels.

    Args:
        dets: [B, K, 4 + 1 + 2J + 1] of box, score, joints, class; any number J of joints.
        c, s: centre [2] and scale of each image.
        h, w: sides of the output map.

    Returns:
        For each image {1: float32 [K, 5 + 2J] of box, score, joints x, y}.
    """
    return [{1: mapped} for mapped in _map_to_image(dets, c, s, h, w)]


def exdet_post_process(
    dets: np.ndarray, c: Sequence, s: Sequence, h: int, w: int, num_classes: int
) -> list[Detections]:
    """Map boxes and extreme points to image pixels.

    Args:
        dets: [B, n, 14] of box, score, top, left, bottom, right point, class.
        c, s: centre [2] and scale of each image.
        h, w: sides of the output map.
        num_classes: classes are 0 to num_classes - 1 in `dets`.

    Returns:
        For each image {class: float32 [n, 13] of box, score, points}.
    """
    return _map_by_class(dets, c, s, h, w, num_classes)


def ddd_post_process(
    dets: np.ndarray, c: Sequence, s: Sequence, calibs: Sequence[np.ndarray], opt: 'Options'
) -> list[Detections]:
    """Locate 3D boxes in camera coordinates, each image with its own camera; no row is dropped.

    Args:
        dets: [B, K, 18] of x, y, score, rotation 8, depth, dim 3, w, h, class, or [B, K, 16] without w, h;
            the 2D box is then the one round the projected 3D box.
        c, s: centre [2] and scale of each image.
        calibs: a camera matrix [3, 4] for each image.
        opt: its output_w, output_h, num_classes are read.

    Returns:
        For each image {class: float32 [n, 13] of alpha, x1, y1, x2, y2, h, w, l, X, Y, Z, rotation_y, score}.
    """
    size = (opt.output_w, opt.output_h)
    return [
        _by_class(_locate(rows, center, scale, size, calib), rows[:, -1], opt.num_classes)
        for rows, center, scale, calib in zip(np.asarray(dets), c, s, calibs, strict=True)
    ]


def _locate(
    rows: np.ndarray, center: Sequence, scale: float | Sequence, size: tuple[int, int], P: np.ndarray
) -> np.ndarray:
    """Turn one image's decoded rows [K, 16 or 18] into result rows [K, 13]."""
    middle = transform_preds(rows[:, Decoded.CENTER], center, scale, size)  # [K, 2]
    score, depth, dim = rows[:, Decoded.SCORE], rows[:, Decoded.DEPTH], rows[:, Decoded.DIM]
    alpha = get_alpha(rows[:, Decoded.ROTATION])  # [K]
    location = unproject_2d_to_3d(middle, depth, P)  # [K, 3], middle of the box
    location[:, 1] += dim[:, 0] / 2  # the middle of its bottom
    rotation_y = alpha2rot_y(alpha, middle[:, 0], P[0, 2], P[0, 0])
    if rows.shape[1] == Decoded.COLUMNS:
        half = rows[:, Decoded.SIZE] * (np.ravel(scale)[0] / size[0]) / 2  # [K, 2], scaled without a shift
        box = np.hstack([middle - half, middle + half])  # [K, 4]
    else:
        corners = project_to_image(compute_box_3d(dim, location, rotation_y), P)  # [K, 8, 2]
        box = np.hstack([corners.min(1), corners.max(1)])  # [K, 4]
    return np.column_stack([alpha, box, dim, location, rotation_y, score])  # [K, 13]


def _map_by_class(dets: np.ndarray, c: Sequence, s: Sequence, h: int, w: int, num_classes: int) -> list[Detections]:
    """Map rows as `_map_to_image` does, and group them by class."""
    images = zip(_map_to_image(dets, c, s, h, w), np.asarray(dets), strict=True)
    return [_by_class(mapped, rows[:, -1], num_classes) for mapped, rows in images]


def _map_to_image(dets: np.ndarray, c: Sequence, s: Sequence, h: int, w: int) -> list[np.ndarray]:
    """Map rows [B, K, n] of x1, y1, x2, y2, score, further points, class to the images: float32 [K, n - 1] each."""
    dets = np.asarray(dets)
    points = np.r_[0:4, 5 : dets.shape[2] - 1]  # the columns that are coordinates
    images = []
    for rows, center, scale in zip(dets, c, s, strict=True):
        mapped = rows[:, :-1].astype(np.float32)
        coords = rows[:, points].reshape(len(rows), len(points) // 2, 2)  # [K, points, 2]
        mapped[:, points] = transform_preds(coords, center, scale, (w, h)).reshape(len(rows), len(points))
        images.append(mapped)
    return images


def _by_class(rows: np.ndarray, classes: np.ndarray, num_classes: int) -> Detections:
    rows = rows.astype(np.float32, copy=False)
    return {index + 1: rows[classes == index] for index in range(num_classes)}
