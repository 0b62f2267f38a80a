"""Files that are written whole or not at all."""

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from .errors import UserError

logger = logging.getLogger(__name__)

WRITING = '-writing-'  # no dot before it: that would make it the suffix of a name without one
RANDOM_CHARACTERS = 8  # that mkstemp puts into a name
ENTRIES_AT_ONCE = 10_000  # of a list that is written as JSON
LONGEST_NAME = 255  # bytes of a file name on common file systems
SPACED_KEY = re.compile(rb'"\s+:')  # the end of an object's key that has space before the colon
# Names that atomic_path gives, and gave to checkpoints before.
TEMPORARY = re.compile(r'\..*-writing-[a-z0-9_]{8}(\.[^.]*)?|\.model_(last|best|\d+)-[a-z0-9_]{8}\.pth', re.DOTALL)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it to `path` at the end, or remove it after an error.

    A kill at any moment leaves the old file or the new one, never a half; so does a loss of power when `durable`. The
    file beside is locked while it is written: `remove_abandoned` knows by that what a kill has left. Missing folders
    are made. The suffix of `path` is kept, so that writers which choose a format by it work.

    Args:
        path: the file to write.
        durable: wait until the disk has it. For one of very many files, which are quickly made again, that takes
            longer than it is worth.

    Raises:
        UserError: the disk is full, the folder is read-only, or the like.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = _open_beside(path)
    except OSError as error:
        raise _cannot_be_written(path, error) from None
    try:
        yield Path(name)
        if not os.path.islink(name):  # chmod would reach what a link points to
            os.chmod(name, 0o666 & ~_umask())
        if durable:
            _sync(name)
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename in (None, name):  # not of what else the writer opened
            raise _cannot_be_written(path, error) from None
        raise
    finally:
        os.close(handle)
    if durable:
        with contextlib.suppress(OSError):  # some file systems have no such thing; the file is in its place
            _sync(path.parent)


def _open_beside(path: Path) -> tuple[int, str]:
    """Make a locked file beside `path`; return it and its name (`TEMPORARY`), not longer than a file system takes."""
    stem, suffix = path.stem, path.suffix
    while len(os.fsencode(f'.{stem}{WRITING}{suffix}')) > LONGEST_NAME - RANDOM_CHARACTERS and len(stem) > 0:
        stem = stem[:-1]
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{stem}{WRITING}', suffix=suffix)
    with contextlib.suppress(OSError):  # a file system without locks: what kills leave there stays
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle, name


def _cannot_be_written(path: Path, error: OSError) -> UserError:
    return UserError(f"'{path}' cannot be written: {error.strerror or error}")


def _sync(path: str | os.PathLike) -> None:
    """Wait until the disk has a file's content, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_abandoned(folder: str | os.PathLike) -> int:
    """Remove the files that killed writers have left beside their places, in a folder and those below it.

    Files that a living process writes are left alone, and all that `atomic_path` has not named. Call it by the only
    writer of the folder's checkpoints: those of earlier versions, which took no lock, count as abandoned.

    Returns:
        The bytes that were freed.
    """
    freed = 0
    for parent, _, names in os.walk(os.fspath(folder)):
        for name in names:
            path = os.path.join(parent, name)
            if TEMPORARY.fullmatch(name) and os.path.isfile(path) and not os.path.islink(path):
                freed += _remove_unlocked(path)
    return freed


def _remove_unlocked(path: str) -> int:
    """Remove a file that nobody has locked; returns its bytes, 0 when it stays."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # gone by now, or not ours to touch
        return 0
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(handle).st_size
        os.unlink(path)
        return size
    except OSError:  # its writer lives
        return 0
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON, whole or not at all.

    Raises:
        UserError: a number in it is not finite, or the disk is full.
    """
    text = encode_json(value, f"'{path}'", indent)
    with atomic_path(path) as beside, open(beside, 'w') as file:
        file.write(text)


def write_json_list(path: str | os.PathLike, entries: Sequence) -> None:
    """Write a list as `write_json` does, block by block: its text is never whole in memory.

    Raises:
        UserError: as `write_json`.
    """
    with atomic_path(path) as beside, open(beside, 'w') as file:
        file.write('[')
        for start in range(0, len(entries), ENTRIES_AT_ONCE):
            block = list(entries[start : start + ENTRIES_AT_ONCE])
            text = encode_json(block, f"'{path}'", first=start)
            file.write((', ' if start else '') + text[1:-1])
        file.write(']')


def encode_json(value: Any, name: str, indent: int | None = None, first: int = 0) -> str:
    """Return `value` as JSON text.

    Args:
        value: what `json.dumps` takes.
        name: for the message: the file, or the entry of it.
        indent: as `json.dumps` takes it.
        first: for the message: the place of a list's first entry in the whole list.

    Raises:
        UserError: a number in it is NaN or infinite, which JSON does not know; names its place.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        place = _place_of_nonfinite(value, first=first)
        if place is None:
            raise
        raise UserError(f'{name} is not written: {place}, which JSON cannot hold') from None


