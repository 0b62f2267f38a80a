"""Figures for docs/scaling.md: bytes that ranks exchange, loaders that a GPU needs, what two ranks gain here.

python benchmarks/scaling.py table      # parameters, FLOPs and link speeds of every arch; samples/s of one core
python benchmarks/scaling.py ranks      # images/s of 2 ranks with a thread each against one process with a thread
"""

import argparse
import statistics
import time
from math import prod

import torch
import torchvision  # noqa: F401  registers its operators
from torch.utils.flop_counter import FlopCounterMode

import data
from centernet.datasets.dataset_factory import get_dataset
from centernet.models.families import ARCHS
from centernet.models.model import create_model
from centernet.opts import Options, opts
from centernet.trains.base_trainer import BaseTrainer
from centernet.trains.train_factory import train_factory
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.launch import start_ranks
from centernet.utils.ranks import ONE, Ranks
from timing import processor

HEADS = {'hm': 80, 'wh': 2, 'reg': 2}
SIDE = 512
IMAGES = 16  # of a GPU's share of a batch
TFLOPS = 50  # that a GPU is taken to reach in training
RANKS = 2
ROUNDS = 5


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('table', 'ranks'))
    parser.add_argument('--arch', default='dlav0_34', help='of ranks (default: %(default)s)')
    parser.add_argument('--side', type=int, default=256, help='input of ranks in pixels (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=8, help='images a step of ranks (default: %(default)s)')
    options = parser.parse_args(args)
    print(processor(), flush=True)
    if options.what == 'table':
        print_archs()
        print_samples()
    else:
        start_ranks(compare, [options.arch, str(options.side), str(options.batch)], RANKS)


# ------------------------------------------------------------------------------------------------ the table


def print_archs() -> None:
    """Print what a step of each arch computes and exchanges, and the link that hides the one behind the other.

    A ring all-reduce among many ranks sends every byte twice. The backward pass is two thirds of the operations.
    """
    print(f'\nfor {IMAGES} images of {SIDE} px a GPU that reaches {TFLOPS} TFLOP/s in training:')
    print('| arch | parameters | exchanged a step | GFLOP an image | step, ms | images/s | link to hide it |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    for arch in ARCHS:
        network = create_model(arch, HEADS, 256 if arch.startswith('dla') else 64)
        count = sum(parameter.numel() for parameter in network.parameters())
        operations = 3 * forward_operations(network)  # the backward pass takes two forward passes' work
        step = IMAGES * operations / (TFLOPS * 1e12)
        link = 2 * 4 * count * 8 / (step * 2 / 3)
        print(
            f'| {arch} | {count / 1e6:.1f} M | {4 * count / 1e6:.0f} MB | {operations / 1e9:.0f} | {1000 * step:.0f} '
            f'| {IMAGES / step:.0f} | {link / 1e9:.1f} Gbit/s |',
            flush=True,
        )


def forward_operations(network: torch.nn.Module) -> int:
    """Return the floating-point operations of one image's forward pass; a multiplication and an addition are two."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: deform_operations})
    with counter, torch.device('meta'):
        network.to('meta')(torch.empty(1, 3, SIDE, SIDE))
    return counter.get_total_flops()


def deform_operations(image: list[int], weight: list[int], *_: object, out_shape: list[int], **__: object) -> int:
    """Return the operations of a deformable convolution's product: those of the plain one of its shape."""
    return 2 * prod(out_shape) * prod(weight[1:])


def print_samples() -> None:
    """Print how many samples one core makes a second."""
    for row in data.rows(6):
        print(f'\nsamples/s of one core: {1000 / row.ours:.0f} ({row.what})')


# ------------------------------------------------------------------------------------------------ two ranks


def compare(args: list[str], ranks: Ranks) -> None:
    """Be a rank: steps of all ranks and of rank 0 alone, in turns, and let rank 0 print how they compare."""
    arch, side, batch = args[0], int(args[1]), int(args[2])
    torch.set_num_threads(1)
    together, share = make_trainer(arch, side, batch, ranks)
    alone, whole = make_trainer(arch, side, batch, ONE)
    times: dict[str, list[float]] = {'one process': [], f'{ranks.count} ranks': []}
    for turn in range(ROUNDS + 1):
        ranks.wait()
        seconds = timed_step(alone, whole) if ranks.is_lead else 0.0
        ranks.wait()
        both = timed_step(together, share)
        if turn > 0:  # the first warms up
            for name, value in zip(times, (seconds, both), strict=True):
                times[name].append(value)
    if ranks.is_lead:
        rates = {name: batch / statistics.median(values) for name, values in times.items()}
        for name, rate in rates.items():
            print(f'{arch}, {batch} images of {side} px, {name} with a thread (each): {rate:.2f} images/s')
        one, many = rates.values()
        print(f'{many / one:.2f} x', flush=True)


def timed_step(trainer: BaseTrainer, batch: dict) -> float:
    """Return the seconds that a step takes."""
    start = time.perf_counter()
    trainer.train_iteration(batch)
    return time.perf_counter() - start


def make_trainer(arch: str, side: int, batch: int, ranks: Ranks) -> tuple[BaseTrainer, dict]:
    """Return a trainer of ctdet, and this rank's part of a batch of noise with some objects."""
    args = ['ctdet', '--arch', arch, '--input_res', str(side), '--batch_size', str(batch), '--gpus', '-1']
    opt = opts().parse([*args, '--pretrained', 'none'], launch=ranks.launch)
    opts.update_dataset_info_and_set_heads(opt, get_dataset(opt.dataset, opt.task))
    torch.manual_seed(opt.seed)
    ranks.open_device(opt.device)
    network = create_model(opt.arch, opt.heads, opt.head_conv)
    optimizer = torch.optim.Adam(network.parameters(), opt.lr, fused=True)
    trainer = train_factory[opt.task](opt, network, optimizer, ranks)
    trainer.set_device(opt.device)
    trainer.start_learning()
    return trainer, make_batch(opt, sum(trainer.chunk_sizes))


def make_batch(opt: Options, images: int) -> dict:
    """Make targets of 8 objects an image."""
    objects = 8
    return {
        'input': torch.randn(images, 3, opt.input_h, opt.input_w),
        'hm': torch.rand(images, opt.num_classes, opt.output_h, opt.output_w) ** 8,
        'reg_mask': torch.ones(images, objects, dtype=torch.uint8),
        'ind': torch.randint(opt.output_h * opt.output_w, (images, objects)),
        'wh': 8 * torch.rand(images, objects, 2),
        'reg': torch.rand(images, objects, 2),
    }


if __name__ == '__main__':
    run_cli(main)
