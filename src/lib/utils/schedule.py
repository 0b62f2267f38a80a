"""The learning rate of each epoch, and of each iteration of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR


def step_factor(lr_step: Sequence[int], epoch: int) -> float:
    """Return the share of the rate that is left after `epoch` epochs: it drops tenfold after each of `lr_step`."""
    return 0.1 ** sum(step <= epoch for step in lr_step)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, lr_step: Sequence[int], epoch: int) -> float:
    """Set the optimizer's learning rate for the epoch after `epoch` epochs are done, and return it.

    The rate starts at `lr` and drops tenfold after each of the epochs `lr_step`.
    """
    rate = lr * step_factor(lr_step, epoch)
    for group in optimizer.param_groups:
        group['lr'] = rate
    return rate


@dataclass(frozen=True)
class Schedule:
    """The share of `--lr` that each iteration of a run is trained with.

    Attributes:
        kind: 'step' (tenfold drops) or 'cosine' (down to 0 along half a cosine, "SGDR", Loshchilov and Hutter 2017,
            without restarts).
        lr_step: epochs after which it drops, with 'step'.
        epochs: of the run.
        epoch_length: iterations of an epoch.
        warmup: iterations over which the rate rises from 0 in a straight line (Goyal et al. 2017), 0 for none.
    """

    kind: str
    lr_step: Sequence[int]
    epochs: int
    epoch_length: int
    warmup: int

    def __call__(self, done: int) -> float:
        """Return the share for the iteration after `done` ones, counted over all epochs."""
        rise = min(1, (done + 1) / self.warmup) if self.warmup > 0 else 1
        return rise * (self.cosine(done) if self.kind == 'cosine' else step_factor(self.lr_step, self.epoch(done)))

    def warmup_left(self, done: int) -> int:
        """Return the iterations of the warm-up that are to come after `done` ones."""
        return max(0, self.warmup - done)

    def epoch(self, done: int) -> int:
        """Return the epochs that are over after `done` iterations."""
        return done // self.epoch_length

    def cosine(self, done: int) -> float:
        """Return a half cosine's value: from 1 at the end of the warm-up to 0 at the end of the run."""
        length = self.epochs * self.epoch_length - self.warmup
        progress = (done - self.warmup) / max(1, length)
        return (1 + math.cos(math.pi * min(1, max(0, progress)))) / 2

    def drops_after(self, epoch: int) -> bool:
        """Return whether the rate drops tenfold after that epoch."""
        return self.kind == 'step' and epoch in self.lr_step

    def start(self, optimizer: torch.optim.Optimizer, lr: float, done: int) -> LambdaLR:
        """Return what sets the optimizer's rate from the iteration after `done` ones on; to be stepped after each."""
        for group in optimizer.param_groups:
            group['lr'] = group['initial_lr'] = lr
        return LambdaLR(optimizer, self, last_epoch=done - 1)
