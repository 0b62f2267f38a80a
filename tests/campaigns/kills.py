"""Kill training at random moments, resume it, and compare how it ends with a run that was left alone.

    python tests/campaigns/kills.py --kills 100

A chain is one run, ended again and again by SIGKILL (now and then by SIGTERM or Ctrl-C) while it starts, trains,
saves or validates, each time resumed, until it is done. Its last and its best checkpoint must then equal those of
the undisturbed run bit for bit, and its folder must hold no temporary file and no lock. Exits 1 on any difference.
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
from argparse import Namespace
from collections import Counter
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'  # sums may depend on the number of threads
import torch

SRC = Path(__file__).resolve().parents[2] / 'src'
TINY = [
    '--arch',
    'res_18',
    '--head_conv',
    '0',
    '--input_res',
    '64',
    '--batch_size',
    '3',
    '--lr',
    '1e-3',
    '--gpus',
    '-1',
]
LOOP = ['--pretrained', 'none', '--num_epochs', '3', '--lr_step', '2', '--val_intervals', '1', '--print_iter', '1']
PHASES = ('start', 'epoch', 'save', 'validation')
SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT]
PATIENCE = 300  # seconds for one run


class Run:
    """One process of main.py in a session of its own, its output in a file.

    Args:
        args: the command line after `main.py`.
        folder: the run's folder.
        output: the file for what it prints.
    """

    def __init__(self, args: list[str], folder: Path, output: Path):
        self.folder, self.output = folder, output
        self.started = time.time()
        command = [sys.executable, '-u', str(SRC / 'main.py'), *args]
        with open(output, 'w') as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text()

    def is_in(self, phase: str) -> bool:
        """Return whether the run is in that phase now."""
        text = self.text()
        if phase == 'save':
            return any(self.folder.glob('.*-writing-*'))
        if phase == 'validation':
            return text.count('train epoch') > text.count('val epoch')
        return phase == 'start' or re.search(r'train \[\d+\]: \d+/', text) is not None

    def kill_in(self, phase: str, rng: random.Random, start_seconds: float) -> signal.Signals | None:
        """Send a random signal at a random moment of the phase; returns it, None when the run was done before."""
        number, group = rng.choice(SIGNALS), rng.random() < 0.5
        delay = rng.random() * {'start': start_seconds, 'epoch': 1.0, 'save': 0.1, 'validation': 0.5}[phase]
        while not self.is_in(phase):
            if self.process.poll() is not None:
                return None
            time.sleep(0.002)
        time.sleep(delay)
        if self.process.poll() is not None:
            return None
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        self.process.wait(PATIENCE)
        return number


def differences(whole: Path, chain: Path) -> list[str]:
    """Return how the files of two runs' folders differ; leftovers of the second count too."""
    found = [f'left behind: {path.name}' for path in chain.iterdir() if '-writing-' in path.name]
    found += [f'left behind: {path.name}' for path in chain.glob('*.lock')]
    for name in ('model_last.pth', 'model_best.pth'):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (whole, chain))
        a['options']['num_workers'] = b['options']['num_workers']  # loader processes, which change nothing else
        found += [f'{name}: {key}' for key in a.keys() | b.keys() if not equal(a.get(key), b.get(key))]
    return found


def equal(a: object, b: object) -> bool:
    """Return whether two values, or nests of lists, dicts and tensors, are the same to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def run_chain(command: list[str], folder: Path, output: Path, kills: int, rng: random.Random, start: float) -> Counter:
    """Run to the end, with so many kills on the way; returns how often each (phase, signal) ended it.

    Raises:
        RuntimeError: a run failed, or printed a traceback.
    """
    done: Counter = Counter()
    while True:
        run = Run([*command, '--resume'], folder, output)
        number = None
        if sum(done.values()) < kills:
            phase = rng.choice(PHASES)
            number = run.kill_in(phase, rng, start)
        status = run.process.wait(PATIENCE)
        expected = {0} if number is None else {0, -number, 130}
        if status not in expected or 'Traceback' in run.text():
            raise RuntimeError(f'exit status {status} after {number}:\n{run.text()}')
        if status == 0:
            return done
        done[phase, signal.Signals(number).name] += 1


def campaign(opt: Namespace, place: Path) -> int:
    """Run the chains and print what came of each; returns how many went wrong."""
    toy = place / 'toy'
    make = [sys.executable, str(SRC / 'tools/make_toy_data.py'), str(toy), '--task', 'ctdet']
    subprocess.run([*make, '--train', '12', '--val', '4', '--size', '64'], check=True, capture_output=True)
    command = ['ctdet', '--dataset', str(toy), '--exp_dir', str(place), *TINY, *LOOP]

    def arguments(name: str, workers: int) -> list[str]:
        return [*command, '--exp_id', name, '--num_workers', str(workers)]

    whole = Run(arguments('whole', 0), place / 'ctdet/whole', place / 'whole.txt')
    while not whole.is_in('epoch') and whole.process.poll() is None:
        time.sleep(0.01)
    start = time.time() - whole.started
    if whole.process.wait(PATIENCE) != 0:
        raise RuntimeError(whole.text())

    rng = random.Random(opt.seed)
    total, wrong, number = Counter(), 0, 0
    while sum(total.values()) < opt.kills:
        workers = opt.workers[number % len(opt.workers)]
        name = f'chain_{number}'
        kills = min(rng.randint(1, 4), opt.kills - sum(total.values()))
        folder = place / 'ctdet' / name
        done = run_chain(arguments(name, workers), folder, place / f'{name}.txt', kills, rng, start)
        found = differences(whole.folder, folder)
        total += done
        wrong += bool(found)
        number += 1
        ends = ', '.join(f'{phase} {name}' for phase, name in done.elements())
        print(f'{name}, {workers} workers: {ends or "not hit"}: {"; ".join(found) or "bit-equal"}', flush=True)
        for path in folder.glob('*.pth'):  # over 100 MB each
            path.unlink()

    names = sorted({name for _, name in total})
    print(f'\n{"phase":12}' + ''.join(f'{name:>10}' for name in names))
    for phase in PHASES:
        print(f'{phase:12}' + ''.join(f'{total[phase, name]:10}' for name in names))
    print(f'{sum(total.values())} kills in {number} chains, {wrong} chains differ')
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', default='0,2', help='numbers of loader processes, by turns')
    opt = parser.parse_args()
    opt.workers = [int(number) for number in opt.workers.split(',')]
    with tempfile.TemporaryDirectory() as place:
        sys.exit(1 if campaign(opt, Path(place)) else 0)


if __name__ == '__main__':
    main()
