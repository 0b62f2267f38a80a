"""Our deformable convolution in int8 as an operator of OpenVINO's, which has its own in float alone.

A file with this operator is read by whoever registers it: `core.add_extension(deformable_convolution())`. Importing
this module imports no runtime.
"""

import functools
import importlib
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..external import dcn

NAME, OPSET = 'DeformableConvolutionInt8', 'centernet'
GEOMETRY = {'kernel': 3, 'stride': 1, 'padding': 1, 'dilation': 1}
FLAGS = {'relu': 0}  # whether negative values of the output become 0


def share_out(model: Any, threads: int) -> None:
    """Let the operators of a model compute with so many threads; 0 for one a core."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == NAME:
            node.threads = threads or len(own_cores())


@functools.cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that share the work of an operator.

    Those of OpenMP, which the kernel has, would go on turning after their work, and slow OpenVINO's down by so much.
    OpenVINO ties its own threads to one core each, which those that they start would inherit.
    """
    return ThreadPoolExecutor(threads, 'deformable convolution', use_cores, (own_cores(),))


@functools.cache
def own_cores() -> frozenset[int]:
    """Return the cores that this process may use, as they were when it first asked."""
    if hasattr(os, 'sched_getaffinity'):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def use_cores(cores: Collection[int]) -> None:
    """Let this thread run on these cores, where the system takes such a wish."""
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, cores)


@functools.cache
def deformable_convolution() -> type:
    """Return the operator's class, a subclass of `openvino.Op`.

    Its inputs are x float32 [B, H, W, C], look float32 [B, h, w, 3 G k k] (offsets, then the mask before its sigmoid),
    and the weight, scale, weight_sum and bias of `external.dcn.convolve_int8`; its output is float32 [B, h, w, out].
    Its attributes are whole numbers: `kernel`, `stride`, `padding`, `dilation` and `relu`.
    """
    openvino: Any = importlib.import_module('openvino')
    own_cores()

    class DeformableConvolutionInt8(openvino.Op):
        class_type_info = openvino.DiscreteTypeInfo(NAME, OPSET)

        def __init__(self, inputs: Sequence[Any] | None = None, **attributes: int):
            super().__init__(self)
            self.attributes = {**GEOMETRY, **FLAGS, **attributes}
            self.threads = len(own_cores())
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            """Set the shape of the output: the places where it looks, and the channels of the bias."""
            look, bias = self.get_input_partial_shape(1), self.get_input_partial_shape(5)
            self.set_output_type(0, self.get_input_element_type(0), openvino.PartialShape([*list(look)[:3], bias[0]]))

        def clone_with_new_inputs(self, inputs: Sequence[Any]) -> 'DeformableConvolutionInt8':
            """Return the same operator of other inputs."""
            made = DeformableConvolutionInt8(inputs, **self.attributes)
            made.threads = self.threads
            return made

        def get_type_info(self) -> Any:
            """Return the name by which files know the operator."""
            return self.class_type_info

        def visit_attributes(self, visitor: Any) -> bool:
            """Let OpenVINO write or read the attributes."""
            visitor.on_attributes(self.attributes)
            return True

        def has_evaluate(self) -> bool:
            """Return that the operator computes itself."""
            return True

        def evaluate(self, outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
            """Compute the output's values [B, h, w, out]."""
            # OpenVINO may keep constants of a file, or of its cache, at any address.
            x, look, *weights = (np.require(each.data, requirements='A') for each in inputs)
            maps = look.transpose(0, 3, 1, 2)  # [B, 3 G k k, h, w]
            count = maps.shape[1] // 3 * 2
            numbers = [self.attributes[name] for name in GEOMETRY]
            arguments = [x, maps[:, :count], maps[:, count:], *weights, outputs[0].data, *numbers]

            def fill(share: int) -> None:
                dcn.convolve_int8(*arguments, True, self.attributes['relu'], 1, share, self.threads)

            list(pool(self.threads).map(fill, range(self.threads)))
            return True

    return DeformableConvolutionInt8
