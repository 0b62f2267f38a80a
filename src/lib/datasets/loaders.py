"""Batches for training and validation."""

import gc
import multiprocessing
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, default_collate, get_worker_info
from torch.utils.data._utils import signal_handling

from ..utils.errors import UserError
from ..utils.ranks import ONE, Ranks
from ..utils.signals import also_on_child_death, child_signal_kept, stop_signals_blocked, unblock_stop_signals

if TYPE_CHECKING:
    from ..opts import Options

GRACE = 20  # seconds that a loader process outlives a SIGTERM
PATIENCE = 1  # seconds to wait for a failed process to end
NO_MEMORY_TO_SHARE = (
    '/dev/shm is too small for the batches that loader processes hand over: give --num_workers 0, or more shared '
    'memory (in a container: docker run --shm-size=8g)'
)
SHARING_ERRORS = ('No space left on device', 'shared memory', 'shm')


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


class WorkerError(NamedTuple):
    """The message of a `UserError`, which a loader process hands over in place of a batch."""

    message: str


class NotedDataset(Dataset):
    """A dataset as loader processes see it: each notes its process id and the image that it is at.

    Args:
        dataset: the images.
        notes (int64 [workers, 2], in shared memory): process id and index of the image, -1 before the first.
    """

    def __init__(self, dataset: Any, notes: torch.Tensor):
        self.dataset, self.notes = dataset, notes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        worker = get_worker_info()
        assert worker is not None  # it is made for loader processes
        self.notes[worker.id, 1] = index
        try:
            return self.dataset[index]
        except UserError as error:  # raised in the main process, as it is; PyTorch would wrap it into a traceback
            return WorkerError(str(error))


def collate_noted(collate: Callable, samples: Any) -> Any:
    """Return `collate(samples)`, or the first `WorkerError` among them."""
    errors = [sample for sample in samples if isinstance(sample, WorkerError)] if isinstance(samples, list) else []
    if isinstance(samples, WorkerError):
        errors = [samples]
    return errors[0] if errors else collate(samples)


class Batches:
    """Batches of a dataset, as PyTorch's `DataLoader` makes them; iterate as often as you like.

    When a loader process dies, that is raised while the next batch is fetched and never elsewhere, in one line that
    names the image that it was at. After an error of a loader there are no loader processes; the next iteration starts
    new ones.

    Args:
        dataset: the images; `image_path(index)`, where it has one, names them in errors. What holds these batches
            themselves is not given up before the program ends.
        num_workers: loader processes; with 0 this process reads.
        collate_fn: makes a batch of a list of samples.
        options: more of the DataLoader's.

    Raises:
        UserError: while iterating: a loader process died, its memory to share is too small, or the dataset raised it.
    """

    alive: ClassVar['weakref.WeakSet[Batches]'] = weakref.WeakSet()

    def __init__(self, dataset: Any, num_workers: int, collate_fn: Callable = default_collate, **options: Any):
        self.dataset = dataset
        self.processes: list[BaseProcess] = []
        self.fallen: list[BaseProcess] = []  # that died by themselves
        if num_workers > 0:
            self.notes = torch.full((num_workers, 2), -1, dtype=torch.int64).share_memory_()  # [workers, 2]
            options |= {'worker_init_fn': partial(init_noted_worker, self.notes)}
            dataset, collate_fn = NotedDataset(dataset, self.notes), partial(collate_noted, collate_fn)
        self.make = partial(DataLoader, dataset, num_workers=num_workers, collate_fn=collate_fn, **options)
        self.loader = self.make()
        self.running: list[Any] = []  # PyTorch's iterator, which has the processes
        # What is left of cycles to the collector of garbage loses its queues first: its processes were never told.
        weakref.finalize(self, end_processes, self.running).atexit = False

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if self.loader.num_workers == 0:
            yield from self.loader
            return
        batches = self._guarded(self._start)
        try:
            while (batch := self._guarded(next, batches, None)) is not None:
                if isinstance(batch, WorkerError):
                    raise UserError(batch.message)
                yield batch
        except Exception:
            self._drop_processes()
            raise

    def _start(self) -> Any:
        """Start an epoch, and the processes where they do not run yet; returns PyTorch's iterator of batches."""
        others = set(multiprocessing.active_children())
        with stop_signals_blocked(), child_signal_kept():
            batches: Any = iter(self.loader)
        self.processes += sorted(set(multiprocessing.active_children()) - others, key=lambda process: process.pid or 0)
        self.alive.add(self)
        self.running[:] = [batches]
        also_on_child_death(end_the_bereaved)
        if not self.loader.pin_memory:  # then only loader processes write: when they are gone, so is the pipe's end
            batches._worker_result_queue._writer.close()
        return batches

    def _guarded(self, call: Callable, *args: Any) -> Any:
        """Return `call(*args)`; the death of a loader process, of this or another loader, becomes a `UserError`.

        PyTorch, which waits for a batch, looks every 5 seconds whether its own processes live, but not once a batch has
        begun to arrive: then the pipe has to end (`end_the_bereaved`).
        """
        self._raise_deaths()
        try:
            return call(*args)
        except (RuntimeError, OSError, EOFError) as error:
            self._wait_for_deaths()
            self._raise_deaths(NO_MEMORY_TO_SHARE if any(words in str(error) for words in SHARING_ERRORS) else '')
            raise

    def _raise_deaths(self, otherwise: str = '') -> None:
        """Raise the deaths of all loaders' processes, or what is said `otherwise`, and kill those that are left."""
        end_the_bereaved()
        deaths = [loader._death(process) for loader in self.alive for process in loader.fallen]
        message = '; '.join(dict.fromkeys(deaths)) or otherwise
        if not message:
            return
        for loader in list(self.alive):
            loader._drop_processes()
        raise UserError(message) from None

    def _wait_for_deaths(self) -> None:
        """Wait until the loader processes that are ending have ended.

        A process closes its files, by which the error and its sentinel come, a moment before its exit status is there.
        """
        processes = [process for loader in self.alive for process in loader.processes]
        ending = wait([process.sentinel for process in processes], PATIENCE)
        for process in processes:
            if process.sentinel in ending:
                process.join(PATIENCE)

    def _drop_processes(self) -> None:
        """Kill the loader processes, which hold nothing that is needed; a new iteration starts new ones.

        One that waits for a lock of the dead would not end by itself. Nor might PyTorch's own end of them, later, which
        takes it for done.
        """
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(PATIENCE)
        for batches in self.running:
            batches._shutdown = True
            signal_handling._remove_worker_pids(id(batches))
        for left in (self.processes, self.fallen, self.running):
            left.clear()
        self.alive.discard(self)
        self.loader = self.make()

    def _note_deaths(self) -> None:
        """Note which loader processes died by themselves, and kill the others, which would wait for them."""
        if not self.fallen:
            self.fallen = [process for process in self.processes if process.exitcode not in (None, 0)]
        if self.fallen:
            for process in self.processes:
                process.kill()

    def _death(self, process: BaseProcess) -> str:
        """Describe how a loader process died, at which image, and what to do."""
        number = -(process.exitcode or 0)
        if number == signal.SIGBUS:
            return NO_MEMORY_TO_SHARE
        at = [index for pid, index in self.notes.tolist() if pid == process.pid and index >= 0]
        named = getattr(self.dataset, 'image_path', None)
        image = ''.join(f" at image '{named(index)}'" if named else f' at image {index}' for index in at)
        if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL):
            return f'a loader process crashed ({signal.Signals(number).name}){image}: see whether that file is broken'
        how = f'was killed ({signal.Signals(number).name})' if number > 0 else f'ended with status {process.exitcode}'
        return (
            f'a loader process {how}{image}: perhaps there is not enough memory; try a smaller --num_workers '
            f'(it is {self.loader.num_workers}) or --batch_size'
        )


