"""What a run leaves to read: its options, a log, TensorBoard scalars."""

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping

import torch
from torch.utils.tensorboard import SummaryWriter

from .utils.errors import UserError


class Logger:
    """Writes `opt.txt`, `log.txt` and TensorBoard events (`logs/`) into the run's folder.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, opt: Namespace):
        try:
            os.makedirs(opt.save_dir, exist_ok=True)
            write_options(os.path.join(opt.save_dir, 'opt.txt'), opt)
            self.log = open(os.path.join(opt.save_dir, 'log.txt'), 'a')  # noqa: SIM115  closed in close()
            self.writer = SummaryWriter(os.path.join(opt.save_dir, 'logs'))
        except OSError as error:
            raise UserError(f"cannot write to the run's folder '{opt.save_dir}': {error.strerror}") from None

    def scalars(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        """One line in the log, and a TensorBoard scalar each."""
        for name, value in values.items():
            self.writer.add_scalar(f'{phase}_{name}', value, epoch)
        self.writer.flush()
        figures = ' | '.join(f'{name} {value:.6g}' for name, value in values.items())
        self.say(f'{phase} epoch {epoch}: {figures}')

    def say(self, text: str) -> None:
        """A line on the screen and, with the time, in the log."""
        print(text, flush=True)
        self.log.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {text}\n')
        self.log.flush()

    def close(self) -> None:
        self.log.close()
        self.writer.close()


def write_options(path: str, opt: Namespace) -> None:
    """All options, sorted, after the versions and the command line of the run."""
    with open(path, 'w') as file:
        file.write(f'torch {torch.__version__}, python {sys.version.split()[0]}\n')
        file.write(f'command line: {json.dumps(sys.argv)}\n')
        for name, value in sorted(vars(opt).items()):
            file.write(f'  {name}: {value}\n')
