"""The common parts of the command-line programs: their parser, one-line errors, exit codes, progress."""

import argparse
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from progress.bar import Bar

from .errors import UserError, did_you_mean
from .log import configure_logging
from .signals import exit_on_stop_signals, stop_signals_interrupt

COMMAND = 'centernet'  # under which programs and tools are called where the package is installed


def run_cli(main: Callable[[], Any]) -> None:
    """Run `main()` as a program: exits 0, or 1 with one line on stderr, or 130 after Ctrl-C or SIGTERM.

    A `UserError` and the operating system's refusals (a full disk, a folder that is read-only) become
    that one line; anything else is a fault of ours and keeps its traceback. When whoever reads the output has closed
    it (`| head`), the program ends without a word.
    """
    configure_logging()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')  # file names that the terminal's encoding lacks
    try:
        with stop_signals_interrupt():
            main()
            sys.stdout.flush()
        exit_on_stop_signals()  # while the interpreter ends, which would show a traceback of its own
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        sys.exit(1)
    except (UserError, OSError) as error:
        fail(one_line(error))
    except ImportError as error:
        if 'libGL' not in str(error):
            raise
        fail(
            f'{one_line(error)}: OpenCV with windows needs it; install opencv-python-headless in place of opencv-python'
        )
    except MemoryError:
        fail('the memory does not suffice: try a smaller --batch_size, --input_res or --num_workers')
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        fail('the GPU has not enough memory: try a smaller --batch_size or --input_res')
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)


def called_as_command() -> bool:
    """Return whether this program was started as `centernet train`, not as a script of a checkout."""
    return sys.argv[0].startswith(f'{COMMAND} ')


def fail(message: str) -> NoReturn:
    """End the program with status 1 and one line on stderr."""
    print(f'error: {message}', file=sys.stderr)
    sys.exit(1)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether it is torch's error about a GPU's memory; torch is not imported for the question."""
    torch = sys.modules.get('torch')
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def one_line(error: BaseException) -> str:
    """Return the error's message without line breaks."""
    return ' '.join(str(error).split()) or type(error).__name__


class OneLineParser(argparse.ArgumentParser):
    """argparse whose complaints are a `UserError` of one line instead of a page of usage and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's complaint as a `UserError`."""
        raise UserError(f'{message} (--help lists the options)')

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse `--option=--`, of which argparse would make an empty list."""
        for word in words:
            if word.startswith('--') and word.endswith('=--'):
                self.error(f"argument {word[:-3]}: expected a value, found '--'")

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Split a line of a file of options as a shell does; what follows `#` is a comment."""
        try:
            words = shlex.split(arg_line, comments=True)
        except ValueError as error:
            self.error(f"a line of a file of options is not understood: '{arg_line}' ({error})")
        self.check_words(words)
        return words

    def parse_args(  # type: ignore[override]  # typeshed overloads it for namespaces of other classes
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> Namespace:
        """Parse as argparse does, but name the nearest option to an argument that it does not know."""
        words = sys.argv[1:] if args is None else args
        self.check_words(words)
        try:
            parsed, unknown = self.parse_known_args(words, namespace)
        except (UnicodeError, RecursionError) as error:  # of a file of options
            reason = 'is no text' if isinstance(error, UnicodeError) else 'reads itself'
            self.error(f'{next(word for word in words if word.startswith("@"))} {reason}')
        if unknown:
            word = unknown[0].split('=')[0]
            known = [option for action in self._actions for option in action.option_strings]
            hint = did_you_mean(word, known) if word.startswith('-') else ''
            raise UserError(f"unknown argument '{unknown[0]}'" + (hint or ' (--help lists the options)'))
        return parsed


class Progress:
    """Progress of long work: a bar on a terminal, elsewhere (a log, CI) a line each 10 % of the way.

    Use as a context manager; `step(text)` counts one item done and shows `text` after the count. `done`
    items were done before. Without `shown` it only counts.
    """

    def __init__(self, total: int, label: str = '', done: int = 0, shown: bool = True):
        self.total, self.label, self.shown = total, label, shown
        self.done, self.first, self.start = done, done, time.time()
        self.bar = Bar(label, max=max(total, 1), index=done) if shown and sys.stderr.isatty() else None

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar's line."""
        if self.bar is not None:
            self.bar.finish()

    def step(self, text: str = '') -> None:
        """Count one item done, and show `text` after the count."""
        self.done += 1
        if not self.shown:
            return
        message = f'{self.done}/{self.total} | {self.timing()}' + (f' | {text}' if text else '')
        if self.bar is not None:
            self.bar.suffix = message
            self.bar.next()
        elif self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            print(f'{self.label}: {message}', file=sys.stderr, flush=True)

    def timing(self) -> str:
        """Return the elapsed time, and the time that is left at the pace so far."""
        elapsed = time.time() - self.start
        left = elapsed / max(self.done - self.first, 1) * (self.total - self.done)
        return f'{clock(elapsed)} gone, {clock(left)} left'


def clock(seconds: float) -> str:
    """Return seconds as `h:mm:ss` (or `m:ss` under one hour)."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'


def track(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Iterate over `items` with a `Progress`; those without a length need their `total`."""
    with Progress(len(items) if total is None else total, label) as progress:  # type: ignore[arg-type]  # see above
        for item in items:
            yield item
            progress.step()
