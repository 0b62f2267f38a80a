"""The device that a run computes on."""

from argparse import Namespace

import torch

from .errors import UserError


def open_device(opt: Namespace) -> torch.device:
    """The device of `--gpus`; also sets cuDNN's auto-tuning.

    Raises:
        UserError: the GPU is not there, or several are asked for.
    """
    if opt.gpus == [-1]:
        return torch.device('cpu')
    ids = [int(part) for part in opt.gpus_str.split(',')]
    if len(opt.gpus) > 1:
        raise UserError(f'--gpus {opt.gpus_str}: this version runs on one device; give one id')
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if ids[0] >= found:
        there = f'there are {found} (from 0)' if found else 'no CUDA GPU is there'
        raise UserError(f'--gpus {opt.gpus_str}: {there}; use --gpus {"0 or " if found else ""}-1 for the CPU')
    torch.backends.cudnn.benchmark = not opt.not_cuda_benchmark
    return torch.device('cuda', ids[0])


def to_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on `device`, copied without waiting; `meta` stays where it is."""
    return {name: value if name == 'meta' else value.to(device, non_blocking=True) for name, value in batch.items()}
