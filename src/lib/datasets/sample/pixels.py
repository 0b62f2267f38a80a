"""Augmentation of the pixels of a training image, after its window is cut out: one place for all tasks."""

from typing import TYPE_CHECKING

import numpy as np

from ...utils.image import EIG_VAL, EIG_VEC, color_transform, mean_gray

if TYPE_CHECKING:
    from ...opts import Options

ColorMap = tuple[np.ndarray, np.ndarray]  # A [3, 3], b [3]: x -> A x + b of BGR pixels in [0, 1]


def augment_pixels(rng: np.random.Generator, window: np.ndarray, opt: 'Options') -> tuple[np.ndarray, ColorMap | None]:
    """Augment what the network sees of an image.

    An augmentation that is no affine map of colours (blur, noise, erasing) is a step here that changes `window`; its
    random numbers come from `rng`, and are drawn after those that are drawn now, so that runs without it stay the same.

    Args:
        rng: the sample's random numbers; they depend on (seed, epoch, image) alone.
        window: uint8 BGR [H, W, 3] of the network's input size.
        opt: options; `no_color_aug` leaves colours as they are.

    Returns:
        The window, and the map of its colours (section 5.1), which normalisation applies in the same pass; None
        where colours stay.
    """
    color = None if opt.no_color_aug else color_transform(rng, mean_gray(window) / 255, EIG_VAL, EIG_VEC)
    return window, color
