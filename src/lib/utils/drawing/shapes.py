"""Boxes, joints, extreme points and 3D boxes, each drawn in place on a BGR image; what isn't finite is left out."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .colors import BLACK, WHITE, Color, rainbow, text_color
from .labels import draw_labels
from .sizes import line_width, pixel, pixels

HALO = 2  # pixels by which the line under a line is wider, of the contrary brightness: seen on any ground
HIDDEN, VISIBLE = 1, 2  # COCO's visibility flags; 0 is a joint without a place


def draw_outline(image: np.ndarray, box: Sequence[float], color: Color) -> np.ndarray:
    """Draw a box [x1, y1, x2, y2] in pixels without a name on an image [H, W, 3], in place, in a halo."""
    corners = pixels(box)
    if corners is not None and image.size:
        width = line_width(image)
        cv2.rectangle(image, corners[0], corners[1], text_color(color), width + HALO)
        cv2.rectangle(image, corners[0], corners[1], color, width)
    return image


def draw_box(image: np.ndarray, box: Sequence[float], label: str = '', color: Color = BLACK) -> np.ndarray:
    """Draw a box [x1, y1, x2, y2] in pixels with its name on an image [H, W, 3], in place.

    An empty `label` draws the box alone.
    """
    draw_outline(image, box, color)
    return draw_labels(image, [(box, label, color)])


def draw_line(image: np.ndarray, start: ArrayLike, end: ArrayLike, color: Color, width: int) -> None:
    """Draw a smooth line between two points [2] on an image [H, W, 3], in place."""
    ends = pixels(np.stack([start, end]))
    if ends is not None:
        cv2.line(image, ends[0], ends[1], color, width, cv2.LINE_AA)


def draw_keypoints(
    image: np.ndarray,
    points: np.ndarray,
    skeleton: Sequence[tuple[int, int]] = (),
    visibility: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw joints in the colours of the rainbow, and limbs in those of their second joints, in place.

    Args:
        image: BGR uint8 [H, W, 3].
        points: [J, 2] in pixels.
        skeleton: limbs as pairs of 0-based joints; pairs that name no joint are left out.
        visibility: [J], COCO's flags: 0 not drawn, 1 (hidden) hollow, 2 filled. Default: all filled.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)  # [J, 2]
    count = len(points)
    if image.size == 0 or count == 0:
        return image
    colors = rainbow(count)
    visibility = [VISIBLE] * count if visibility is None else visibility
    shown = (np.asarray(visibility) > 0) & np.isfinite(points).all(1)  # [J]
    width = line_width(image)
    for first, second in skeleton:
        if min(first, second) >= 0 and max(first, second) < count and shown[first] and shown[second]:
            draw_line(image, points[first], points[second], colors[second], width)
    radius = max(1, round(1.6 * width))
    for index in np.flatnonzero(shown).tolist():
        center = pixel(points[index])
        if visibility[index] >= VISIBLE:
            cv2.circle(image, center, radius + max(1, width // 2), BLACK, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(image, center, radius, colors[index], cv2.FILLED, cv2.LINE_AA)
        else:
            cv2.circle(image, center, radius, colors[index], max(1, width // 2), cv2.LINE_AA)
    return image


def octagon(points: np.ndarray) -> np.ndarray:
    """Return the eight corners [8, 2] that ExtremeNet draws round extreme points [4, 2] (top, left, bottom, right).

    Each point becomes a segment of a quarter of its side of the box, cut at the box's corners.
    """
    top, left, bottom, right = np.asarray(points, np.float64).reshape(4, 2)
    low, high = np.array([left[0], top[1]]), np.array([right[0], bottom[1]])
    across, down = np.diag((high - low) / 8)
    corners = [top + across, top - across, left - down, left + down]
    corners += [bottom - across, bottom + across, right + down, right - down]
    return np.clip(corners, np.minimum(low, high), np.maximum(low, high))  # [8, 2]


def draw_extreme_points(image: np.ndarray, points: np.ndarray, color: Color) -> np.ndarray:
    """Draw extreme points [4, 2] (top, left, bottom, right) in pixels and the octagon through them, in place."""
    corners, centers = pixels(octagon(points)), pixels(points)
    if image.size == 0 or corners is None or centers is None:
        return image
    width = line_width(image)
    cv2.polylines(image, [np.array(corners)], True, color, width, cv2.LINE_AA)
    for center in centers:
        cv2.circle(image, center, 2 * width, WHITE, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, center, 2 * width, color, max(1, width // 2), cv2.LINE_AA)
    return image


def draw_box_3d(image: np.ndarray, corners: np.ndarray, color: Color) -> np.ndarray:
    """Draw a 3D box with a cross on its front, in place, in a halo.

    Args:
        image: BGR uint8 [H, W, 3].
        corners: [8, 2] in pixels, ordered as by `compute_box_3d`: four of the ground, then four of the roof.
    """
    corners = np.asarray(corners, np.float64).reshape(8, 2)  # [8, 2]
    if image.size == 0:
        return image
    width = line_width(image)
    edges = [(index, (index + 1) % 4, width) for index in range(4)]
    edges += [(index + 4, following + 4, width) for index, following, _ in edges]
    edges += [(index, index + 4, width) for index in range(4)]
    edges += [(start, end, max(1, width // 2)) for start, end in ((0, 5), (1, 4))]
    for ink, wider in ((text_color(color), HALO), (color, 0)):
        for start, end, thickness in edges:
            draw_line(image, corners[start], corners[end], ink, thickness + wider)
    return image
