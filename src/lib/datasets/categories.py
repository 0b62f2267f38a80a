"""Categories of COCO-format files: which of them a task learns, and the joints that they have."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..utils.errors import UserError

# Classes of objects that are not learnt, as KITTI needs them: where one stands, no class is neither right nor wrong
# (IGNORED_FOR_ALL), or one class is (`ignored_for`); a dropped object is background.
IGNORED_FOR_ALL, DROPPED = -1, -99


def ignored_for(cls: int) -> int:
    """Return the class of objects ignored for class `cls` (0-based) alone, from -2 downwards; its own inverse."""
    return -2 - cls


@dataclass(frozen=True)
class Categories:
    """The part that each category of a file plays in a task.

    Attributes:
        learnt: entries of the file that become the classes 0, 1, ... in this order.
        ignored: ids of areas in which a detection is neither right nor wrong, whatever its class.
        others: ids whose objects are left out.
        joints: the facts `num_joints`, `joint_names`, `flip_idx` and `skeleton`, if joints are learnt.
    """

    learnt: list[dict]
    ignored: frozenset[int] = frozenset()
    others: frozenset[int] = frozenset()
    joints: dict[str, Any] = field(default_factory=dict)


def check_category(row: Mapping, path: str) -> Mapping:
    """Return a category of the file `path` as it is.

    Raises:
        UserError: it has no integer id or no name.
    """
    if not isinstance(row.get('id'), int) or not isinstance(row.get('name'), str):
        raise UserError(f"'{path}': a category needs an integer id and a name, found {row}")
    return row


def joint_facts(category: Mapping, path: str) -> dict[str, Any]:
    """Read the joints of a category, its limbs and its left/right pairs.

    `keypoints` (names) and `skeleton` (pairs from 1) are COCO's keys. Optional are `flip_pairs` (pairs from 0; by
    default `left_X` and `right_X` are pairs) and `sigmas`, which the metric reads.

    Args:
        category: an entry of the file that has `keypoints`.
        path: the file, for messages.

    Returns:
        `num_joints` J, `joint_names`, and `skeleton` and `flip_idx`, lists of pairs of joints from 0 to J - 1.

    Raises:
        UserError: one of the keys is of another form.
    """
    names = category['keypoints']
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"'{path}': expected 'keypoints' of '{category['name']}' to be a list of names, found {names}")
    count = len(names)
    skeleton = joint_pairs(category.get('skeleton') or [], 1, count, f"'{path}': skeleton")
    pairs = category.get('flip_pairs')
    pairs = pairs_by_name(names) if pairs is None else joint_pairs(pairs, 0, count, f"'{path}': flip_pairs")
    if len({joint for pair in pairs for joint in pair}) < 2 * len(pairs):
        raise UserError(f"'{path}': flip_pairs names a joint twice")
    try:
        own_sigmas(category, count)  # what the metric would refuse after training is refused before it
    except UserError as error:
        raise UserError(f"'{path}': {error}") from None
    return {'num_joints': count, 'joint_names': names, 'skeleton': skeleton, 'flip_idx': pairs}


def joint_pairs(value: Any, first: int, count: int, subject: str) -> list[list[int]]:
    """Convert pairs of `count` joints, which the file numbers from `first`, to pairs of 0-based joints.

    Raises:
        UserError: `value` is no list of such pairs; the message begins with `subject`.
    """
    valid = isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(i, int) and first <= i < first + count for i in pair)
        for pair in value
    )
    if not valid:
        raise UserError(f'{subject}: expected pairs of joints from {first} to {first + count - 1}, found {value}')
    return [[a - first, b - first] for a, b in value]


def pairs_by_name(names: list[str]) -> list[list[int]]:
    """Pair the joints that are named `left_X` and `right_X`; 0-based."""
    at = {name: i for i, name in enumerate(names)}
    return [
        [i, at['right_' + name[len('left_') :]]]
        for i, name in enumerate(names)
        if name.startswith('left_') and 'right_' + name[len('left_') :] in at
    ]


def own_sigmas(category: Mapping, num_joints: int) -> list[float] | None:
    """Return a category's OKS sigmas [J], or None if it has none.

    Raises:
        UserError: `sigmas` is no list of J numbers over 0.
    """
    sigmas = category.get('sigmas')
    usable = isinstance(sigmas, list) and len(sigmas) == num_joints and all(is_number(s) and s > 0 for s in sigmas)
    if sigmas is not None and not usable:
        name = category.get('name', category.get('id'))
        raise UserError(f"category '{name}': expected sigmas to be {num_joints} numbers over 0, found {sigmas}")
    return sigmas


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a number that a float can hold."""
    return isinstance(value, (int, float)) and -sys.float_info.max <= value <= sys.float_info.max
