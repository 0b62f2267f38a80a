"""Affine maps between an image and the network's input or output map."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

LARGEST_WARPED = 32_766  # pixels a side: OpenCV 4 refuses larger images in its warp


def get_affine_transform(
    center: Sequence[float] | np.ndarray,
    scale: float | Sequence[float] | np.ndarray,
    rot: float,
    output_size: Sequence[int],
    shift: Sequence[float] = (0, 0),
    inv: int = 0,
) -> np.ndarray:
    """Return the similarity between an image and the network's input (or output map).

    dst = (W / s) R (src - c) + (W/2, H/2), R = [[cos, sin], [-sin, cos]]. Only the width takes part in the
    factor, and a scale's second entry is never used [keep: published inputs were made so].

    Args:
        center: (x, y) in the image that comes to the middle of the output.
        scale: width in image pixels that fills the output's width; a number, or (w, h) of which w counts.
        rot: degrees, turning the content counter-clockwise on the screen.
        output_size: (W, H) of the output.
        shift: moves the centre, in fractions of the scale.
        inv: truthy for the matrix from output to image.

    Returns:
        float64 [2, 3], as cv2.warpAffine and `affine_transform` take it.
    """
    side = float(np.ravel(scale)[0])
    angle = math.radians(rot)
    factor = side / output_size[0] if inv else output_size[0] / side
    cos, sin = math.cos(angle) * factor, math.sin(angle) * factor
    matrix = np.array([[cos, -sin], [sin, cos]] if inv else [[cos, sin], [-sin, cos]])  # [2, 2]
    source = np.asarray(center, np.float64)[:2] + side * np.asarray(shift, np.float64)  # [2]
    target = np.array([output_size[0] / 2, output_size[1] / 2])  # [2]
    if inv:
        source, target = target, source
    return np.column_stack([matrix, target - matrix @ source])  # [2, 3]


def affine_transform(pt: np.ndarray | Sequence[float], t: np.ndarray) -> np.ndarray:
    """Map one point [2], or many [..., 2], by a matrix [2, 3]; returns float64 of the same shape."""
    return np.asarray(pt, np.float64) @ t[:, :2].T + t[:, 2]  # [..., 2]


def transform_preds(
    coords: np.ndarray,
    center: Sequence[float] | np.ndarray,
    scale: float | Sequence[float] | np.ndarray,
    output_size: Sequence[int],
) -> np.ndarray:
    """Map points of the output map to the image.

    Args:
        coords: [..., 2], x, y in cells of the map.
        center: (x, y) in the image that is the middle of the map.
        scale: width in image pixels that fills the map's width; a number, or (w, h) of which w counts.
        output_size: (w, h) of the map.

    Returns:
        float64 [..., 2], x, y in image pixels.
    """
    return affine_transform(coords, get_affine_transform(center, scale, 0, output_size, inv=1))


def warp_image(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warp an image bilinearly by an affine map; what lies outside of it is black.

    Images beyond `LARGEST_WARPED` a side, which `cv2.warpAffine` of OpenCV 4 refuses, are warped in blocks.

    Args:
        image: uint8 [h, w, 3], of any size.
        matrix: [2, 3], from pixels of the image to pixels of the result.
        size: (W, H) of the result.

    Returns:
        uint8 [H, W, 3].
    """
    if max(*image.shape[:2], *size) <= LARGEST_WARPED:
        return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    back = cv2.invertAffineTransform(np.asarray(matrix, np.float64))  # [2, 3]
    # A block this large reads at most half of LARGEST_WARPED along each side of the image.
    block = max(1, int(min(1, 1 / np.abs(back[:, :2]).sum(1).max()) * LARGEST_WARPED / 2))
    warped = np.zeros((size[1], size[0], *image.shape[2:]), image.dtype)
    for top in range(0, size[1], block):
        for left in range(0, size[0], block):
            piece = warped[top : top + block, left : left + block]
            height, width = piece.shape[:2]
            right, bottom = left + width, top + height
            corners = affine_transform(
                np.array([(left, top), (right, top), (left, bottom), (right, bottom)]), back
            )  # [4, 2]
            low = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, image.shape[1::-1])  # [2]
            high = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 0, image.shape[1::-1])  # [2]
            if (high <= low).any():
                continue
            source = image[low[1] : high[1], low[0] : high[0]]
            offset = affine_transform(low, matrix) - (left, top)  # [2], the source's first pixel in the piece
            of_piece = np.column_stack([matrix[:, :2], offset])  # [2, 3]
            piece[...] = cv2.warpAffine(source, of_piece, (width, height), flags=cv2.INTER_LINEAR)
    return warped
