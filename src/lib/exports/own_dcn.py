"""Puts our int8 operator in the place of the deformable convolutions of a model of OpenVINO's."""

import importlib
from typing import Any

import numpy as np

from ..models.int8_weights import quantize_weight
from ..models.openvino_dcn import deformable_convolution

STANDARD = 'DeformableConvolution'


def use_own_dcn(model: Any) -> int:
    """Replace the deformable convolutions of a model, with the bias and the ReLU that follow them; return how many."""
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == STANDARD]
    for node in found:
        replace(node)
    return len(found)


def replace(node: Any) -> None:
    """Replace a deformable convolution: inputs x [B, C, H, W], offsets, weight [out, C, k, k] and mask."""
    operators = importlib.import_module('openvino.opset13')
    x, offset, weight, mask = (node.input_value(i) for i in range(4))
    split = offset.get_node()  # of what the convolution before gives, into offsets and the mask before its sigmoid
    assert mask.get_node().get_type_name() == 'Sigmoid' and mask.get_node().input_value(0).get_node() == split
    look = operators.transpose(split.input_value(0), np.array([0, 2, 3, 1]))
    values = np.array(weight.get_node().get_data(), np.float32)  # [out, C, k, k]
    bias, last = bias_after(node, len(values))
    relu = only_reader(last, 'Relu')
    last = relu or last
    matrix = values.transpose(0, 2, 3, 1).reshape(len(values), -1)  # [out, k * k * C]
    constants = [operators.constant(each) for each in (*quantize_weight(matrix), bias)]
    attributes = node.get_attributes()
    pixels = operators.transpose(x, np.array([0, 2, 3, 1]))
    made = deformable_convolution()(
        [pixels.output(0), look.output(0), *(each.output(0) for each in constants)],
        kernel=values.shape[2],
        stride=attributes['strides'][0],
        padding=attributes['pads_begin'][0],
        dilation=attributes['dilations'][0],
        relu=int(relu is not None),
    )
    made.set_friendly_name(node.get_friendly_name())
    back = operators.transpose(made.output(0), np.array([0, 3, 1, 2]))
    last.output(0).replace(back.output(0))


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
    readers = [each.get_node() for each in node.output(0).get_target_inputs()]
    return readers[0] if len(readers) == 1 and readers[0].get_type_name() == kind else None
