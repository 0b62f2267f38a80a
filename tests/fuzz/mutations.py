"""Ways to break values, texts, bytes and folders. Each takes the random generator first and says what it did."""

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Texts that become, in the written JSON, what json.dumps cannot write.
RAW = {'@1e400@': '1e400', '@digits@': '9' * 5000, '@deep@': '[' * 50_000 + ']' * 50_000, '@open@': '{"a":' * 3000}
VALUES = [
    *(None, True, False, '', ' ', 'x', '1', '1.0', '-3', 'nan', '1e999', '0x10', '\u0663', '1_000', 'a/b', '../x'),
    *('\0', '\ud800', 'é' * 300, 'x' * 300, 'line\nbreak', '\x1b[31m', '<&>', 'C:\\a\\b.png', '%s{0}', '[1, 2, 3, 4]'),
    *(0, 1, -1, 2, 3, 7, 0.5, 1.5, -0.0, 1e-320, 1e20, -1e20, 1e308, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30),
    *(10**400, float('nan'), float('inf'), float('-inf'), *RAW),
    *([], {}, [[]], [None], [1], [1, 2], [1, 2, 3, 4], [[1, 2], [3, 4]], ['1', '2', '3', '4'], [0] * 51, {'a': 1}),
    *([True] * 4, [float('nan')] * 4, [-5, -5, 2, 2], [0, 0, 0, 0], [1e9] * 4, ['x'] * 4, [[[[[[1]]]]]], {'id': {}}),
]
WRITABLE = [value for value in VALUES if not isinstance(value, (list, dict)) and value != 10**400]  # in XML


def pick(rng: np.random.Generator, items: Any) -> Any:
    """One of the items of a sequence."""
    return items[int(rng.integers(len(items)))]


