"""3D boxes seen from above."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..detections import Detection
from ..thresholds import Thresholds, reaches
from .colors import BLACK, WHITE, Color, text_color
from .detections import box_corners, detection_color
from .shapes import draw_line
from .sizes import FONT, font_scale, line_width, pixel, pixels

BIRD_SIDE = 512  # pixels of the image


def bird_view(
    predicted: Iterable[Detection],
    truth: Iterable[Detection] = (),
    thresh: Thresholds = 0.0,
    theme: str = 'white',
) -> np.ndarray:
    """Draw 3D boxes as seen from above, over a grid in metres, with the camera in the middle of the lower edge.

    From the lower to the upper edge, and from left to right, are as many metres as the boxes need: 20 to 100.

    Args:
        predicted: detections with `dim`, `location`, `rotation_y` and a score >= `thresh`, in the colours of
            their classes; the thick side is the front.
        truth: annotations alike, filled in grey.
        theme: 'white' or 'black', the ground's colour.

    Returns:
        BGR uint8 [512, 512, 3].
    """
    found = _grounds(each for each in predicted if reaches(thresh, each))
    true = _grounds(truth)
    every = np.concatenate([corners for corners, _ in found + true] or [np.zeros((1, 2))])  # [n, 2]
    needed = max(2 * np.abs(every[:, 0]).max(), every[:, 1].max())
    extent = float(np.clip(np.ceil(needed / 10) * 10, 20, 100))
    ground, lines, filled = (WHITE, 215, 170) if theme == 'white' else (BLACK, 60, 110)
    image = np.full((BIRD_SIDE, BIRD_SIDE, 3), ground, np.uint8)

    def to_pixels(corners: ArrayLike) -> np.ndarray:
        x, z = np.asarray(corners, np.float64).T
        return np.stack([x / extent + 0.5, 1 - z / extent], 1) * (BIRD_SIDE - 1)  # [n, 2]

    for corners, _ in true:
        cv2.fillPoly(image, [np.array(pixels(to_pixels(corners)))], (filled,) * 3, cv2.LINE_AA)
    _draw_grid(image, extent, to_pixels, (lines,) * 3, text_color(ground))
    width = line_width(image)
    for corners, _ in true:
        _draw_ground(image, to_pixels(corners), (filled // 2,) * 3, 1)
    for corners, box_color in found:
        _draw_ground(image, to_pixels(corners), box_color, width)
    return image


def _grounds(detections: Iterable[Detection]) -> list[tuple[np.ndarray, Color]]:
    """Return ground corners [4, 2] (X, Z in metres, the front's two first) and colour of each 3D box."""
    solids = [(box_corners(each), detection_color(each)) for each in detections]
    return [(corners[:4, [0, 2]], color) for corners, color in solids if corners is not None]


def _draw_ground(image: np.ndarray, corners: np.ndarray, color: Color, width: int) -> None:
    for index in range(4):
        thickness = 3 * width if index == 0 else width
        draw_line(image, corners[index], corners[(index + 1) % 4], color, thickness)


def _draw_grid(image: np.ndarray, extent: float, to_pixels: Callable, color: Color, ink: Color) -> None:
    """Draw lines each 10 metres with their distances, and a mark where the camera is, in place."""
    half = extent / 2
    for metres in np.arange(0, extent + 1, 10):
        left, right = to_pixels([(-half, metres), (half, metres)])
        draw_line(image, left, right, color, 1)
        for side in (-metres, metres):
            if abs(side) <= half:
                near, far = to_pixels([(side, 0), (side, extent)])
                draw_line(image, near, far, color, 1)
        if 0 < metres < extent:
            corner = pixel(left)
            text, scale = f'{metres:.0f} m', font_scale(image)
            cv2.putText(image, text, (corner[0] + 3, corner[1] - 3), FONT, scale, ink, 1, cv2.LINE_AA)
    camera = pixel(to_pixels([(0, 0)]))
    cv2.circle(image, camera, 3 * line_width(image), ink, cv2.FILLED, cv2.LINE_AA)
