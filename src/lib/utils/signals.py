"""Stopping in an orderly way."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)
STOPPING = 'stopping after this iteration (again to stop at once)'
INTERRUPTED = 130  # exit status of a program that was stopped by Ctrl-C


def exit_on_stop_signals() -> None:
    """Let Ctrl-C or SIGTERM end the program at once, with `interrupted` on stderr and exit status 130."""
    for number in STOPS:
        signal.signal(number, _exit)


def interrupt_on_stop_signals() -> None:
    """Let Ctrl-C or SIGTERM raise `KeyboardInterrupt`, so that files are left whole and cleanup runs."""
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def stop_signals_exit() -> Iterator[None]:
    """Apply `exit_on_stop_signals` for the length of the block; without effect outside the main thread.

    For the start of a program, while it imports: there is nothing to save, and a KeyboardInterrupt inside an import
    ends in a traceback of somebody else's module.
    """
    with _handlers_kept(exit_on_stop_signals):
        yield


@contextlib.contextmanager
def stop_signals_interrupt() -> Iterator[None]:
    """Apply `interrupt_on_stop_signals` for the length of the block; without effect outside the main thread."""
    with _handlers_kept(interrupt_on_stop_signals):
        yield


@contextlib.contextmanager
def _handlers_kept(install: Callable[[], None]) -> Iterator[None]:
    """Install handlers for the length of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    install()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    say('interrupted')
    os._exit(INTERRUPTED)


def say(text: str) -> None:
    """Write a line to stderr from a signal handler, past Python's streams: those may be in the middle of a line."""
    with contextlib.suppress(OSError):  # a closed stderr
        os.write(2, f'{text}\n'.encode())


class StopSignals:
    """While it is entered, the first Ctrl-C or SIGTERM calls `stop`; a second one ends the program at once.

    Args:
        stop: is called from the signal handler.
        announced: say so on the screen.
    """

    def __init__(self, stop: Callable[[], None], announced: bool = True):
        self.stop, self.announced = stop, announced
        self.before: dict = {}

    def __enter__(self) -> 'StopSignals':
        self.before = {number: signal.signal(number, self.handle) for number in STOPS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Call `stop`, and leave the next signal to end the program."""
        if self.announced:
            say(f'\n{signal.Signals(number).name}: {STOPPING}')
        exit_on_stop_signals()
        self.stop()


@contextlib.contextmanager
def child_signal_kept() -> Iterator[None]:
    """Give SIGCHLD back, at the end of the block, to whom it had before; without effect outside the main thread.

    PyTorch gives it to a handler that raises wherever the program is when a loader process dies: between a step and
    the count of it, or while a module of Python's holds a lock, which it then never gives back.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def also_on_child_death(act: Callable[[], None]) -> None:
    """Call `act`, which must not raise, whenever a child process ends, beside what is done then already; once for each
    function. Without effect outside the main thread.
    """
    before = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is not threading.main_thread() or act in getattr(before, 'acts', ()):
        return

    def receive(number: int, frame: FrameType | None) -> None:
        act()
        if callable(before):
            before(number, frame)

    receive.acts = (act, *getattr(before, 'acts', ()))  # type: ignore[attr-defined]
    signal.signal(signal.SIGCHLD, receive)


@contextlib.contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for the length of the block, here and in processes that are started in it.

    Such a process lets them through, with `unblock_stop_signals`, when its own handlers are in place.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_stop_signals() -> None:
    """Let Ctrl-C and SIGTERM through again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
