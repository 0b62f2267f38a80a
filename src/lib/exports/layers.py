"""Which steps of an exported graph compute in int8, found by where they stand between the convolutions."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONVOLUTION, FLOAT_CONVOLUTION, OTHER = 'convolution', 'float convolution', ''
ONNX_KINDS = {'Conv': CONVOLUTION, 'ConvTranspose': FLOAT_CONVOLUTION, 'DeformConv': FLOAT_CONVOLUTION}
OPENVINO_KINDS = {
    'Convolution': CONVOLUTION,
    'GroupConvolution': CONVOLUTION,
    'ConvolutionBackpropData': CONVOLUTION,
    'GroupConvolutionBackpropData': CONVOLUTION,
    'DeformableConvolution': FLOAT_CONVOLUTION,
}
# Inputs of deformable convolutions that say where they look and how much that counts.
OFFSETS_AND_MASKS = {'DeformConv': (2, 4), 'DeformableConvolution': (1, 3)}


@dataclass(frozen=True)
class Step:
    """One step of an exported graph.

    Attributes:
        name: of the step, in the graph.
        kind: CONVOLUTION, FLOAT_CONVOLUTION where the runtime has none in int8, or OTHER.
        sources: names of the steps whose outputs it reads; '' for weights and inputs of the graph.
        weight: `digest` of a convolution's weight.
        looks: of a deformable convolution, names of the steps that give its offsets and its mask.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    weight: str = ''
    looks: tuple[str, ...] = ()


def digest(values: np.ndarray) -> str:
    """Return a digest of a weight [...], by which a network's layer is found in a graph, whatever its name there."""
    return hashlib.sha1(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest()


def read_onnx_steps(model: Any) -> list[Step]:
    """Return the steps of an ONNX model in their order."""
    from onnx import numpy_helper

    arrays = {value.name: value for value in model.graph.initializer}
    maker = {name: node.name for node in model.graph.node for name in node.output}
    steps = []
    for node in model.graph.node:
        kind = ONNX_KINDS.get(node.op_type, OTHER)
        sources = tuple(maker.get(name, '') for name in node.input)
        weight = digest(numpy_helper.to_array(arrays[node.input[1]])) if kind and node.input[1] in arrays else ''
        steps.append(Step(node.name, kind, sources, weight, looks_of(node.op_type, sources)))
    return steps


def read_openvino_steps(model: Any) -> list[Step]:
    """Return the steps of a model of OpenVINO in their order."""
    steps = []
    for node in model.get_ordered_ops():
        if node.get_type_name() in ('Constant', 'Parameter', 'Result'):
            continue
        kind = OPENVINO_KINDS.get(node.get_type_name(), OTHER)
        makers = [value.get_node() for value in node.input_values()]
        given = [maker.get_type_name() in ('Constant', 'Parameter') for maker in makers]
        names = zip(makers, given, strict=True)
        sources = tuple('' if is_given else maker.get_friendly_name() for maker, is_given in names)
        weights = [maker for maker, is_given in zip(makers, given, strict=True) if is_given]
        weight = digest(weights[0].get_data()) if kind and weights else ''
        steps.append(Step(node.get_friendly_name(), kind, sources, weight, looks_of(node.get_type_name(), sources)))
    return steps


def looks_of(operator: str, sources: Sequence[str]) -> tuple[str, ...]:
    """Return the sources of a deformable convolution's offsets and mask; () for other operators."""
    return tuple(sources[i] for i in OFFSETS_AND_MASKS.get(operator, ()) if i < len(sources))


def float_steps(steps: Sequence[Step], float_weights: Iterable[str] = ()) -> list[str]:
    """Choose the steps that compute in float in an int8 file.

    These are all before the first convolutions (the normalisation), the last convolutions of the heads and all after
    them (the decoder), convolutions that the runtime does not have in int8, and how the offsets and masks of deformable
    ones are made of the output of the convolution for them.

    Args:
        steps: of the graph, each after those that it reads.
        float_weights: digests of the weights of further convolutions to leave in float.

    Returns:
        The names of these steps.
    """
    by_name = {step.name: step for step in steps}
    after = reached(steps, by_name)
    before = leading(steps, by_name)
    between = [step.name for step in steps if step.kind == OTHER and step.name in after and step.name in before]
    chosen = {step.name for step in steps if step.kind == CONVOLUTION and step.name in before} | set(between)
    chosen -= {step.name for step in steps if step.kind == CONVOLUTION and step.weight in set(float_weights)}
    for step in steps:
        for name in step.looks:
            chosen -= back_to_convolution(name, by_name)
    return [step.name for step in steps if step.name not in chosen]


def int8_weights(steps: Sequence[Step]) -> set[str]:
    """Return the digests of the weights of the convolutions that may compute in int8."""
    floats = set(float_steps(steps))
    return {step.weight for step in steps if step.kind == CONVOLUTION and step.name not in floats}


def reached(steps: Sequence[Step], by_name: Mapping[str, Step]) -> set[str]:
    """Return the names of the steps that read, through others, what a convolution gives."""
    found: set[str] = set()
    for step in steps:
        if any(name in found or (name in by_name and by_name[name].kind) for name in step.sources):
            found.add(step.name)
    return found


def leading(steps: Sequence[Step], by_name: Mapping[str, Step]) -> set[str]:
    """Return the names of the steps whose output a convolution reads, through others."""
    found: set[str] = set()
    for step in reversed(steps):
        if step.kind or step.name in found:
            found.update(name for name in step.sources if name in by_name)
    return found


def back_to_convolution(name: str, by_name: Mapping[str, Step]) -> set[str]:
    """Return the names of a step and of all before it, back to the next convolutions, which are left out."""
    found: set[str] = set()
    left = [name]
    while left:
        step = by_name.get(left.pop())
        if step is not None and step.kind == OTHER and step.name not in found:
            found.add(step.name)
            left += step.sources
    return found
