"""From an image to the network's inputs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ..utils.image import get_affine_transform, normalize, warp_image
from ..utils.windows import Window, fixed_window, stretched_window, unresized_window

logger = logging.getLogger(__name__)


@dataclass
class PreProcessor:
    """Makes the network's inputs from an image; holds no network, so that loader processes can carry it.

    Attributes:
        input_size: (width, height) of the network's input.
        mean, std: [3] or [1, 1, 3], of BGR channels on [0, 1].
        stride: pixels of the input a cell of the output map.
        pad: input sides are multiples of pad + 1.
        keep_res: each image keeps its resolution.
        test_scales: factors by which the image is resized, one input each.
        normalizes: inputs are normalised; for exported files, which do it inside, they are not.
    """

    input_size: tuple[int, int]
    mean: np.ndarray
    std: np.ndarray
    stride: int
    pad: int
    keep_res: bool
    test_scales: list[float]
    warned: bool = False
    normalizes: bool = True

    def __call__(self, image: np.ndarray, scale: float = 1.0) -> tuple[np.ndarray, dict]:
        """Make the input of one test scale.

        Args:
            image: uint8 BGR [H, W, 3].
            scale: the image is resized by it first.

        Returns:
            float32 [1, 3, h, w], or where it does not normalise uint8 BGR [1, h, w, 3], and its meta: `c`, `s` of the
            window, `out_height`, `out_width` of the output map, `height`, `width` of the image.
        """
        height, width = image.shape[:2]
        resized_size = max(int(width * scale), 1), max(int(height * scale), 1)
        window = self.window((width, height), resized_size)
        resized = image if scale == 1 else cv2.resize(image, resized_size)
        to_input = get_affine_transform(window.center, window.scale, 0, window.input_size)
        warped = warp_image(resized, to_input, window.input_size)
        meta = {
            'c': window.center,
            's': window.scale,
            'out_height': window.input_size[1] // self.stride,
            'out_width': window.input_size[0] // self.stride,
            'height': height,
            'width': width,
        }
        return (self.normalized(warped) if self.normalizes else warped)[None], meta

    def normalized(self, image: np.ndarray) -> np.ndarray:
        """Return an image uint8 BGR [H, W, 3] of the input's size as the network takes it, float32 [3, H, W]."""
        return normalize(image, self.mean, self.std)

    def prefetch(self, image: np.ndarray, meta: Mapping | None = None) -> dict:
        """Make what `BaseDetector.run` takes in place of an image, BGR uint8 [H, W, 3]: it and all scales' inputs."""
        inputs = [self(image, scale) for scale in self.test_scales]
        return {'image': image, 'inputs': inputs, 'meta': meta or {}}

    def window(self, size: tuple[int, int], resized_size: tuple[int, int]) -> Window:
        """Return the window round an image, in pixels of the resized image.

        Args:
            size, resized_size: (width, height) of the image, before and after it is resized by the test scale.
        """
        if self.keep_res:
            return unresized_window(resized_size, self.pad, floor_center=True)
        if resized_size[0] > size[0] and not self.warned:
            self.warned = True
            logger.warning(
                'note: test scales over 1 at a fixed input size see only the middle of the image; --keep_res sees all'
            )
        return fixed_window(resized_size, self.input_size, longer_side=max(size))


class StretchingPreProcessor(PreProcessor):
    """The image's width fills the input's (ddd); there is one test scale."""

    def window(self, size: tuple[int, int], resized_size: tuple[int, int]) -> Window:
        """Return the window round the whole image, whose sides the scale are; with `keep_res` those of the input."""
        return stretched_window(size, self.input_size, self.keep_res)
