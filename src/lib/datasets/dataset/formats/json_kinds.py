"""Kinds of JSON files: which of the formats a file is of."""

import functools
import os
from pathlib import Path

from ....utils.errors import UserError
from ....utils.files import read_json
from ....utils.media.image_files import IMAGE_SUFFIXES
from ...labelme_files import is_labelme

COCO, LABELME, OTHER, BROKEN = 'COCO', 'labelme', 'other', 'broken'
LARGE = 32_000_000  # bytes from which on a file is known by its name
COCO_NAMES = ('instances', 'person_keypoints', '_annotations.coco')
FOREIGN_NAMES = ('captions', 'image_info', 'panoptic', 'stuff')  # of COCO's own files, which have no boxes


def kind_of(path: Path) -> str:
    """Return the kind of a JSON file: `COCO` (with boxes), `LABELME`, `OTHER` or `BROKEN`.

    Large files, and those that have COCO's names, are known by their names; the others are read.
    """
    if path.stem.startswith(FOREIGN_NAMES):
        return OTHER
    if path.stem.startswith(COCO_NAMES):
        return COCO
    status = os.stat(path)
    if status.st_size > LARGE:
        return LABELME if has_image(path) else COCO
    return _kind_of(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _kind_of(path: str, size: int, modified: int) -> str:
    try:
        content = read_json(path, lambda line: None)
    except (UserError, OSError):
        return BROKEN
    if is_labelme(content):
        return LABELME
    is_coco = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ('images', 'annotations'))
    return COCO if is_coco and 'categories' in content else OTHER


def has_image(path: Path) -> bool:
    """Return whether an image of the file's name lies beside it."""
    return any(path.with_suffix(suffix).is_file() for suffix in IMAGE_SUFFIXES)
