"""Who started this process, and as which of how many: alone, by `--gpus 0,1`, or by torchrun."""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

from .cli import fail, run_cli
from .errors import UserError
from .signals import STOPPING, say

Main = Callable[..., None]  # main(args, ranks)

# What torchrun says to each process that it starts.
PLACE = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')
ADDRESS = ('MASTER_ADDR', 'MASTER_PORT')
# Where other launchers say how many processes they started.
SIZES = ('WORLD_SIZE', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'SLURM_STEP_NUM_TASKS')
OWN = 'CENTERNET_OWN_RANKS'  # is set where `start_ranks` started the process
QUIET = {'TORCH_CPP_LOG_LEVEL': 'ERROR'}  # DDP warns where `find_unused_parameters` finds none
AFTER_DEATH = 'perhaps there is not enough memory; --resume goes on from the last checkpoint'
GRACE = 20  # seconds that ranks have to end by themselves when one of them has failed


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that were started together.

    Attributes:
        rank, count: its number from 0 among all, on all machines, and how many they are.
        local_rank, local_count: the same among those of this machine.
        restarts: how often torchrun has started the group again.
        own: `start_ranks` started it, not torchrun.
        agent: names the process that started it, the same after a restart.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    restarts: int = 0
    own: bool = False
    agent: str = ''

    @property
    def is_lead(self) -> bool:
        """Return whether this is the rank that prints, logs and writes."""
        return self.rank == 0


ALONE = Launch()


def launch_of(environment: Mapping[str, str]) -> Launch:
    """Read from the environment as which of how many processes this one was started.

    Raises:
        UserError: it is one of several, but started by something else than torchrun, so that each would do the whole
            work into one folder.
    """
    if all(name in environment for name in PLACE + ADDRESS):
        try:
            rank, count, local_rank, local_count = (int(environment[name]) for name in PLACE)
            restarts = int(environment.get('TORCHELASTIC_RESTART_COUNT', '0'))
        except ValueError:
            rank, count, local_rank, local_count, restarts = -1, 0, 0, 0, 0
        if not (0 <= rank < count and 0 <= local_rank < local_count <= count):
            found = ', '.join(f'{name}={environment[name]}' for name in PLACE)
            raise UserError(f'a launcher started this as a process that cannot be: {found}; start it by torchrun')
        agent = f'{socket.gethostname()}:{os.getppid()}'
        return Launch(rank, count, local_rank, local_count, restarts, OWN in environment, agent) if count > 1 else ALONE
    for name in SIZES:
        size = environment.get(name) or '1'
        if size != '1':
            missing = ', '.join(other for other in PLACE + ADDRESS if other not in environment)
            raise UserError(
                f'a launcher started this as one of {name}={size} processes, but not as torchrun does ({missing} '
                'not set): start it by torchrun, or by python alone'
            )
    return ALONE


def run_ranked(main: Main, args: list[str] | None = None) -> None:
    """Run a program as `run_cli` does; where it is one of several ranks, together with the others.

    Args:
        main: is called with the arguments, and with the `Ranks` where there are several.
        args: of the command line; None takes the process's own.
    """
    run_cli(partial(_run_in_place, main, args))


def _run_in_place(main: Main, args: list[str] | None) -> None:
    launch = launch_of(os.environ)
    if launch.count == 1:
        main(args)
        return
    os.environ.update(QUIET)
    from .ranks import joined

    with joined(launch) as ranks:
        main(args, ranks)


def refuse_ranks(program: str) -> None:
    """Refuse to be one of several processes in a program that runs in one.

    Raises:
        UserError: a launcher started several.
    """
    count = launch_of(os.environ).count
    if count > 1:
        raise UserError(f'torchrun started {count} processes, but {program} runs in one: start it by python alone')


def start_ranks(main: Main, args: list[str] | None, count: int) -> None:
    """Run a program as `count` ranks on this machine, and end as they do: with 0, 1, or 130 when they were stopped.

    Ctrl-C and SIGTERM are handed on to all of them; a second one, too, which ends them at once.

    Args:
        main: as `run_ranked` takes it, a function of a module.
        args: of the command line; None takes the process's own.
        count: of ranks.
    """
    os.environ.update(QUIET)
    import torch.multiprocessing as mp
    from torch.distributed import TCPStore

    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)  # where the ranks find each other
    started = sys.argv[1:] if args is None else args
    context = mp.start_processes(run_rank, (main, started, store.port, count), count, join=False, start_method='spawn')

    def hand_on(number: int, frame: FrameType | None) -> None:
        say(f'\n{signal.Signals(number).name}: {STOPPING}')
        for process in context.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        done = False
        while not done:  # in pieces, between which signals are handled
            done = context.join(timeout=1, grace_period=GRACE)
    except (mp.ProcessExitedException, mp.ProcessRaisedException):
        _end_as([process.exitcode or 0 for process in context.processes], context.pids())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_as(codes: list[int], pids: list[int]) -> None:
    """End with the exit code of the ranks' `codes`; say what killed one, as other failures they say themselves."""
    killed = [rank for rank, code in enumerate(codes) if code < 0 and code != -signal.SIGTERM]
    if killed:
        name = signal.Signals(-codes[killed[0]]).name
        fail(f'rank {killed[0]} (process {pids[killed[0]]}) was killed ({name}): {AFTER_DEATH}')
    sys.exit(130 if 130 in codes and 1 not in codes else 1)


def run_rank(local_rank: int, main: Main, args: list[str], port: int, count: int) -> None:
    """Be one of `count` ranks of this machine, which find each other at `port`: run `main(args, ranks)`."""
    place: dict[str, Any] = {'RANK': local_rank, 'WORLD_SIZE': count, 'LOCAL_RANK': local_rank}
    place |= {'LOCAL_WORLD_SIZE': count, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, OWN: 1}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ['TORCHELASTIC_USE_AGENT_STORE'] = 'True'  # the first process holds the store, not rank 0
    os.setsid()  # Ctrl-C goes to the first process, which hands it on once
    try:
        run_ranked(main, args)
    except Exception:  # a fault of ours: it is shown here, once, and not carried to the first process
        traceback.print_exc()
        sys.exit(1)
