"""3D boxes seen by one camera, in KITTI's conventions.

Camera coordinates are metres, x right, y down, z forward. A box is `dim` (height, width, length), the middle
of its bottom face `location` and its turn about the y axis `rotation_y`. P is the camera matrix [3, 4].
Functions take one object, or many along leading dimensions.
"""

import os
from pathlib import Path

import numpy as np

from .errors import UserError
from .files import read_text

Numbers = np.ndarray | float  # one an object

DEFAULT_CALIB = np.array(
    [[707.0493, 0, 604.0814, 45.75831], [0, 707.0493, 180.5066, -0.3454157], [0, 0, 1, 0.004981016]],
    np.float32,
)

# The eight corners as fractions of length, height, width from the middle of the bottom.
_CORNERS = np.array(
    [
        [0.5, 0.5, -0.5, -0.5, 0.5, 0.5, -0.5, -0.5],
        [0, 0, 0, 0, -1, -1, -1, -1],
        [0.5, -0.5, -0.5, 0.5, 0.5, -0.5, -0.5, 0.5],
    ]
).T


def compute_box_3d(dim: np.ndarray, location: np.ndarray, rotation_y: np.ndarray | float) -> np.ndarray:
    """Return the corners of 3D boxes, the bottom four first, in camera coordinates.

    Args:
        dim: [..., 3], height, width, length.
        location: [..., 3], middle of the bottom face.
        rotation_y: [...], radians.

    Returns:
        float32 [..., 8, 3].
    """
    size = np.asarray(dim, np.float64)[..., None, [2, 0, 1]]  # [..., 1, 3]
    x, y, z = np.moveaxis(_CORNERS * size, -1, 0)  # [..., 8] each
    angle = np.asarray(rotation_y, np.float64)[..., None]  # [..., 1]
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=-1)  # [..., 8, 3]
    return (turned + np.asarray(location, np.float64)[..., None, :]).astype(np.float32)


