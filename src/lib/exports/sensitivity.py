"""Ranks a network's convolutions by what int8 in each of them alone does to the output."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from ..models.networks.common import is_heatmap
from ..models.utils import Output
from .graph import ExportedNetwork
from .layers import digest

WEIGHT_STEPS = 63  # of 7 bits, on each side of 0
ACTIVATION_STEPS = 255
Convolution = nn.Conv2d | nn.ConvTranspose2d


def layers_of(network: ExportedNetwork, weights: Collection[str]) -> dict[str, Convolution]:
    """Return the convolutions, by name, whose weights have one of these digests (`layers.digest`)."""
    return {
        name.removeprefix('network.'): layer
        for name, layer in network.network.named_modules()
        if isinstance(layer, Convolution) and digest(layer.weight.detach().numpy()) in weights
    }


@torch.inference_mode()
def rank_layers(
    network: ExportedNetwork, layers: dict[str, Convolution], images: Sequence[np.ndarray]
) -> dict[str, float]:
    """Rank convolutions by the change of the output when each computes in int8 alone.

    Args:
        network: that they are of.
        layers: the convolutions, by name.
        images: inputs [1, H, W, 3].

    Returns:
        {name: `change`}, the largest first.
    """
    inputs = [torch.from_numpy(image) for image in images]
    wanted = [network.maps(image) for image in inputs]
    changes = {}
    for name, layer in layers.items():
        with rounded(layer):
            found = [network.maps(image) for image in inputs]
        changes[name] = max(change(*pair) for pair in zip(wanted, found, strict=True))
    return dict(sorted(changes.items(), key=lambda item: -item[1]))


def change(wanted: Output, found: Output) -> float:
    """Return how far maps {head: [B, c, h, w]} are from those that are wanted: of the head where it is most, the root
    of the mean square of the difference, relative to the maps; of heatmaps, of the probabilities."""
    ratios = []
    for head, maps in wanted.items():
        ours, theirs = (each.sigmoid() if is_heatmap(head) else each for each in (maps, found[head]))
        ratios.append((theirs - ours).square().mean().sqrt() / ours.square().mean().sqrt().clamp_min(1e-12))
    return float(torch.stack(ratios).max())


@contextmanager
def rounded(layer: Convolution) -> Iterator[None]:
    """Let a convolution compute with weights and inputs that are rounded as in an int8 file."""
    weight = layer.weight
    hook = layer.register_forward_pre_hook(lambda _, inputs: (round_inputs(inputs[0]), *inputs[1:]))
    layer.weight = nn.Parameter(round_weight(weight, isinstance(layer, nn.ConvTranspose2d)), requires_grad=False)
    try:
        yield
    finally:
        hook.remove()
        layer.weight = weight


def round_weight(weight: torch.Tensor, is_transposed: bool) -> torch.Tensor:
    """Round a weight [out, in, k, k] to 7 bits, a scale for each channel out (transposed: one for all)."""
    axes = (0, 1, 2, 3) if is_transposed else (1, 2, 3)
    step = weight.abs().amax(axes, keepdim=True).clamp_min(1e-12) / WEIGHT_STEPS
    return (weight / step).round() * step


def round_inputs(x: torch.Tensor) -> torch.Tensor:
    """Round maps [B, c, h, w] to 8 bits between their least value, or 0, and their largest."""
    least, most = x.min().clamp_max(0), x.max().clamp_min(0)
    step = (most - least).clamp_min(1e-12) / ACTIVATION_STEPS
    return (x / step).round() * step
