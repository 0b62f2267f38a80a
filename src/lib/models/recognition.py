"""Reads off the names and shapes of a network's parameters which network it is: arch, heads, task and options."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from ..tasks import infer_task
from .families import archs_of, family_of, model_factory, split_arch

Shapes = Mapping[str, tuple[int, ...]]


def infer_facts(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Infer the facts of a checkpoint that records none, as the published ones do.

    Only names and shapes are looked at.

    Args:
        state_dict: `{name: tensor [...]}` of a network, without prefixes before the names.

    Returns:
        `arch`, `heads` {name: channels} and `head_conv` where the network is one of `ARCHS`, and of the task that
        its heads are for: `task`, `num_classes`, `num_joints` (multi_pose) and the options that shape its heads
        (`cat_spec_wh`, `not_reg_offset`, ...). A fact that does not show is left out; {} for other networks.
    """
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    arch = infer_arch(shapes)
    if arch is None:
        return {}
    heads, widths = infer_heads(shapes, arch)
    facts: dict[str, Any] = {'arch': arch}
    if heads:
        facts['heads'] = heads
    if len(widths) == 1:
        facts['head_conv'] = widths.pop()
    return facts | infer_task(heads)


def infer_arch(shapes: Shapes) -> str | None:
    """Return the largest arch of which every parameter, but for the heads, is there in its shape; None without one."""
    fitting = [
        arch
        for family in model_factory
        if headless_shapes(archs_of(family)[0]).keys() & shapes.keys()  # networks of one family have names in common
        for arch in archs_of(family)
        if all(shapes.get(name) == shape for name, shape in headless_shapes(arch).items())
    ]
    return max(fitting, key=lambda arch: len(headless_shapes(arch)), default=None)


@lru_cache
def headless_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an arch's parameters without heads, and without the counters that old files lack."""
    with torch.device('meta'):
        network = family_of(arch).build(split_arch(arch)[1], {}, 0)
    return {name: tuple(value.shape) for name, value in network.state_dict().items() if not is_counter(name)}


def infer_heads(shapes: Shapes, arch: str) -> tuple[dict[str, int], set[int]]:
    """Return the heads `{name: channels}` in the order of the parameters, and the widths of their hidden convolutions.

    Args:
        shapes: of all parameters of a network of this arch.
    """
    backbone = {head_of(name) for name in headless_shapes(arch)}
    convs: dict[str, list[tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        head = head_of(name)
        if head not in backbone and name.endswith('.weight') and len(shape) == 4:
            convs.setdefault(head, []).append(shape)  # [out, in, k, k]
    heads = {head: weights[-1][0] for head, weights in convs.items()}
    widths = {weights[0][0] if weights[0][2:] == (3, 3) else 0 for weights in convs.values()}
    return heads, widths


def head_of(name: str) -> str:
    """Return the head that a parameter of this name would belong to."""
    return name.partition('.')[0]


def is_counter(name: str) -> bool:
    """Return whether it is a batch norm's count of batches, which nothing reads and old files lack."""
    return name.endswith('.num_batches_tracked')
