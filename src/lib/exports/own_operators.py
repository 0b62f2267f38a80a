"""Puts our int8 operators in the place of the deformable convolutions of a model of OpenVINO's that NNCF quantised, and
of the sums of upsampled maps that they read."""

import importlib
from collections.abc import Collection
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from ..models.int8_weights import quantize_weight
from ..models.openvino_operators import deformable_convolution, upsampled_sum

STANDARD, DEPTHWISE, ROUNDING = 'DeformableConvolution', 'GroupConvolutionBackpropData', 'FakeQuantize'
LEVELS = 256  # of a byte
NEAR = 1e-3  # of a step, how far 0 may lie from a byte
TO_PIXELS, TO_MAPS = np.array([0, 2, 3, 1]), np.array([0, 3, 1, 2])


class Rounding(NamedTuple):
    """How bytes stand for the values of a tensor: byte b for `step * (b - zero)`.

    Attributes:
        step: larger than 0.
        zero: 0 to 255.
    """

    step: float
    zero: int


class Map(NamedTuple):
    """A map in bytes.

    Attributes:
        bytes: an output of a node, uint8 [B, H, W, C].
        rounding: what they stand for.
    """

    bytes: Any
    rounding: Rounding


# Maps that our operators give, by the names of the nodes that give them as float32 [B, C, H, W].
Maps = dict[str, Map]


def use_own_operators(model: Any) -> int:
    """Replace the deformable convolutions of a model, with the bias and the ReLU that follow them, and the sums of
    upsampled maps and others; return how many of both.

    A convolution stays as it is where the one that says where it looks does not read its map in bytes, and a sum where
    either map is not in bytes, or the sum not read in bytes alone; so do those that our operators do not compute
    (`is_own_convolution`, `is_upsampling`). What NNCF rounds between an upsampling and its sum is no longer rounded.
    """
    steps = model.get_ordered_ops()
    found = [node for node in steps if node.get_type_name() == STANDARD]
    read = {node.get_friendly_name(): rounding for node in found if (rounding := rounding_of(node)) is not None}
    for node in found:
        if node.get_friendly_name() in read:
            node.input(0).replace_source_output(read[node.get_friendly_name()].output(0))
    maps: Maps = {}
    count = 0
    for node in steps:
        if node.get_type_name() == 'Add':
            count += replace_sum(node, maps)
        elif node.get_friendly_name() in read:
            x = map_of(read[node.get_friendly_name()], maps)
            assert x is not None  # `rounding_of` says so
            replace_convolution(node, x, maps)
            count += 1
    return count


def rounding_of(node: Any) -> Any:
    """Return the node that rounds a deformable convolution's map to bytes for the convolution that says where it looks;
    None where that convolution computes in float, or ours does not compute this one."""
    if not is_own_convolution(node):
        return None
    looking = without_bias(split_of(node).input_value(0).get_node())
    if not looking.get_input_size():
        return None
    read, given = looking.input_value(0), node.input_value(0)
    rounding = read.get_node()
    is_rounded = read_rounding(rounding) is not None and given in (read, rounding.input_value(0))
    return rounding if is_rounded else None


def is_own_convolution(node: Any) -> bool:
    """Return whether a deformable convolution is one that our operator computes: bilinear beyond the edges, alike along
    both axes, its offsets and its mask before the sigmoid the two parts of one map."""
    if len(node.input_values()) != 4 or node.input_value(2).get_node().get_type_name() != 'Constant':
        return False
    known, weight = node.get_attributes(), list(node.input_value(2).get_shape())
    offset, mask = node.input_value(1), node.input_value(3).get_node()
    if mask.get_type_name() != 'Sigmoid' or offset.get_node().get_type_name() != 'VariadicSplit':
        return False
    parts = mask.input_value(0)
    return (
        known['group'] == 1
        and known['bilinear_interpolation_pad']
        and weight[2] == weight[3]
        and all(known[name][0] == known[name][1] for name in ('strides', 'pads_begin', 'dilations'))
        and list(known['pads_begin']) == list(known['pads_end'])
        and parts.get_node() == offset.get_node()
        and (offset.get_index(), parts.get_index()) == (0, 1)
    )


def split_of(node: Any) -> Any:
    """Return the node that splits a map into a deformable convolution's offsets and its mask before the sigmoid."""
    return node.input_value(1).get_node()


