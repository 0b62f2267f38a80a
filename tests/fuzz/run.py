"""Fuzz the programs: break inputs of every format and look for tracebacks, crashes, hangs and damage.

    python tests/fuzz/run.py --count 1000 --seed 0 [--only coco,voc]
    python tests/fuzz/run.py --only coco --seed 0 --first 17 --count 1 --keep FOLDER      repeats one attempt

The attempts run in a child process, which is started anew when one of them ends or hangs it. Exit status 1 on a fault.
"""

import argparse
import faulthandler
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
if __name__ == '__main__':
    sys.path[:1] = [str(TESTS), str(TESTS.parent / 'src')]  # as pytest has it; this folder's names are no modules
    os.environ['OMP_NUM_THREADS'] = '1'

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from centernet.utils.log import configure_logging  # noqa: E402
from fuzz import checkpoints, coco, folders, kernels, kitti, options, results, voc, yolo  # noqa: E402
from fuzz.case import REFUSED, SURVIVED, Fault, attempt  # noqa: E402

SECONDS = 20  # an attempt that takes longer hangs
MEMORY = 500 * 2**20  # bytes; an attempt that takes more, from inputs of some kilobytes, is a fault
# name -> (function that writes a valid input, function that breaks a copy), and the share of all attempts.
FORMATS = {
    'coco': (coco.make_base, coco.make_case, 3),
    'results': (results.make_base, results.make_case, 2),
    'voc': (voc.make_base, voc.make_case, 2),
    'yolo': (yolo.make_base, yolo.make_case, 2),
    'folders': (folders.make_base, folders.make_case, 2),
    'kitti': (kitti.make_base, kitti.make_case, 2),
    'checkpoints': (checkpoints.make_base, checkpoints.make_case, 2),
    'facts': (checkpoints.make_base, checkpoints.make_facts_case, 2),
    'options': (options.make_base, options.make_case, 3),
    'kernels': (kernels.make_base, kernels.make_case, 2),
}


class Attempt(NamedTuple):
    """Which attempt it is: its random numbers come from the seed, the format and the index alone."""

    name: str
    index: int


@dataclass
class Report:
    """Outcomes of a campaign.

    Attributes:
        counts: attempts by (format, outcome).
        faults: the faulty attempts with what happened.
        seconds: how long it took.
    """

    counts: Counter = field(default_factory=Counter)
    faults: list[tuple[Attempt, str]] = field(default_factory=list)
    seconds: float = 0.0

    def table(self) -> str:
        """Return a row for each format."""
        names = list(dict.fromkeys(name for name, _ in self.counts))
        rows = [['format', 'tried', 'refused in one line', 'survived', 'faults']]
        for name in [*names, 'all']:
            chosen = names if name == 'all' else [name]
            kinds = (REFUSED, SURVIVED, 'fault')
            numbers = [sum(self.counts[each, kind] for each in chosen) for kind in kinds]
            rows.append([name, *map(str, [sum(numbers), *numbers])])
        widths = [12, *(len(head) + 3 for head in rows[0][1:])]
        return '\n'.join(''.join(map(str.rjust, row, widths)) for row in rows)


def plan(names: Iterable[str], first: int, count: int) -> list[Attempt]:
    """Return `count` attempts spread over formats by their shares, the indices of each from `first` on."""
    wheel = [name for name in names for _ in range(FORMATS[name][2])]
    used: Counter = Counter()
    attempts = []
    for number in range(count):
        name = wheel[number % len(wheel)]
        attempts.append(Attempt(name, first + used[name]))
        used[name] += 1
    return attempts


def prepare(names: Iterable[str], work: Path) -> None:
    """Write the valid inputs of formats."""
    os.environ['XDG_CACHE_HOME'] = str(work / 'cache')
    configure_logging()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in names:
        base = work / 'base' / name
        base.mkdir(parents=True)
        FORMATS[name][0](base)


