"""The device that a run computes on."""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import UserError


def open_device(gpus: list[int], asked: str, cudnn_benchmark: bool) -> torch.device:
    """Open the device of `--gpus`, and set cuDNN's auto-tuning.

    Args:
        gpus: local indices, or [-1] for the CPU; the first is opened.
        asked: the ids that they stand for, comma-separated, as the user gave them.
        cudnn_benchmark: tune cuDNN to the shapes at hand.

    Raises:
        UserError: one of the GPUs is not there.
    """
    if gpus == [-1]:
        return torch.device('cpu')
    ids = [int(part) for part in asked.split(',')]
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if max(ids) >= found:
        there = f'there are {found} (from 0)' if found else 'no CUDA GPU is there'
        raise UserError(f'--gpus {asked}: {there}; use --gpus {"0 or " if found else ""}-1 for the CPU')
    torch.backends.cudnn.benchmark = cudnn_benchmark
    return torch.device('cuda', ids[0])


def to_device(batch: dict, device: torch.device) -> dict:
    """Return the batch with its tensors on `device`, images [B, 3, H, W] channels-last; `meta` stays where it is."""
    moved = dict(batch)
    for name, value in batch.items():
        if name == 'input':
            moved[name] = to_channels_last(value, device)
        elif name != 'meta':
            moved[name] = value.to(device, non_blocking=True)
    return moved


def to_channels_last(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to `device` without waiting; one of shape [B, C, H, W] lies channels-last in memory."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device, non_blocking=True, memory_format=layout)


def module_to_channels_last(module: nn.Module, **target: Any) -> nn.Module:
    """Move a module to a `device` or `dtype`, its weights of four dimensions channels-last in memory; returns it."""
    return module.to(**target, memory_format=torch.channels_last)


def cpu_has_bfloat16() -> bool:
    """Return whether this processor computes in bfloat16; PyTorch emulates it on others, far slower than float32."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def cpu_has_float16() -> bool:
    """Return whether this processor computes in float16; PyTorch emulates it on others, without a fast way for all."""
    return torch.ops.mkldnn._is_mkldnn_fp16_supported()


def cpu_description() -> str:
    """Return the processor's model and its instruction sets, as far as the system says."""
    about = Path('/proc/cpuinfo')
    if not about.exists():
        return f'{platform.processor()} {platform.machine()}'
    of_first = about.read_text().partition('\n\n')[0].splitlines()
    kept = ('vendor_id', 'model', 'cpu', 'stepping', 'flags', 'Features')
    varying = ('cpu MHz', 'cpu cores', 'cpuid level')
    return '; '.join(
        ' '.join(line.split()) for line in of_first if line.startswith(kept) and not line.startswith(varying)
    )