def without_bias(node: Any) -> Any:
    """Return the convolution whose bias a node adds; the node itself where it is none that adds."""
    return node.input_value(0).get_node() if node.get_type_name() == 'Add' else node


def read_rounding(node: Any) -> Rounding | None:
    """Return the bytes to which a node rounds all values of a tensor alike; None where it does something else."""
    if node.get_type_name() != ROUNDING or node.get_attributes()['levels'] != LEVELS:
        return None
    limits = [value.get_node() for value in node.input_values()[1:]]
    if any(limit.get_type_name() != 'Constant' or limit.get_data().size != 1 for limit in limits):
        return None
    low, high, *out = (float(limit.get_data().item()) for limit in limits)
    if [low, high] != out or not low <= 0 < high:
        return None
    step = (high - low) / (LEVELS - 1)
    zero = round(-low / step)
    return Rounding(step, zero) if abs(-low / step - zero) < NEAR else None


def replace_convolution(node: Any, x: Map, maps: Maps) -> None:
    """Replace a deformable convolution: inputs x [B, C, H, W], offsets, weight [out, C, k, k] and mask.

    Args:
        node: the convolution.
        x: what it reads.
        maps: see `Maps`; that of this one is added.
    """
    operators = opset()
    look = operators.transpose(split_of(node).input_value(0), TO_PIXELS)
    weight = np.array(node.input_value(2).get_node().get_data(), np.float32)  # [out, C, k, k]
    bias, last = bias_after(node, len(weight))
    relu = only_reader(last, 'Relu')
    last = relu or last
    readers = readers_of(last)
    taken = common_rounding(readers)
    if relu is not None and taken is not None and taken.zero:
        taken = None  # bytes below that for 0 would have to be cut off
    panels, scale, total = quantize_weight(weight.transpose(0, 2, 3, 1).reshape(len(weight), -1))  # [out, k * k * C]
    scale, bias = x.rounding.step * scale, bias - x.rounding.step * x.rounding.zero * total
    if taken is not None:
        scale, bias = scale / taken.step, bias / taken.step + taken.zero
    attributes = node.get_attributes()
    made = deformable_convolution()(
        [x.bytes, look.output(0), *constants(panels, scale, bias)],
        kernel=weight.shape[2],
        stride=attributes['strides'][0],
        padding=attributes['pads_begin'][0],
        dilation=attributes['dilations'][0],
        zero=x.rounding.zero,
        relu=int(relu is not None),
        to_bytes=int(taken is not None),
    )
    made.set_friendly_name(node.get_friendly_name())
    if taken is None:
        last.output(0).replace(operators.transpose(made.output(0), TO_MAPS).output(0))
    else:
        stand_in(Map(made.output(0), taken), readers, maps)


def replace_sum(added: Any, maps: Maps) -> bool:
    """Replace a node that adds, if it adds a depthwise transposed convolution and another map, and its readers round
    the sum; return whether it does. `maps` is added to."""
    readers = readers_of(added)
    taken = common_rounding(readers)
    if taken is None or not is_pixel_by_pixel(added):
        return False
    for first, second in permutations(value.get_node() for value in added.input_values()):
        up = first.input_value(0).get_node() if read_rounding(first) is not None else first
        if up.get_type_name() == DEPTHWISE and is_upsampling(up):
            low, other = map_of(up.input_value(0).get_node(), maps), map_of(second, maps)
            if low is None or other is None:
                continue
            weight = value_of(up.input_value(1))[:, 0, 0].transpose(1, 2, 0)  # [k, k, C] of [C, 1, 1, k, k]
            scale = other.rounding.step / taken.step
            values = weight * (low.rounding.step / taken.step), [scale], [taken.zero - scale * other.rounding.zero]
            made = upsampled_sum()(
                [low.bytes, other.bytes, *constants(*values)],
                stride=up.get_attributes()['strides'][0],
                padding=up.get_attributes()['pads_begin'][0],
                zero=low.rounding.zero,
            )
            made.set_friendly_name(added.get_friendly_name())
            stand_in(Map(made.output(0), taken), readers, maps)
            return True
    return False


