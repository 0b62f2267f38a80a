"""Train as several ranks and as one process with --accumulate, and compare: the number of processes changes nothing.

    python tests/campaigns/ranks.py

For the four tasks and networks of three families, chunks (2, 2) and (3, 1) in two ranks must give the weights of
`--accumulate 2` bit for bit after 10 steps, and (1, 1, 1, 1) in four ranks those of `--accumulate 4`. Exits 1 on any
difference.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

os.environ['OMP_NUM_THREADS'] = '1'  # sums may depend on the number of threads
import torch

from centernet.datasets.dataset_factory import get_dataset
from centernet.datasets.loaders import TrainLoader
from centernet.datasets.toy import make_toy_data
from centernet.models.model import create_model
from centernet.opts import opts
from centernet.trains.train_factory import train_factory
from centernet.utils.cli import run_cli, track
from centernet.utils.launch import start_ranks
from centernet.utils.ranks import ONE, Ranks

TASKS = ('ctdet', 'multi_pose', 'exdet', 'ddd')
ARCHS = ('res_18', 'dla_34', 'dlav0_34')
LOSS = 1e-6  # tolerance of the losses shown, which are averaged in another order; relative


class Job(NamedTuple):
    """A few steps of a task's training on its toy data.

    Attributes:
        data: the folder of `make_toy_data`.
        chunks: images of the batch's chunks.
        steps: how many.
    """

    task: str
    arch: str
    data: str
    chunks: tuple[int, ...]
    steps: int


def make_data(folder: Path, task: str) -> str:
    """Make toy data of a task, 8 images, or find it made."""
    if not folder.exists():
        make_toy_data(folder, task, train=8, val=1, size=(128, 64) if task == 'ddd' else 64)
    return str(folder)


def take_steps(job: Job, ranks: Ranks = ONE) -> dict:
    """Train, in this rank, and return the first `gradient` [all], the `losses` [steps] and the `weights`."""
    place = ['--data_dir', job.data] if job.task == 'ddd' else ['--dataset', job.data]
    size = ['--input_h', '64', '--input_w', '128'] if job.task == 'ddd' else ['--input_res', '64']
    share = ['--batch_size', str(sum(job.chunks)), '--master_batch_size', str(job.chunks[0])]
    accumulate = ['--accumulate', str(len(job.chunks) // ranks.count)]
    rest = ['--arch', job.arch, '--gpus', '-1', '--pretrained', 'none', '--num_workers', '0', '--lr', '1e-3']
    opt = opts().parse([job.task, *place, *size, *share, *accumulate, *rest], launch=ranks.launch)
    dataset_class = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, dataset_class)
    assert tuple(opt.chunk_sizes) == job.chunks
    torch.manual_seed(opt.seed)
    ranks.open_device(opt.device)
    model = create_model(opt.arch, opt.heads, opt.head_conv)
    trainer = train_factory[job.task](opt, model, torch.optim.Adam(model.parameters(), opt.lr, fused=True), ranks)
    trainer.set_device(opt.device)
    loader = TrainLoader(opt, dataset_class(opt, 'train'), ranks)
    trainer.start_learning()
    losses: list[float] = []
    gradient = torch.zeros(0)
    epoch = 0
    while len(losses) < job.steps:
        epoch += 1
        for batch in loader.epoch(epoch):
            losses.append(float(trainer.train_iteration(batch)['loss']))
            if len(losses) == 1:
                gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            if len(losses) == job.steps:
                break
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return {'gradient': gradient, 'losses': torch.tensor(losses), 'weights': weights}


def run_jobs(args: list[str], ranks: Ranks) -> None:
    """Be a rank: do the jobs of a file, and let rank 0 save what each gives beside it."""
    for number, job in enumerate(torch.load(args[0], weights_only=False)):
        found = take_steps(Job(*job), ranks)
        if ranks.is_lead:
            torch.save(found, f'{args[0]}.{number}')


def differences(jobs: Sequence[Job], count: int, folder: Path) -> list[str]:
    """Do jobs in `count` ranks and in one process; return a line for each that differs more than it may."""
    file = folder / f'jobs_{count}.pt'
    torch.save([tuple(job) for job in jobs], file)
    start_ranks(run_jobs, [str(file)], count)
    torch.set_num_threads(1)
    lines = []
    for number, job in enumerate(track(jobs, f'{count} ranks')):
        theirs, mine = torch.load(f'{file}.{number}', weights_only=True), take_steps(job)
        gradient = float((theirs['gradient'] - mine['gradient']).abs().max() / mine['gradient'].abs().max())
        loss = float((theirs['losses'] / mine['losses'] - 1).abs().max())
        unequal = [name for name, value in mine['weights'].items() if not torch.equal(value, theirs['weights'][name])]
        wrong = bool(unequal) or gradient > 0 or loss > LOSS
        found = f'gradient {gradient:.2g}, losses {loss:.2g}, {len(unequal)} weights and statistics not bit-equal'
        line = f'{job.task} {job.arch} {job.chunks} in {count} ranks, {job.steps} steps: {found}'
        print(line + (' WRONG' if wrong else ''))
        if wrong:
            lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--steps', type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = {task: make_data(Path(folder) / task, task) for task in TASKS}
        for_two = [
            Job(task, arch, data[task], chunks, args.steps)
            for task, arch, chunks in product(TASKS, ARCHS, [(2, 2), (3, 1)])
        ]
        for_four = [Job(task, arch, data[task], (1, 1, 1, 1), args.steps) for task, arch in product(TASKS, ARCHS)]
        wrong = differences(for_two, 2, Path(folder)) + differences(for_four, 4, Path(folder))
    print(f'{len(wrong)} of {len(for_two) + len(for_four)} differ')
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    run_cli(main)