def run_attempt(which: Attempt, seed: int, work: Path, keep: bool = False) -> tuple[str, str]:
    """Make and run one attempt in this process; returns its outcome, and of a fault what happened."""
    rng = np.random.default_rng([seed, zlib.crc32(which.name.encode()), which.index])
    folder = work / f'{which.name}-{which.index}'
    folder.mkdir()
    before = os.getcwd()
    os.chdir(folder)
    case = FORMATS[which.name][1](rng, work / 'base' / which.name, folder)
    try:
        peak = peak_memory()
        outcome, line = attempt(case)
        if peak_memory() - peak > MEMORY:
            raise Fault(f'memory: it took {(peak_memory() - peak) >> 20} MB')
        return outcome, f'{case.description}\n{line}'
    except Fault as fault:
        return 'fault', f'{case.description}\n{fault}'
    finally:
        os.chdir(before)
        if not keep:
            shutil.rmtree(folder)


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work_through(attempts: list[Attempt], seed: int, work: Path, keep: bool, pipe: Connection) -> None:
    """The child: run attempts and report on each before and after."""
    faulthandler.disable()
    logging.captureWarnings(False)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for which in attempts:
        pipe.send(None)
        pipe.send(run_attempt(which, seed, work, keep))


def campaign(attempts: list[Attempt], seed: int, work: Path, keep: bool = False, shown: int = 1) -> Report:
    """Run attempts in child processes.

    Args:
        attempts: which, as `plan` gives them; `prepare` must have been called for their formats.
        seed: of all random numbers.
        work: folder for their files.
        keep: leave the files of the attempts.
        shown: 1: print progress and faults as they come, 2: each attempt, 0: nothing.
    """
    report, started, done = Report(), time.monotonic(), 0
    context = multiprocessing.get_context('fork')  # what was imported and prepared need not be again
    while done < len(attempts):
        pipe, theirs = context.Pipe()
        child = context.Process(target=work_through, args=(attempts[done:], seed, work, keep, theirs))
        child.start()
        theirs.close()
        while done < len(attempts):
            outcome = receive(pipe, child)
            if outcome is None:
                break
            which = attempts[done]
            report.counts[which.name, outcome[0]] += 1
            if outcome[0] == 'fault':
                report.faults.append((which, outcome[1]))
                if shown:
                    print(describe(which, seed, outcome[1]), flush=True)
            elif shown > 1:
                print(which.name, which.index, outcome[0], outcome[1].replace('\n', ' -> '), flush=True)
            done += 1
            if shown and done % 500 == 0:
                rate = done / (time.monotonic() - started)
                print(f'{done} of {len(attempts)}, {len(report.faults)} faults, {rate:.0f} a second', flush=True)
            if outcome[1] in (HUNG,) or outcome[1].startswith(ENDED):
                break
        child.kill()
        child.join()
        pipe.close()
    report.seconds = time.monotonic() - started
    return report


HUNG, ENDED = f'hang: it took over {SECONDS} seconds', 'signal: the process ended with '


def receive(pipe: Connection, child: multiprocessing.Process) -> tuple[str, str] | None:
    """Return the outcome of the attempt that runs; None when the child has begun none."""
    begun = False
    try:
        while True:
            if not pipe.poll(SECONDS):
                return 'fault', HUNG
            message = pipe.recv()
            if message is not None:
                return message
            begun = True
    except EOFError:
        child.join()
        code = child.exitcode or 0
        name = signal.Signals(-code).name if code < 0 else f'status {code}'
        return ('fault', ENDED + name) if begun or code else None


def describe(which: Attempt, seed: int, fault: str) -> str:
    """Return a fault with the command that repeats it."""
    command = f'python tests/fuzz/run.py --only {which.name} --seed {seed} --first {which.index} --count 1'
    return f'FAULT {command}\n  ' + fault.replace('\n', '\n  ')


def quick_folder() -> str | None:
    """A folder in memory, where files are made and removed quickly; None where there is none with room."""
    memory = '/dev/shm'
    return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**29 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=1000, help='attempts (default %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of all random numbers')
    parser.add_argument('--only', default=','.join(FORMATS), help='formats (default: %(default)s)')
    parser.add_argument('--first', type=int, default=0, help='index of the first attempt of each format')
    parser.add_argument('--keep', metavar='FOLDER', help='leave the files there, a new folder')
    parser.add_argument('--verbose', action='store_true', help='print each attempt')
    args = parser.parse_args()
    names = args.only.split(',')
    if unknown := set(names) - FORMATS.keys():
        parser.error(f'no such format: {", ".join(unknown)}')
    with tempfile.TemporaryDirectory(dir=quick_folder()) as temporary:
        work = Path(args.keep or temporary).resolve()
        prepare(names, work)
        report = campaign(plan(names, args.first, args.count), args.seed, work, bool(args.keep), 1 + args.verbose)
    print(report.table())
    print(f'{args.count / report.seconds:.1f} attempts a second, {len(report.faults)} faults, seed {args.seed}')
    sys.exit(bool(report.faults))


if __name__ == '__main__':
    main()