def is_upsampling(node: Any) -> bool:
    """Return whether a transposed convolution of groups is one that our operator computes."""
    known, weight = node.get_attributes(), list(node.input_value(1).get_shape())
    stride, padding = known['strides'], known['pads_begin']
    return (
        weight[1:3] == [1, 1]
        and weight[3] == weight[4]
        and stride[0] == stride[1] <= weight[3] <= 2 * stride[0]
        and padding == known['pads_end'] == [padding[0], padding[0]]
        and list(known['dilations']) == [1, 1]
        and list(known['output_padding']) == [0, 0]
        and len(node.input_values()) == 2
    )


def is_pixel_by_pixel(added: Any) -> bool:
    """Return whether a node adds maps of one shape, as far as that is known: none is spread over the other."""
    one, other = (list(value.get_partial_shape()) for value in added.input_values())
    return len(one) == len(other) == 4 and all(
        a == b or (a.is_dynamic and b.is_dynamic) for a, b in zip(one, other, strict=True)
    )


def map_of(node: Any, maps: Maps) -> Map | None:
    """Return the bytes that a node [B, C, H, W] gives: of an operator of ours, or those that a node rounds to; None
    where it gives others."""
    name, rounding = node.get_friendly_name(), read_rounding(node)
    if name in maps or rounding is None:
        return maps.get(name)
    operators = opset()
    steps = operators.multiply(node, np.float32(1 / rounding.step))
    whole = operators.convert(operators.add(steps, np.float32(rounding.zero + 0.5)), 'u8')  # to convert is to cut off
    return Map(operators.transpose(whole, TO_PIXELS).output(0), rounding)


def stand_in(made: Map, readers: Collection[Any], maps: Maps) -> None:
    """Let the bytes of an operator of ours stand in for what nodes round; `maps` is added to."""
    operators = opset()
    whole = operators.convert(made.bytes, 'f32')
    values = operators.multiply(
        operators.subtract(whole, np.float32(made.rounding.zero)), np.float32(made.rounding.step)
    )
    # Rounded once more, which changes nothing: by this OpenVINO knows that convolutions may read the bytes.
    limits = next(iter(readers)).input_values()[1:]
    rounded = operators.fake_quantize(values, *(limit.get_node() for limit in limits), LEVELS)
    back = operators.transpose(rounded, TO_MAPS)
    for name in (back.get_friendly_name(), *(reader.get_friendly_name() for reader in readers)):
        maps[name] = made
    for reader in readers:
        reader.output(0).replace(back.output(0))


def readers_of(node: Any) -> list[Any]:
    """Return the nodes that read a node's output."""
    return [target.get_node() for target in node.output(0).get_target_inputs()]


def common_rounding(readers: Collection[Any]) -> Rounding | None:
    """Return how all readers of a tensor round it; None where they do not, or not alike."""
    found = {read_rounding(reader) for reader in readers}
    return found.pop() if len(found) == 1 else None


def opset() -> Any:
    """Return the module with OpenVINO's operators."""
    return importlib.import_module('openvino.opset13')


def constants(*values: Any) -> list[Any]:
    """Return the outputs of constants of these values, in int8 where they are, else in float32."""
    arrays = [np.asarray(value) for value in values]
    return [
        opset().constant(array if array.dtype == np.int8 else array.astype(np.float32)).output(0) for array in arrays
    ]


def value_of(output: Any) -> np.ndarray:
    """Return what nodes make of constants [...]."""
    openvino = importlib.import_module('openvino')
    return np.array(openvino.compile_model(openvino.Model([output], []), 'CPU')([])[0], np.float32)


def bias_after(node: Any, channels: int) -> tuple[np.ndarray, Any]:
    """Return the bias [channels] that is added to a node's output, and the node that adds it; zeros and the node itself
    where there is none."""
    added = only_reader(node, 'Add')
    if added is not None:
        for value in added.input_values():
            constant = value.get_node()
            if constant.get_type_name() == 'Constant' and list(constant.shape) == [1, channels, 1, 1]:
                return np.array(constant.get_data(), np.float32).reshape(-1), added
    return np.zeros(channels, np.float32), node


def only_reader(node: Any, kind: str) -> Any:
    """Return the node of that kind that alone reads a node's output; None where there is none."""
    readers = readers_of(node)
    return readers[0] if len(readers) == 1 and readers[0].get_type_name() == kind else None
