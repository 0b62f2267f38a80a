"""The processes of one run, its ranks: what they have in common, and how they agree.

`joined` makes the group, with PyTorch's `torch.distributed`; `Ranks` holds the few operations that programs, loaders
and trainers need. `ONE` is the group of a process that is alone, in which all of them are trivial.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import reduce
from itertools import chain, zip_longest
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .cli import is_out_of_memory, one_line
from .errors import UserError
from .launch import ALONE, Launch
from .log import keep_own_messages
from .signals import INTERRUPTED
from .watch import Watch

T = TypeVar('T')
Network = TypeVar('Network', bound=nn.Module)

JOINING = timedelta(minutes=5)  # to wait for the others at the start
WORKING = timedelta(days=7)  # to wait for another rank's work; `Watch` notices its death
NEWS = 5  # seconds in which a peer's death, the cause of an error here, is known
MOMENT = 0.5  # likewise, of a stop


class SharedError(UserError):
    """A mistake that all ranks have found together: rank 0 says it."""


class SharedInterrupt(KeyboardInterrupt):
    """All ranks were stopped after the same iteration."""


class Ranks:
    """The ranks of this run, seen from one of them.

    Args:
        launch: the place of this process.

    Attributes:
        rank, count: its number from 0, and how many there are.
        is_lead: it is rank 0, which alone prints, logs and writes.
    """

    def __init__(self, launch: Launch = ALONE):
        self.launch = launch
        self.rank, self.count, self.is_lead = launch.rank, launch.count, launch.is_lead
        self.control: dist.ProcessGroup | None = None  # of CPU tensors and objects
        self.compute: dist.ProcessGroup | None = None  # of gradients and losses, on the device
        if self.count > 1:
            self.control = new_group('gloo')

    def open_device(self, device: torch.device) -> None:
        """Make the group of the device that the ranks compute on: nccl for GPUs, gloo for the CPU."""
        if self.count > 1:
            if device.type == 'cuda':
                torch.cuda.set_device(device)
                self.compute = new_group('nccl')
            else:
                self.compute = self.control

    # ------------------------------------------------------------------------------------------------ in step

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.count > 1:
            dist.barrier(group=self.control)

    @contextlib.contextmanager
    def one_first(self) -> Iterator[None]:
        """Run the block in one rank of each machine first, then in its others, which find what it has left on disk."""
        first = self.launch.local_rank == 0
        if not first:
            self.wait()
        yield
        if first:
            self.wait()

    def most(self, value: int) -> int:
        """Return the largest of all ranks' values."""
        if self.count == 1:
            return value
        number = torch.tensor(value)
        dist.all_reduce(number, dist.ReduceOp.MAX, group=self.control)
        return int(number)

    def interruption(self) -> KeyboardInterrupt:
        """Return the exception for a stop after the same iteration of all ranks."""
        return KeyboardInterrupt() if self.count == 1 else SharedInterrupt()

    # ------------------------------------------------------------------------------------------------ values

    def from_lead(self, value: T) -> T:
        """Return rank 0's value."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.control)
        return values[0]

    def all_of(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        if self.count == 1:
            return [value]
        values: list = [None] * self.count
        dist.all_gather_object(values, value, group=self.control)
        return values

    def collect(self, value: T) -> list[T]:
        """Return the values of all ranks to rank 0, in their order; [] to the others."""
        if self.count == 1:
            return [value]
        values: list | None = [None] * self.count if self.is_lead else None
        dist.gather_object(value, values, dst=0, group=self.control)
        return values or []

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over the ranks of a tensor [...] on the device."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, group=self.compute)
        return total / self.count

    # ------------------------------------------------------------------------------------------------ networks

    def distribute(self, network: nn.Module) -> nn.Module:
        """Return the network such that a backward pass gives every rank the sum of all ranks' gradients.

        Parameters of which no rank has a gradient keep none (DLA has such ones as published). Running statistics of
        batch norms are rank 0's; those that the others have after their last forward pass are their own (`spread`).
        """
        if self.count == 1:
            return network
        distributed = DistributedDataParallel(network, process_group=self.compute, find_unused_parameters=True)
        in_order = self.count > 2 and self.compute is self.control  # the sum of two has no order
        distributed.register_comm_hook(self.compute, sum_in_order if in_order else sum_at_once)
        return distributed

    def spread(self, network: nn.Module) -> None:
        """Give all ranks the weights and running statistics of rank 0's network."""
        if self.count > 1:
            for tensor in chain(network.parameters(), network.buffers()):
                dist.broadcast(tensor.detach(), src=0, group=self.compute)

    def join_norms(self, network: Network) -> Network:
        """Return the network with batch norms that take their statistics over all ranks (`--sync_bn`)."""
        return cast(Network, nn.SyncBatchNorm.convert_sync_batchnorm(network, self.compute))

    # ------------------------------------------------------------------------------------------------ shares

    def share(self, count: int, size: int = 1) -> list[int]:
        """Return this rank's share of `count` items: of runs of `size` items every one that is its turn."""
        runs = range(self.rank * size, count, self.count * size)
        return [item for start in runs for item in range(start, min(start + size, count))]

    def check_alike(self, facts: Mapping[str, Any]) -> None:
        """Check that all ranks know the same facts, `{what: value}`.

        Raises:
            SharedError: in all ranks, names the first difference.
        """
        seen = self.all_of(dict(facts))
        for rank, other in enumerate(seen):
            for name, value in seen[0].items():
                if other.get(name) != value:
                    raise SharedError(
                        f'rank {rank} has {name} {other.get(name)}, but rank 0 has {value}: start all with the same '
                        'options, data and version'
                    )


