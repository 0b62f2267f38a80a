"""The record of a run: its options, a log, TensorBoard scalars."""

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .opts import argument_lines
from .utils.errors import UserError
from .utils.files import atomic_path, remove_abandoned
from .utils.history import History
from .utils.lock import FolderLock
from .utils.ranks import Ranks
from .utils.run_folder import clear_folder, note_beginners, refuse_used_folder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from .opts import Options

LOCK = 'training.lock'
ARGUMENTS = 'options.args'  # the options of a run, as `@FILE` takes them
BEGUN_WITH = ('--load_model=', '--pretrained=')  # lines of it
LATENESS = 10  # seconds by which a file on a shared disk may appear later on another machine

messages = logging.getLogger(__name__)


class Logger:
    """Writes into a run's folder: `opt.txt`, `options.args`, `log.txt`, `metrics.csv`, and for TensorBoard `logs/`.

    The folder is this run's alone until `close` (or the end of the `with` block); files that an earlier one was
    killed over are removed, and all of an earlier one's unless this run resumes it. A disk that refuses the log or the
    events later on is reported once, and training goes on.

    Raises:
        UserError: the folder cannot be written to, or another process trains in it.
    """

    def __init__(self, opt: 'Options'):
        self.broken: set[str] = set()
        try:
            with contextlib.ExitStack() as after_error:
                os.makedirs(opt.save_dir, exist_ok=True)
                self.lock = FolderLock(opt.save_dir, LOCK, 'another run trains in')
                after_error.callback(self.lock.release)
                freed = remove_abandoned(opt.save_dir)
                if not opt.resume:
                    if not opt.overwrite:
                        refuse_used_folder(opt.save_dir)  # again: another run may have ended since it was asked
                    clear_folder(opt.save_dir)
                write_options(os.path.join(opt.save_dir, 'opt.txt'), opt)
                write_arguments(os.path.join(opt.save_dir, ARGUMENTS), opt)
                self.history = History(Path(opt.save_dir, 'metrics.csv'))
                self.log = open(os.path.join(opt.save_dir, 'log.txt'), 'a')  # noqa: SIM115  closed in close()
                self.writer = open_events(os.path.join(opt.save_dir, 'logs'))
                after_error.pop_all()
        except OSError as error:
            raise UserError(f"cannot write to the run's folder '{opt.save_dir}': {error.strerror}") from None
        if freed:
            messages.info(f'removed what a killed run was writing: {freed / 1e6:.1f} MB')

    def __enter__(self) -> 'Logger':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def scalars(
        self, phase: str, epoch: int, values: Mapping[str, float], unit: Callable[[str], str] = lambda name: ''
    ) -> None:
        """Write values to the log, in one line, to TensorBoard, a scalar each, and to `metrics.csv`.

        Args:
            phase: 'train' or 'val'; names in TensorBoard and `metrics.csv` begin with it.
            epoch: its number.
            values: by name.
            unit: gives a name's unit, which the log shows.
        """
        self._attempt('TensorBoard events', lambda: self._add_scalars(phase, epoch, values))
        columns = {f'{phase}_{name}': value for name, value in values.items()}
        self._attempt('metrics.csv', lambda: self.history.add(epoch, columns, begins=phase == 'train'))
        shown = ' | '.join(f'{name} {value:.6g}{with_space(unit(name))}' for name, value in values.items())
        self.say(f'{phase} epoch {epoch}: {shown}')

    def draw(self, add: Callable[['SummaryWriter'], None]) -> None:
        """Let `add` write curves to TensorBoard, where that is installed."""
        if (writer := self.writer) is not None:
            self._attempt('TensorBoard events', lambda: add(writer))

    def _add_scalars(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f'{phase}_{name}', value, epoch)
            self.writer.flush()

    def say(self, text: str) -> None:
        """Write a line on the screen and, with the time, in the log."""
        messages.info(text)
        self._attempt('log.txt', lambda: self._add_line(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {text}\n'))

    def _add_line(self, line: str) -> None:
        self.log.write(line)
        self.log.flush()

    def _attempt(self, name: str, write: Callable[[], None]) -> None:
        """Call `write` until the disk refuses that output; say so, and leave it be from then on."""
        if name in self.broken:
            return
        try:
            write()
        except (OSError, UserError) as error:
            self.broken.add(name)
            reason = error.strerror if isinstance(error, OSError) else error
            messages.warning(f'note: {name} cannot be written any more ({reason}); training goes on')

    def close(self) -> None:
        """Finish the files and give the folder free; more than once does no harm."""
        if self.writer is not None:
            self._attempt('TensorBoard events', self.writer.close)
        try:
            self.log.close()
        except OSError:  # what stood in its buffer when the disk was full, which was reported
            self.broken.add('log.txt')
        self.lock.release()


def open_logger(opt: 'Options', ranks: Ranks) -> 'Logger | QuietLogger':
    """Open the record of a run, which rank 0 keeps.

    Raises:
        UserError: as `Logger`; or this rank does not see the run's folder, which rank 0 has made.
    """
    agents = ranks.collect(ranks.launch.agent)
    logger = Logger(opt) if ranks.is_lead else QuietLogger()
    if ranks.count > 1:
        if ranks.is_lead:
            note_beginners(opt.save_dir, agents)
        mark = ranks.from_lead(mark_of(opt.save_dir))
        deadline = time.monotonic() + LATENESS
        while mark_of(opt.save_dir) != mark:
            if time.monotonic() > deadline:
                raise UserError(
                    f"this process on {socket.gethostname()} does not see the folder '{opt.save_dir}' that rank 0 "
                    'writes to: give --exp_dir a folder that all machines share'
                )
            time.sleep(0.1)
    return logger


def mark_of(folder: str) -> bytes:
    """Return what stands in the lock of a run's folder, which no other run's has; b'' where there is none."""
    try:
        return Path(folder, LOCK).read_bytes()
    except OSError:
        return b''


class QuietLogger:
    """The record of a run in ranks beside rank 0: there is none."""

    def __enter__(self) -> 'QuietLogger':
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave nothing behind."""

    def scalars(
        self, phase: str, epoch: int, values: Mapping[str, float], unit: Callable[[str], str] = lambda name: ''
    ) -> None:
        """Write nothing."""

    def draw(self, add: Callable[['SummaryWriter'], None]) -> None:
        """Draw nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Close nothing."""


def open_events(folder: str) -> 'SummaryWriter | None':
    """Open the TensorBoard events of a run; without TensorBoard there are none, and a note says so."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        messages.info('note: no events for TensorBoard are written: pip install tensorboard does for the next run')
        return None
    silence_event_thread()
    return SummaryWriter(folder)


def silence_event_thread() -> None:
    """Keep TensorBoard's thread from printing a traceback for what `Logger` reports in one line."""
    hook = threading.excepthook

    def without_disk_errors(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != '_AsyncWriterThread' or not issubclass(args.exc_type, OSError):
            hook(args)

    threading.excepthook = without_disk_errors


def write_options(path: str, opt: 'Options') -> None:
    """Write all options, sorted, after the versions and the command line of the run."""
    with atomic_path(path) as beside, open(beside, 'w') as file:
        file.write(f'torch {torch.__version__}, python {sys.version.split()[0]}\n')
        file.write(f'command line: {json.dumps(sys.argv)}\n')
        for name, value in sorted(vars(opt).items()):
            file.write(f'  {name}: {value}\n')


def write_arguments(path: str, opt: 'Options') -> None:
    """Write the options of the run so that `main.py TASK @FILE` reads them.

    A run that is resumed keeps what its file says of the weights that it began with.
    """
    lines = argument_lines(opt)
    if opt.resume and os.path.isfile(path):
        earlier = Path(path).read_text(encoding='utf-8', errors='surrogateescape').split('\n')
        lines += [line for line in earlier if line.lstrip("'").startswith(BEGUN_WITH)]
    with atomic_path(path) as beside, open(beside, 'w', encoding='utf-8', errors='surrogateescape') as file:
        file.writelines(f'{line}\n' for line in lines)


def with_space(unit: str) -> str:
    """Return a unit as it follows its number; '' stays."""
    return f' {unit}' if unit else ''
