"""Sizes of image files, read from their headers in parallel and remembered between runs."""

import contextlib
import hashlib
import os
import stat
import struct
import sys
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import UnidentifiedImageError

from ..utils.cli import track
from ..utils.image import default_max_pixels, is_truncated, open_lazily
from .remembered import cache_folder, remember

OK, MISSING, DAMAGED, TOO_LARGE = 0, 1, 2, 3
EXIF_ORIENTATION = 0x0112
MANY = 2000  # files from which on processes read headers
THREADS, MOST_PROCESSES = 8, 16
BATCH = 256  # headers that a process hands over together
NORMAL_FORMS: tuple[Literal['NFC', 'NFD'], ...] = ('NFC', 'NFD')  # macOS decomposes the accents of file names
# Errors that numpy and zipfile raise on archives whose bytes were changed.
BROKEN_ARCHIVE = (
    *(OSError, ValueError, LookupError, EOFError, MemoryError, RuntimeError, TypeError, AttributeError, SyntaxError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


class Header(NamedTuple):
    """The state and size of an image file, from its header.

    Attributes:
        state: OK, MISSING, DAMAGED (unreadable, or cut short) or TOO_LARGE (of more pixels than allowed).
        size: width and height as stored, before any EXIF orientation.
        turned: its EXIF orientation swaps width and height.
    """

    state: int
    size: tuple[int, int] = (0, 0)
    turned: bool = False


def read_headers(image_dir: str, names: list[str], max_pixels: int = 0) -> list[Header]:
    """Read the headers of image files.

    Headers of files whose size and modification time are unchanged come from a cache in the user's cache
    folder (`$XDG_CACHE_HOME/centernet`), so that a large dataset is read once.

    Args:
        image_dir: the folder of the files.
        names: their names in it.
        max_pixels: as `limit_pixels` takes it.

    Returns:
        A header for each name.
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
        found = read_in_processes(paths) if len(paths) > MANY and sys.platform == 'linux' else read_in_threads(paths)
        headers.update(zip(unread, found, strict=True))
        cache.update({name: (stamps[name], headers[name]) for name in unread})
        save_cache(cache_file, cache)
    return [limit_pixels(headers[name], max_pixels) for name in names]


def read_in_threads(paths: Sequence[str]) -> Iterator[Header]:
    """Read the headers of image files that exist, and yield one for each; threads wait for slow disks together."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(read_header, paths, chunksize=64)


def read_in_processes(paths: Sequence[str]) -> Iterator[Header]:
    """Read the headers of many image files that exist, and yield one for each, with progress.

    Most of a header's time is spent in Python, where threads would only wait for each other. Processes are forked,
    which Linux alone does safely.
    """
    from .loaders import Batches  # imports PyTorch, which the converters do without

    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    batches = Batches(HeaderFiles(paths), processes, list, batch_size=BATCH, multiprocessing_context='fork')
    yield from track((header for batch in batches for header in batch), 'reading image headers', len(paths))


class HeaderFiles(Sequence[Header]):
    """The headers of image files that exist, each read when it is asked for."""

    def __init__(self, paths: Sequence[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return read_header(self.paths[index])

    def image_path(self, index: int) -> str:
        """Return the path of a file."""
        return self.paths[index]


def limit_pixels(header: Header, max_pixels: int = 0) -> Header:
    """Return a header whose state is TOO_LARGE where a sound image has more than `max_pixels`.

    Args:
        header: of any image, as it is cached.
        max_pixels: 0 for the default of `read_image`.
    """
    width, height = header.size
    is_large = header.state == OK and width * height > (max_pixels or default_max_pixels())
    return header._replace(state=TOO_LARGE) if is_large else header


def read_header(path: str) -> Header:
    """Read the header of one image file that exists, however large the image is."""
    try:
        with open_lazily(path) as image:
            # Pillow gives a TIFF's size as it is shown.
            turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5 and image.format != 'TIFF'
            size = image.size
        return Header(DAMAGED) if is_truncated(path) else Header(OK, size, turned)
    # what Pillow raises on damaged files is not documented: these were seen, the last four in EXIF blocks
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error):
        return Header(DAMAGED)


def locate_images(image_dir: str | os.PathLike, names: Sequence[str]) -> list[str]:
    """Find the files in a folder that the file names in a COCO-format file mean.

    A name counts as it is if there is such a file. Otherwise it is tried with slashes for backslashes, in Unicode's
    other normal forms, without the folders up to `images/` (or up to the folder's own name), and, where it is a path
    from the root of another machine, by its last parts. A file that two such names lead to is none of them.

    Args:
        image_dir: the folder.
        names: file names, relative to it or absolute.

    Returns:
        A name for each; the name itself where no file was found.
    """
    there = _existing(image_dir, names)
    lost = [name for name in dict.fromkeys(names) if name not in there]
    if not lost:
        return list(names)
    anchors = _anchors(image_dir)
    spellings = {name: _spellings(name, anchors) for name in lost}
    there = _existing(image_dir, [each for of_name in spellings.values() for each in of_name])
    found = {name: next((each for each in of_name if each in there), name) for name, of_name in spellings.items()}
    # one file under two names is meant where they differ in slashes, ./ and images/ alone
    claims = defaultdict(set)
    for name, place in found.items():
        claims[place].add(_plain(name, anchors))
    found = {name: place if len(claims[place]) == 1 else name for name, place in found.items()}
    return [found.get(name, name) for name in names]


def _anchors(image_dir: str | os.PathLike) -> set[str]:
    """Return the names of folders up to which a path leads to the images folder."""
    return {'images', os.path.basename(os.path.realpath(image_dir))}


def _spellings(name: str, anchors: Collection[str]) -> list[str]:
    """Return other names under which the file of that name may lie in a folder, the likeliest first."""
    parts = _parts(name)
    rooted = parts[0] == '/' or parts[0].endswith(':')
    starts = [] if rooted else [0]
    starts += [i + 1 for i, part in enumerate(parts[:-1]) if part in anchors]
    starts += range(1, len(parts)) if rooted else []
    ends = ['/'.join(parts[start:]) for start in dict.fromkeys(starts)]
    return [
        spelling for end in ends for spelling in (end, *(unicodedata.normalize(form, end) for form in NORMAL_FORMS))
    ]


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace('\\', '/')).parts or (name,)


def _plain(name: str, anchors: Collection[str]) -> tuple[str, ...]:
    parts = _parts(name)
    while len(parts) > 1 and parts[0] in anchors:
        parts = parts[1:]
    return parts


def _existing(image_dir: str | os.PathLike, names: Iterable[str]) -> set[str]:
    """Return the names that lead to an entry of the folder or of one below it; lists each folder once."""
    by_folder = defaultdict(list)
    for name in names:
        by_folder[os.path.dirname(name)].append(name)
    there: set[str] = set()
    for folder, of_folder in by_folder.items():
        with contextlib.suppress(OSError):  # no such folder, a name too long for one
            entries = set(os.listdir(os.path.join(image_dir, folder)))
            there.update(name for name in of_folder if os.path.basename(name) in entries)
    return there


def names_looked_for(image_dir: str | os.PathLike, names: Sequence[str]) -> list[str]:
    """Return the distinct names of all files whose absence or state `locate_images` and `read_headers` go by."""
    there = _existing(image_dir, names)
    anchors = _anchors(image_dir)
    lost = [name for name in dict.fromkeys(names) if name not in there]
    return list(dict.fromkeys([*names, *(each for name in lost for each in _spellings(name, anchors))]))


def folder_state(image_dir: str | os.PathLike, names: Sequence[str]) -> np.ndarray:
    """Return the state of files in a folder: while it is the same, so is what is known of the images.

    Args:
        image_dir: the folder.
        names: n distinct names, as `names_looked_for` returns them.

    Returns:
        int64 [n, 2]: bytes and modification time in ns of each file; 0, 0 for entries that are no files, and -1, -1
        where there is none.
    """
    stamps = file_stamps(os.fspath(image_dir), names)
    absent = [name for name in names if name not in stamps]
    other = dict.fromkeys(_existing(image_dir, absent), (0, 0))
    known = stamps | other
    return np.array([known.get(name, (-1, -1)) for name in names], np.int64).reshape(-1, 2)


def file_stamps(image_dir: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return `{name: (bytes, modification time in ns)}` of the files that exist; lists each folder once."""
    wanted: dict[str, dict[str, str]] = {}  # folder -> {its file: the name asked for}
    for name in names:
        folder, base = os.path.split(name) if '/' in name else ('', name)
        wanted.setdefault(folder, {})[base] = name
    stamps = {}
    for folder, bases in wanted.items():
        path = os.path.join(image_dir, folder)
        if not os.path.isdir(path):
            continue
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            there = set(os.listdir(handle))  # in the very spelling, which some file systems do not ask for
            for base, name in bases.items():
                if base in there:
                    try:
                        status = os.stat(base, dir_fd=handle)
                    except OSError:  # a link that leads to itself is no file
                        continue
                    if stat.S_ISREG(status.st_mode):
                        stamps[name] = (status.st_size, status.st_mtime_ns)
        finally:
            os.close(handle)
    return stamps


def cache_path(image_dir: str) -> Path:
    """Return the user's cache file for the headers of that folder's images."""
    key = hashlib.sha1(os.fsencode(os.path.realpath(image_dir))).hexdigest()[:16]
    return cache_folder() / f'headers-{key}.npz'


def load_cache(path: Path) -> dict[str, tuple[tuple[int, int], Header]]:
    """Load the remembered headers; a cache that is damaged, or not ours, counts as an empty one."""
    if not path.is_file():
        return {}
    try:
        with np.load(path) as saved:
            names, rows = saved['names'], saved['rows']
    except BROKEN_ARCHIVE:
        return {}
    if names.dtype.kind != 'S' or rows.dtype != np.int64 or names.ndim != 1 or rows.shape != (len(names), 6):
        return {}
    states, sizes = rows[:, 2], rows[:, 3:5]
    if not (np.isin(states, (OK, DAMAGED)) & ((states != OK) | (sizes > 0).all(1))).all():
        return {}
    return {
        os.fsdecode(name): ((size, stamp), Header(state, (width, height), bool(turned)))
        for name, (size, stamp, state, width, height, turned) in zip(names, rows.tolist(), strict=True)
    }


def save_cache(path: Path, cache: dict[str, tuple[tuple[int, int], Header]]) -> None:
    """Write `{file name: (size and time of the file, its header)}`; where that cannot be done, a note says so once."""
    names = np.array([os.fsencode(name) for name in cache])
    rows = np.array([[*stamp, h.state, *h.size, h.turned] for stamp, h in cache.values()], np.int64)
    remember(path, lambda beside: np.savez(beside, names=names, rows=rows))