ONE = Ranks()


def sum_at_once(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Sum a bucket of gradients [...] over the ranks, in any order, while the backward pass goes on."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def sum_in_order(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Sum a bucket of gradients [...] over the ranks in their order, as `--accumulate` does over chunks.

    The order of float sums shows in their last bits, and many steps magnify that. Each rank sums one part of the
    bucket, so that as much is sent as an all-reduce sends.
    """
    gradient, count = bucket.buffer(), group.size()
    size = -(-len(gradient) // count)
    padded = torch.cat([gradient, gradient.new_zeros(size * count - len(gradient))])  # [count * size]
    of_ranks = torch.empty_like(padded)
    dist.all_to_all_single(of_ranks, padded, group=group)
    mine = reduce(torch.add, of_ranks.view(count, size).unbind())  # [size]
    dist.all_gather(list(padded.view(count, size).unbind()), mine, group=group)
    gradient.copy_(padded[: len(gradient)])
    summed: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    summed.set_result(gradient)
    return summed


def interleave(shares: Sequence[Sequence[T]]) -> list[T]:
    """Put the ranks' shares, each of every one of N items in turn, in their order again."""
    turns = zip_longest(*(((item,) for item in share) for share in shares), fillvalue=())
    return [item for turn in turns for item in chain.from_iterable(turn)]


def new_group(backend: str) -> dist.ProcessGroup:
    """Make a group of all ranks, which waits for days: `Watch` notices a rank's death."""
    return cast(dist.ProcessGroup, dist.new_group(backend=backend, timeout=WORKING))


def share_cores(launch: Launch) -> None:
    """Divide the cores among the processes of this machine, unless OMP_NUM_THREADS says how many threads each has.

    1 is what torchrun sets of its own accord where it starts several.
    """
    asked = os.environ.get('OMP_NUM_THREADS')
    of_torchrun = asked == '1' and launch.local_count > 1 and not launch.own
    if asked is None or of_torchrun:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // launch.local_count))


def meet(launch: Launch) -> Watch:
    """Find the other processes, and watch over them from now on.

    Raises:
        UserError: they do not all come.
    """
    try:
        store = next(iter(dist.rendezvous('env://', timeout=JOINING)))[0]
        # Under a name of this start: what the processes before a restart wrote may still be there.
        store = dist.PrefixStore(f'start_{launch.restarts}', store)
        dist.init_process_group('gloo', store=store, rank=launch.rank, world_size=launch.count, timeout=JOINING)
        return Watch(launch, store)
    except (RuntimeError, OSError) as error:  # what PyTorch raises of stores and connections are RuntimeErrors
        raise UserError(
            f'rank {launch.rank} of {launch.count} did not find the others at {os.environ["MASTER_ADDR"]}:'
            f'{os.environ["MASTER_PORT"]} ({str(error).splitlines()[0][:200]}): see that all of them were started, and '
            'that the machines reach each other'
        ) from None


@contextlib.contextmanager
def joined(launch: Launch) -> Iterator[Ranks]:
    """Make the group of all ranks for the length of the block, which runs in each of them; none is left waiting.

    When the block fails in one rank, or that process dies, the others end with exit status 1 within seconds, and one
    line says which rank it was and why.
    """
    share_cores(launch)
    if not launch.is_lead:
        keep_own_messages()
    watch = meet(launch)
    try:
        ranks = Ranks(launch)
        yield ranks
        ranks.wait()
    except (SharedError, SharedInterrupt) as error:
        watch.leave()
        if launch.is_lead:
            raise
        sys.exit(1 if isinstance(error, SharedError) else INTERRUPTED)
    except KeyboardInterrupt:
        watch.wait_for_news(MOMENT)  # torchrun stops a rank by SIGTERM when another has died
        watch.fail('interrupted')
        if launch.is_lead:
            raise
        sys.exit(INTERRUPTED)
    except Exception as error:
        watch.wait_for_news(NEWS if isinstance(error, RuntimeError) else 0)
        expected = isinstance(error, (UserError, OSError, MemoryError))
        expected = expected or (isinstance(error, RuntimeError) and is_out_of_memory(error))
        if not expected and not launch.is_lead:
            traceback.print_exc()  # a fault of ours
        watch.fail(one_line(error))
        if launch.is_lead:
            raise
        raise UserError(f'rank {launch.rank}: {one_line(error)}') from None
    else:
        watch.leave()
        dist.destroy_process_group()
