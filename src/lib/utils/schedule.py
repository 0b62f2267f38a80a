"""The learning rate of each epoch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def set_learning_rate(optimizer: 'torch.optim.Optimizer', lr: float, lr_step: Sequence[int], epoch: int) -> float:
    """Set the optimizer's learning rate for the epoch after `epoch` epochs are done, and return it.

    The rate starts at `lr` and drops tenfold after each of the epochs `lr_step`.
    """
    rate = lr * 0.1 ** sum(step <= epoch for step in lr_step)
    for group in optimizer.param_groups:
        group['lr'] = rate
    return rate