# ---------------------------------------------------------------------------------------------------------- values


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths (keys and positions) to everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def break_value(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    """Return a copy of a JSON value with one thing in it replaced, removed, doubled or moved.

    A path's first steps are drawn first, so that the few entries near the root are as likely as the many below.
    """
    value = copy.deepcopy(value)
    path: list = []
    inner = value
    while isinstance(inner, (dict, list)) and len(inner) and (not path or rng.random() < 0.8):
        key = pick(rng, list(inner)) if isinstance(inner, dict) else int(rng.integers(len(inner)))
        path.append(key)
        inner = inner[key]
    if not path:
        return pick(rng, VALUES), 'all replaced'
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    key, place = path[-1], '.'.join(str(key)[:20] for key in path)
    kind = pick(rng, ['replaced'] * 6 + ['removed', 'removed', 'doubled', 'as text', 'in a list', 'swapped'])
    if kind == 'replaced':
        parent[key] = copy.deepcopy(pick(rng, VALUES))
        kind = f'replaced by {parent[key]!r:.40}'
    elif kind == 'removed':
        del parent[key]
    elif kind == 'doubled':
        if isinstance(parent, list):
            parent.insert(int(rng.integers(len(parent) + 1)), copy.deepcopy(parent[key]))
        else:
            parent[f'{key} '] = parent[key]
    elif kind == 'as text':
        parent[key] = str(parent[key])
    elif kind == 'in a list':
        parent[key] = [parent[key]]
    else:
        other = pick(rng, list(places(value)))
        target = value
        for step in other[:-1]:
            target = target[step]
        target[other[-1]] = copy.deepcopy(parent[key])
        kind = f'copied to {other}'[:80]
    return value, f'{place} {kind}'


def break_values(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    """Return `break_value` once, at times two or three times."""
    notes = []
    for _ in range(pick(rng, [1, 1, 1, 2, 3])):
        value, note = break_value(rng, value)
        notes.append(note)
    return value, ', '.join(notes)


def json_bytes(value: Any) -> bytes:
    """Return a value with `VALUES` in it as JSON."""
    text = json.dumps(value, ensure_ascii=True)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text.encode()


def break_json(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Return a JSON file with broken values, or at times with broken bytes."""
    if rng.random() < 0.25:
        return break_bytes(rng, data)
    value, note = break_values(rng, json.loads(data))
    return json_bytes(value), note


# ----------------------------------------------------------------------------------------------------------- bytes


def break_bytes(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Return a file with flipped bits, missing, doubled or foreign bytes, or in another encoding."""
    at = int(rng.integers(len(data) + 1))
    kinds = ['bits', 'bits', 'bits', 'byte', 'byte', 'cut', 'gap', 'insertion', 'doubled', 'zeros', 'encoding', 'empty']
    kind = pick(rng, kinds) if data else 'insertion'
    if kind in ('bits', 'byte'):
        changed = bytearray(data)
        for _ in range(pick(rng, [1, 1, 2, 8])):
            place = int(rng.integers(len(data)))
            changed[place] = int(rng.integers(256)) if kind == 'byte' else changed[place] ^ (1 << int(rng.integers(8)))
        return bytes(changed), f'{kind} changed'
    if kind == 'cut':
        return data[:at], f'cut at {at}'
    if kind == 'gap':
        return data[:at] + data[at + int(rng.integers(1, 50)) :], f'a gap at {at}'
    if kind == 'insertion':
        pieces = [b'\0', b'\xff\xfe', b'\xc3\x28', b'{', b']', b',', b'"', b'\n', b'NaN', b'  ', b'<', b'-', b'9']
        piece = pick(rng, pieces)
        return data[:at] + piece * pick(rng, [1, 1, 40]) + data[at:], f'{piece!r} at {at}'
    if kind == 'doubled':
        return data + data, 'twice'
    if kind == 'zeros':
        return data[:at] + bytes(len(data) - at), f'zeros from {at}'
    if kind == 'empty':
        return pick(rng, [b'', b' ', b'\n', b'null', b'\xef\xbb\xbf']), 'empty'
    name = pick(rng, ['utf-16', 'utf-16-be', 'utf-8-sig', 'utf-32', 'cp037'])
    return data.decode('latin-1').encode(name, 'replace'), f'in {name}'


# ------------------------------------------------------------------------------------------------------------ text

WORDS = [
    *('', 'x', 'nan', 'inf', '-1', '0', '1', '-0', '1e400', '1e30', '9' * 400, '0.5', '0,5', '1/2', '\u0663', '\u00b2'),
    *('1_0', '0x1', '%', '"a"', "'", '#', '\t', '-', 'Car', 'é', '\u72d7', '[1]', '1;2', '\ufeff', '\u2028', 'None'),
]


def break_text(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Return a file of lines of words with one word or line replaced, removed, doubled or added, or broken bytes."""
    if rng.random() < 0.2:
        return break_bytes(rng, data)
    lines = data.decode().splitlines()
    at = int(rng.integers(len(lines))) if lines else 0
    line = lines[at] if lines else ''
    words = line.split(' ')
    word = int(rng.integers(len(words)))
    others = ['more', 'less', 'commas', 'tabs', 'line', 'no line', 'twice', 'reversed', 'endings']
    kind = pick(rng, ['word'] * 5 + others)
    if kind == 'word':
        words[word] = pick(rng, WORDS)
    elif kind == 'more':
        words[word:word] = [pick(rng, WORDS)] * pick(rng, [1, 1, 3, 200])
    elif kind == 'less':
        del words[word]
    elif kind == 'reversed':
        words.reverse()
    line = {'commas': ',', 'tabs': '\t'}.get(kind, ' ').join(words)
    lines[at : at + 1] = {'no line': [], 'twice': [line, line], 'line': [line, pick(rng, WORDS)]}.get(kind, [line])
    end = pick(rng, ['\r\n', '\r', '\n\n', ' \n', '\x0b']) if kind == 'endings' else '\n'
    encoding = 'utf-8' if rng.random() < 0.9 else 'utf-16'
    text = end.join(lines) + pick(rng, ['\n', '\n', ''])
    return text.encode(encoding, 'surrogatepass'), f'line {at + 1}: {kind} {line[:40]!r}'


# --------------------------------------------------------------------------------------------------------- folders


def break_files(rng: np.random.Generator, folder: Path) -> str:
    """Remove, rename or replace one file or folder below a folder."""
    found = sorted(path for path in folder.rglob('*'))
    path = pick(rng, found)
    kinds = ['gone', 'a folder', 'empty', 'a loop', 'a dangling link', 'a pipe', 'another name', 'twice', 'itself']
    kind = pick(rng, kinds)
    shown = path.relative_to(folder)
    if kind == 'another name':
        names = [b'\xff\xfe.png', b'a b.txt', 'é².json'.encode(), b'x' * 250, path.name.upper().encode(), b'a']
        name = pick(rng, names)
        os.rename(os.fsencode(path), os.path.join(os.fsencode(path.parent), name))
        return f'{shown} named {name[:20]!r}'
    if kind == 'twice':
        copy_of = path.with_name(f'copy of {path.name}')
        if path.is_dir():
            shutil.copytree(path, copy_of)
        else:
            shutil.copy(path, copy_of)
        return f'{shown} {kind}'
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if kind == 'a folder':
        path.mkdir()
    elif kind == 'empty':
        path.touch()
    elif kind == 'a loop':
        path.symlink_to(path.name)
    elif kind == 'a dangling link':
        path.symlink_to('no such file')
    elif kind == 'itself':
        path.symlink_to('.')
    elif kind == 'a pipe':
        os.mkfifo(path)
    return f'{shown} {kind}'


def break_file(rng: np.random.Generator, path: Path, how: Any) -> str:
    """Rewrite a file by one of the functions `bytes -> (bytes, note)`."""
    data, note = how(rng, path.read_bytes())
    path.write_bytes(data)
    return f'{path.name}: {note}'


def break_alike(rng: np.random.Generator, folder: Path, pattern: str, how: Any) -> str:
    """`break_file` for all files below a folder, each in the same way."""
    seed, note = int(rng.integers(2**31)), ''
    for path in sorted(folder.glob(pattern)):
        note = break_file(np.random.default_rng(seed), path, how)
    return f'all as {note}'


def rows_of(data: bytes, *keys: str) -> list | None:
    """Return the list under `keys` of a JSON file as a plain reader finds it; None where there is none."""
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
        value = json.loads(data)
        for key in keys:
            value = value[key]
        return value if isinstance(value, list) else None
    return None