def _place_of_nonfinite(value: Any, place: str = '', first: int = 0) -> str | None:
    """Return where the first number that is not finite lies, such as `[3].score is nan`; None without one."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'{place or "the number"} is {value}'
    if isinstance(value, dict):
        inner = ((each, f'{place}.{key}') for key, each in value.items())
    elif isinstance(value, list | tuple):
        inner = ((each, f'{place}[{index}]') for index, each in enumerate(value, first))
    else:
        return None
    return next(filter(None, (_place_of_nonfinite(each, where) for each, where in inner)), None)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Read a file; never waits, as it would for the writer of a pipe.

    Raises:
        UserError: it is missing or not a file.
        OSError: it cannot be read.
    """
    if not os.path.isfile(path):
        raise UserError(f"'{path}' is no file" if os.path.exists(path) else f"no such file: '{path}'")
    return Path(path).read_bytes()


def read_text(path: str | os.PathLike, warn: Callable[[str], None] = logger.warning) -> str:
    """Read a text file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.

    A file in none of them is read as Latin-1 (in Windows' form, cp1252), and a warning says so.

    Args:
        path: the file.
        warn: receives the warning; by default it is logged.

    Raises:
        UserError: it is missing or not a file.
        OSError: it cannot be read.
    """
    return _decode(read_bytes(path), path, warn)


def _decode(data: bytes, path: str | os.PathLike, warn: Callable[[str], None]) -> str:
    """Return the text of a file's bytes, as `read_text` does."""
    try:
        return data.decode(json.detect_encoding(data))  # by the mark, or by where zero bytes stand
    except UnicodeDecodeError:
        warn(f"'{path}' is not in UTF-8: it is read as Latin-1 (cp1252)")
        return data.decode('cp1252', 'replace')


def read_json(path: str | os.PathLike, warn: Callable[[str], None] = logger.warning) -> Any:
    """Read a JSON file, in the encodings of `read_text`.

    Of keys that are written twice in one object the last one counts, and a warning says so. Well-formed files are read
    by msgspec, in half the time of Python's reader, which has the word on all others.

    Args:
        path: the file.
        warn: receives the warnings; by default they are logged.

    Raises:
        UserError: it is missing, not a file or not JSON, or a key holds two lists of objects.
        OSError: it cannot be read.
    """
    data = read_bytes(path)
    with contextlib.suppress(ValueError):
        return _read_plain_json(data)
    text = _decode(data, path, warn)
    del data  # of a large file, whose objects take their room
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
        warn(f"'{path}': {len(doubled)} keys are written twice in one object, the last counts: {keys}")
    return value


def _read_plain_json(data: bytes) -> Any:
    """Return what `json.loads` returns of JSON in UTF-8, where no key is written twice in one object.

    Raises:
        ValueError: it is in another encoding or not JSON, has numbers that JSON does not know (NaN), lone surrogates or
            too deep a nesting, or a key may be written twice.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    # Each key ends with a quote and a colon, and so may texts: there are no more keys than such places.
    if not _has_keys(value, data.count(b'":') + sum(1 for _ in SPACED_KEY.finditer(data))):
        raise ValueError('a key may be written twice')
    return value


def _has_keys(value: Any, count: int) -> bool:
    """Return whether the objects in `value` have `count` keys together; looks no deeper than it has to."""
    level, found = [value], 0
    while level:
        found += sum(len(each) for each in level if type(each) is dict)
        if found >= count:
            break
        inner = chain.from_iterable(
            each.values() if type(each) is dict else each for each in level if type(each) in (dict, list)
        )
        level = [each for each in inner if type(each) in (dict, list)]
    return found == count


def _unique_keys(doubled: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of some pairs, and add the keys that come twice to `doubled`.

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
    """Return the place that a path resolves to and, if it exists, its device and inode."""
    found: set[str | tuple[int, int]] = {os.path.realpath(path)}
    with contextlib.suppress(OSError):
        status = os.stat(path)
        found.add((status.st_dev, status.st_ino))
    return found
