"""Files that are written whole or not at all."""

import contextlib
import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
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


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without.

    What is none of them is read as Windows' Latin-1 (cp1252), and a warning says so, as it does of keys that are
    written twice in one object, of which the last one counts.

    Raises:
        UserError: it is missing, not a file or not JSON, or a key holds two lists of objects.
    """
    if not os.path.isfile(path):
        raise UserError(f"'{path}' is no file" if os.path.exists(path) else f"no such file: '{path}'")
    data = Path(path).read_bytes()
    doubled: list[str] = []
    try:
        try:
            text = data.decode(json.detect_encoding(data))
        except UnicodeDecodeError:
            text = data.decode('cp1252')
            logger.warning("'%s' is not in UTF-8: it is read as Latin-1 (cp1252)", path)
        value = json.loads(text, object_pairs_hook=partial(_unique_keys, doubled))
    except UserError as error:
        raise UserError(f"'{path}' {error}") from None
    except RecursionError:
        raise UserError(f"'{path}' is not JSON that can be read: its lists are nested too deep") from None
    except ValueError as error:  # JSON or an encoding that is broken, an integer of too many digits
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
