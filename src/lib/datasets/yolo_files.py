"""YOLO's files: labels (the objects of an image, one a line) and the names of the classes."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..utils.errors import UserError
from ..utils.files import read_text
from .coco_file import distinct_names

OUT_OF_IMAGE = 2.0  # parts of the image do not exceed 1 by more than an object that leaves it; pixels do
OVERHANG = 0.02  # parts of the image by which a box may reach out of it through rounding


@dataclass
class YoloObject:
    """One line of a label file, in parts of the image.

    Attributes:
        class_id: the number of its class.
        box: x1 y1 x2 y2.
        joints: x, y and v of each joint, where data.yaml says that joints follow the box.
    """

    class_id: int
    box: tuple[float, float, float, float]
    joints: list[tuple[float, float, int]] | None = None


class BadLine(ValueError):
    """A line that is no label; the message says why."""


def read_line(line: str, class_ids: Mapping[str, int], joints: tuple[int, int] | None = None) -> YoloObject:
    """Read one line of a label file.

    It is the class (a number, perhaps as 0.000000, or a name) and a centre and size `cx cy w h`, perhaps followed by a
    confidence, or three or more points `x y` of an outline, whose box is taken, or joints. All are parts of the image.
    Spaces, tabs, commas or semicolons separate them.

    Args:
        line: the line.
        class_ids: class name -> number.
        joints: number of the joints, and of the values of each (2 or 3), that follow each box.

    Raises:
        BadLine: it is none of that.
    """
    first, *words = separate(line)
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise BadLine('not numbers') from None
    if not all(map(math.isfinite, numbers)):
        raise BadLine('not finite')
    class_id = _whole(first)
    if class_id is None and first in class_ids:
        class_id = class_ids[first]
    if class_id is None:
        raise BadLine('whose class is neither a number nor a known name')
    box = _box(numbers, joints)
    if max(map(abs, box)) > OUT_OF_IMAGE:
        raise BadLine('in pixels, not in parts of the image')
    return YoloObject(class_id, box, _joints(numbers, joints))


def separate(line: str) -> list[str]:
    """Split a line into fields; commas may separate them or stand for decimal points."""
    words = [word.strip(',;') for word in line.replace(';', ' ').split()]
    if len(words) == 1:
        words = words[0].split(',')
    return [word.replace(',', '.') for word in words if word]


def _whole(word: str) -> int | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _box(numbers: Sequence[float], joints: tuple[int, int] | None) -> tuple[float, float, float, float]:
    count = len(numbers)
    if count == 4 or (joints is not None and count == 4 + joints[0] * joints[1]) or _has_joints(numbers):
        return _from_center(numbers[:4])
    if count == 5 and 0 <= numbers[4] <= 1:  # a detector's confidence
        return _from_center(numbers[:4])
    if count >= 6 and count % 2 == 0:
        return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    raise BadLine(f'of a class and {count} numbers')


def _joints(numbers: Sequence[float], joints: tuple[int, int] | None) -> list[tuple[float, float, int]] | None:
    """Read the joints after a box; with two values each, one at 0, 0 or outside the image is not annotated."""
    if joints is None or len(numbers) != 4 + joints[0] * joints[1]:
        return None
    found = []
    for at in range(4, len(numbers), joints[1]):
        x, y = numbers[at : at + 2]
        state = numbers[at + 2] if joints[1] == 3 else 2
        there = state > 0 and (x, y) != (0, 0) and min(x, y) >= 0 and max(x, y) <= OUT_OF_IMAGE
        found.append((x, y, 1 if state == 1 else 2) if there else (0.0, 0.0, 0))
    return found


def _has_joints(numbers: Sequence[float]) -> bool:
    """Return whether joints x, y, visibility follow a box: no outline has such numbers."""
    states = set(numbers[6::3])
    return (
        len(numbers) >= 7 and len(numbers) % 3 == 1 and states <= {0, 1, 2} and (2 in states or len(numbers) % 2 == 1)
    )


def _from_center(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def overhangs(box: Sequence[float]) -> bool:
    """Return whether a box reaches out of the image by more than rounding: perhaps it is no centre and size."""
    return min(box) < -OVERHANG or max(box) > 1 + OVERHANG


# ------------------------------------------------------------------------------------------------- class names


class _Loader(yaml.BaseLoader):
    """PyYAML's loader that makes texts, lists and mappings alone (a class may be called `no`), with distinct keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Make a mapping; a key that is there twice is an error."""
        mapping = super().construct_mapping(node, deep=True)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, 'a key is there twice', node.start_mark)
        return mapping


def read_yaml(path: Path) -> dict:
    """Read a `data.yaml`, all values as texts.

    Raises:
        UserError: it is not YAML, or no mapping.
    """
    try:
        content = yaml.load(read_text(path), _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"'{path}' is not YAML: {' '.join(str(error).split()) or 'nested too deep'}") from None
    if not isinstance(content, dict):
        raise UserError(f"'{path}': expected keys such as 'names', found none")
    return content


def yaml_class_names(names: Any, path: Path) -> dict[int, str]:
    """Read the classes of the key `names`: a list, or a mapping from their numbers.

    Args:
        names: the value of the key.
        path: its file, for messages.

    Returns:
        `{number: name}`, in the order of the numbers; names that come twice get their number behind.

    Raises:
        UserError: it is neither, or a name is empty.
    """
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        found = reprlib.repr(names)
        raise UserError(f"'{path}': expected 'names' to be a list or a mapping from numbers, found {found}")
    classes: dict[int, str] = {}
    for key, name in names.items():
        try:
            number = int(key)
        except (TypeError, ValueError):
            number = -1
        if number < 0 or number in classes or not isinstance(name, str) or not name.strip():
            found = f'{reprlib.repr(key)}: {reprlib.repr(name)}'
            raise UserError(f"'{path}': expected a number from 0 and a name for each of 'names', found {found}")
        classes[number] = ' '.join(name.split())
    return distinct_names(classes)


def listed_class_names(path: Path) -> dict[int, str]:
    """Read the classes of a text file with one name a line (`classes.txt`, `obj.names`); an empty line is no class.

    Raises:
        UserError: it names nothing.
    """
    lines = read_text(path).splitlines()
    classes = {number: ' '.join(line.split()) for number, line in enumerate(lines) if line.strip()}
    if not classes:
        raise UserError(f"'{path}' names no class")
    return distinct_names(classes)
