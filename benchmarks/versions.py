"""This checkout against another one, such as that before a change: whole detectors in float32, turn by turn.

    python benchmarks/versions.py ../before [--archs res_18 dla_34] [--batches 1 8] [--threads 2] [--seconds 20]

The other checkout's kernels have to be built (`make setup` there). Each runs in a process of its own, one at a time.
The work is what the processor spent: with `--threads 1` it says which is faster also on a machine that is busy, where
the time that passes says little. The sums of the first picture's scores are to be the same but for rounding.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError
from networks import SIDE
from timing import LEAST_ROUNDS, processor, table

HERE = Path(__file__).resolve().parent
HEADER = ('network', 'batch', 'ms there', 'ms here', 'ratio', 'work there, ms', 'work here, ms', 'ratio', 'scores')
CASES = {'res_18': (1, 8), 'dlav0_34': (1, 8), 'dla_34': (1, 8), 'hourglass': (1,)}
PAUSE = 0.05  # seconds between two measurements


class Checkout:
    """A process that runs detectors of a checkout.

    Args:
        root: the checkout's folder.
    """

    def __init__(self, root: Path):
        path = os.pathsep.join([str(root / 'src'), os.environ.get('PYTHONPATH', '')])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / 'version_worker.py')],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': path},
        )

    def ask(self, **request: str | int) -> dict[str, float]:
        """Send a request, wait for the answer; see version_worker.py."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f'{json.dumps(request)}\n')
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('{'):  # not a note of the library
                return json.loads(line)
        raise UserError('a checkout has ended without an answer: its message is above')


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('there', type=Path, help='the other checkout')
    parser.add_argument('--archs', nargs='+', default=list(CASES), choices=list(CASES))
    parser.add_argument('--batches', nargs='+', type=int, help='images at a time (1 and 8; hourglass 1)')
    parser.add_argument('--threads', type=int, default=2, help='that each computes with (%(default)s)')
    parser.add_argument('--seconds', type=float, default=20, help='for each line, more or less (%(default)s)')
    options = parser.parse_args(args)
    if not (options.there / 'src' / 'lib').is_dir():
        raise UserError(f"'{options.there}' is no checkout: it has no src/lib")
    print(processor(), flush=True)
    rows = []
    for arch in options.archs:
        for batch in options.batches or CASES[arch]:
            rows.append(measure(options.there, arch, batch, options.threads, options.seconds))
            print(f'measured: {arch}, batch {batch}: {rows[-1][4]}, work {rows[-1][7]}', flush=True)
    print(f'\n{table(HEADER, rows)}')


def measure(there: Path, arch: str, batch: int, threads: int, seconds: float) -> tuple[str, ...]:
    """Measure a network in both checkouts; returns a row of the table."""
    checkouts = {'there': Checkout(there), 'here': Checkout(HERE.parent)}
    request = {'arch': arch, 'side': SIDE, 'batch': batch, 'threads': threads}
    scores = [f'{checkout.ask(**request)["found"]:.5g}' for checkout in checkouts.values()]
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    end = time.perf_counter() + seconds
    while len(answers['here']) < LEAST_ROUNDS or time.perf_counter() < end:
        for name, checkout in checkouts.items():
            time.sleep(PAUSE)
            answers[name].append(checkout.ask())
    for checkout in checkouts.values():
        checkout.process.communicate()
    cells = []
    for unit in ('seconds', 'work'):
        ours, theirs = (
            1000 / batch * statistics.median(answer[unit] for answer in answers[name]) for name in ('here', 'there')
        )
        cells += [f'{theirs:.1f}', f'{ours:.1f}', f'{theirs / ours:.2f} x']
    return arch, str(batch), *cells, ', '.join(scores)


if __name__ == '__main__':
    run_cli(main)
