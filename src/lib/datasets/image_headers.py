"""Sizes of image files, read from their headers in parallel and remembered between runs."""

import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..utils.cli import track
from ..utils.files import atomic_path
from ..utils.image import is_truncated

OK, MISSING, DAMAGED = 0, 1, 2
EXIF_ORIENTATION = 0x0112


class Header(NamedTuple):
    """What an image file says of itself.

    Attributes:
        state: OK, MISSING or DAMAGED (unreadable, or cut short).
        size: width and height as stored, before any EXIF orientation.
        turned: its EXIF orientation swaps width and height.
    """

    state: int
    size: tuple[int, int] = (0, 0)
    turned: bool = False


def read_headers(image_dir: str, names: list[str]) -> list[Header]:
    """Headers of the files `names` in `image_dir`.

    Headers of files whose size and modification time are unchanged come from a cache in the user's cache
    folder (`$XDG_CACHE_HOME/centernet`), so that a large dataset is read once.
    """
    stamps = file_stamps(image_dir, names)
    cache_file = cache_path(image_dir)
    cache = load_cache(cache_file)
    headers: dict[str, Header] = {}
    unread = []
    for name in dict.fromkeys(names):
        stamp = stamps.get(name)
        if stamp is None:
            headers[name] = Header(MISSING)
        elif name in cache and cache[name][0] == stamp:
            headers[name] = cache[name][1]
        else:
            unread.append(name)
    if unread:
        paths = [os.path.join(image_dir, name) for name in unread]
        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
            found = pool.map(read_header, paths, chunksize=64)
            if len(unread) > 2000:
                found = track(found, 'reading image headers', len(unread))
            headers.update(zip(unread, found, strict=True))
        cache.update({name: (stamps[name], headers[name]) for name in unread})
        save_cache(cache_file, cache)
    return [headers[name] for name in names]


def read_header(path: str) -> Header:
    """Header of one image file that exists."""
    try:
        with Image.open(path) as image:
            # Pillow gives a TIFF's size as it is shown.
            turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5 and image.format != 'TIFF'
            size = image.size
        return Header(DAMAGED) if is_truncated(path) else Header(OK, size, turned)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return Header(DAMAGED)


def file_stamps(image_dir: str, names: list[str]) -> dict[str, tuple[int, int]]:
    """`{name: (bytes, modification time in ns)}` of the files that exist; one listing a folder."""
    wanted: dict[str, dict[str, str]] = {}  # folder -> {its file: the name asked for}
    for name in names:
        folder, base = os.path.split(name)
        wanted.setdefault(folder, {})[base] = name
    stamps = {}
    for folder, bases in wanted.items():
        path = os.path.join(image_dir, folder)
        if not os.path.isdir(path):
            continue
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name in bases and entry.is_file():
                    status = entry.stat()
                    stamps[bases[entry.name]] = (status.st_size, status.st_mtime_ns)
    return stamps


def cache_path(image_dir: str) -> Path:
    """The user's cache file for the headers of that folder's images."""
    root = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    key = hashlib.sha1(os.path.realpath(image_dir).encode()).hexdigest()[:16]
    return Path(root) / 'centernet' / f'headers-{key}.npz'


def load_cache(path: Path) -> dict[str, tuple[tuple[int, int], Header]]:
    """Remembered headers; an unreadable cache counts as an empty one."""
    try:
        with np.load(path) as saved:
            names, rows = saved['names'], saved['rows'].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    return {
        name.decode(): ((size, stamp), Header(state, (width, height), bool(turned)))
        for name, (size, stamp, state, width, height, turned) in zip(names, rows, strict=True)
    }


def save_cache(path: Path, cache: dict[str, tuple[tuple[int, int], Header]]) -> None:
    """Write `{file name: (size and time of the file, its header)}`; a disk that refuses it is told, and no error."""
    names = np.array([name.encode() for name in cache])
    rows = np.array([[*stamp, h.state, *h.size, h.turned] for stamp, h in cache.values()], np.int64)
    try:
        with atomic_path(path) as beside, open(beside, 'wb') as file:
            np.savez(file, names=names, rows=rows)
    except OSError as error:
        print(f'note: image headers will be read again next time ({error})')
