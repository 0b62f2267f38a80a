"""One training run: where it stands, and the checkpoints from which it can go on."""

import logging
import math
import os
import time
from typing import Any

from ..datasets.evaluation.packed import PackedResults
from ..datasets.loaders import Batches, TrainLoader
from ..logger import Logger, QuietLogger, with_space
from ..models.checkpoints import RAW_WEIGHTS, load_model, save_model, unwrap_model
from ..opts import Options, model_facts
from ..reports.evaluation import surviving
from ..reports.events import add_events
from ..reports.judged import judge
from ..utils.schedule import Schedule
from ..utils.words import plural
from .base_trainer import BaseTrainer, Interrupted, LossMeter
from .loss_watch import FACTOR, LENGTH, LossWatch
from .plan import Plan

logger = logging.getLogger(__name__)


def chosen_metric(opt: Options, main_metric: str, val_set: Any) -> str:
    """Return the name of what chooses `model_best.pth`: a metric, or the loss on val where there is nothing to score.

    Args:
        opt: options, whose `metric` may be AP, for the main one.
        main_metric: of the dataset.
        val_set: None without validation.
    """
    if opt.metric == 'loss' or val_set is None:
        return 'loss'
    if not (val_set.index.valid & (val_set.index.classes >= 0)).any():
        logger.info("note: '%s' has no object to find: the loss chooses model_best.pth", val_set.annotation_file)
        return 'loss'
    return main_metric if opt.metric == 'AP' else opt.metric


