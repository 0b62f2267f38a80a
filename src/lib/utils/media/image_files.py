"""Image files: finding them, naming and writing drawings of them."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from ..files import LONGEST_NAME, atomic_path

JPEG_SUFFIXES = {'.jpg', '.jpeg', '.jfif', '.jpe'}
IMAGE_SUFFIXES = JPEG_SUFFIXES | {'.png', '.bmp', '.gif', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.jp2'}
LARGEST_JPEG = 65_500  # pixels a side that libjpeg encodes


def natural_key(name: str) -> list:
    """Return a sorting key by which 'b2' comes before 'b10', whatever the case.

    Only decimal digits are numbers: neither '²' nor '①' is.
    """
    parts = re.split(r'(\d+)', name.lower())
    parts[1::2] = map(int, parts[1::2])
    return parts


def image_files(folder: str | os.PathLike, but: str | os.PathLike | None = None) -> list[Path]:
    """List the images of a folder and of those in it, in natural order of their names; hidden ones are left out.

    Args:
        folder: where to look.
        but: a folder in it that is left out.

    Raises:
        UserError: the folder is missing or has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such folder: '{folder}'")
    left_out = None if but is None else os.path.realpath(but)
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith('.') and os.path.realpath(os.path.join(parent, name)) != left_out
        ]
        found += [Path(parent, name) for name in names if is_image(Path(name)) and not name.startswith('.')]
    if not found:
        raise UserError(f"no image in '{folder}' (looked for {' '.join(sorted(IMAGE_SUFFIXES))})")
    return natural_order(found)


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by `natural_key`, folder by folder."""
    return sorted(paths, key=lambda path: [natural_key(part) for part in path.parts])


def is_image(path: Path) -> bool:
    """Return whether a file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def write_image(path: str | os.PathLike, image: np.ndarray, encoding: Sequence[int] = ()) -> None:
    """Write an image (BGR uint8 [H, W, 3]) in the format that the name's suffix says, whole or not at all.

    Args:
        path: where to, `.jfif` being JPEG.
        image: BGR uint8 [H, W, 3].
        encoding: cv2's flags and their values, such as `[cv2.IMWRITE_JPEG_QUALITY, 92]`.

    Raises:
        UserError: the image is empty or the suffix unknown.
        OSError: the disk refused.
    """
    suffix = Path(path).suffix
    try:
        written, data = cv2.imencode('.jpg' if suffix.lower() in JPEG_SUFFIXES else suffix, image, encoding)
    except cv2.error:
        written = False
    if not written:
        raise UserError(f"'{path}': cannot write an image of shape {image.shape} as '{suffix}'")
    with atomic_path(path, durable=False) as beside:
        beside.write_bytes(data.tobytes())


def drawing_name(name: str, size: tuple[int, int] = (0, 0)) -> str:
    """Return the file name under which the drawing of image `name` is saved.

    JPEG and PNG keep theirs, others become PNG, and so do JPEGs whose `size` (width, height) exceeds `LARGEST_JPEG`.
    """
    suffix = Path(name).suffix.lower()
    kept = suffix in JPEG_SUFFIXES and max(size) <= LARGEST_JPEG or suffix == '.png'
    return name if kept else with_ending(name, '.png')


def with_ending(name: str, ending: str) -> str:
    """Return `name` + `ending`, the name cut where both together are longer than file systems allow."""
    room = LONGEST_NAME - len(os.fsencode(ending))
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name + ending
