"""Training as every task does it: epochs, iterations, averages, progress. A task adds its loss and its decoding."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..datasets.evaluation.packed import PackedResults
from ..models.checkpoints import load_model
from ..models.heatmaps import draw_heatmaps, with_dense_heatmaps
from ..models.utils import Output
from ..utils.cli import Progress
from ..utils.debugger import Debugger, network_input_to_image
from ..utils.device import module_to_channels_last, to_channels_last, to_device
from ..utils.errors import UserError
from ..utils.oracle_utils import gen_oracle_map
from ..utils.ranks import ONE, Ranks, SharedError, interleave
from ..utils.words import duration, plural
from .chunks import mean_over_chunks, running_statistics_kept, split_batch
from .freezing import freeze
from .precision import Precision, choose_precision

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

Spread = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
STOPPED, FAILED = 1, 2  # why the ranks do not go on
AfterIteration = Callable[[int, 'LossMeter'], None]
TimeLeft = Callable[[int, float], float | None]


class Loader(Protocol):
    """Batches that can be counted and gone through, such as a `DataLoader` or a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[dict]: ...


class Interrupted(Exception):
    """Training stopped after `iteration` iterations of `epoch`.

    It was asked to (Ctrl-C, SIGTERM), or `reason` is the error with which the next batch could not be loaded.
    """

    def __init__(self, epoch: int, iteration: int, reason: UserError | None = None):
        super().__init__(f'stopped in epoch {epoch} after {plural(iteration, "iteration")}')
        self.epoch, self.iteration, self.reason = epoch, iteration, reason


