"""Reading images from files, and taking those of Pillow."""

import contextlib
import functools
import io
import mmap
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..errors import UserError
from .fast_jpeg import TURNS, decode_jpeg

# Pixels of the largest image that is decoded, unless another number is given or half of the memory holds fewer: a file
# of a few kilobytes may claim any number (a decompression bomb).
MAX_PIXELS = 500_000_000
BYTES_A_PIXEL = 3

# Reduction of both sides -> cv2's flag.
READ_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
JPEG_START = b'\xff\xd8'
JPEG_END = b'\xff\xd9'
PNG_START = b'\x89PNG\r\n\x1a\n'
PNG_END = b'IEND\xaeB`\x82'  # name and checksum of the last chunk
MARKS = 8  # bytes at either end of a file that show whether it is a JPEG or PNG and has its end


def read_image(
    path: str | os.PathLike,
    size: tuple[int, int] | None = None,
    reduction: int = 1,
    max_pixels: int = 0,
) -> np.ndarray:
    """Read an image file of any depth and number of channels.

    Args:
        path: anything that OpenCV or Pillow decodes; grey, alpha and 16 bit become 8-bit BGR. Of an animation the
            first frame.
        size: (width, height) that a dataset's JSON gives. The EXIF orientation is applied, unless only the
            image as it is stored has that size (its boxes were then drawn on the stored one).
        reduction: 2, 4 or 8 decode a JPEG faster to sides divided by it, rounded up. Its pixel (x, y) then lies at
            reduction * (x, y) + (reduction - 1) / 2 of the image. Where that would not be so, the image is read in
            full: other formats, and JPEGs that an EXIF orientation may turn, unless both sides divide.
        max_pixels: an image of more pixels is refused before it is decoded; 0 for `MAX_PIXELS`, or as many as half of
            the memory holds if these are fewer.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        UserError: the file is missing, not an image, cut short, over `max_pixels`, or larger than the memory.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for its writer
            raise UserError(f"cannot read the image '{path}': it is no file")
        with open(path, 'rb') as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"cannot read the image '{path}': {error.strerror}") from None
    if _ends_early(data):
        raise UserError(f"the image '{path}' is cut short ({len(data)} bytes)")
    _check_budget(path, data, max_pixels)
    if not _can_shrink(data, size, reduction):
        reduction = 1
    try:
        image = _decode(data, reduction)
    except MemoryError:
        raise UserError(f"the image '{path}' is larger than the memory that is left") from None
    if image is None:
        raise UserError(f"'{path}' is not an image that can be read")
    height, width = image.shape[:2]
    if size is not None and (width, height) != reduced_size(size, reduction) == (height, width):
        unturned = _decode(data, reduction, upright=False)
        image = image if unturned is None else unturned
    return image


def _can_shrink(data: bytes, size: tuple[int, int] | None, reduction: int) -> bool:
    """Return whether the pixels of a reduced image would lie where `read_image` says."""
    if data[:2] != JPEG_START:
        return False
    divides = size is not None and size[0] % reduction == size[1] % reduction == 0
    return divides or b'Exif' not in data[: _jpeg_scan(data)]


def reduced_size(size: Sequence[int], reduction: int) -> tuple[int, int]:
    """Return the (width, height) of an image of that size once it is read with that reduction."""
    width, height = size
    return -(-width // reduction), -(-height // reduction)


def _check_budget(path: str | os.PathLike, data: bytes, max_pixels: int) -> None:
    """Raise a UserError for an image whose header claims more than `max_pixels`."""
    try:
        with open_lazily(io.BytesIO(data)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return  # not a format of Pillow's: OpenCV's own limit of 2^30 pixels remains
    budget = max_pixels or default_max_pixels()
    if width * height > budget:
        raise UserError(
            f"the image '{path}' has {width} x {height} pixels: more than the {budget} that --max_pixels allows"
        )


@functools.cache
def default_max_pixels() -> int:
    """Return `MAX_PIXELS`, or as many pixels as half of the machine's memory holds if these are fewer."""
    try:
        memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError):  # Windows does not say
        return MAX_PIXELS
    return min(MAX_PIXELS, memory // 2 // BYTES_A_PIXEL)


def _decode(data: bytes, reduction: int, upright: bool = True) -> np.ndarray | None:
    """Decode a file's bytes to uint8 BGR [H, W, 3], or None when neither OpenCV nor Pillow can.

    `upright` applies the EXIF orientation.
    """
    orientation = _orientation(data) if upright and data[:2] == JPEG_START else 1
    if data[:2] == JPEG_START and orientation in TURNS:
        image = decode_jpeg(data, reduction, orientation)
        if image is not None:
            return image
    flags = READ_FLAGS[reduction] | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:  # more pixels than cv2 accepts, a broken header
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        image = None
    if image is not None or flags != READ_FLAGS[1]:
        return image
    try:
        with open_lazily(io.BytesIO(data)) as lazy:  # GIF, before OpenCV 4.11
            return _from_pillow(lazy)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None


def _orientation(data: bytes) -> int | None:
    """Return a JPEG's EXIF orientation, 1 without EXIF; None where OpenCV should see to it."""
    if b'Exif' not in data[: _jpeg_scan(data)]:
        return 1
    try:
        with open_lazily(io.BytesIO(data)) as lazy:
            return lazy.getexif().get(ExifTags.Base.Orientation)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None


_limit_lock = threading.Lock()
_limit_holders = 0
_limit_before: int | None = None


@contextlib.contextmanager
def open_lazily(file: str | os.PathLike | BinaryIO) -> Iterator[Image.Image]:
    """Open an image with Pillow, whose pixels are not decoded until they are asked for.

    Unlike `PIL.Image.open`, it neither warns of images over 89 megapixels nor refuses those over 179: the caller
    has a budget of its own.

    Raises:
        OSError, UnidentifiedImageError, SyntaxError, ValueError: it is no image, or no file at all.
    """
    global _limit_holders, _limit_before
    if isinstance(file, str | os.PathLike) and not stat.S_ISREG(os.stat(file).st_mode):
        raise OSError(f"'{file}' is no file")  # a pipe would wait for its writer
    with _limit_lock:  # Pillow has one limit for all threads
        if _limit_holders == 0:
            _limit_before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_holders += 1
    try:
        with Image.open(file) as image:
            yield image
    finally:
        with _limit_lock:
            _limit_holders -= 1
            if _limit_holders == 0:
                Image.MAX_IMAGE_PIXELS = _limit_before


def as_bgr_image(image: str | os.PathLike | np.ndarray | Image.Image, max_pixels: int = 0) -> np.ndarray:
    """Return an image in the form that detectors work on.

    Args:
        image: a path, a uint8 BGR array [H, W, 3], or an image of Pillow's in any mode, whose EXIF orientation is
            applied.
        max_pixels: as `read_image` takes it.

    Returns:
        uint8 [H, W, 3], BGR; an array is returned itself.

    Raises:
        UserError: the path is no image that can be read, or the array or Pillow's image is of another kind.
    """
    if isinstance(image, Image.Image):
        try:
            return _from_pillow(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f'this {image.mode} image of Pillow cannot be used: {error}') from None
    if not isinstance(image, np.ndarray):
        if not isinstance(image, str | os.PathLike):
            kinds = 'a path, a uint8 BGR array [H, W, 3] or an image of Pillow'
            raise UserError(f'expected {kinds}; found {type(image).__name__}')
        return read_image(image, max_pixels=max_pixels)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UserError(f'expected a uint8 BGR image [H, W, 3]; found {image.dtype} {list(image.shape)}')
    return image


def _from_pillow(image: Image.Image) -> np.ndarray:
    """Convert an image of Pillow's as OpenCV reads the file: turned upright, alpha left out, 16 bit divided by 256."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.mode in ('La', 'RGBa'):
        image = image.convert(image.mode.upper())
    rgb = np.asarray(image.convert('RGB'))  # [H, W, 3]
    if rgb.size == 0:
        raise ValueError('it is empty')
    return np.ascontiguousarray(rgb[..., ::-1])


def is_truncated(path: str | os.PathLike) -> bool:
    """Return whether a JPEG or PNG lacks its end, or a file is empty; reads its first and last bytes, no pixels.

    cv2 would fill the missing part with grey, or complain on stderr.

    Raises:
        OSError: the file cannot be opened.
    """
    size = os.path.getsize(path)
    if size == 0:
        return True
    handle = os.open(path, os.O_RDONLY)
    try:
        if _has_its_end(os.pread(handle, MARKS, 0), os.pread(handle, MARKS, max(size - MARKS, 0))):
            return False
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as data:
            return _ends_early(data)
    finally:
        os.close(handle)


def _ends_early(data: bytes | mmap.mmap) -> bool:
    if _has_its_end(data[:MARKS], data[-MARKS:]):
        return False
    if data[:2] == JPEG_START:
        return data.find(JPEG_END, _jpeg_scan(data)) < 0
    return data.find(PNG_END) < 0


def _has_its_end(first: bytes, last: bytes) -> bool:
    """Return whether a file of these first and last 8 bytes is a JPEG or PNG with its end there, or neither of both."""
    if first[:2] == JPEG_START:
        return last[-2:] == JPEG_END
    return first != PNG_START or last == PNG_END


def _jpeg_scan(data: bytes | mmap.mmap) -> int:
    """Return where a JPEG's first scan starts: past the header, whose thumbnail may hold an end marker too."""
    at = 2
    while at + 4 <= len(data) and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return at
