"""JPEGs decoded by simplejpeg, where it is installed (the extra `fast-images`): OpenCV's pixels, sooner."""

import functools
import logging
from collections.abc import Callable
from types import ModuleType

import cv2
import numpy as np

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

logger = logging.getLogger(__name__)

COLORS = ('YCbCr', 'Gray')  # OpenCV converts others in a way of its own
# EXIF orientation -> what turns the stored pixels upright.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def decode_jpeg(data: bytes, reduction: int, orientation: int) -> np.ndarray | None:
    """Decode a JPEG to the pixels that OpenCV decodes it to.

    Args:
        data: the file's bytes.
        reduction: 1, 2, 4 or 8, by which both sides are divided, rounded up.
        orientation: EXIF's number, 1 to 8, by which the image is turned.

    Returns:
        uint8 BGR [H, W, 3]; None where it is up to OpenCV: simplejpeg is not installed or differs, or the file is
        damaged or of other colours.

    Raises:
        MemoryError: the image is larger than the memory.
    """
    decoder = trusted_decoder()
    if decoder is None:
        return None
    try:
        height, width, colors, _ = decoder.decode_jpeg_header(data)
        if colors not in COLORS:
            return None
        sides = -(-height // reduction), -(-width // reduction)
        image = decoder.decode_jpeg(
            data, colorspace='BGR', min_height=sides[0], min_width=sides[1], min_factor=reduction
        )
    except ValueError:
        return None
    return TURNS[orientation](image) if image.shape[:2] == sides else None


@functools.cache
def trusted_decoder() -> ModuleType | None:
    """Return simplejpeg, if it is installed and decodes a sample as OpenCV does here; a line says where it does not."""
    if simplejpeg is None:
        return None
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    data = cv2.imencode('.jpg', cv2.GaussianBlur(noise, (5, 5), 0))[1]
    ours, theirs = simplejpeg.decode_jpeg(data.tobytes(), colorspace='BGR'), np.asarray(cv2.imdecode(data, 1))
    difference = np.abs(ours.astype(int) - theirs).max()
    if difference > 0:
        logger.warning(
            'note: simplejpeg is not used: its pixels differ from those of this OpenCV by up to %d of 255', difference
        )
        return None
    return simplejpeg
