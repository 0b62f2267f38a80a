"""The plan of a run: what it will do, and how long that takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..utils.schedule import Schedule
from ..utils.words import clock_time, duration, plural

if TYPE_CHECKING:
    from ..opts import Options


class Plan:
    """The epochs and validations of a run, and the time that they take.

    Args:
        opt: options.
        schedule: of the learning rate.

    Attributes:
        seconds: that an iteration of training takes, as measured so far; None before the first.
        validation: seconds that the last validation took; None before the first.
    """

    def __init__(self, opt: 'Options', schedule: Schedule):
        self.epochs, self.intervals, self.schedule = opt.num_epochs, opt.val_intervals, schedule
        self.batch_size = opt.batch_size
        self.seconds: float | None = None
        self.validation: float | None = None
        self.measured, self.spent = 0, 0.0

    def describe(self, images: int, metric: str, val_images: int) -> str:
        """Return a line that says what the whole run does.

        Args:
            images: to train on.
            metric: that chooses model_best.pth.
            val_images: to validate on, 0 without validation.
        """
        length = self.schedule.epoch_length
        parts = [
            f'{plural(self.epochs, "epoch")} of {plural(length, "iteration")} ({plural(images, "image")} in batches of '
            f'{self.batch_size})'
        ]
        if val_images:
            often = 'every epoch' if self.intervals == 1 else f'every {self.intervals} epochs'
            often += ' and at the end' if self.epochs % self.intervals else ''
            parts.append(f'validated on {plural(val_images, "image")} {often}, model_best.pth by {metric}')
        else:
            parts.append('without validation, model_best.pth is the last')
        drops = [step for step in self.schedule.lr_step if step < self.epochs]
        if self.schedule.kind == 'step' and drops:
            after = f'{"epoch" if len(drops) == 1 else "epochs"} {listed(drops)}'
            parts.append(f'the rate drops tenfold after {after}')
        return 'plan: ' + '; '.join(parts)

    def trained(self, iterations: int, minutes: float) -> None:
        """Note the time that some iterations took."""
        self.measured, self.spent = self.measured + iterations, self.spent + 60 * minutes
        if self.measured:
            self.seconds = self.spent / self.measured

    def validated(self, minutes: float) -> None:
        """Note the time that a validation took."""
        self.validation = 60 * minutes

    def seconds_left(self, epoch: int, iteration: int, validated: int, seconds: float | None = None) -> float | None:
        """Return the time that the rest of the run takes at the pace so far; None while none is known.

        Args:
            epoch: epochs done.
            iteration: iterations done of the next one.
            validated: epoch that was validated last.
            seconds: that an iteration takes, where it is known better.
        """
        pace = self.seconds if seconds is None else seconds
        if pace is None:
            return None
        iterations = max(0, (self.epochs - epoch) * self.schedule.epoch_length - iteration)
        return iterations * pace + self.validations_left(validated) * (self.validation or 0.0)

    def validations_left(self, validated: int) -> int:
        """Return the number of validations after that of the epoch `validated`."""
        if self.intervals == 0:
            return 0
        last = 0 if self.epochs % self.intervals == 0 else 1  # the end of the run is validated, too
        left = self.epochs // self.intervals - validated // self.intervals + last
        return max(0, left) if validated < self.epochs else 0

    def progress(self, epoch: int, validated: int) -> str:
        """Return a line on how far the run is after an epoch."""
        done = f'epoch {epoch} of {self.epochs} is done'
        left = self.seconds_left(epoch, 0, validated)
        if left is None:  # resumed after the last iteration of the epoch: none was measured
            return done
        unknown = self.validation is None and self.validations_left(validated) > 0
        return (
            f'{done}; about {duration(left)} left{", without validation" if unknown else ""}, until {clock_time(left)}'
        )


def listed(numbers: Sequence[Any]) -> str:
    """Return numbers as a list in words, such as '90 and 120'."""
    *first, last = map(str, numbers)
    return f'{", ".join(first)} and {last}' if first else last
