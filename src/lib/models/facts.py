"""Facts that a checkpoint records beside its weights, and what each of them may be.

Importing this module does not import torch.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..tasks import TASKS
from ..utils.errors import UserError
from .families import ARCHS

MAX_TEXT = 1000  # characters
MAX_SIDE = 8192  # pixels
MAX_OPTION_VALUES = 10_000
PRECISIONS = ('float32', 'bfloat16', 'float16')  # number types that a network is trained in


@dataclass(frozen=True)
class Fact:
    """A fact: its name, a test of a value, and the words for what passes it."""

    name: str
    valid: Callable[[Any], bool]
    expected: str


def whole(least: int, most: int) -> Callable[[Any], bool]:
    """Return a test for integers from `least` to `most`."""
    return lambda value: type(value) is int and least <= value <= most


def is_flag(value: Any) -> bool:
    """Return whether it is True or False."""
    return isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether it is a finite number of ordinary size."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def is_text(value: Any) -> bool:
    """Return whether it is a string, not too long, that can be printed and written to a file."""
    return isinstance(value, str) and len(value) <= MAX_TEXT and not any('\ud800' <= c <= '\udfff' for c in value)


def is_list(value: Any, valid: Callable[[Any], bool], most: int) -> bool:
    """Return whether it is a list or tuple of at most so many `valid` items."""
    return isinstance(value, (list, tuple)) and len(value) <= most and all(map(valid, value))


def is_heads(value: Any) -> bool:
    """Return whether it is {name: channels}."""
    return (
        isinstance(value, dict)
        and 0 < len(value) <= 100
        and all(is_text(name) and whole(1, 100_000)(channels) for name, channels in value.items())
    )


def are_joint_pairs(value: Any) -> bool:
    """Return whether it is a list of pairs of joints."""
    return is_list(value, lambda pair: is_list(pair, whole(0, 999), 2) and len(pair) == 2, 10_000)


def are_options(value: Any) -> bool:
    """Return whether it is {name: option}: flags, numbers, texts, None, and lists and dicts of these, not too many."""
    if not (isinstance(value, dict) and all(is_text(name) for name in value)):
        return False
    left = [*value.values()]
    for _ in range(MAX_OPTION_VALUES):
        if not left:
            return True
        item = left.pop()
        if isinstance(item, (dict, list, tuple)):
            if len(item) > MAX_OPTION_VALUES:
                return False
            left += [*item.keys(), *item.values()] if isinstance(item, dict) else item
        elif not (item is None or is_flag(item) or is_number(item) or is_text(item)):
            return False
    return False


def colour(least: float) -> Callable[[Any], bool]:
    """Return a test for a number a colour channel, each over `least`."""
    return lambda value: is_list(value, lambda x: is_number(x) and least < x < 1000, 3) and len(value) == 3


def is_scaler_state(value: Any) -> bool:
    """Return whether it is the state of a `torch.amp.GradScaler`."""
    names = {'scale', 'growth_factor', 'backoff_factor', 'growth_interval', '_growth_tracker'}
    return (
        isinstance(value, dict)
        and value.keys() == names
        and all(map(is_number, value.values()))
        and value['scale'] > 0
        and value['growth_factor'] > 1 > value['backoff_factor'] > 0
        and whole(1, 10**9)(value['growth_interval'])
        and whole(0, 10**9)(value['_growth_tracker'])
    )


COUNT = (whole(0, 10**12), 'a count')
SIDE = (whole(32, MAX_SIDE), f'pixels from 32 to {MAX_SIDE}')
FLAG = (is_flag, 'True or False')
NUMBER = (is_number, 'a finite number')
TEXT = (is_text, f'a text of at most {MAX_TEXT} characters')

OPTION_VALUES = {bool: FLAG, int: NUMBER, float: NUMBER, str: TEXT}

FACTS: dict[str, Fact] = {
    fact.name: fact
    for fact in (
        Fact('task', *TEXT),
        Fact('arch', lambda value: is_text(value) and value in ARCHS, f'one of {", ".join(ARCHS)}'),
        Fact('heads', is_heads, '{name: channels}'),
        Fact('head_conv', whole(0, 10_000), 'channels, 0 for none'),
        Fact('down_ratio', whole(4, 4), '4'),
        Fact('mse_loss', *FLAG),
        Fact('not_reg_offset', *FLAG),
        *(Fact(name, *OPTION_VALUES[row.kind]) for task in TASKS.values() for name, row in task.recorded_options()),
        Fact('class_names', lambda value: is_list(value, is_text, 100_000) and len(value) > 0, 'a list of names'),
        Fact('mean', colour(-1000), 'three numbers'),
        Fact('std', colour(0), 'three numbers over 0'),
        Fact('num_joints', whole(1, 1000), 'a number of joints from 1 to 1000'),
        Fact('flip_idx', are_joint_pairs, 'pairs of joints, numbered from 0'),
        Fact('skeleton', are_joint_pairs, 'pairs of joints, numbered from 0'),
        Fact('input_h', *SIDE),
        Fact('input_w', *SIDE),
        Fact('epoch', *COUNT),
        Fact('iteration', *COUNT),
        Fact('batch_size', *COUNT),
        Fact('validated', *COUNT),
        Fact('best', *NUMBER),
        Fact('best_epoch', *COUNT),
        Fact('best_loss', *NUMBER),
        Fact('averaged', *FLAG),
        Fact('precision', lambda value: is_text(value) and value in PRECISIONS, f'one of {", ".join(PRECISIONS)}'),
        Fact('scaler', is_scaler_state, "the state of float16's gradient scaler"),
        Fact('metric', *TEXT),
        Fact('options', are_options, 'a dict of options'),
    )
}

# What an exported file records beside the facts of its checkpoint.
EXPORT_FACTS: dict[str, Fact] = {
    fact.name: fact
    for fact in (
        Fact('version', *TEXT),
        Fact('float_input', *FLAG),
        Fact('dynamic_size', *FLAG),
        Fact('raw', *FLAG),
        Fact('half', *FLAG),
        Fact('K', whole(1, 1_000_000), 'a count of 1 or more'),
        Fact('flip_test', *FLAG),
        Fact('scores_thresh', *NUMBER),
        Fact('center_thresh', *NUMBER),
        Fact('aggr_weight', *NUMBER),
        Fact('int8', *FLAG),
        Fact('calibration_images', *COUNT),
        Fact('float_layers', lambda value: is_list(value, is_text, 10_000), 'a list of layers'),
    )
}
INT8_FACTS = ('int8', 'calibration_images', 'float_layers')  # in files whose network computes in int8
DECODER_FACTS = ('K', 'flip_test', 'scores_thresh', 'center_thresh', 'aggr_weight')  # options of the decoder in it


def check_fact(path: str | os.PathLike, name: str, value: Any, table: Mapping[str, Fact] = FACTS) -> None:
    """Check one fact of the file at `path`, which the table has.

    Raises:
        UserError: the value is not one that the fact can have; names both.
    """
    if not table[name].valid(value):
        raise UserError(
            f"'{path}' is not a checkpoint of this program: its {name} is {describe(value)}, expected "
            f'{table[name].expected}; fetch or copy it again, or keep its weights alone'
        )


def check_facts(
    path: str | os.PathLike, checkpoint: dict[str, Any], table: Mapping[str, Fact] = FACTS
) -> dict[str, Any]:
    """Return the facts of the table in a checkpoint beside its epoch, checked.

    Other keys, and facts that are None, are left out.

    Raises:
        UserError: a fact is of another type or size than it can be, or joints lie outside their number; names it.
    """
    facts = {name: checkpoint[name] for name in table if checkpoint.get(name) is not None}
    facts.pop('epoch', None)  # a published key, checked whenever a checkpoint is read
    for name, value in facts.items():
        check_fact(path, name, value, table)
    joints = facts.get('num_joints', math.inf)
    for name in ('flip_idx', 'skeleton'):
        for pair in facts.get(name, ()):
            if max(pair) >= joints:
                raise UserError(f"'{path}': its {name} names joint {max(pair)}, but it has {joints} joints")
    return facts


def describe(value: Any) -> str:
    """Return a value of a stranger's for a message: short, printable, whatever it is."""
    if isinstance(value, str):
        return ascii(value if len(value) <= 60 else f'{value[:57]}...')
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**18):
        return str(value)
    if isinstance(value, (list, tuple, dict)):
        return f'a {type(value).__name__} of {len(value)}'
    return f'a {type(value).__name__}'


def one_line(error: BaseException) -> str:
    """Return an error's own words on one line."""
    return ' '.join(str(error).split())


def shorten(names: Iterable[Any], limit: int = 3) -> str:
    """Return the first names, and how many more there are."""
    names = [name if isinstance(name, str) and name.isprintable() else describe(name) for name in names]
    rest = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + rest
