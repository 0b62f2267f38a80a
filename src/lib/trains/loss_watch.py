"""Notices a loss that explodes without becoming infinite."""

from collections import deque
from statistics import median
from typing import NamedTuple

import torch

FACTOR = 10  # times the median before
LENGTH = 50  # iterations in a row
MEMORY = 1000  # losses of which the median is taken


class Explosion(NamedTuple):
    """A loss, and the median that it is far above."""

    loss: float
    median: float


class LossWatch:
    """Compares losses with the median of those before them, once.

    Losses stay on the device until there are `LENGTH` of them: reading one waits for it.

    Args:
        skip: iterations that are not looked at, those of the warm-up.
    """

    def __init__(self, skip: int):
        self.skip = skip
        self.waiting: list[torch.Tensor] = []
        self.usual: deque[float] = deque(maxlen=MEMORY)
        self.high = 0  # losses in a row, up to now, that are far above the median
        self.noticed = False

    def add(self, loss: torch.Tensor) -> Explosion | None:
        """Take an iteration's loss, a scalar.

        Returns:
            The explosion where `LENGTH` losses in a row have been far above the median for the first time, else None.
        """
        if self.skip > 0 or self.noticed:
            self.skip -= 1
            return None
        self.waiting.append(loss)
        return self.compare() if len(self.waiting) == LENGTH else None

    def compare(self) -> Explosion | None:
        """Compare the waiting losses with those before them; returns as `add`."""
        losses, self.waiting = torch.stack(self.waiting).tolist(), []
        usual = median(self.usual or losses)
        for loss in losses:
            if loss > FACTOR * usual:
                self.high += 1
            else:
                self.high = 0
                self.usual.append(loss)
            if self.high == LENGTH:
                self.noticed = True
                return Explosion(loss, usual)
        return None
