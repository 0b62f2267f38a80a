"""One attempt: a program, its broken input, and what a success must have left whole."""

import contextlib
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from centernet.utils.cli import run_cli
from centernet.utils.files import TEMPORARY

LONGEST = 20_000  # characters of a refusal, which may name a long argument
REFUSED, SURVIVED = 'refused', 'survived'


@dataclass
class Case:
    """An attempt.

    Attributes:
        description: the program and how its input is broken.
        program: makes the attempt; its return value goes to `check`.
        check: called after a success with the program's return value and what it has shown; raises AssertionError if
            the success is a damaged one.
        inputs: files and folders that must stay as they are.
        output: a folder that the program writes to; holds no temporary file afterwards, and no JSON with NaN.
    """

    description: str
    program: Callable[[], Any]
    check: Callable[[Any, str], None] = lambda result, shown: None
    inputs: list[Path] = field(default_factory=list)
    output: Path | None = None


class Fault(Exception):
    """What must not happen; the message starts with its kind."""


def tool(name: str, *args: Any) -> Callable[[], None]:
    """Return a call of a program in src/tools with arguments."""

    def call() -> None:
        program = importlib.import_module(f'tools.{name}')
        before, sys.argv = sys.argv, [name, *map(str, args)]
        try:
            program.main()
        finally:
            sys.argv = before

    return call


def attempt(case: Case) -> tuple[str, str]:
    """Run a case in this process.

    Returns:
        `REFUSED` and the line that says why, or `SURVIVED` and ''.

    Raises:
        Fault: it ended in a traceback, in a refusal that is not one line, or in a success with damage.
    """
    before = [snapshot(path) for path in case.inputs]
    results: list[Any] = []
    code, shown, errors = run_captured(lambda: results.append(case.program()))
    if before != [snapshot(path) for path in case.inputs]:
        raise Fault('damage: the input was changed')
    if case.output is not None:
        check_output(case.output)
    if code:
        lines = [line for line in errors.splitlines() if line.startswith('error: ')]
        if code != 1 or len(lines) != 1 or not errors.endswith(lines[0] + '\n') or len(lines[0]) > LONGEST:
            raise Fault(f'refusal: expected status 1 and one line, found status {code} and {errors[-500:]!r}')
        if 'the memory does not suffice' in lines[0]:
            raise Fault(f'memory: {lines[0]}')
        return REFUSED, lines[0]
    try:
        case.check(results[0] if results else None, shown + errors)
    except Exception as error:  # whatever a check stumbles over is not as it has to be
        raise Fault(f'damage: {error}\n{traceback.format_exc(limit=-2)}') from None
    return SURVIVED, ''


def run_captured(program: Callable[[], Any]) -> tuple[int, str, str]:
    """Run a program as from the command line; returns its exit status and what it wrote to stdout and stderr.

    Raises:
        Fault: it ended in a traceback.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding='utf-8', write_through=True) for _ in range(2))
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_cli(program)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            raise Fault(f'traceback: {traceback.format_exc(limit=-8)}') from None
    return (code, *(stream.buffer.getvalue().decode('utf-8', 'replace') for stream in (out, err)))


def snapshot(path: Path) -> dict[bytes, tuple]:
    """Return the kind and content of a file, or of all files below a folder."""
    found = {}
    for place in [path, *(path.rglob('*') if path.is_dir() and not path.is_symlink() else ())]:
        name = os.fsencode(place)
        if place.is_symlink():
            found[name] = ('link', os.readlink(place))
        elif place.is_dir():
            found[name] = ('folder', os.lstat(place).st_mode)
        elif place.is_file():
            found[name] = ('file', os.lstat(place).st_mode, place.read_bytes())
        else:
            found[name] = ('other', os.path.lexists(place))
    return found


def check_output(folder: Path) -> None:
    """Raise a Fault if a folder holds temporary files or broken JSON."""
    for path in folder.rglob('*'):
        if TEMPORARY.fullmatch(path.name):
            raise Fault(f'damage: a temporary file stays: {path.name!r}')
        if path.suffix == '.json' and path.is_file():
            try:
                read_strictly(path)
            except ValueError as error:
                raise Fault(f'damage: {path.name} is no JSON: {error}') from None


def read_strictly(path: Path) -> Any:
    """Read JSON; raises a ValueError at NaN and Infinity, too."""

    def refuse(constant: str) -> None:
        raise ValueError(f'it holds {constant}')

    return json.loads(path.read_bytes(), parse_constant=refuse)
