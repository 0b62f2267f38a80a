"""The reader of COCO-format files: annotations and results, in the many ways in which tools write them.

Whatever reads such a file reads it here (training, evaluation, the tools), so that none accepts what another refuses.
The content that is returned has one form: ids are integers, numbers are numbers, boxes and keypoints are flat lists.
"""

import contextlib
import functools
import gc
import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.files import read_json
from .findings import Findings

LISTS = ('images', 'annotations', 'categories')
INTEGER = re.compile(r'[+-]?[0-9]{1,19}(\.0*)?')  # also as pandas writes it in a column with gaps: 1.0
TEXT_IDS = 1 << 52  # ids of texts lie from here to twice it: no other id is likely to, and a float64 holds them
# The modules whose code decides what is read of a file, beside those of the formats.
READERS = (
    *('coco_file.py', 'annotations.py', 'splitting.py', 'index.py', 'image_headers.py', 'findings.py', 'remembered.py'),
    *('conversion.py', 'yolo_files.py', 'yolo_folder.py', 'voc_files.py', 'labelme_files.py'),
    '../utils/files.py',
)
ABSENT = (-1, -1)  # the stamp of a file that is not there
LARGEST_SIDE = 1_000_000  # pixels
FLAGS = {'': 0, '0': 0, 'false': 0, 'no': 0, '1': 1, 'true': 1, 'yes': 1}

logger = logging.getLogger(__name__)

_reported: set[tuple[str, str]] = set()  # versions of files, and the lines about them that this process has logged


def read_coco(path: str | os.PathLike, **needed: tuple[str, ...]) -> dict:
    """Read and normalise a COCO-format file.

    Faults in it are logged, once for each version of the file.

    Args:
        path: the file.
        needed: keys that the entries of a list must have, such as `images=('id', 'file_name')`; entries without
            them are named and left out.

    Returns:
        The content as `normalise_coco` returns it.

    Raises:
        UserError: the file is missing, not JSON or not COCO format, or contradicts itself.
    """
    coco, findings = parse_coco(path)
    for key, names in needed.items():
        coco[key] = [row for row in coco[key] if _has_all(row, names, key, findings)]
    report_once(f'{os.path.realpath(path)} {file_stamp(path)}', findings)
    return coco


def parse_coco(path: str | os.PathLike) -> tuple[dict, Findings]:
    """Read and normalise a COCO-format file; return its content, as `read_coco` does, and its faults, not yet logged.

    Raises:
        UserError: as `read_coco`.
    """
    if not Path(path).exists():
        raise UserError(f"annotation file '{path}' is missing: see data/README.md for where datasets lie")
    findings = Findings(os.fspath(path))
    with collections_paused():
        return normalise_coco(read_json(path, findings.remark), findings), findings


def file_stamp(path: str | os.PathLike) -> tuple[int, int]:
    """Return the bytes and the modification time in ns of a file; `ABSENT` where there is none."""
    if not os.path.isfile(path):
        return ABSENT
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def report_once(version: str, findings: Findings) -> None:
    """Log what was found, each line once for each version of the files in this process."""
    for line in findings.lines():
        if (version, line) not in _reported:
            _reported.add((version, line))
            logger.warning('%s', line)