def end_the_bereaved() -> None:
    """Kill the processes of each loader of which one has died: a batch that it was writing then comes to an end."""
    for loader in list(Batches.alive):
        loader._note_deaths()


def end_processes(running: list[Any]) -> None:
    """Tell the loader processes of PyTorch's iterators to end, and wait until they have."""
    while running:
        running.pop()._shutdown_workers()


class BatchShare(Sampler[list[int]]):
    """The part of each batch that one of several ranks takes.

    Args:
        batches: of indices.
        start, end: positions in a batch; an `end` of None takes what a batch has left.
    """

    def __init__(self, batches: BatchSampler, start: int, end: int | None):
        self.batches, self.part = batches, slice(start, end)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.part] for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class TrainLoader:
    """Shuffled training batches, epoch by epoch; of each this rank's chunks.

    The last short batch is dropped when there is a full one.

    Args:
        opt: options; `chunk_sizes` has the same number of chunks for each rank.
        dataset: the images.
        ranks: the processes that share out each batch.

    Raises:
        UserError: there are too few images for every rank to have one.
    """

    def __init__(self, opt: 'Options', dataset: Any, ranks: Ranks = ONE):
        self.dataset, self.batch_size = dataset, opt.batch_size
        self.sampler = EpochSampler(len(dataset), opt.seed)
        whole = BatchSampler(self.sampler, opt.batch_size, drop_last=len(dataset) >= opt.batch_size)
        ends = [0, *accumulate(opt.chunk_sizes)]
        chunks = len(opt.chunk_sizes) // ranks.count  # of this rank
        if ranks.count > 1 and len(dataset) <= ends[-2]:
            raise UserError(
                f'{len(dataset)} images do not give each of {ranks.count} processes one (a batch is shared out as '
                f'{opt.chunk_sizes}): train with fewer processes or a smaller --batch_size'
            )
        end = ends[(ranks.rank + 1) * chunks] if ranks.rank + 1 < ranks.count else None
        share = BatchShare(whole, ends[ranks.rank * chunks], end)
        self.batches = Batches(dataset, batch_sampler=share, **worker_options(opt))

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return max(1, len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Batches:
        """Return the batches of that epoch (its number from 1), without the first `start`."""
        self.sampler.epoch, self.sampler.skip = epoch, start * self.batch_size
        self.dataset.set_epoch(epoch)
        return self.batches


def val_loader(opt: 'Options', dataset: Any, ranks: Ranks = ONE) -> Batches:
    """Return validation batches of one image each, in order: this rank's share, every one of `ranks.count` in turn."""
    return Batches(dataset, batch_size=1, sampler=ranks.share(len(dataset)), **worker_options(opt))


def worker_options(opt: 'Options') -> dict[str, Any]:
    """Return options of `Batches`: workers that stay alive between epochs, pinned memory where there is a GPU."""
    return {
        'num_workers': opt.num_workers,
        'persistent_workers': opt.num_workers > 0,
        'pin_memory': opt.device.type == 'cuda',
    }


def init_noted_worker(notes: torch.Tensor, worker: int) -> None:
    """Note the process's id in `notes` (int64 [workers, 2]), then `init_worker`."""
    notes[worker, 0] = os.getpid()
    init_worker(worker)


def init_worker(worker: int) -> None:
    """Give a worker process one thread: there are as many processes as cores.

    Ctrl-C, and a SIGTERM to the whole process group, are for the main process, which still needs its workers to end in
    an orderly way; after a SIGTERM they live on for `GRACE` seconds.

    Garbage collections pass over what the main process had made: they would write into its pages, and so copy them.
    """
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
    unblock_stop_signals()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
