"""Class names beside boxes, such that they stay readable."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from .colors import BLACK, WHITE, Color, text_color
from .sizes import FONT, SMALLEST_TEXT, font_scale, line_width, pixels


def draw_labels(image: np.ndarray, labels: Iterable[tuple[Sequence[float], str, Color]]) -> np.ndarray:
    """Write names on filled backgrounds beside their boxes, in place.

    Args:
        image: BGR uint8 [H, W, 3].
        labels: (box [4] in pixels, text, BGR colour), the most important first: it gets the best place, over
            the box's upper left corner; later ones go to a free place near their box, never cover earlier
            ones, and are left out where these would hide most of them.
    """
    placed: list[tuple] = []
    for box, text, color in labels:
        corners = pixels(box)
        text, scale, thickness, size = fit_text(image, text)
        if corners is None or not text:
            continue
        left, top = min(places(image, corners, size), key=lambda place: covered(place, size, placed))
        if covered((left, top), size, placed) > size[0] * size[1] // 2:
            continue
        placed.append((left, top, size, text, scale, thickness, color))
    for left, top, (width, height), text, scale, thickness, color in reversed(placed):
        cv2.rectangle(image, (left, top), (left + width - 1, top + height - 1), color, cv2.FILLED)
        (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, thickness)
        corner = (left + (width - text_width) // 2, top + (height + text_height - below // 2) // 2)
        cv2.putText(image, text, corner, FONT, scale, text_color(color), thickness, cv2.LINE_AA)
    return image


def caption(image: np.ndarray, text: str) -> np.ndarray:
    """Return an image [H, W, 3] under a strip with a text, [H + h, W, 3]; the strip covers nothing of it."""
    text, scale, thickness, (_, height) = fit_text(image, text)
    strip = np.full((height, image.shape[1], 3), BLACK, np.uint8)
    if text:
        (_, text_height), below = cv2.getTextSize(text, FONT, scale, thickness)
        corner = (max(2, text_height // 4), (height + text_height - below // 2) // 2)
        cv2.putText(strip, text, corner, FONT, scale, WHITE, thickness, cv2.LINE_AA)
    return np.vstack([strip, image])


def fit_text(image: np.ndarray, text: str) -> tuple[str, float, int, tuple[int, int]]:
    """Fit a label into the image [H, W, 3]: returns its text, font scale, thickness and (width, height) in pixels.

    A label that is too wide gets smaller letters, then fewer; no text is left where not even one letter fits.
    """
    height, width = image.shape[:2]
    scale = font_scale(image)
    while text:
        thickness = max(1, round(scale * 1.2))
        (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, thickness)
        size = (text_width + max(4, text_height // 2), text_height + below + max(2, text_height // 4))
        if size[0] <= width and size[1] <= height:
            break
        if scale > SMALLEST_TEXT:
            scale = max(SMALLEST_TEXT, scale * 0.85)
        else:
            text = text[:-1].rstrip()
    return (text, scale, thickness, size) if text else ('', scale, 1, (0, 0))


def places(image: np.ndarray, corners: list[tuple[int, int]], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the upper left corners where a label of `size` (width, height) may stand in `image` [H, W, 3]."""
    (x1, y1), (x2, y2) = corners
    width, height = size
    pad = line_width(image) // 2
    x1, y1, x2, y2 = x1 - pad, y1 - pad, x2 + pad + 1, y2 + pad + 1
    wished = [
        (x1, y1 - height),  # over the box
        (x2 - width, y1 - height),
        (x1, y1),  # inside it
        (x1, y2),  # under it
        (x2 - width, y2),
        (x2, y1),  # beside it
        (x1, y2 - height),
        (x1, (y1 + y2 - height) // 2),
    ]
    room = [(left, top) for left, top in wished if 0 <= top <= image.shape[0] - height]
    bottom, right = image.shape[0] - height, image.shape[1] - width
    return [(min(max(left, 0), right), min(max(top, 0), bottom)) for left, top in room or wished]


def covered(place: tuple[int, int], size: tuple[int, int], placed: list[tuple]) -> int:
    """Count the pixels of labels in `placed` that a label of `size` at `place` would cover."""
    left, top = place
    width, height = size
    total = 0
    for other_left, other_top, (other_width, other_height), *_ in placed:
        shared_width = min(left + width, other_left + other_width) - max(left, other_left)
        shared_height = min(top + height, other_top + other_height) - max(top, other_top)
        total += max(shared_width, 0) * max(shared_height, 0)
    return total
