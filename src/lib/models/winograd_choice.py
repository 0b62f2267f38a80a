"""Which convolutions of a network Winograd's algorithm does: those that it is measured to do faster, within a memory.

It multiplies a quarter as often, but its weights take four times the memory, and what it gains depends on the size of
the maps. Each shape of convolution is measured once on a processor; the choice for a network is remembered.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..external import is_compiled
from ..utils.measurements import load_measurement, save_measurement
from .fast_dtype import describe_machine
from .fuse import fast_cpu_copy
from .winograd import WinogradConv2d, is_plain

logger = logging.getLogger(__name__)

LEAST_CHANNELS = 16  # of input and output: fewer are not measured
LEAST_GAIN = 0.1  # of a convolution's time, for which it stays as it is
ROUNDS = 3  # of measuring
MOST_IMAGES = 2  # to measure with: a batch takes as many times longer as it is larger
# Of the network's weights, which those of Winograd's algorithm may take; inference with dla_34 then takes a tenth more.
DEFAULT_SHARE = 0.5


@dataclass(frozen=True)
class Candidate:
    """A convolution that Winograd's algorithm can do.

    Attributes:
        name: in the fast copy of the network.
        maps: B, in, H, W of its input.
        out_channels: of its output.
    """

    name: str
    maps: tuple[int, int, int, int]
    out_channels: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes that its time depends on."""
        return (*self.maps, self.out_channels)

    @property
    def bytes(self) -> int:
        """The memory that its transformed weights take."""
        return 4 * 36 * self.maps[1] * (self.out_channels + -self.out_channels % 16)


def may_choose(device: torch.device) -> bool:
    """Return whether there is something to choose on a device: only our compiled kernel on the CPU convolves so."""
    return device.type == 'cpu' and is_compiled('winograd')


def choose_winograd(
    network: nn.Module, facts: Mapping[str, Any], shape: tuple[int, int, int, int], mebibytes: int | None = None
) -> tuple[str, ...] | None:
    """Choose the convolutions that Winograd's algorithm does in a network.

    The same network on the same processor always gets the same choice once it is remembered; results differ by rounding
    alone between choices.

    Args:
        network: at evaluation, in float32.
        facts: that its speed depends on, as JSON holds them.
        shape: B, 3, H, W of its input.
        mebibytes: of memory that the transformed weights may take; None for `DEFAULT_SHARE` of the network's weights.

    Returns:
        Their names, as `FastNetwork` takes them; None where nothing can be chosen.
    """
    if not may_choose(next(network.parameters()).device):
        return None
    shape = (min(shape[0], MOST_IMAGES), *shape[1:])
    weights = 4 * sum(parameter.numel() for parameter in network.parameters())
    budget = int(DEFAULT_SHARE * weights) if mebibytes is None else mebibytes << 20
    conditions = {**facts, 'input': list(shape), 'budget': budget, **describe_machine(torch.device('cpu'))}
    del conditions['threads']  # so that results of several ranks, of fewer threads each, are those of one process
    chosen = load_measurement('winograd', conditions)
    if chosen is None:
        candidates = [one for one in find_candidates(fast_cpu_copy(network), shape) if one.bytes <= budget]
        logger.info('note: measuring %d convolutions of the network once on this processor', len(candidates))
        taken = choose_within(candidates, measure_all(candidates), budget)
        chosen = {candidate.name: float(candidate.name in taken) for candidate in candidates}
        save_measurement('winograd', conditions, chosen)
    return tuple(sorted(name for name, is_chosen in chosen.items() if is_chosen))


def can_be_chosen(module: nn.Module) -> bool:
    """Return whether a layer is a convolution that Winograd's algorithm can do, with channels enough."""
    return is_plain(module) and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS


def find_candidates(model: nn.Module, shape: tuple[int, int, int, int]) -> list[Candidate]:
    """Find the convolutions of a model that can be chosen, by running it once on an input of a shape B, 3, H, W."""
    found: dict[str, Candidate] = {}

    def note(name: str) -> Any:
        def hook(conv: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> None:
            found[name] = Candidate(name, tuple(inputs[0].shape), conv.out_channels)  # type: ignore[arg-type]

        return hook

    layers = [(name, module) for name, module in model.named_modules() if can_be_chosen(module)]
    handles = [module.register_forward_pre_hook(note(name)) for name, module in layers]
    with torch.inference_mode():
        model(torch.zeros(shape).to(memory_format=torch.channels_last))
    for handle in handles:
        handle.remove()
    return list(found.values())


def measure_all(candidates: list[Candidate]) -> dict[tuple[int, ...], tuple[float, float]]:
    """Measure each shape of convolution once; returns the seconds of torch and of Winograd's algorithm by shape."""
    first_of_shape = {candidate.shape: candidate for candidate in reversed(candidates)}
    return {shape: measure(candidate) for shape, candidate in first_of_shape.items()}


@torch.inference_mode()
def measure(candidate: Candidate) -> tuple[float, float]:
    """Measure the seconds of a convolution by torch and by Winograd's algorithm: the shortest of some, in turn.

    The weights are random ones, so that no copy of the network is held meanwhile.
    """
    with torch.random.fork_rng(devices=()):  # the random numbers of the program that asks stay what they are
        maps = torch.randn(candidate.maps).to(memory_format=torch.channels_last)
        conv = nn.Conv2d(candidate.maps[1], candidate.out_channels, 3, padding=1)
    conv = conv.to(memory_format=torch.channels_last)
    ways = (conv, WinogradConv2d(conv))
    seconds = [float('inf')] * len(ways)
    for round_ in range(ROUNDS + 1):
        for i, way in enumerate(ways):
            start = time.perf_counter()
            way(maps)
            if round_ > 0:  # the first warms up
                seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds[0], seconds[1]


def choose_within(
    candidates: list[Candidate], seconds: Mapping[tuple[int, ...], tuple[float, float]], budget: int
) -> set[str]:
    """Choose the convolutions that gain most for their memory, as long as it lasts.

    Args:
        candidates: to choose from.
        seconds: of each shape, by torch and by Winograd's algorithm.
        budget: bytes.

    Returns:
        The names of the chosen ones.
    """
    gains = {}
    for candidate in candidates:
        plain, fast = seconds[candidate.shape]
        if plain - fast > LEAST_GAIN * plain:
            gains[candidate] = (plain - fast) / candidate.bytes
    chosen: set[str] = set()
    for candidate in sorted(gains, key=lambda one: (-gains[one], one.name)):
        if candidate.bytes <= budget:
            chosen.add(candidate.name)
            budget -= candidate.bytes
    return chosen
