"""Weights as the kernels' matrix product takes them (external/product.h): in panels of 16 outputs."""

import torch
from torch.nn import functional as F

LANES = 16  # outputs of a panel


def to_panels(weight: torch.Tensor) -> torch.Tensor:
    """Lay weights out in panels.

    Args:
        weight: matrices [..., in, out].

    Returns:
        float32 [..., panels, in, 16], contiguous; zeros beyond the last output.
    """
    padded = F.pad(weight.float(), (0, -weight.shape[-1] % LANES))  # [..., in, 16 * panels]
    return padded.unflatten(-1, (-1, LANES)).transpose(-2, -3).contiguous()
