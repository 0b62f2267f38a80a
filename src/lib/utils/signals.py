"""Stopping in an orderly way."""

import signal
from collections.abc import Callable


class StopSignals:
    """While it is entered, the first Ctrl-C or SIGTERM calls `stop`; a second one ends the program at once."""

    NAMES = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, stop: Callable[[], None]):
        self.stop = stop
        self.before: dict = {}

    def __enter__(self) -> 'StopSignals':
        self.before = {name: signal.signal(name, self.handle) for name in self.NAMES}
        return self

    def __exit__(self, *exc_info) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)

    def handle(self, number: int, frame) -> None:
        print(f'\n{signal.Signals(number).name}: stopping after this iteration (again to stop at once)', flush=True)
        for name in self.NAMES:
            signal.signal(name, signal.SIG_DFL)
        self.stop()
