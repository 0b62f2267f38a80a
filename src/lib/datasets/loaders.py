"""Batches for training and validation."""

import gc
import signal
from argparse import Namespace
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

GRACE = 20


class EpochSampler(Sampler[int]):
    """Visits all images in an order that depends on (seed, epoch) alone; may skip the first ones (mid-epoch resume)."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed
        self.epoch, self.skip = 1, 0

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return iter(order[self.skip :].tolist())

    def __len__(self) -> int:
        return max(self.size - self.skip, 0)


class TrainLoader:
    """Shuffled training batches, epoch by epoch.

    The last short batch is dropped when there is a full one.
    """

    def __init__(self, opt: Namespace, dataset: Dataset):
        self.dataset, self.batch_size = dataset, opt.batch_size
        self.sampler = EpochSampler(len(dataset), opt.seed)
        self.loader = DataLoader(
            dataset,
            batch_size=opt.batch_size,
            sampler=self.sampler,
            drop_last=len(dataset) >= opt.batch_size,
            **worker_options(opt),
        )

    def __len__(self) -> int:
        return max(len(self.dataset) // self.batch_size, 1)

    def epoch(self, epoch: int, start: int = 0) -> DataLoader:
        """The batches of that epoch (its number from 1), without the first `start`."""
        self.sampler.epoch, self.sampler.skip = epoch, start * self.batch_size
        self.dataset.set_epoch(epoch)
        return self.loader


def val_loader(opt: Namespace, dataset: Dataset) -> DataLoader:
    """Validation batches of one image each, in order."""
    return DataLoader(dataset, batch_size=1, shuffle=False, **worker_options(opt))


def worker_options(opt: Namespace) -> dict:
    """DataLoader options: workers that stay alive between epochs, pinned memory where there is a GPU."""
    return {
        'num_workers': opt.num_workers,
        'persistent_workers': opt.num_workers > 0,
        'pin_memory': opt.device.type == 'cuda',
        'worker_init_fn': init_worker,
    }


def init_worker(worker: int) -> None:
    """One thread a worker process: there are as many of them as cores.

    Ctrl-C, and a SIGTERM to the whole process group, are for the main process, which still needs its workers to end in
    an orderly way; after a SIGTERM they live on for `GRACE` seconds.

    Garbage collections pass over what the main process had made: they would write into its pages, and so copy them.
    """
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
