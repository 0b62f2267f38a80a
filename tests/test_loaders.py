"""Batches whose loader processes die, fail or find no memory to share: one line, where the batch is fetched."""

import gc
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from lib.datasets.loaders import Batches
from lib.utils.errors import UserError
from lib.utils.signals import child_signal_kept


class Images(Dataset):
    """Eight numbers; a loader process that comes to number 5 does `accident` first."""

    def __init__(self, accident=None, at=5):
        self.accident, self.at = accident, at

    def __len__(self):
        return 8

    def image_path(self, index):
        return f'image_{index}.jpg'

    def __getitem__(self, index):
        if index == self.at and self.accident is not None:
            self.accident()
        return torch.tensor(index)


def kill(number):
    def accident():
        os.kill(os.getpid(), number)
        time.sleep(10)

    return accident


def fail(error):
    def accident():
        raise error

    return accident


def fetch(dataset, workers=2):
    """The batches of two before the accident, and the error that ended them."""
    seen = []
    with pytest.raises(Exception) as caught:  # noqa: PT011  which one is what the tests ask
        for batch in Batches(dataset, workers, batch_size=2, persistent_workers=workers > 0):
            seen.append(batch.tolist())
    return seen, caught.value


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_are_those_of_the_dataset(workers):
    """In order, as often as they are asked for."""
    batches = Batches(Images(), workers, batch_size=2, persistent_workers=workers > 0)
    for _ in range(2):
        assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert len(batches) == 4


@pytest.mark.parametrize(
    ('number', 'words'),
    [
        (signal.SIGKILL, r"killed \(SIGKILL\) at image 'image_5.jpg': .*memory.*--num_workers \(it is 2\)"),
        (signal.SIGSEGV, r"crashed \(SIGSEGV\) at image 'image_5.jpg'"),
        (signal.SIGBUS, r'^/dev/shm is too small .*--num_workers 0'),
    ],
)
def test_death_of_a_loader_process_is_one_line(number, words):
    """It names the image and what to do, and does not wait for processes that hang."""
    started = time.time()
    seen, error = fetch(Images(kill(number)))
    assert isinstance(error, UserError) and '\n' not in str(error)
    pytest.raises(UserError, fail(error)).match(words)
    assert seen in ([], [[0, 1]], [[0, 1], [2, 3]])
    assert time.time() - started < 20


def test_death_is_raised_in_the_next_fetch_only():
    """PyTorch raises it wherever the program is, such as between a step and the count of it."""
    batches = Batches(Images(), 1, batch_size=2, persistent_workers=True)
    steps = 0
    with pytest.raises(UserError, match='SIGKILL'):
        for _ in batches:
            os.kill(batches.processes[0].pid, signal.SIGKILL)
            time.sleep(0.5)  # where the signal of its death arrives
            steps += 1
    assert steps == 1


def test_nothing_is_raised_between_fetches():
    """A handler of SIGCHLD that raises could leave a lock of Python's own taken; PyTorch's is put aside."""
    batches = Batches(Images(), 2, batch_size=2, persistent_workers=True)
    for _ in batches:
        assert signal.getsignal(signal.SIGCHLD).__module__ == 'lib.utils.signals'


def test_a_start_that_fails_gives_the_signal_back():
    """PyTorch takes SIGCHLD before it asks the sampler, which may raise."""

    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(ValueError, match='no order'), child_signal_kept():
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        raise ValueError('no order')
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize('error', [UserError('no image left'), RuntimeError('a fault')])
def test_no_process_is_left_after_an_error(error):
    """Those of a loader that has become garbage would be waited for, ten seconds each."""
    batches = Batches(Images(fail(error)), 2, batch_size=2, persistent_workers=True)
    others = set(multiprocessing.active_children())
    with pytest.raises(type(error)):
        list(batches)
    assert not set(multiprocessing.active_children()) - others and not batches.processes
    batches.dataset.accident = None
    assert len(list(batches)) == 4  # with new processes


def test_processes_of_garbage_end_at_once():
    """Batches that a cycle of references holds are left to the collector of garbage."""
    others = set(multiprocessing.active_children())
    batches = Batches(Images(), 2, batch_size=2, persistent_workers=True)
    batches.itself = batches
    list(batches)
    assert len(set(multiprocessing.active_children()) - others) == 2
    del batches
    started = time.time()
    gc.collect()
    assert not set(multiprocessing.active_children()) - others and time.time() - started < 5


class Bulky(Images):
    """Items of four megabytes, more than a pipe holds."""

    def __getitem__(self, index):
        return np.full(4_000_000, index, np.uint8)

    def __len__(self):
        return 10_000


@pytest.mark.parametrize('seconds', [0.3, 0.5, 0.7])
def test_death_in_the_middle_of_a_batch(seconds):
    """Half of a batch has arrived, and the others wait for the lock of the dead: that ends, in the one line."""
    batches = Batches(Bulky(), 2, collate_fn=bytes, batch_size=None, persistent_workers=True)
    started, killed = time.time(), False
    with pytest.raises(UserError, match='SIGKILL'):
        for _ in batches:
            if not killed and time.time() - started > seconds:
                os.kill(batches.processes[0].pid, signal.SIGKILL)
                killed = True
    assert time.time() - started < 20


def test_death_in_another_loader_is_raised_by_this_one():
    """Training's processes may die while the network is validated."""
    train, val = (Batches(Images(), 1, batch_size=2, persistent_workers=True) for _ in range(2))
    assert len(list(train)) == len(list(val)) == 4
    os.kill(train.processes[0].pid, signal.SIGKILL)
    time.sleep(0.5)
    with pytest.raises(UserError, match=r"SIGKILL\) at image 'image_7.jpg'"):
        list(val)
    assert len(list(train)) == len(list(val)) == 4  # with new processes


@pytest.mark.parametrize('workers', [0, 2])
def test_user_error_of_the_dataset_stays_one_line(workers):
    """It comes out as it was raised, from a loader process too."""
    seen, error = fetch(Images(fail(UserError('no image left'))), workers)
    assert isinstance(error, UserError) and str(error) == 'no image left' and seen == [[0, 1], [2, 3]]


def test_our_own_fault_keeps_its_traceback():
    """An error that is nobody's mistake but ours shows where it was raised in the loader process."""
    for kind in (RuntimeError, KeyError, OSError):
        seen, error = fetch(Images(fail(kind('a fault'))))
        assert type(error) is kind and 'in accident' in str(error) and seen == [[0, 1], [2, 3]]


def test_no_memory_to_share_is_one_line():
    """PyTorch's other word for a full /dev/shm."""
    words = 'unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)'
    _, error = fetch(Images(fail(RuntimeError(words))))
    assert isinstance(error, UserError) and '--num_workers 0' in str(error)
