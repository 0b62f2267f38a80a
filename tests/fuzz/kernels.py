"""Kernels, registered operators and decoders called with random arguments (`kernel_calls.py`)."""

import warnings
from pathlib import Path

import numpy as np
import torch

from kernel_calls import kernel_calls

from .case import Case


def make_base(folder: Path) -> None:
    """No files are needed."""


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """One call; its own check compares the results of right arguments with a slow form's."""
    torch.manual_seed(int(rng.integers(2**31)))
    warnings.simplefilter('ignore')  # of numpy and torch, on values that are no numbers
    description, call = next(kernel_calls(rng))
    return Case(description[:400], call)
