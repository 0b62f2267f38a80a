"""Measures things against one another: in one process, turn by turn, so that a busy machine hits all alike."""

import gc
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

LEAST_ROUNDS = 5  # of which the median is taken, also of what takes seconds


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: what both do.
        ours, peer: milliseconds, medians.
        peer_name: what ours is measured against.
        goal: the ratio that is asked for, such as '>= 10'; '' where none is.
    """

    what: str
    ours: float
    peer: float
    peer_name: str
    goal: str = ''

    @property
    def ratio(self) -> float:
        """How many times as long the peer takes."""
        return self.peer / self.ours


def alternate(
    functions: Mapping[str, Callable[[], object]],
    seconds: float,
    most: int = 200,
    device: str = 'cpu',
    pause: float = 0.0,
) -> dict[str, float]:
    """Time functions in turns, after one call each, for so many seconds or `LEAST_ROUNDS`; return median ms of each.

    `pause` is the seconds before each call in which the threads of other libraries, which wait in loops, come to rest.
    """
    wait = torch.cuda.synchronize if device.startswith('cuda') else lambda: None
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    wait()
    gc.collect()
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or (rounds < most and time.perf_counter() < end):
        for name, function in functions.items():
            time.sleep(pause)
            start = time.perf_counter()
            function()
            wait()
            times[name].append(1000 * (time.perf_counter() - start))
        rounds += 1
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(make: Callable[..., Callable[[], object]], *args) -> float:
    """Measure the MiB that a fresh process takes, over its imports, to make something and call it three times."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report_peak, args=(sender, make, args))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        child.join()


def _report_peak(sender, make: Callable[..., Callable[[], object]], args: tuple) -> None:
    before = highest_memory()
    step = make(*args)
    for _ in range(3):
        step()
    sender.send(highest_memory() - before)


def highest_memory() -> float:
    """Return the MiB that this process has held at most (Linux; `ru_maxrss` would begin with the parent's)."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM'))


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Format rows of text as a Markdown table, in columns."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def text(line: tuple[str, ...]) -> str:
        return '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + ' |'

    return '\n'.join([text(header), '|' + '|'.join('-' * (width + 2) for width in widths) + '|', *map(text, rows)])


def processor() -> str:
    """Return a line on the machine that the numbers were measured on."""
    names = [line.partition(':')[2].strip() for line in cpu_info() if line.startswith('model name')]
    name = names[0] if names else platform.processor() or platform.machine()
    return f'{name}, {torch.get_num_threads()} threads, torch {torch.__version__}'


def cpu_info() -> list[str]:
    path = Path('/proc/cpuinfo')
    return path.read_text().splitlines() if path.exists() else []
