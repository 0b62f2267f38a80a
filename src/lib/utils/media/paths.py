"""Paths that OpenCV takes."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def path_of_cv2(path: str | os.PathLike) -> Iterator[str]:
    """Give a name of `path` that cv2 takes: it refuses those that are not UTF-8, which get a link."""
    path = os.fspath(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, 'video').with_suffix(Path(path).suffix if Path(path).suffix.isascii() else '')
            link.symlink_to(os.path.abspath(path))
            yield os.fspath(link)
    else:
        yield path
