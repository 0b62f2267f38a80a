"""The window of an image that a network sees: the same for training, validation and inference.

`get_affine_transform(window.center, window.scale, 0, window.input_size)` maps image pixels to the network's input.
"""

from typing import NamedTuple

import numpy as np

Scale = float | np.ndarray  # width in image pixels that fills the input's width; a number, or [2] with the height too
Size = tuple[int, int]  # width, height


class Window(NamedTuple):
    """A window.

    Attributes:
        center: float32 [2], x, y in image pixels: the middle of the network's input.
        scale: a float, or float32 [2] (width, height) of which only the width counts: image pixels that fill the
            input's width.
        input_size: (width, height) of the network's input in pixels.
    """

    center: np.ndarray
    scale: Scale
    input_size: Size


def fixed_window(size: Size, input_size: Size, longer_side: int | None = None) -> Window:
    """Return the window round an image for a fixed input size (`--fix_res`): its longer side fills a square input.

    Args:
        size: (width, height) of the image.
        input_size: (width, height) of the network's input.
        longer_side: the scale, where it is not the image's longer side: a test scale resizes the image and keeps the
            scale of the original, which is what makes it zoom [keep].
    """
    return Window(middle(size), float(longer_side or max(size)), input_size)


def unresized_window(size: Size, pad: int, floor_center: bool = False) -> Window:
    """Return the window round an image at its own resolution (`--keep_res`), padded at its lower right for the network.

    Each side of the input is `(side | pad) + 1`: the next multiple of pad + 1 above the side, so that a side that is
    a multiple already gets one more [keep: published inputs were padded so].

    Args:
        size: (width, height) of the image.
        pad: the network's input multiple minus 1.
        floor_center: round the centre down to a whole pixel, as testing does and training does not [keep: published
            results were computed so].
    """
    input_size = (size[0] | pad) + 1, (size[1] | pad) + 1
    center = np.floor(middle(size)) if floor_center else middle(size)
    return Window(center, np.array(input_size, np.float32), input_size)


def stretched_window(size: Size, input_size: Size, keep_res: bool) -> Window:
    """Return the window of 3D detection: the image's width fills the input's.

    Args:
        size: (width, height) of the image.
        input_size: (width, height) of the network's input.
        keep_res: the image keeps its resolution instead; the scale is the input's size.
    """
    return Window(middle(size), np.array(input_size if keep_res else size, np.float32), input_size)


def middle(size: Size) -> np.ndarray:
    """Return the centre, float32 [2], of an image of `size` (width, height)."""
    return np.array([size[0] / 2, size[1] / 2], np.float32)
