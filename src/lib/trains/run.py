"""One training run: where it stands, and the checkpoints from which it can go on."""

import os

from ..datasets.loaders import Batches, TrainLoader
from ..logger import Logger
from ..models.model import load_model, save_model
from ..opts import Options, model_facts
from ..utils.schedule import set_learning_rate
from .base_trainer import BaseTrainer, Interrupted


class Run:
    """Keeps epoch, best metric and learning rate together with the files of `save_dir`.

    `model_last.pth` is written after every epoch, `model_best.pth` at the best metric, `model_N.pth` after the
    epochs of `--lr_step` (and after each with `--save_all`).

    Attributes:
        epoch: epochs done.
        iteration: iterations done of the epoch after it (a run that was stopped in its middle).
        best: best value of the metric so far, None before the first.
        validated: epoch that was validated last.
    """

    def __init__(self, opt: Options, trainer: BaseTrainer, logger: Logger, main_metric: str):
        self.opt, self.trainer, self.logger = opt, trainer, logger
        self.metric = main_metric if opt.metric == 'AP' else opt.metric
        self.epoch, self.iteration, self.validated = 0, 0, 0
        self.best: float | None = None

    def start(self) -> None:
        """Load the checkpoint to start from, if any, and log the settings of the run."""
        opt = self.opt
        if opt.load_model:
            model, optimizer = self.trainer.model, self.trainer.optimizer
            _, _, self.epoch = load_model(model, opt.load_model, optimizer, opt.resume)
        if opt.resume:
            self.iteration = opt.facts.get('iteration', 0)
            if self.iteration and opt.facts.get('batch_size') != opt.batch_size:
                again = f'epoch {self.epoch + 1} starts again from its first image'
                self.logger.say(f'another --batch_size than before: {again}')
                self.iteration = 0
            self.validated = opt.facts.get('validated', self.epoch)
            self.best = opt.facts.get('best') if opt.facts.get('metric') == self.metric else None
        rate = self.set_learning_rate()
        self.logger.say(
            f'{opt.task}, {opt.arch}, {opt.num_classes} classes, input {opt.input_h} x {opt.input_w} on {opt.device}: '
            f'learning rate {rate:g} for batches of {opt.batch_size}, epochs {self.epoch + 1} to {opt.num_epochs}; '
            f'outputs in {opt.save_dir}'
        )

    def set_learning_rate(self) -> float:
        """Set and return the rate for the next epoch, by `--lr` and `--lr_step`."""
        return set_learning_rate(self.trainer.optimizer, self.opt.lr, self.opt.lr_step, self.epoch)

    def train_epoch(self, loader: TrainLoader) -> None:
        """Train one epoch (or the rest of one), and write its checkpoint."""
        epoch = self.epoch + 1
        averages, _ = self.trainer.train(epoch, loader.epoch(epoch, self.iteration), self.iteration)
        self.epoch, self.iteration = epoch, 0
        self.logger.scalars('train', epoch, averages)
        if epoch in self.opt.lr_step or self.opt.save_all:
            self.save(f'model_{epoch}.pth')
        self.set_learning_rate()
        self.save('model_last.pth')

    def owes_validation(self) -> bool:
        """Return whether the last epoch is to be validated (every `--val_intervals`, and the last) and was not."""
        due = self.epoch % self.opt.val_intervals == 0 or self.epoch >= self.opt.num_epochs
        return self.epoch > 0 and due and self.validated < self.epoch and self.iteration == 0

    def validate(self, loader: Batches) -> None:
        """Validate; keep the checkpoint as `model_best.pth` when its metric is the best so far."""
        by_loss = self.metric == 'loss'
        values, results = self.trainer.val(self.epoch, loader, collect=not by_loss)
        if not by_loss:
            values = {**values, **loader.dataset.run_eval(results, self.opt.save_dir)}
        shown = [name for name in values if name == self.metric or loader.dataset.is_headline(name)]
        self.logger.scalars('val', self.epoch, {name: values[name] for name in shown})
        self.validated = self.epoch
        value = values[self.metric]
        if self.best is None or (value < self.best if by_loss else value > self.best):
            self.best = value
            self.save('model_best.pth')
            self.logger.say(f'epoch {self.epoch}: {self.metric} {value:.4f} is the best so far')
        self.save('model_last.pth')

    def save(self, name: str) -> None:
        """Write the checkpoint of that file name: the network, the optimizer, and where the run stands."""
        save_model(
            os.path.join(self.opt.save_dir, name),
            self.epoch,
            self.trainer.model,
            self.trainer.optimizer,
            iteration=self.iteration,
            batch_size=self.opt.batch_size,
            best=self.best,
            metric=self.metric,
            validated=self.validated,
            **model_facts(self.opt),
        )

    def save_interrupted(self, stop: Interrupted) -> None:
        """Keep the state in the middle of an epoch, where iterations were done since the last checkpoint."""
        if stop.epoch == self.epoch + 1 and stop.iteration > self.iteration:
            self.iteration = stop.iteration
            self.save('model_last.pth')
        self.logger.say(f'{stop}: go on with --resume')
        self.logger.close()

    def finish(self) -> None:
        """Say that the run is done, and close its log; there is a model_best.pth from now on."""
        if self.best is None:
            self.save('model_best.pth')  # a run without validation: the last is the best that is known
        self.logger.say(f'done: {self.epoch} epochs, checkpoints in {self.opt.save_dir}')
        self.logger.close()
