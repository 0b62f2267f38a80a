"""`--dtype auto`: the fastest number type that keeps a network's answer, measured once and remembered."""

import functools
import hashlib
import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..utils.device import cpu_description, cpu_has_bfloat16
from ..utils.measurements import load_measurement, save_measurement
from ..utils.precision import faster_dtype
from .fuse import DTYPES, FastNetwork, Weights

logger = logging.getLogger(__name__)

FLOAT32, SHORT = 'float32', 'bfloat16'
LEAST_GAIN = 0.1  # of the time, for which float32 is left
MOST_DIFFERENCE = 0.03  # of a head's output, relative to float32's (root mean squares); 0.003 is common
ROUNDS = 3  # of measuring
MOST_IMAGES = 2  # that the CPU is measured with: a batch is as many times slower as it is larger
BLOB = 16  # pixels between the random values of an image to measure with


def choose_dtype(
    network: nn.Module,
    facts: Mapping[str, Any],
    shape: tuple[int, int, int, int],
    winograd: Collection[str] | None = None,
) -> str:
    """Choose the fastest number type that keeps a network's answer, for `--dtype auto`.

    It is float32 unless bfloat16 is faster by `LEAST_GAIN` and each head's output nearly the same. The times are
    measured once on this processor for a network of these facts, the outputs once for its weights.

    Args:
        network: at evaluation, on its device.
        facts: that its speed depends on, as JSON holds them.
        shape: B, 3, H, W of its input.
        winograd: in float32, as `FastNetwork` takes it.

    Returns:
        float32 or bfloat16.
    """
    device = next(network.parameters()).device
    if not may_gain(device):
        return FLOAT32
    shape = (min(shape[0], MOST_IMAGES) if device.type == 'cpu' else shape[0], *shape[1:])
    conditions = {**facts, 'input': list(shape), **describe_machine(device)}
    if winograd is not None:
        conditions['winograd'] = sorted(winograd)
    trial = Trial(network, shape, device, winograd)
    seconds = load_measurement('seconds', conditions, set(DTYPES))
    is_new = seconds is None
    if seconds is None:
        seconds = trial.seconds()
        save_measurement('seconds', conditions, seconds)
    chosen, why = FLOAT32, ''
    if seconds[SHORT] <= (1 - LEAST_GAIN) * seconds[FLOAT32]:
        conditions['weights'] = fingerprint(network)
        found = load_measurement('difference', conditions, {SHORT})
        difference = found[SHORT] if found else trial.difference()
        if found is None and math.isfinite(difference):
            save_measurement('difference', conditions, {SHORT: difference})
        if difference <= MOST_DIFFERENCE:
            chosen = SHORT
        else:
            why = f', whose output differs by {difference:.0%} in {SHORT}'
    if is_new or why:
        times = ', '.join(f'{1000 * seconds[name] / shape[0]:.3g} ms in {name}' for name in DTYPES)
        logger.info(f'note: --dtype auto: an image takes {times} here; the network{why} computes in {chosen}')
    return chosen


def may_gain(device: torch.device) -> bool:
    """Return whether a device may compute faster in bfloat16; what has no such instructions emulates it, slowly."""
    if device.type == 'cuda':
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return cpu_has_bfloat16()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what times depend on beside the network, as JSON holds it: the processor, PyTorch, threads."""
    processor = torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_description()
    return {'processor': processor, 'torch': torch.__version__, 'threads': torch.get_num_threads()}


def fingerprint(network: nn.Module) -> str:
    """Return a digest of the beginnings of all weights."""
    values = Weights(network).values.float().cpu().numpy()
    return hashlib.sha1(values.tobytes()).hexdigest()


def random_images(shape: tuple[int, int, int, int]) -> torch.Tensor:
    """Return the same random images, float32 of a shape [B, 3, H, W], normalised: blobs, which say more than noise."""
    generator = torch.Generator().manual_seed(0)
    blobs = torch.randn(*shape[:2], *(max(side // BLOB, 1) for side in shape[2:]), generator=generator)
    return F.interpolate(blobs, shape[2:], mode='bilinear') + 0.1 * torch.randn(*shape, generator=generator)


class Trial:
    """A network that computes in each of `DTYPES` in turn.

    Args:
        network: at evaluation.
        shape: B, 3, H, W of its input.
        device: of the network.
        winograd: as `FastNetwork` takes it.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int, int, int],
        device: torch.device,
        winograd: Collection[str] | None = None,
    ):
        self.network, self.shape, self.device = network, shape, device
        self.fast = {dtype: FastNetwork(dtype, winograd) for dtype in DTYPES.values()}

    @functools.cached_property
    def images(self) -> torch.Tensor:
        """Random images [B, 3, H, W] on the device."""
        return random_images(self.shape).to(self.device)

    def run(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the network's output `{head: float32 [B, c, h, w]}` as computed in a type, once it is there."""
        output = self.fast[dtype](self.network, self.images)
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return output

    def seconds(self) -> dict[str, float]:
        """Measure the time of the input in each type, by the type's name."""
        _, seconds = faster_dtype(self.run, tuple(DTYPES.values()), ROUNDS)
        return {name: seconds[dtype] for name, dtype in DTYPES.items()}

    def difference(self) -> float:
        """Return how far the output in bfloat16 is from that in float32, relative to it; NaN and infinity count.

        It is the root of the mean square of the difference by that of the output, of the head where it is largest.
        """
        wanted, found = (self.run(DTYPES[name]) for name in (FLOAT32, SHORT))
        ratios = [
            (found[head] - maps).square().mean().sqrt() / maps.square().mean().sqrt().clamp_min(1e-12)
            for head, maps in wanted.items()
        ]
        return float(torch.stack(ratios).max())  # NaN where one is