@functools.cache
def reader_version() -> str:
    """Return a digest of the code that reads and packs annotations, so that what other code has made is not taken."""
    digest = hashlib.sha1()
    folder = Path(__file__).parent
    for path in (*(folder / module for module in READERS), *sorted(folder.glob('dataset/formats/*.py'))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def collections_paused() -> Iterator[None]:
    """Pause the search for garbage in cycles, which would go through millions of objects without one again and again.

    Reading a large file takes half the time without it. What has come in the meantime counts as old afterwards: the
    next search among new objects would take a second for it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() == 0:
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()


def _has_all(row: Mapping, names: Iterable[str], kind: str, findings: Findings) -> bool:
    lacking = [name for name in names if name not in row]
    for name in lacking:
        findings.add(f"{kind} left out, without '{name}'", row)
    return not lacking


def read_results(path: str | os.PathLike) -> list[dict]:
    """Read and normalise a file of detections as `main.py` and `test.py` write it (`results.json`).

    Args:
        path: the file, a JSON list of `{image_id, category_id, bbox [x, y, w, h], score, ...}`.

    Returns:
        One dict for each entry of the list, at its place. `image_id` and `category_id` are integers as `read_coco`
        gives them, `bbox` 4 floats, `score` a float, `keypoints` 3 J floats; what cannot be used is absent.

    Raises:
        UserError: the file is missing, not JSON, or not a list of objects.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not (not rows or any(isinstance(row, dict) for row in rows)):
        raise UserError(f"'{path}' is not a results file: it is not a list of {{image_id, category_id, bbox, score}}")
    findings = Findings(os.fspath(path))
    results = list(_normalise_all(rows, 'results', ROW_READERS, findings))
    findings.report()
    return results


def normalise_coco(coco: Any, findings: Findings) -> dict:
    """Bring a COCO-format object into one form. The argument is not changed; rows that need no change are shared.

    `images`: `id` (integer, no two alike), `file_name` as written (absent if it is no text), `width` and `height`
    (integers; absent if one of them cannot be used). Images without a usable id are left out.
    `annotations`: one for each of the file, at its place. `image_id` and `category_id` (integers), `bbox` (x, y, w, h)
    and the optional fields are absent if they cannot be used; `id` serves as a name in messages, nothing more.
    `categories`: `id` (integer, no two alike) and `name` (text, no two alike: of several categories with one name all
    but the one of the lowest id get it with their id behind, such as `cat (7)`).

    An id may be an integer, a text or a float that is one, or any other text, which gets a number of its own that is
    the same in all files (`read_id`).

    Args:
        coco: the content of a JSON file.
        findings: receives what is left out or taken as absent.

    Raises:
        UserError: it is not COCO format, or one id names two different categories.
    """
    source = findings.source
    if not isinstance(coco, dict) or not isinstance(coco.get('images'), list):
        raise UserError(
            f"'{source}' is not COCO format: expected an object with the lists images, annotations, categories"
        )
    for key in LISTS:
        rows = coco.get(key)
        if rows is not None and (
            not isinstance(rows, list) or (rows and not any(isinstance(row, dict) for row in rows))
        ):
            raise UserError(f"'{source}' is not COCO format: '{key}' is not a list of objects")
    annotations = coco.get('annotations') or []
    return coco | {
        'images': _images(coco['images'], findings),
        'annotations': list(_normalise_all(annotations, 'annotations', ROW_READERS, findings)),
        'categories': _categories(coco.get('categories') or [], findings),
    }


def _images(rows: list, findings: Findings) -> list[dict]:
    images, seen = [], set()
    normalised = _normalise_all(rows, 'images', IMAGE_READERS, findings)
    for place, (row, image) in enumerate(zip(rows, normalised, strict=True)):
        if 'id' not in image:
            findings.add('images left out, without an integer id or a text for one', _brief(row, place))
        elif image['id'] in seen:
            findings.add('images left out, with an id that another has', row['id'])
        else:
            seen.add(image['id'])
            if ('width' in image) != ('height' in image):
                image = {key: value for key, value in image.items() if key not in ('width', 'height')}
            images.append(image)
    return images


def _categories(rows: list, findings: Findings) -> list[dict]:
    categories: dict[int, dict] = {}
    for place, row in enumerate(rows):
        category = _normalise(row, place, 'categories', CATEGORY_READERS, findings)
        if 'id' not in category:
            findings.add('categories left out, without an integer id or a text for one', _brief(row, place))
            continue
        if 'name' not in category:
            findings.add('categories without a name, called by their id', category['id'])
            category = category | {'name': str(row['id'])}
        other = categories.setdefault(category['id'], category)
        if other['name'] != category['name']:
            names = f"'{other['name']}' and '{category['name']}'"
            raise UserError(f"'{findings.source}' lists a category id twice: {category['id']} is {names}")
        if other is not category:
            findings.add('categories left out, that are listed twice', category['id'])
    distinct = distinct_names({category['id']: category['name'] for category in categories.values()})
    for category_id, name in distinct.items():
        if name != categories[category_id]['name']:
            findings.add('categories renamed, for another has their name', name)
            categories[category_id] = categories[category_id] | {'name': name}
    return list(categories.values())


def distinct_names(names: Mapping[int, str]) -> dict[int, str]:
    """Make class names distinct: of several alike, all but that of the lowest id get their id behind, `cat (7)`.

    Args:
        names: class id -> name.

    Returns:
        The same ids in rising order, with their names.
    """
    distinct: dict[int, str] = {}
    taken, given = set(names.values()), set()
    for class_id, name in sorted(names.items()):
        if name in given:
            name = f'{name} ({class_id})'
            while name in taken:
                name += "'"
            taken.add(name)
        given.add(name)
        distinct[class_id] = name
    return distinct


def _normalise_all(
    rows: list, kind: str, readers: Mapping[str, Callable[[Any], Any]], findings: Findings
) -> Iterator[dict]:
    """Yield each entry as `_normalise` does; a field that is as it should be in all of them is not read row by row."""
    if set(map(type, rows)) <= {dict}:
        keys = set(chain.from_iterable(rows))
        readers = {
            key: read_value
            for key, read_value in readers.items()
            if key in keys and not _need_no_reading([row[key] for row in rows if key in row], read_value)
        }
        if not readers:
            yield from rows
            return
    for place, row in enumerate(rows):
        yield _normalise(row, place, kind, readers, findings)


def _need_no_reading(values: list, read_value: Callable[[Any], Any]) -> bool:
    """Return whether `read_value` gives back each of the values as it is; where that is not known, False."""
    is_plain = PLAIN.get(read_value)
    return is_plain is not None and is_plain(values)


def _normalise(
    row: Any, place: int, kind: str, readers: Mapping[str, Callable[[Any], Any]], findings: Findings
) -> dict:
    """Read an entry's fields by `readers`; unusable ones are left out, and named unless they are null."""
    if not isinstance(row, dict):
        findings.add(f'{kind} that are no objects (positions in the list)', place)
        return {}
    changed = {}
    for key, read_value in readers.items():
        if key not in row:
            continue
        value = row[key]
        read = read_value(value)
        if read is not value:
            changed[key] = read
            if read is None and key not in REPORTED_BY_USERS:
                findings.add(f"{kind} with an unusable '{key}', taken as absent (ids)", name_of(row, place))
        elif value is None:
            changed[key] = None
    if not changed:
        return row
    return {key: value for key, value in (row | changed).items() if value is not None or key not in changed}


def name_of(row: Mapping, place: int) -> str:
    """Return the name of an entry for messages: its id, or its place in the list where it has none."""
    own = row.get('id')
    return str(own) if isinstance(own, (int, float, str)) and not isinstance(own, bool) else f'at position {place}'


def _brief(row: Any, place: int) -> str:
    return f'at position {place}' + (f' ({row["file_name"]})' if isinstance(row, dict) and 'file_name' in row else '')


# ------------------------------------------------------------------------------------------------ single values


def read_id(value: Any) -> int | None:
    """Read an id as an integer of 64 bits; None where it is no id.

    Integers, and floats and texts that are one (1.0, "1", "001"), are that integer. Other texts ("im1") become a number
    by their hash, so that one text is one id in all files.
    """
    kind = type(value)
    if kind is str:
        text = value.strip()
        if not INTEGER.fullmatch(text):
            return _number_of(text) if text else None
        value = int(text.partition('.')[0])
    elif kind is float:
        value = int(value) if value.is_integer() else None
    elif kind is not int:
        return None
    return value if value is not None and -(1 << 63) <= value < 1 << 63 else None


def _number_of(text: str) -> int:
    digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
    return TEXT_IDS + int.from_bytes(digest, 'big') % TEXT_IDS


def read_number(value: Any) -> float | None:
    """Read a finite number, perhaps written as text; None for anything else, truth values among it."""
    if type(value) is str:
        try:
            value = float(value) if '_' not in value else None
        except ValueError:
            return None
    if type(value) not in (int, float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def read_numbers(value: Any, count: int | None = None) -> list[float] | None:
    """Read a flat list of finite numbers from nested lists, texts of numbers, or one text that holds them all.

    Args:
        value: what the file says.
        count: how many numbers there must be; any by default.

    Returns:
        The numbers (`value` itself where it is such a list), or None.
    """
    try:
        flat = _flat(value, 4)
    except (OverflowError, ValueError):  # an integer beyond all floats
        return None
    return flat if count is None or len(flat) == count else None


def _flat(value: Any, depth: int) -> list[float]:
    if type(value) is str and len(value) <= 10_000:
        value = [word for word in re.split(r'[\s,;\[\]()]+', value) if word]
    if not isinstance(value, (list, tuple)) or depth == 0:
        raise ValueError('neither numbers nor lists of them')
    if type(value) is list and all(type(item) in (int, float) and math.isfinite(item) for item in value):
        return value
    flat: list[float] = []
    for item in value:
        if isinstance(item, (list, tuple)):
            flat += _flat(item, depth - 1)
        else:
            number = read_number(item)
            if number is None:
                raise ValueError('not a finite number')
            flat.append(number)
    return flat


def finite_numbers(values: Sequence) -> np.ndarray | None:
    """Return n finite integers and floats as float64 [n]; None if one of them is anything else."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.fromiter(values, np.float64, len(values))
    except OverflowError:  # an integer beyond all floats
        return None
    return numbers if np.isfinite(numbers).all() else None


def finite_rows(values: Sequence, size: int) -> np.ndarray | None:
    """Return n lists of `size` finite numbers each as float64 [n, size]; None if one of them is anything else."""
    if not (set(map(type, values)) <= {list} and set(map(len, values)) <= {size}):
        return None
    numbers = finite_numbers(list(chain.from_iterable(values)))
    return None if numbers is None else numbers.reshape(-1, size)


def read_flag(value: Any) -> int | None:
    """Read a truth value, a number or a text (`"0"`, `"false"`) as 0 or 1; None for anything else."""
    if type(value) is str:
        text = value.strip().lower()
        if text in FLAGS:
            return FLAGS[text]
    if type(value) is bool:
        return int(value)
    number = read_number(value)
    return None if number is None else int(number != 0)


def _read_count(value: Any) -> int | None:
    number = read_number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _read_side(value: Any) -> int | None:
    side = _read_count(value)
    return side if side is not None and 0 < side <= LARGEST_SIDE else None


def _read_area(value: Any) -> float | None:
    number = read_number(value)
    return number if number is not None and number >= 0 else None


def _read_file_name(value: Any) -> str | None:
    """Read a text that can name a file: without NUL, and in the file system's encoding; None for anything else."""
    if not isinstance(value, str) or not value.strip() or '\0' in value:
        return None
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return None
    return value


def _read_name(value: Any) -> str | None:
    if type(value) in (int, float):
        return str(value)
    text = ' '.join(value.split()).encode('utf-8', 'backslashreplace').decode() if isinstance(value, str) else ''
    return (value if text == value else text) or None


def _read_keypoints(value: Any) -> list[float] | None:
    numbers = read_numbers(value)
    return numbers if numbers is not None and len(numbers) % 3 == 0 else None


def _read_box(value: Any) -> list[float] | None:
    return read_numbers(value, 4)


def _read_three(value: Any) -> list[float] | None:
    return read_numbers(value, 3)


IMAGE_READERS = {'id': read_id, 'file_name': _read_file_name, 'width': _read_side, 'height': _read_side}
CATEGORY_READERS = {'id': read_id, 'name': _read_name}
ROW_READERS = {
    'image_id': read_id,
    'category_id': read_id,
    'bbox': _read_box,
    'score': read_number,
    'iscrowd': read_flag,
    'ignore': read_flag,
    'difficult': read_flag,
    'area': _read_area,
    'keypoints': _read_keypoints,
    'num_keypoints': _read_count,
    'dim': _read_three,
    'location': _read_three,
    'depth': read_number,
    'alpha': read_number,
    'rotation_y': read_number,
    'truncated': read_number,
    'occluded': read_number,
}


def _whole_numbers(values: list, least: int, most: int) -> bool:
    return set(map(type, values)) <= {int} and (not values or (least <= min(values) and max(values) <= most))


def _plain_areas(values: list) -> bool:
    numbers = finite_numbers(values)
    return numbers is not None and bool((numbers >= 0).all())


def _plain_keypoints(values: list) -> bool:
    plain = set(map(type, values)) <= {list} and all(length % 3 == 0 for length in set(map(len, values)))
    return plain and finite_numbers(list(chain.from_iterable(values))) is not None


# Reader of a value -> whether it would give back all of some values as they are. Others are asked value by value.
PLAIN: dict[Callable[[Any], Any], Callable[[list], bool]] = {
    read_id: lambda values: _whole_numbers(values, -(1 << 63), (1 << 63) - 1),
    _read_side: lambda values: _whole_numbers(values, 1, LARGEST_SIDE),
    _read_count: lambda values: _whole_numbers(values, 0, (1 << 63) - 1),
    read_flag: lambda values: _whole_numbers(values, 0, 1),
    read_number: lambda values: finite_numbers(values) is not None,
    _read_area: _plain_areas,
    _read_box: lambda values: finite_rows(values, 4) is not None,
    _read_three: lambda values: finite_rows(values, 3) is not None,
    _read_keypoints: _plain_keypoints,
}
# Whoever uses an entry names it where these are absent, for then it can do nothing with it.
REPORTED_BY_USERS = {'id', 'image_id', 'category_id', 'bbox', 'score', 'name'}
