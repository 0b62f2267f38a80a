"""Options declared as rows: one annotated field of a class is one option of the command line.

    @option_rows
    class TrainOptions:
        lr: float = option(1.25e-4, 'learning rate, for the batch size given', check=over(0))

The annotation says how the text on the command line is read: `bool` is a switch, other types take a value.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .errors import UserError

MAIN, TEST, DEMO, EXPORT = 'main.py', 'test.py', 'demo.py', 'export.py'
PROGRAMS = (MAIN, TEST, DEMO, EXPORT)
INFERENCE = (TEST, DEMO)

T = TypeVar('T', bound=type)

LARGEST = 2**63 - 1  # of integers: NumPy and PyTorch know none beyond


@dataclass(frozen=True)
class Check:
    """A condition on an option's value, and the words for what passes it."""

    passes: Callable[[Any], bool]
    expected: str


def at_least(least: float) -> Check:
    """Return the check for numbers from `least` on."""
    return Check(lambda value: value >= least, f'at least {least}')


def over(bound: float) -> Check:
    """Return the check for numbers over `bound`."""
    return Check(lambda value: value > bound, f'a number over {bound}')


def between(least: float, most: float) -> Check:
    """Return the check for numbers from `least` to `most`."""
    return Check(lambda value: least <= value <= most, f'a number from {least} to {most}')


def side_or_default(most: int) -> Check:
    """Return the check for sides of an image in pixels, up to `most`, or -1, which stands for the default."""
    return Check(lambda value: 0 < value <= most or value == -1, f'1 to {most}, or -1 for the default')


def positive_or_default(value_of_default: float = -1) -> Check:
    """Return the check for numbers over 0, or the one that stands for the default."""
    return Check(
        lambda value: value > 0 or value == value_of_default, f'more than 0, or {value_of_default} for the default'
    )


def numbers(kind: type, example: str, over: float | None = None, empty: bool = True) -> tuple[Callable, Check]:
    """Return a parser of comma-separated numbers, and the check of the list that it gives.

    Args:
        kind: int or float.
        example: such a list with what it holds, for messages.
        over: each number is over it.
        empty: a list without a number is allowed.
    """

    def parse(text: str) -> list:
        return [kind(part) for part in text.split(',') if part.strip()]

    def passes(values: list) -> bool:
        return (empty or len(values) > 0) and (over is None or all(value > over for value in values))

    return parse, Check(passes, example if over is None else f'numbers over {over}')


@dataclass(frozen=True)
class Option:
    """One option of the command line.

    Attributes:
        name: as an attribute, and on the command line after `--`.
        kind: bool for a switch, else the type that the text is read as.
        default: the value, or the text that `parse` makes one of, when it is not given.
        help: what it does, for `--help`.
        group: the heading of `--help` under which it stands.
        programs: those in which it acts.
        acts: whether it acts in a task of `tasks.TASKS`; None for all tasks.
        check: what its value must satisfy, if anything.
        choices: the only values, if they are listed.
        parse: makes the value of the text, where that is no bool, int, float or str.
        in_checkpoint: it shapes the network or the meaning of its outputs; checkpoints record it.
        per_call: it is of one call, not of a run: `--resume` does not take it from the run.
        idle: the reason, given the options, why it does not act in this run; '' where it does.
    """

    name: str
    kind: type
    default: Any
    help: str
    group: str
    programs: tuple[str, ...] = PROGRAMS
    acts: Callable[[Any], bool] | None = None
    check: Check | None = None
    choices: tuple[str, ...] | None = None
    parse: Callable[[str], Any] | None = None
    in_checkpoint: bool = False
    per_call: bool = False
    idle: Callable[[Any], str] | None = None

    def value(self, raw: Any) -> Any:
        """Return the option's value from what stood on the command line, checked.

        Raises:
            UserError: it is no such value; names the option and what was expected.
        """
        value = raw
        if self.parse is not None:
            try:
                value = self.parse(raw)
            except ValueError:
                raise UserError(f"--{self.name} '{raw}': expected {self.expected}") from None
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f'--{self.name} {raw}: expected finite numbers')
            if isinstance(number, int) and abs(number) > LARGEST:
                raise UserError(f'--{self.name} {raw}: expected a number of 64 bits')
        if self.check is not None and not self.check.passes(value):
            shown = f"'{raw}'" if isinstance(raw, str) else raw
            raise UserError(f'--{self.name} {shown}: expected {self.check.expected}')
        return value

    @property
    def expected(self) -> str:
        """Return the words for values that pass, for messages."""
        return self.check.expected if self.check else 'another value'


def option(default: Any, help: str, **facts: Any) -> Any:
    """Declare a row of an option table; the facts are those of `Option`, name and kind come from the field."""
    parse = facts.get('parse')
    if isinstance(parse, tuple):  # of `numbers`
        facts['parse'], facts['check'] = parse
    return Option('', str, default, help, facts.pop('group', ''), **facts)


def option_rows(group: str = '') -> Callable[[T], T]:
    """Return a class decorator that collects the fields declared by `option` into its `rows`, `{name: Option}`.

    They are no class attributes any more: an object has only the options that it was given.

    Args:
        group: heading of `--help` for rows that name none.
    """

    def collect(cls: T) -> T:
        rows = {}
        for name, kind in cls.__annotations__.items():
            row = vars(cls).get(name)
            if isinstance(row, Option):
                kind = kind if kind in (bool, int, float) else str
                rows[name] = replace(row, name=name, kind=kind, group=row.group or group)
                delattr(cls, name)
        setattr(cls, 'rows', rows)  # noqa: B010  the classes' own annotation is `rows: ClassVar`
        return cls

    return collect


def add_arguments(parser: Any, rows: Sequence[Option], program: str, suppress: str) -> None:
    """Add options to an argparse parser in their groups; those that do not act in `program` are hidden in its help.

    Args:
        suppress: argparse's mark of an argument without help.
    """
    groups: dict[str, Any] = {}
    for row in rows:
        if row.group not in groups:
            groups[row.group] = parser.add_argument_group(row.group)
        text = row.help if program in row.programs else suppress
        if row.kind is bool:
            groups[row.group].add_argument(f'--{row.name}', action='store_true', help=text)
        else:
            groups[row.group].add_argument(
                f'--{row.name}', type=row.kind, default=row.default, choices=row.choices, help=text
            )