def project_to_image(pts_3d: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Project points [..., 3] in camera coordinates by a camera matrix P [3, 4]; returns pixels [..., 2]."""
    image = np.asarray(pts_3d) @ P[:, :3].T + P[:, 3]  # [..., 3]
    return image[..., :2] / image[..., 2:]


def unproject_2d_to_3d(pt_2d: np.ndarray, depth: np.ndarray | float, P: np.ndarray) -> np.ndarray:
    """Return the camera coordinates, float32 [..., 3], of pixels [..., 2] seen at `depth` [...] metres by P [3, 4]."""
    pt_2d, depth = np.asarray(pt_2d), np.asarray(depth)
    z = depth - P[2, 3]  # [...]
    x = (pt_2d[..., 0] * depth - P[0, 3] - P[0, 2] * z) / P[0, 0]
    y = (pt_2d[..., 1] * depth - P[1, 3] - P[1, 2] * z) / P[1, 1]
    return np.stack([x, y, z], axis=-1).astype(np.float32)


def alpha2rot_y(alpha: Numbers, x: Numbers, cx: float, fx: float) -> Numbers:
    """Return the turn about the y axis of an object seen under the observation angle `alpha` at pixel column `x`.

    Args:
        alpha: [...], radians: the turn relative to the ray from the camera to the object.
        x: [...], column of the object's centre.
        cx, fx: P[0, 2] and P[0, 0].

    Returns:
        [...], radians, brought into [-pi, pi] by one turn at most.
    """
    return _wrap(alpha + np.arctan2(x - cx, fx))


def rot_y2alpha(rot_y: Numbers, x: Numbers, cx: float, fx: float) -> Numbers:
    """Return the observation angle of an object turned by `rot_y` [...] about the y axis: inverse of `alpha2rot_y`."""
    return _wrap(rot_y - np.arctan2(x - cx, fx))


def _wrap(angle: Numbers) -> Numbers:
    return angle - 2 * np.pi * (angle > np.pi) + 2 * np.pi * (angle < -np.pi)


def alpha_bins(alpha: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Encode an observation angle as the rotation head learns it (appendix of the paper: two overlapping bins).

    Args:
        alpha: [...], radians in [-pi, pi].

    Returns:
        int64 [..., 2], whether alpha lies in bin 1 (about -pi/2) and in bin 2 (about pi/2); float32 [..., 2], alpha
        minus the middle of each bin that it lies in, otherwise 0.
    """
    alpha = np.asarray(alpha, np.float64)[..., None]  # [..., 1]
    first = (alpha < np.pi / 6) | (alpha > 5 * np.pi / 6)
    second = (alpha > -np.pi / 6) | (alpha < -5 * np.pi / 6)
    bins = np.concatenate([first, second], -1)  # [..., 2]
    residuals = np.where(bins, alpha - np.array([-np.pi / 2, np.pi / 2]), 0)  # [..., 2]
    return bins.astype(np.int64), residuals.astype(np.float32)


def get_alpha(rot: np.ndarray) -> np.ndarray:
    """Decode the observation angle from the eight numbers of the rotation head (appendix of the paper: two bins).

    Args:
        rot: [..., 8], twice (logit no, logit yes, sin, cos): bin 1 about -pi/2, bin 2 about pi/2.

    Returns:
        [...], radians in [-3/2 pi, 3/2 pi], from the bin whose second logit is larger; the first logits do
        not count [keep: published behaviour].
    """
    first = np.arctan2(rot[..., 2], rot[..., 3]) - np.pi / 2  # [...]
    second = np.arctan2(rot[..., 6], rot[..., 7]) + np.pi / 2  # [...]
    return np.where(rot[..., 1] > rot[..., 5], first, second)


def common_calib(path: str) -> np.ndarray:
    """Return the camera matrix [3, 4] of images without their own: from the file `--calib`, or KITTI's published P2.

    Raises:
        UserError: the file is no calibration, or `--calib` is a folder without any.
    """
    if os.path.isdir(path):
        if not any(Path(path).glob('*.txt')):
            raise UserError(f"--calib '{path}' holds no calibration: expected a file IMAGE.txt for each image")
        return DEFAULT_CALIB
    return read_calib(path) if path else DEFAULT_CALIB


def calib_of_image(path: str, image_name: str) -> np.ndarray | None:
    """Return the camera matrix [3, 4] of the image of that name, when `--calib` is a folder that has one for it.

    Raises:
        UserError: the file there is no calibration.
    """
    own = Path(path, Path(image_name).stem + '.txt')
    return read_calib(own) if os.path.isdir(path) and own.exists() else None


def read_calib(path: str | os.PathLike) -> np.ndarray:
    """Read the matrix of the left colour camera, `P2`, of a KITTI calibration file: float32 [3, 4].

    Raises:
        UserError: the file is missing, or has no line `P2:` with twelve numbers.
    """
    try:
        lines = [line.split() for line in read_text(path).splitlines()]
    except OSError as error:
        raise UserError(f"cannot read the calibration '{path}': {error.strerror}") from None
    numbers = next((words[1:] for words in lines if words[:1] == ['P2:']), None)
    found = "no line 'P2:'" if numbers is None else f"'{' '.join(numbers)}'"
    try:
        calib = np.array(numbers or [], np.float32).reshape(3, 4)
    except ValueError:
        calib = np.zeros((3, 4), np.float32)
    if not is_calibration(calib):
        raise UserError(f"'{path}' is no KITTI calibration: expected 'P2:' and 12 numbers, found {found}")
    return calib


def is_calibration(calib: np.ndarray) -> np.ndarray:
    """Return whether matrices [..., 3, 4] are finite and have focal lengths over 0; bool [...]."""
    return np.isfinite(calib).all((-2, -1)) & (calib[..., 0, 0] > 0) & (calib[..., 1, 1] > 0)