class Run:
    """Keeps epoch, best metric and learning rate together with the files of `save_dir`.

    `model_last.pth` is written after every epoch and every `--save_minutes` within one, `model_best.pth` at the best
    metric (of equal ones at the lower loss), `model_N.pth` after the epochs of `--lr_step` (and after each with
    `--save_all`). All ranks of a run know where it stands; rank 0 alone writes.

    Args:
        metric: that chooses `model_best.pth`, or loss.
        loader: of training.
        val_images: to validate on, 0 without validation.

    Attributes:
        plan: of the whole run.
        schedule: of the learning rate.
        epoch: epochs done.
        iteration: iterations done of the epoch after it (a run that was stopped in its middle).
        best: best value of the metric so far, None before the first.
        best_loss: the loss that came with it.
        best_epoch: epoch of that value; where there is none yet, the one that the run started after.
        validated: epoch that was validated last.
    """

    def __init__(
        self,
        opt: Options,
        trainer: BaseTrainer,
        logger: Logger | QuietLogger,
        metric: str,
        loader: TrainLoader,
        val_images: int = 0,
    ):
        self.opt, self.trainer, self.logger, self.ranks = opt, trainer, logger, trainer.ranks
        length = trainer.epoch_length(len(loader))
        self.schedule = Schedule(opt.lr_schedule, opt.lr_step, opt.num_epochs, length, opt.warmup)
        self.plan = Plan(opt, self.schedule)
        self.images, self.val_images = len(loader.dataset), val_images
        self.metric = metric
        self.epoch, self.iteration, self.validated = 0, 0, 0
        self.best: float | None = None
        self.best_loss = math.inf
        self.best_epoch = 0
        self.saved = time.monotonic()  # when model_last.pth was written last, or the run began

    def start(self) -> None:
        """Load the checkpoint to start from, if any, and log the settings of the run."""
        opt = self.opt
        if opt.load_model:
            model, optimizer = self.trainer.model, self.trainer.optimizer
            loaded = load_model(model, opt.load_model, optimizer, opt.resume)
            self.epoch = loaded[2] if isinstance(loaded, tuple) else 0
        self.trainer.start_averaging(opt.load_model if opt.resume and opt.facts.get('averaged') else '')
        self.trainer.start_precision()
        if opt.resume:
            self.iteration = opt.facts.get('iteration', 0)
            if self.iteration and opt.facts.get('batch_size') != opt.batch_size:
                again = f'epoch {self.epoch + 1} starts again from its first image'
                self.logger.say(f'another --batch_size than before: {again}')
                self.iteration = 0
            self.validated = opt.facts.get('validated', self.epoch)
            same_metric = opt.facts.get('metric') == self.metric
            self.best = opt.facts.get('best') if same_metric else None
            self.best_epoch = opt.facts.get('best_epoch', self.epoch) if same_metric else self.epoch
            self.best_loss = opt.facts.get('best_loss', -math.inf)  # an earlier version kept none: equals stay behind
        done = self.epoch * self.schedule.epoch_length + self.iteration
        self.trainer.scheduler = self.schedule.start(self.trainer.learner, opt.lr, done)
        rate = self.trainer.learning_rate()
        rising = self.schedule.warmup_left(done)
        self.watch = LossWatch(skip=rising)
        place = f'{opt.device}' if self.ranks.count == 1 else f'{self.ranks.count} processes ({opt.device.type})'
        place += '' if self.trainer.precision.name == 'float32' else f' in {self.trainer.precision.name}'
        warmup = f' (rising to {opt.lr:g} for {plural(rising, "iteration")})' if rising else ''
        left = f'epochs {self.epoch + 1} to {opt.num_epochs}'
        self.logger.say(
            f'{opt.task}, {opt.arch}, {plural(opt.num_classes, "class", "classes")}, '
            f'input {opt.input_h} x {opt.input_w} pixels on {place}: '
            f'learning rate {rate:g}{warmup} for batches of {plural(opt.batch_size, "image")}, '
            f'{left if self.epoch + 1 < opt.num_epochs else f"epoch {opt.num_epochs}"}; outputs in {opt.save_dir}'
        )
        self.logger.say(self.plan.describe(self.images, self.metric, self.val_images))
        self.trainer.time_left = self.time_left

    def is_over(self) -> bool:
        """Return whether all epochs are done, or `--patience` is at its end."""
        return self.epoch >= self.opt.num_epochs or self.lost_patience()

    def lost_patience(self) -> bool:
        """Return whether the last validation was `--patience` epochs or more after the best."""
        return 0 < self.opt.patience <= self.validated - self.best_epoch

    def train_epoch(self, loader: TrainLoader) -> None:
        """Train one epoch (or the rest of one), and write its checkpoint."""
        epoch, start = self.epoch + 1, self.iteration  # which goes on as the state within the epoch is kept
        batches = loader.epoch(epoch, start)
        averages, _ = self.trainer.train(epoch, batches, start, self.after_iteration)
        self.plan.trained(self.schedule.epoch_length - start, averages['time'])
        self.epoch, self.iteration = epoch, 0
        rate = {'lr': self.trainer.learning_rate()}  # of the next update
        self.logger.scalars('train', epoch, {**averages, **rate}, self.unit)
        if epoch < self.opt.num_epochs:
            self.logger.say(self.plan.progress(epoch, self.validated))
        if self.schedule.drops_after(epoch) or self.opt.save_all:
            self.save(f'model_{epoch}.pth')
        self.save_last()

    def time_left(self, iteration: int, seconds: float) -> float | None:
        """Return the seconds that the run takes after `iteration` iterations of an epoch that take `seconds` each."""
        return self.plan.seconds_left(self.epoch, iteration, self.validated, seconds)

    def unit(self, name: str) -> str:
        """Return the unit of a value of the log; '' where it has none."""
        return 'min' if name == 'time' else ''

    def after_iteration(self, iteration: int, meter: LossMeter) -> None:
        """Look after the run when `iteration` iterations of an epoch are done."""
        explosion = None if meter.latest is None else self.watch.add(meter.latest)
        if explosion is not None:
            rate = self.trainer.learning_rate()
            self.logger.say(
                f'warning: the loss is {explosion.loss:.4g}, and was over {FACTOR} times its median '
                f'({explosion.median:.4g}) for {LENGTH} iterations, with a learning rate of {rate:g}: try a lower '
                '--lr, --warmup or --clip_grad'
            )
        self.save_in_time(iteration, meter)

    def save_in_time(self, iteration: int, meter: LossMeter) -> None:
        """Keep the state after `iteration` iterations of an epoch, `--save_minutes` after it was kept last."""
        if self.ranks.is_lead and 0 < self.opt.save_minutes * 60 < time.monotonic() - self.saved:
            meter.averages()  # raises before a broken network is kept
            self.iteration = iteration
            self.save_last()

    def owes_validation(self) -> bool:
        """Return whether the last epoch is to be validated (every `--val_intervals`, and the last) and was not."""
        due = self.epoch % self.opt.val_intervals == 0 or self.epoch >= self.opt.num_epochs
        return self.epoch > 0 and due and self.validated < self.epoch and self.iteration == 0

    def validate(self, loader: Batches) -> None:
        """Validate; keep the checkpoint as `model_best.pth` when its metric is the best so far."""
        started = time.monotonic()
        by_loss, dataset = self.metric == 'loss', loader.dataset
        values, results = self.trainer.val(self.epoch, loader, collect=not by_loss)
        if not by_loss:
            scores = self.score(dataset, results) if self.ranks.is_lead else {}
            values = {**values, **self.ranks.from_lead(scores)}
        shown = [name for name in values if name == self.metric or dataset.is_headline(name)]
        self.logger.scalars(
            'val',
            self.epoch,
            {name: values[name] for name in shown},
            lambda name: self.unit(name) or dataset.metric.unit(name),
        )
        self.validated = self.epoch
        value, loss = values[self.metric], values['loss']
        if self.is_better(value, loss):
            self.best, self.best_epoch, self.best_loss = value, self.epoch, loss
            self.save('model_best.pth')
            unit = with_space(dataset.metric.unit(self.metric))
            self.logger.say(f'epoch {self.epoch}: {self.metric} {value:.4f}{unit} is the best so far')
        self.save_last()
        self.plan.validated((time.monotonic() - started) / 60)

    def is_better(self, value: float, loss: float) -> bool:
        """Return whether a value of the metric, and of equal ones the loss that came with it, is the best so far."""
        if self.best is None:
            return True
        if self.metric == 'loss':
            return value < self.best
        return (value, -loss) > (self.best, -self.best_loss)

    def score(self, dataset: Any, results: PackedResults) -> dict[str, float]:
        """Score the results of validation, `{metric: value}`, and draw their curves in TensorBoard."""
        scores = dataset.run_eval(results, self.opt.save_dir)
        with surviving('the curves for TensorBoard cannot be drawn'):
            judged = judge(dataset, results, scores)
            self.logger.draw(lambda writer: add_events(writer, judged, self.epoch))
        return scores

    def save(self, name: str) -> None:
        """Write the checkpoint of that file name: the network, the optimizer, and where the run stands."""
        if not self.ranks.is_lead:
            return
        trainer = self.trainer
        facts = model_facts(self.opt)
        if trainer.averaged is not None:
            facts |= {'averaged': True, RAW_WEIGHTS: unwrap_model(trainer.model).state_dict()}
        if self.opt.amp != 'none':
            facts |= {'precision': trainer.precision.name, 'scaler': trainer.precision.scaler_state()}
        save_model(
            os.path.join(self.opt.save_dir, name),
            self.epoch,
            trainer.result,
            trainer.optimizer,
            iteration=self.iteration,
            batch_size=self.opt.batch_size,
            best=self.best,
            best_epoch=self.best_epoch,
            best_loss=self.best_loss if math.isfinite(self.best_loss) else None,
            metric=self.metric,
            validated=self.validated,
            **facts,
        )

    def save_last(self) -> None:
        """Write `model_last.pth`, from which a run is resumed."""
        self.save('model_last.pth')
        self.saved = time.monotonic()

    def save_interrupted(self, stop: Interrupted) -> None:
        """Keep the state in the middle of an epoch, where iterations were done since the last checkpoint.

        All ranks wait for it: a launcher may end the others as soon as one has ended.
        """
        if stop.epoch == self.epoch + 1 and stop.iteration > self.iteration:
            self.iteration = stop.iteration
            self.save_last()
        self.logger.say(f'{stop}: go on with --resume')
        self.logger.close()
        self.ranks.wait()

    def finish(self) -> None:
        """Say that the run is done, and close its log; there is a model_best.pth from now on."""
        if self.epoch < self.opt.num_epochs:
            self.logger.say(
                f'{self.metric} has not become better since epoch {self.best_epoch}: training ends (--patience '
                f'{self.opt.patience})'
            )
        if self.best is None:
            self.save('model_best.pth')  # a run without validation: the last is the best that is known
        self.logger.say(f'done: {plural(self.epoch, "epoch")}, checkpoints in {self.opt.save_dir}')
        self.logger.close()
