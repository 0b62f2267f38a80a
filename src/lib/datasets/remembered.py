"""Arrays made of a dataset's files, remembered between starts in the user's cache folder (`cache_folder`).

Arrays are kept in the format of safetensors: every process that loads a file maps it, so that the ranks of a machine
and their loader processes hold one copy together.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..utils.errors import UserError
from ..utils.files import atomic_path
from ..utils.measurements import cache_folder

logger = logging.getLogger(__name__)

Packed = tuple[dict[str, np.ndarray], Any]  # arrays by name, and notes as JSON holds them

# Errors that safetensors, torch and json raise on files whose bytes were changed.
BROKEN_FILE = (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError)

_noted: set[Path] = set()  # folders of which a note has said that they cannot be written


def remembered_path(kind: str, *key: Any) -> Path:
    """Return the cache file of one kind, such as 'index', for a key of values that JSON holds."""
    digest = hashlib.sha1(json.dumps(key).encode()).hexdigest()[:16]
    return cache_folder() / f'{kind}-{digest}.safetensors'


def save_packed(path: Path, arrays: Mapping[str, np.ndarray], notes: Any) -> None:
    """Remember arrays of any shapes [...], numbers or bytes, with notes; where that cannot be done, a note says so.

    Args:
        path: as `remembered_path` returns it.
        arrays: by name.
        notes: what `json.dumps` takes.
    """
    stored = {name: _as_numbers(values) for name, values in arrays.items()}
    text = json.dumps({'notes': notes, 'bytes': [name for name, values in arrays.items() if values.dtype.kind == 'S']})
    content = save(stored, {'notes': text, 'digest': _digest(stored, text)})
    remember(path, lambda beside: beside.write_bytes(content))


def load_packed(path: Path) -> Packed | None:
    """Map what `save_packed` wrote.

    Returns:
        The arrays by name, of the shapes [...] that they had, read-only; and the notes. None where there is no such
        file, or one that is damaged or not ours.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework='pt') as file:  # torch maps the file, where numpy would be given a copy
            header = file.metadata() or {}
            stored = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 (no iterator)
        if header.get('digest') != _digest(stored, header['notes']):
            return None
        facts = json.loads(header['notes'])
    except BROKEN_FILE:
        return None
    for values in stored.values():
        values.flags.writeable = False
    arrays = {name: _as_bytes(values) if name in facts['bytes'] else values for name, values in stored.items()}
    return arrays, facts['notes']


def _as_numbers(values: np.ndarray) -> np.ndarray:
    """Return an array as it is, or, if it holds bytes [N], as uint8 [N, length]."""
    values = np.ascontiguousarray(values)
    return values.view(np.uint8).reshape(len(values), values.itemsize) if values.dtype.kind == 'S' else values


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return values.view(f'S{values.shape[1]}')[:, 0]


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    """Return a digest of arrays, their names and types, and a text."""
    digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=16)
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(f'{name} {values.dtype.str} {values.shape}'.encode('utf-8', 'surrogatepass'))
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def remember(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a cache file, beside it first; where that cannot be done, a note says so once a folder."""
    try:
        with atomic_path(path, durable=False) as beside:  # what a loss of power takes is noticed, and made again
            write(beside)
    except (OSError, UserError) as error:
        if path.parent not in _noted:
            _noted.add(path.parent)
            logger.info('note: image headers and annotations will be read again next time (%s)', error)
