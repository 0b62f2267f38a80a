"""Kill one of two ranks at random moments, see the other end, resume, and compare with a run that was left alone.

    python tests/campaigns/rank_kills.py --kills 10

Rank 0 and rank 1 are killed `--kills` times each by SIGKILL. After each kill the other rank must be gone within 30
seconds, and one line must name the one that died; resumed, with two ranks, the run must end with the weights and the
optimizer's state of an undisturbed run bit for bit. At last one run is killed under torchrun's --max_restarts 1 and
must reach the same end without a hand. Exits 1 on any difference.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'  # sums may depend on the number of threads
import torch

from centernet.datasets.toy import make_toy_data
from centernet.utils.cli import run_cli

SRC = Path(__file__).resolve().parents[2] / 'src'
MAIN = SRC / 'main.py'
TINY = [
    '--arch',
    'res_18',
    '--head_conv',
    '0',
    '--input_res',
    '64',
    '--batch_size',
    '4',
    '--lr',
    '1e-3',
    '--gpus',
    '-1',
]
LOOP = ['--pretrained', 'none', '--num_workers', '1', '--num_epochs', '4', '--val_intervals', '2', '--print_iter', '1']
LOOP += ['--save_minutes', '0.002']
MAY_TAKE = 30  # seconds that the other rank lives on
PATIENCE = 300  # seconds for one run


def torchrun(script: Path, *args: object, options: Sequence[str] = ()) -> subprocess.Popen:
    """Start a program as two ranks under torchrun, in a session of its own, on two cores: a thread each."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', *options]
    return subprocess.Popen(
        [*command, str(script), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=SRC,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2]),
    )


def ranks_of(run: subprocess.Popen) -> dict[int, int]:
    """Return the process ids of the ranks that run now, by rank."""
    found = {}
    for task in Path(f'/proc/{run.pid}/task').glob('*/children'):
        for pid in task.read_text().split():
            try:
                parts = Path(f'/proc/{pid}/environ').read_text().split('\0')
            except OSError:
                continue
            environment = dict(part.split('=', 1) for part in parts if '=' in part)
            if 'RANK' in environment:
                found[int(environment['RANK'])] = int(pid)
    return found


def both_ranks(run: subprocess.Popen) -> dict[int, int] | None:
    """Wait for both ranks, and return their process ids; None when the program is over before."""
    deadline = time.monotonic() + PATIENCE
    while len(found := ranks_of(run)) < 2:
        if run.poll() is not None or time.monotonic() > deadline:
            return None
        time.sleep(0.1)
    return found


def kill(run: subprocess.Popen, rank: int, delay: float) -> int | None:
    """Kill a rank `delay` seconds after both are there; returns its process id, None when the run was over before."""
    found = both_ranks(run)
    if found is None:
        return None
    time.sleep(delay)
    try:
        os.kill(found[rank], signal.SIGKILL)
    except ProcessLookupError:
        return None
    return found[rank]


def state(folder: Path, name: str = 'model_last.pth') -> dict[str, torch.Tensor]:
    """Return the weights, the optimizer's state and the place of a run's checkpoint, by name."""
    content = torch.load(folder / name, weights_only=True)
    tensors = dict(content['state_dict'])
    for key, values in content['optimizer']['state'].items():
        tensors.update({f'{key} {name}': value for name, value in values.items()})
    return {**tensors, **{name: torch.tensor(content[name]) for name in ('epoch', 'iteration')}}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two states are the same bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Campaign:
    """The kills, and what went wrong.

    Args:
        folder: for data and runs.
        seed: of the moments.
    """

    def __init__(self, folder: Path, seed: int):
        self.rng = random.Random(seed)
        data = str(make_toy_data(folder / 'toy', train=12, val=3, size=64))
        self.args = ['ctdet', '--dataset', data, '--exp_dir', str(folder / 'exp'), *TINY, *LOOP]
        self.runs = folder / 'exp' / 'ctdet'
        self.wrong: list[str] = []
        self.slowest = 0.0
        started = time.monotonic()
        output = torchrun(MAIN, *self.args, '--exp_id', 'whole').communicate(timeout=PATIENCE)[0]
        if 'done: 4 epochs' not in output:
            sys.exit(output)
        self.length = time.monotonic() - started
        self.whole = state(self.runs / 'whole')

    def delay(self) -> float:
        """Return a moment within a run, from its ranks' start on."""
        return self.rng.uniform(0, 0.8 * self.length)

    def kill_and_resume(self, rank: int, number: int) -> None:
        """Kill a rank once while the run lasts, and go on with it."""
        attempt = 0
        while not self.kill_once(rank, name := f'rank{rank}_{number}{"_late" * attempt}'):
            attempt += 1
        self.resume(name)

    def kill_once(self, rank: int, name: str) -> bool:
        """Kill a rank at a random moment; returns False when the run was over before: there is nothing to resume."""
        run = torchrun(MAIN, *self.args, '--exp_id', name)
        delay = self.delay()
        victim = kill(run, rank, delay)
        killed = time.monotonic()
        output = run.communicate(timeout=PATIENCE)[0]
        took = time.monotonic() - killed
        if victim is None or 'done: 4 epochs' in output:
            print(f'{name}: over before {delay:.1f} s', flush=True)
            return False
        lines = re.findall(rf'^error: rank {rank} \(process {victim} .*', output, re.MULTILINE)
        self.slowest = max(self.slowest, took)
        joined = 'train: 12 images' in output  # before that no rank knows of another, and torchrun ends them
        if took > MAY_TAKE or run.returncode == 0 or (joined and len(lines) != 1):
            self.wrong.append(f'{name}: {took:.1f} s, status {run.returncode}, {lines}\n{output}')
        said = lines[0] if lines else '-'
        print(f'{name}: killed after {delay:.1f} s, others gone in {took:.1f} s: {said}', flush=True)
        return True

    def resume(self, name: str) -> None:
        """Go on with a run that was killed, and compare its end with that of the whole one."""
        started = (self.runs / name).exists()
        rest = torchrun(MAIN, *self.args, '--exp_id', name, *(['--resume'] if started else []))
        ending = rest.communicate(timeout=PATIENCE)[0]
        if 'done: 4 epochs' not in ending or not equal(state(self.runs / name), self.whole):
            self.wrong.append(f'{name}: another end after the resume\n{ending}')
        left = [path.name for path in (self.runs / name).iterdir() if path.name.startswith('.') or 'tmp' in path.name]
        if left or (self.runs / name / 'training.lock').exists():
            self.wrong.append(f'{name}: left behind: {left}')

    def kill_with_restart(self) -> None:
        """Kill rank 1 once under --max_restarts 1."""
        run = torchrun(MAIN, *self.args, '--exp_id', 'restarted', options=['--max_restarts', '1'])
        kill(run, 1, 0.6 * self.length)
        output = run.communicate(timeout=PATIENCE)[0]
        if run.returncode != 0 or not equal(state(self.runs / 'restarted'), self.whole):
            self.wrong.append(f'restarted: status {run.returncode}\n{output}')
        print(f'--max_restarts 1: status {run.returncode}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--kills', type=int, default=10, help='of each rank (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), args.seed)
        for number in range(args.kills):
            for rank in (0, 1):
                campaign.kill_and_resume(rank, number)
        campaign.kill_with_restart()
    print('\n'.join(campaign.wrong))
    print(f'{2 * args.kills} kills, slowest end {campaign.slowest:.1f} s, {len(campaign.wrong)} wrong')
    sys.exit(1 if campaign.wrong else 0)


if __name__ == '__main__':
    run_cli(main)
