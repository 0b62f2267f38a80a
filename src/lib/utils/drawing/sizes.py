"""How large lines and text are on an image, and which coordinates OpenCV can draw at."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

FONT = cv2.FONT_HERSHEY_SIMPLEX
SMALLEST_TEXT = 0.4  # font scale, about 9 pixels of height: under it letters run into one another
READABLE_SIDE = 480  # pixels: programs enlarge smaller images to it, so that names can be read
FARTHEST_PIXEL = 1_100_000  # past every image that OpenCV holds (2^20 a side), and safe in its fixed-point lines


def image_size(image: np.ndarray) -> float:
    """Return the side of the square with the area of an image [H, W, 3], which line widths and text follow."""
    return float(np.sqrt(image.shape[0] * image.shape[1]))


def line_width(image: np.ndarray) -> int:
    """Return the width in pixels of a box's line on an image [H, W, 3], at least 2."""
    return max(2, round(image_size(image) / 330))


def font_scale(image: np.ndarray) -> float:
    """Return the font scale of labels: a capital letter is 1/52 of the size of the image [H, W, 3], and legible."""
    return max(SMALLEST_TEXT, image_size(image) / 52 / 22)


def enlarge_small(image: np.ndarray, least: int) -> tuple[np.ndarray, int]:
    """Enlarge an image [H, W, 3] whose longer side is under `least` pixels by a whole factor; returns both."""
    factor = max(1, least // max(*image.shape[:2], 1))
    if factor == 1 or image.size == 0:
        return image, 1
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST), factor


def pixel(point: ArrayLike) -> tuple[int, int]:
    """Round a finite point [2] to a whole pixel for cv2."""
    x, y = np.clip(np.rint(np.asarray(point, np.float64).reshape(2)), -FARTHEST_PIXEL, FARTHEST_PIXEL).astype(int)
    return int(x), int(y)


def pixels(points: ArrayLike) -> list[tuple[int, int]] | None:
    """Round `points` [n, 2] to whole pixels for cv2; None when one of them isn't finite."""
    points = np.asarray(points, np.float64).reshape(-1, 2)  # [n, 2]
    if not np.isfinite(points).all():
        return None
    return [(x, y) for x, y in np.clip(np.rint(points), -FARTHEST_PIXEL, FARTHEST_PIXEL).astype(int).tolist()]
