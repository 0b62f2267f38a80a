"""Files that are written whole or not at all."""

import contextlib
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .errors import UserError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path beside `path` to write to; renames it to `path` at the end, or removes it after an error.

    A kill at any moment leaves the old file or the new one, never a half. Missing folders are made. The
    suffix of `path` is kept, so that writers which choose a format by it work.

    Raises:
        UserError: the disk is full, or the like.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.stem}-', suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        if not os.path.islink(name):  # chmod would reach what a link points to
            os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename is None:  # of writing, which does not say where
            raise UserError(f"'{path}' cannot be written: {error.strerror or error}") from None
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON, whole or not at all."""
    with atomic_path(path) as beside, open(beside, 'w') as file:
        json.dump(value, file, indent=indent)


def read_text(path: str | os.PathLike) -> str:
    """Read a text file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.

    What is none of them is read as Latin-1 (in Windows' form, cp1252), and a warning says so.

    Raises:
        UserError: it is missing or not a file.
        OSError: it cannot be read.
    """
    if not os.path.isfile(path):
        raise UserError(f"'{path}' is no file" if os.path.exists(path) else f"no such file: '{path}'")
    data = Path(path).read_bytes()
    try:
        return data.decode(json.detect_encoding(data))  # by the mark, or by where zero bytes stand
    except UnicodeDecodeError:
        logger.warning("'%s' is not in UTF-8: it is read as Latin-1 (cp1252)", path)
        return data.decode('cp1252', 'replace')


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file, in the encodings of `read_text`.

    Of keys that are written twice in one object the last one counts, and a warning says so.

    Raises:
        UserError: it is missing, not a file or not JSON, or a key holds two lists of objects.
        OSError: it cannot be read.
    """
    text = read_text(path)
    doubled: list[str] = []
    try:
        value = json.loads(text, object_pairs_hook=partial(_unique_keys, doubled))
    except UserError as error:
        raise UserError(f"'{path}' {error}") from None
    except RecursionError:
        raise UserError(f"'{path}' is not JSON that can be read: its lists are nested too deep") from None
    except ValueError as error:  # among them integers of too many digits
        raise UserError(f"'{path}' is not JSON: {error}") from None
    if doubled:
        keys = ', '.join(map(repr, dict.fromkeys(doubled[:5])))
        logger.warning("'%s': %d keys are written twice in one object, the last counts: %s", path, len(doubled), keys)
    return value


def _unique_keys(doubled: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some pairs; adds the keys that come twice to `doubled`.

    Raises:
        UserError: the values of such a key are lists of objects, of which one would be lost.
    """
    unique = dict(pairs)
    if len(unique) < len(pairs):
        doubled += [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        lists = Counter(key for key, value in pairs if isinstance(value, list) and value and isinstance(value[0], dict))
        for key, count in lists.items():
            if count > 1:
                raise UserError(f"holds the list '{key}' twice in one object: which one counts is not clear")
    return unique


def writable_folder(path: str | os.PathLike, option: str = '--output') -> Path:
    """Return the folder at `path`, made where it is missing.

    Args:
        path: the folder.
        option: the option or argument by which the user names it, for the message.

    Raises:
        UserError: it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the output folder '{path}': {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"the output folder '{path}' is read-only; name another one with {option}")
    return path


class ReadPaths:
    """The files and folders that a program reads, which it must not write over.

    Two paths are the same if they resolve to one place (symbolic links, `..`) or lead to one inode (hard
    links, mounts, other case on file systems that ignore it).
    """

    def __init__(self, paths: Iterable[str | os.PathLike]):
        self.path_of = {identity: path for path in paths for identity in _identities(path)}

    def refuse(self, output: str | os.PathLike, option: str = '--output') -> None:
        """Raise a UserError if `output` is one of them; `option` is what the user names the output with."""
        for identity in _identities(output):
            if identity in self.path_of:
                read = os.fspath(self.path_of[identity])
                raise UserError(f"{option}: '{output}' would overwrite '{read}', which is read; name another place")


def refuse_overwriting(
    output: str | os.PathLike, inputs: Iterable[str | os.PathLike], option: str = '--output'
) -> None:
    """Raise a UserError if `output` is one of the files or folders `inputs`, by whatever name.

    Args:
        output: the file or folder that is going to be written; it need not exist.
        inputs: the files or folders that are read. `ReadPaths` is faster where there are many outputs.
        option: the option or argument by which the user names the output, for the message.
    """
    ReadPaths(inputs).refuse(output, option)


def refuse_replacing(output: str | os.PathLike, is_own: Callable[[Path], bool], option: str = '--output') -> None:
    """Raise a UserError if there is a file at `output` that another program (or the user) made.

    Args:
        output: the file that is going to be written.
        is_own: whether an existing file is an earlier output of the program, which may be replaced.
        option: the option or argument by which the user names the output, for the message.
    """
    path = Path(output)
    if os.path.lexists(path) and not is_own(path):
        raise UserError(f"{option}: '{output}' exists and is no earlier output of this program; name another place")


def _identities(path: str | os.PathLike) -> set[str | tuple[int, int]]:
    """The place that a path resolves to and, if it exists, its device and inode."""
    found: set[str | tuple[int, int]] = {os.path.realpath(path)}
    with contextlib.suppress(OSError):
        status = os.stat(path)
        found.add((status.st_dev, status.st_ino))
    return found