class TaskLoss(nn.Module):
    """Base of the tasks' losses: the weighted sum of `parts`, averaged over the stacks.

    A task gives the weights of its parts, in the order in which they are shown, the parts themselves, and
    the truth that `--eval_oracle_*` puts in place of a head.
    """

    def __init__(self, opt: 'Options'):
        super().__init__()
        self.opt = opt
        self.weights = self.part_weights(opt)
        self.stats = ['loss', *self.weights]

    def part_weights(self, opt: 'Options') -> dict[str, float]:
        """Return the weights of the parts, `{part: weight}`, such as `{'hm_loss': 1.0}`."""
        raise NotImplementedError

    def parts(self, output: Output, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Compute the unweighted parts of one stack's loss; a part that is switched off is left out.

        Args:
            output: the stack's raw output, `{head: [B, c, h, w]}`.
            batch: the targets, [B, ...] each.

        Returns:
            `{part: scalar}`.
        """
        raise NotImplementedError

    def true_heads(self, batch: Mapping[str, torch.Tensor], spread: Spread) -> Output:
        """Make the raw heads that the `--eval_oracle_*` options replace from the targets.

        Args:
            batch: the targets.
            spread: makes of objects' values [B, M, d] and cells [B, M] a head [B, d, h, w] (`gen_oracle_map`).
        """
        return {}

    def with_oracles(self, output: Output, batch: Mapping[str, torch.Tensor]) -> Output:
        """Return an output `{head: [B, c, h, w]}` in which the truth stands for the heads that are asked for."""
        height, width = next(maps for name, maps in batch.items() if name.startswith('hm')).shape[2:]
        return {**output, **self.true_heads(batch, partial(gen_oracle_map, w=width, h=height))}

    def forward(
        self, outputs: list[Output], batch: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss of the outputs of all stacks.

        Args:
            outputs: a raw output `{head: [B, c, h, w]}` a stack.
            batch: the targets, [B, ...] each.

        Returns:
            The loss, and `{name: scalar}` of the loss and all its parts (0 where one is switched off).
        """
        zero = next(iter(outputs[0].values())).new_zeros((), dtype=torch.float32)
        stats = dict.fromkeys(self.weights, zero)
        for output in outputs:
            for name, part in self.parts(self.with_oracles(output, batch), batch).items():
                stats[name] = stats[name] + part / len(outputs)
        loss = reduce(add, [weight * stats[name] for name, weight in self.weights.items()])
        return loss, {'loss': loss, **stats}


class BaseTrainer:
    """Runs epochs of training and validation.

    Args:
        opt: options, with `device`.
        model: the network; moved to the device by `set_device`.
        optimizer: None when only validating.
        ranks: the processes that train or validate together.

    Attributes:
        scheduler: sets the optimizer's rate for each step; without one it stays as it is.
        time_left: gives the seconds that the whole run takes after so many iterations of an epoch that take so many
            seconds each, which the progress shows; None shows the epoch's alone.
        averaged: the average of the weights over all steps (`--ema`); without one there is none.
        precision: number type that the network computes in; float32 until `start_precision`.
    """

    def __init__(
        self,
        opt: 'Options',
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        ranks: Ranks = ONE,
    ):
        self.opt, self.model, self.optimizer, self.ranks = opt, model, optimizer, ranks
        self.learning: nn.Module = model  # with several ranks it exchanges their gradients
        share = len(opt.chunk_sizes) // ranks.count
        self.chunk_sizes = opt.chunk_sizes[ranks.rank * share : (ranks.rank + 1) * share]
        self.frozen_norms = freeze(model, opt.freeze)
        self.scheduler: LRScheduler | None = None
        self.averaged: AveragedModel | None = None
        self.precision = Precision()
        self.loss = self.create_loss(opt)
        self.stop_requested = False
        self.time_left: TimeLeft | None = None
        self.images_shown = 0

    def create_loss(self, opt: 'Options') -> TaskLoss:
        """Create the task's loss."""
        raise NotImplementedError

    def request_stop(self) -> None:
        """Ask for `Interrupted` after the iteration that runs now."""
        self.stop_requested = True

    def detect(self, output: Output, batch: dict) -> dict:
        """Decode the last stack's output of one validation batch.

        Args:
            output: `{head: [1, c, h, w]}`, raw.
            batch: with `meta`.

        Returns:
            Results of its image, `{1-based class: rows [n, columns]}` in the coordinates of the image.
        """
        raise NotImplementedError

    @property
    def result(self) -> nn.Module:
        """The network that is validated and saved: the averaged one with `--ema`, else the one that is trained."""
        return self.model if self.averaged is None else self.averaged.module

    def start_averaging(self, resumed: str = '') -> None:
        """With `--ema`, average the weights from now on.

        Args:
            resumed: the checkpoint with the average to go on from; '' to begin with the next step's weights.
        """
        if self.opt.ema == 0:
            return
        self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.opt.ema), use_buffers=True)
        if resumed:
            load_model(self.averaged.module, resumed)
            self.averaged.n_averaged.fill_(1)  # at 0 the next step's weights would replace the average

    def start_precision(self) -> None:
        """Let the network compute as `--amp` says from now on; all ranks do as rank 0 chooses (`choose_precision`)."""
        opt, learns = self.opt, self.optimizer is not None
        chosen = choose_precision(opt, self.model, learns) if self.ranks.is_lead else ''
        self.precision = Precision(self.ranks.from_lead(chosen), opt.device.type, learns)
        if self.precision.scaler.is_enabled() and opt.resume and 'scaler' in opt.facts:
            self.precision.scaler.load_state_dict(opt.facts['scaler'])

    def set_device(self, device: torch.device) -> None:
        """Move the network, the loss and the optimizer's state to `device`, channels-last in memory."""
        for network in {self.model, self.result}:
            module_to_channels_last(network, device=device)
        self.loss.to(device)
        if self.optimizer is not None:
            for state in self.optimizer.state.values():
                for name, value in state.items():
                    if torch.is_tensor(value):
                        state[name] = to_channels_last(value, device)  # the fused step goes by memory, not by index
            self.learning = self.ranks.distribute(self.model)

    def train(
        self, epoch: int, loader: Loader, start: int = 0, after_iteration: AfterIteration | None = None
    ) -> tuple[dict[str, float], dict]:
        """Train one epoch, from iteration `start` on, or `--num_iters` iterations of it.

        Args:
            epoch: its number from 1.
            loader: batches from iteration `start` on; of each the chunks of this rank.
            start: iterations of the epoch that are done already.
            after_iteration: is called with the number of iterations that are done of the epoch, and their losses.

        Returns:
            `{name: average}` of the loss and its parts and of `time` in minutes; and {}.

        Raises:
            Interrupted: `request_stop` was called, or the loader raised a `UserError`, in any of the ranks.
            UserError: the loss is not finite any more.
        """
        total = self.epoch_length(start + len(loader))
        self.start_learning()
        meter = LossMeter(self.loss.stats)
        with EpochLog(self.opt, 'train', epoch, total, start, self.ranks.is_lead, self.time_left) as log:
            for iteration, batch in log.timed(self.in_step(epoch, loader, start, total, meter)):
                meter.add(self.train_iteration(batch), len(batch['input']))
                log.iteration(meter)
                if after_iteration is not None:
                    after_iteration(iteration + 1, meter)
        return {**meter.averages(), 'time': log.minutes()}, {}

    def val(self, epoch: int, loader: Loader, collect: bool = False) -> tuple[dict[str, float], PackedResults]:
        """Validate on one image after the other, each in one of the ranks.

        Args:
            epoch: its number, to be shown.
            loader: this rank's share of the images (`Ranks.share`), as batches of one.
            collect: keep the detections.

        Returns:
            `{name: average}` of the loss and its parts over all images and of `time` in minutes; and with `collect`, in
            rank 0, `{image_id: results}` of all of them, else {}.

        Raises:
            Interrupted: `request_stop` was called in any of the ranks.
            UserError: the loss is not finite, or the loader raised it.
        """
        self.ranks.spread(self.result)
        self.result.eval()
        meter = LossMeter(self.loss.stats)
        results = PackedResults()
        losses: list[torch.Tensor] = []
        total = self.ranks.most(len(loader))
        with torch.inference_mode(), EpochLog(self.opt, 'val', epoch, total, 0, self.ranks.is_lead) as log:
            for _, batch in log.timed(self.in_step(epoch, loader, 0, total)):
                stats = self.val_iteration(batch, results, collect)
                meter.add(stats, len(batch['input']))
                losses.append(meter.values(stats))
                log.iteration(meter)
        averages = self.meter_of_all(losses).averages()
        of_ranks = [list(of_rank.packed.items()) for of_rank in self.ranks.collect(results)]
        return {**averages, 'time': log.minutes()}, PackedResults(interleave(of_ranks))

    def meter_of_all(self, losses: list[torch.Tensor]) -> 'LossMeter':
        """Count the losses of all ranks' images in the order of one process, so that sums are the same to the last bit.

        Args:
            losses: of each image of this rank's share, [parts].
        """
        meter = LossMeter(self.loss.stats)
        of_ranks = self.ranks.all_of([values.cpu() for values in losses])
        for values in interleave(of_ranks):
            meter.add_values(values, 1)
        return meter

    def in_step(
        self, epoch: int, loader: Loader, start: int, total: int, meter: 'LossMeter | None' = None
    ) -> Iterator[tuple[int, dict]]:
        """Iterate over the numbers of iterations from `start` to `total`, and their batches, in step with all ranks.

        Before each iteration all ranks know whether one of them was asked to stop, or could not load its batch; then
        none goes on.

        Args:
            epoch: its number, for `Interrupted`.
            loader: batches from iteration `start` on; of this rank there may be fewer than of others.
            start, total: iterations that are done already, and that there are in all.
            meter: of training, whose losses must be finite for its state to be kept.

        Raises:
            Interrupted: as `train` says.
            UserError: the loader of validation raised it.
        """
        batches = iter(loader)
        for done in range(start, total + 1):
            batch, failure = None, None
            if not self.stop_requested:
                try:
                    batch = next(batches, None)
                except UserError as error:
                    failure = error
            step = self.ranks.most(FAILED if failure is not None else STOPPED if self.stop_requested else 0)
            if step > 0:
                if meter is not None:
                    meter.averages()  # raises before a broken network is kept
                reason = shared_failure(self.ranks, failure) if step == FAILED else None
                if reason is not None and meter is None:
                    raise reason
                raise Interrupted(epoch, done, reason)
            if batch is not None and done < total:
                yield done, batch

    @property
    def learner(self) -> torch.optim.Optimizer:
        """The optimizer; a trainer that only validates has none."""
        assert self.optimizer is not None
        return self.optimizer

    def learning_rate(self) -> float:
        """Return the rate of the next update."""
        return float(self.learner.param_groups[0]['lr'])

    def start_learning(self) -> None:
        """Put the network into training mode, but for what `--freeze` names."""
        self.learning.train()
        for norm in self.frozen_norms:
            norm.eval()

    def epoch_length(self, batches: int) -> int:
        """Return the iterations of an epoch of training with so many batches: all, or `--num_iters`."""
        return min(batches, self.opt.num_iters) if self.opt.num_iters > 0 else batches

    def train_iteration(self, batch: dict) -> dict[str, torch.Tensor]:
        """Do one step on a batch (`input` [B, 3, H, W] and the targets): mean gradient of its chunks, then update.

        With several ranks `batch` is this rank's part, and the mean is over the chunks of all. The running statistics
        of batch norms are of the first chunk.

        Returns:
            `{name: scalar}` of the loss and its parts, as means over the chunks.
        """
        first, *others = split_batch(self.to_device(batch), self.chunk_sizes)
        own = 1 + len(others)
        count = own * self.ranks.count
        self.learner.zero_grad(set_to_none=True)
        with self.exchange(last=own == 1):
            stats = [self.add_gradient(first, count)]
        with running_statistics_kept(self.model):
            for number, chunk in enumerate(others, 2):
                with self.exchange(last=number == own):
                    stats.append(self.add_gradient(chunk, count))
        self.update()
        return self.mean_of_ranks(mean_over_chunks(stats))

    def exchange(self, last: bool) -> contextlib.AbstractContextManager:
        """Return the context of a chunk's forward and backward pass; that of the last makes one of the gradients."""
        network = self.learning
        return (
            contextlib.nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()
        )

    def mean_of_ranks(self, stats: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return `{name: scalar}`, the mean of each scalar over the ranks."""
        if self.ranks.count == 1:
            return stats
        return dict(zip(stats, self.ranks.mean(torch.stack(list(stats.values()))).unbind(), strict=True))

    def add_gradient(self, chunk: dict, count: int) -> dict[str, torch.Tensor]:
        """Add the gradient of one of `count` chunks of all ranks, a batch, to the weights': forward, loss, backward.

        Returns:
            `{name: scalar}` of the chunk's loss and its parts.
        """
        outputs = self.forward(chunk['input'])
        loss, stats = self.loss(outputs, chunk)
        self.precision.scaler.scale(loss / count).backward()
        self.look(outputs, chunk)
        return {name: value.detach() for name, value in stats.items()}

    def update(self) -> None:
        """Change the weights by the gradient, which `--clip_grad` clips before; then their average, and the rate.

        Where the step is skipped, since gradients in float16 overflow, the average stays too. The rate goes on: it
        belongs to the iteration.
        """
        scaler = self.precision.scaler
        if self.opt.clip_grad > 0:
            scaler.unscale_(self.learner)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.opt.clip_grad)
        scale = 0.0 if self.averaged is None else scaler.get_scale()
        scaler.step(self.learner)
        scaler.update()
        if self.averaged is not None and scaler.get_scale() >= scale:  # it falls where the step was skipped
            self.averaged.update_parameters(self.model)
        if self.scheduler is not None:
            self.scheduler.step()

    def forward(self, images: torch.Tensor) -> list[Output]:
        """Run the network on a batch of images [B, 3, H, W] to train on.

        Returns:
            Its raw outputs `{head: float32 [B, c, h, w]}`, one a stack.

        Raises:
            UserError: there is too little for a batch norm to take statistics of.
        """
        try:
            return self.precision.run(self.learning, images)
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            count, _, height, width = images.shape
            raise UserError(
                f'batch norm needs more than one value a channel, but {count} image of {width} x {height} pixels '
                f'leaves one in the deepest layers: train with --batch_size 2 or more (in each chunk of --accumulate), '
                f'or a larger --input_res'
            ) from None

    def to_device(self, batch: dict) -> dict:
        """Return a loader's batch, [B, ...] each, on the device, with the heatmaps of many classes drawn."""
        opt = self.opt
        drawn = draw_heatmaps(batch, opt.num_classes, opt.down_ratio)
        return to_device(drawn, opt.device)

    def val_iteration(self, batch: dict, results: PackedResults, collect: bool) -> dict[str, torch.Tensor]:
        """Do one batch without learning.

        Args:
            batch: `input` [1, 3, H, W], the targets and `meta`.
            results: `{image_id: results}`, to which the batch's are added when `collect`.

        Returns:
            `{name: scalar}` of the loss and its parts.
        """
        batch = self.to_device(batch)
        outputs = self.precision.run(self.result, batch['input'])
        _, stats = self.loss(outputs, batch)
        self.look(outputs, batch)
        if collect:
            output = self.loss.with_oracles(outputs[-1], batch)
            results[int(batch['meta']['img_id'][0])] = self.detect(output, batch)
        return stats

    def look(self, outputs: list[Output], batch: dict) -> None:
        """Show the first image of the batch, predictions beside the truth, at `--debug` levels over 0.

        Args:
            outputs: a raw output `{head: [B, c, h, w]}` a stack.
            batch: `input` [B, 3, H, W], the targets and `meta`.
        """
        opt = self.opt
        if opt.debug == 0:
            return
        debugger = Debugger.of(opt)
        image = network_input_to_image(batch['input'][0].cpu(), opt.mean, opt.std)
        with torch.no_grad():
            self.add_views(debugger, image, self.loss.with_oracles(outputs[-1], batch), with_dense_heatmaps(batch))
        debugger.finish(opt.debug, opt.debug_dir, f'{self.images_shown}_')
        self.images_shown += 1

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, batch: dict) -> None:
        """Add the task's views of a raw output and of the truth to the debugger.

        Args:
            debugger: keeps the views.
            image: the network's input, BGR uint8 [H, W, 3].
            output: `{head: [B, c, h, w]}`, whose first image is shown.
            batch: the targets and `meta`.
        """
        raise NotImplementedError


