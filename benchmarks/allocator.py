"""What keeping freed memory gains: milliseconds and page faults an image, of single images and of batches of 8.

    python benchmarks/allocator.py

From decoded images of 512 x 512 to their boxes, without and with `keep_freed_memory`, each in a process of its own, by
turns. Prints the medians, the memory at its peak, and how much longer an image of a batch takes than a single one.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

from centernet.utils.allocator import chosen_by, keep_freed_memory
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError
from networks import detector, random_picture
from timing import highest_memory, processor

ARCHS = ('res_18', 'dlav0_34', 'dla_34')
BATCHES = (1, 8)
SERVE = 'serve'  # the command of the processes that are measured
SETTINGS = {'as it was': False, 'kept': True}


def serve(kept: bool, arch: str, batch: int) -> None:
    """Detect in a batch for each line of the input; print ms and page faults an image, and the peak in MiB."""
    if kept and not keep_freed_memory():
        raise UserError('freed memory cannot be kept here')
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the figures
        detect = partial(detector(arch).run_batch, [random_picture()] * batch)
        for _ in range(2):
            detect()
    for _ in sys.stdin:
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        detect()
        after = resource.getrusage(resource.RUSAGE_SELF)
        measured = [(time.perf_counter() - began) * 1e3 / batch, (after.ru_minflt - before.ru_minflt) / batch]
        print(json.dumps([*measured, highest_memory()]), flush=True)


def measure(arch: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Return the medians `{setting: [milliseconds and faults an image, MiB at the peak]}`."""
    command = [sys.executable, __file__, SERVE]
    servers = {
        name: subprocess.Popen(
            [*command, str(int(kept)), arch, str(batch)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name, kept in SETTINGS.items()
    }
    measured: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            assert server.stdin is not None and server.stdout is not None
            server.stdin.write('\n')
            server.stdin.flush()
            line = server.stdout.readline()
            if not line:
                raise UserError(f'the process that measures {arch} has ended')
            measured[name].append(json.loads(line))
    for server in servers.values():
        server.communicate()
    return {name: [statistics.median(values) for values in zip(*rows, strict=True)] for name, rows in measured.items()}


def main() -> None:
    if sys.argv[1:2] == [SERVE]:
        return serve(bool(int(sys.argv[2])), sys.argv[3], int(sys.argv[4]))
    parser = OneLineParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    args = parser.parse_args()
    print(processor())
    print_table(args.rounds)


def print_table(rounds: int) -> None:
    """Measure, and print a line for each network, batch and setting."""
    if variable := chosen_by(os.environ):
        raise UserError(f'{variable} is set: the allocator is chosen already')
    print('| network | batch | memory | ms an image | faults an image | peak, MiB | batch of 8 / single |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    for arch in ARCHS:
        single: dict[str, float] = {}
        for batch in BATCHES:
            for name, (ms, faults, peak) in measure(arch, batch, rounds).items():
                ratio = f'{ms / single[name]:.3f}' if name in single else ''
                single.setdefault(name, ms)
                print(f'| {arch} | {batch} | {name} | {ms:.1f} | {faults:.0f} | {peak:.0f} | {ratio} |', flush=True)


if __name__ == '__main__':
    run_cli(main)
