"""Heatmaps in the colours of their classes, and images laid over each other."""

from collections.abc import Sequence

import cv2
import numpy as np

from .colors import Color, class_colors


def heatmap_to_color(
    maps: np.ndarray,
    colors: Sequence[Color] | None = None,
    size: tuple[int, int] | None = None,
    theme: str = 'white',
) -> np.ndarray:
    """Draw heatmaps as one image: every map in its class's colour, the strongest on top.

    Args:
        maps: [C, h, w] in [0, 1].
        colors: BGR, one a map. Default: `class_colors`.
        size: (width, height) of the image; default the maps' own.
        theme: 'white' or 'black', the colour of 0.

    Returns:
        BGR uint8 [height, width, 3].
    """
    maps = np.clip(np.nan_to_num(np.asarray(maps, np.float32)), 0, 1)  # [C, h, w]
    colors = class_colors(len(maps)) if colors is None else colors
    tints = np.array(colors, np.float32).reshape(-1, 3)  # [C, 3]
    if theme == 'white':
        tints = 255 - tints  # drawn as ink: what each colour takes away from white
    image = np.zeros((*maps.shape[1:], 3), np.float32)  # [h, w, 3]
    for heat, tint in zip(maps, tints, strict=True):
        np.maximum(image, heat[..., None] * tint, out=image)
    image = np.rint(255 - image if theme == 'white' else image).astype(np.uint8)
    if size is not None and image.size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return image


def blend(back: np.ndarray, fore: np.ndarray, amount: float = 0.7) -> np.ndarray:
    """Lay `amount` (0 to 1) of image `fore` over image `back`, to whose size it is stretched.

    Args:
        back: BGR uint8 [H, W, 3].
        fore: BGR uint8 [h, w, 3].

    Returns:
        BGR uint8 [H, W, 3].
    """
    if back.size == 0 or fore.size == 0:
        return back.copy()
    if fore.shape[:2] != back.shape[:2]:
        fore = cv2.resize(fore, (back.shape[1], back.shape[0]))
    return cv2.addWeighted(back, 1 - amount, fore, amount, 0)