def shared_failure(ranks: Ranks, failure: UserError | None) -> UserError:
    """Return, in all ranks, the error of the first that has one; a rank's number is said where there are several."""
    if ranks.count == 1:
        assert failure is not None
        return failure
    messages = ranks.all_of(str(failure) if failure is not None else '')
    rank = next(rank for rank, message in enumerate(messages) if message)
    return SharedError(f'rank {rank}: {messages[rank]}')


class LossMeter:
    """Keeps running averages of the loss and its parts on the device; only reading them waits for it.

    The parts of the first loss that is not finite are kept for the message.

    Attributes:
        latest: the loss of the batch that was counted last, a scalar on the device.
    """

    def __init__(self, names: list[str]):
        self.names = names
        self.total: torch.Tensor | None = None
        self.count = 0
        self.first_bad: torch.Tensor | None = None
        self.latest: torch.Tensor | None = None

    def values(self, stats: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the scalars that are counted, float32 [parts], in the order of their names."""
        return torch.stack([stats[name].detach().float() for name in self.names])

    def add(self, stats: Mapping[str, torch.Tensor], images: int) -> None:
        """Count the scalars `stats` of a batch of so many images; never waits for the device."""
        self.add_values(self.values(stats), images)

    def add_values(self, values: torch.Tensor, images: int) -> None:
        """Count the scalars [parts] of a batch of so many images."""
        self.latest = values[self.names.index('loss')]
        if self.total is None or self.first_bad is None:
            self.total, self.first_bad = torch.zeros_like(values), values
        else:
            good_so_far = torch.isfinite(self.total).all() & torch.isfinite(self.first_bad).all()
            self.first_bad = torch.where(good_so_far, values, self.first_bad)
        self.total = self.total + values * images
        self.count += images

    def averages(self) -> dict[str, float]:
        """Return the averages so far over images; none before the first.

        Raises:
            UserError: one of them is not finite; names the parts of the loss where that began.
        """
        if self.total is None or self.first_bad is None:
            return {}
        averages = (self.total / self.count).tolist()
        if not np.isfinite(averages).all():
            parts = ', '.join(
                f'{name} {value:.4g}' for name, value in zip(self.names, self.first_bad.tolist(), strict=True)
            )
            raise UserError(f'the loss is not finite: {parts}; the last checkpoint is from before. Try a lower --lr')
        return dict(zip(self.names, averages, strict=True))


class EpochLog:
    """Shows how an epoch goes: a bar, or a line every `--print_iter` iterations."""

    REFRESH = 0.5  # seconds between looks at the averages: each waits for the device

    def __init__(
        self,
        opt: 'Options',
        phase: str,
        epoch: int,
        total: int,
        start: int,
        shown: bool = True,
        time_left: TimeLeft | None = None,
    ):
        self.time_left = time_left
        self.opt, self.total, self.done = opt, total, start
        self.label = f'{opt.task}/{opt.exp_id} {phase} [{epoch}]'
        self.shown = shown
        self.bar = Progress(total, self.label, done=start) if shown and opt.print_iter == 0 else None
        self.started, self.refreshed, self.first = time.time(), 0.0, start
        self.data_time = 0.0
        self.text = ''

    def __enter__(self) -> 'EpochLog':
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def timed(self, batches: Iterator[tuple[int, dict]]) -> Iterator[tuple[int, dict]]:
        """Iterate over the batches, and count the time that it takes to get them."""
        while True:
            asked = time.time()
            item = next(batches, None)
            self.data_time += time.time() - asked
            if item is None:
                return
            yield item

    def minutes(self) -> float:
        """Return the minutes since the epoch, or the rest of it that is run, began."""
        return (time.time() - self.started) / 60

    def iteration(self, meter: LossMeter) -> None:
        """Count one iteration done, and show how it stands when it is time to."""
        self.done += 1
        now = time.time()
        if not self.shown:
            return
        if self.bar is None:
            if self.done % self.opt.print_iter == 0 or self.done == self.total:
                logger.info(f'{self.label}: {self.done}/{self.total} | {self.status(meter)}')
            return
        if now - self.refreshed > self.REFRESH or self.done == self.total:
            self.refreshed, self.text = now, self.status(meter)
        self.bar.step(self.text)

    def status(self, meter: LossMeter) -> str:
        """Return a line of the averages so far, and of the seconds an iteration spent on data and on computing."""
        losses = ' | '.join(f'{name} {value:.4f}' for name, value in meter.averages().items())
        count = self.done - self.first
        elapsed = (time.time() - self.started) / count
        data = self.data_time / count
        times = (
            f'net {elapsed - data:.3f}s' if self.opt.hide_data_time else f'data {data:.3f}s | net {elapsed - data:.3f}s'
        )
        left = None if self.time_left is None else self.time_left(self.done, elapsed)
        rest = '' if left is None else f' | run {duration(left)} left'
        return f'{losses} | {times}{rest}'
