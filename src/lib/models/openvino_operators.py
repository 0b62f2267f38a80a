"""Our operators of OpenVINO's for networks in int8: deformable convolution, which OpenVINO has in float alone, and the
upsampling of DLA, which would otherwise move the maps between two layouts.

A file with these operators is read by a core that knows them, by `register(core)`. Importing this module imports no
runtime.
"""

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from ..external import dcn, upsample
from ..external.checks import LARGEST
from .int8_weights import FOURS, LANES

OPSET = 'centernet'
DEFORMABLE_CONVOLUTION, UPSAMPLED_SUM = 'DeformableConvolutionInt8', 'UpsampledSumInt8'
# Their attributes, whole numbers, and what they may be. Of the convolution: its geometry, the byte of the map that
# stands for 0, whether negative values of the output become 0, and whether it is one of bytes.
SIZES, BYTES, FLAGS = range(1, LARGEST + 1), range(256), range(2)
CONVOLUTION_ATTRIBUTES = {
    'kernel': SIZES,
    'stride': SIZES,
    'padding': range(LARGEST + 1),
    'dilation': SIZES,
    'zero': BYTES,
    'relu': FLAGS,
    'to_bytes': FLAGS,
}
SUM_ATTRIBUTES = {'stride': SIZES, 'padding': range(LARGEST + 1), 'zero': BYTES}
MISSING = -1  # an attribute that is not given
LEAST_WORK = 10_000_000  # multiplications of whole numbers that are worth a thread
WORK_OF_SUM = 100  # multiplications that take as long as one value of a sum

# Fills one of equal shares of the output: share, shares.
Fill = Callable[[int, int], None]


def register(core: Any) -> None:
    """Let an `openvino.Core` read files with our operators."""
    for operator in (deformable_convolution(), upsampled_sum()):
        core.add_extension(operator)


def share_out(model: Any, threads: int) -> None:
    """Let the operators of a model compute with so many threads; 0 for one a core."""
    for node in model.get_ordered_ops():
        if node.get_type_name() in (DEFORMABLE_CONVOLUTION, UPSAMPLED_SUM):
            node.threads = threads or len(own_cores())


@functools.cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that share the work of an operator.

    Those of OpenMP, which the kernels have, would go on turning after their work, and slow OpenVINO's down by so much.
    OpenVINO ties its own threads to one core each, which those that they start would inherit. A forked process, which
    has none of the threads, starts its own.
    """
    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(after_in_child=pool.cache_clear)
    return ThreadPoolExecutor(threads, 'int8 operator', use_cores, (own_cores(),))


@functools.cache
def own_cores() -> frozenset[int]:
    """Return the cores that this process may use, as they were when it first asked."""
    if hasattr(os, 'sched_getaffinity'):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def use_cores(cores: Collection[int]) -> None:
    """Let this thread run on these cores, where the system takes such a wish: elsewhere it is only slower."""
    if hasattr(os, 'sched_setaffinity'):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)


def check_attributes_and_types(operator: Any) -> None:
    """Refuse an operator whose attributes or types of inputs are none that it takes.

    Raises:
        ValueError: naming them.
    """
    name = type(operator).__name__
    for attribute, allowed in operator.allowed.items():
        if operator.attributes[attribute] not in allowed:
            raise ValueError(f'expected {attribute} in {allowed} of {name}, found {operator.attributes[attribute]}')
    found = [operator.get_input_element_type(i).get_type_name() for i in range(operator.get_input_size())]
    if found != list(operator.input_types):
        raise ValueError(f'expected inputs {list(operator.input_types)} of {name}, found {found}')


@functools.cache
def base_operator() -> type:
    """Return what the operators share, a subclass of `openvino.Op`.

    A subclass names itself in `class_type_info`, its attributes with what they may be in `allowed`, the types of its
    inputs in `input_types`, and gives `output_type` and `filling`.
    """
    openvino: Any = importlib.import_module('openvino')
    own_cores()

    class Operator(openvino.Op):
        allowed: Mapping[str, range] = {}
        input_types: Sequence[str] = ()

        def __init__(self, inputs: Sequence[Any] | None = None, **attributes: int):
            super().__init__(self)
            self.attributes = {**dict.fromkeys(self.allowed, MISSING), **attributes}
            self.threads = len(own_cores())
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def output_type(self, shapes: Sequence[Sequence[Any]]) -> tuple[Any, list[Any]]:
            """Return the type and the dimensions of the output, of inputs with these dimensions.

            What does not go together is refused here: OpenVINO on one thread loses errors of `evaluate`.

            Raises:
                ValueError: the inputs and the attributes do not go together.
            """
            raise NotImplementedError

        def filling(self, out: np.ndarray, *inputs: np.ndarray) -> tuple[Fill, int]:
            """Return what fills shares of `out` [B, H, W, C] from the inputs [...], and how many multiplications of
            whole numbers take as long."""
            raise NotImplementedError

        def validate_and_infer_types(self) -> None:
            """Set the type and the shape of the output; refuse what a damaged file or another checkout's may hold."""
            check_attributes_and_types(self)
            shapes = [list(self.get_input_partial_shape(i)) for i in range(self.get_input_size())]
            kind, shape = self.output_type(shapes)
            self.set_output_type(0, kind, openvino.PartialShape(shape))

        def clone_with_new_inputs(self, inputs: Sequence[Any]) -> 'Operator':
            """Return the same operator of other inputs."""
            made = type(self)(inputs, **self.attributes)
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
            """Compute the output's values."""
            # OpenVINO may keep constants of a file, or of its cache, at any address.
            values = (np.require(each.data, requirements='A') for each in inputs)
            fill, work = self.filling(outputs[0].data, *values)
            threads = max(1, min(self.threads, work // LEAST_WORK))
            if threads == 1:
                fill(0, 1)
            else:
                started = [pool(self.threads).submit(fill, share, threads) for share in range(threads)]
                wait(started)  # all of them write into the output
                for each in started:
                    each.result()
            return True

    return Operator


@functools.cache
def deformable_convolution() -> type:
    """Return the class of the deformable convolution in int8.

    Its inputs are x uint8 [B, H, W, C], look float32 [B, h, w, 3 G k k] (offsets, then the mask before its sigmoid),
    and the weight, scale and bias of `external.dcn.convolve_int8`; its output is float32 or uint8 [B, h, w, out].
    """
    openvino: Any = importlib.import_module('openvino')
    base: Any = base_operator()

    class DeformableConvolutionInt8(base):
        class_type_info = openvino.DiscreteTypeInfo(DEFORMABLE_CONVOLUTION, OPSET)
        allowed = CONVOLUTION_ATTRIBUTES
        input_types = ('u8', 'f32', 'i8', 'f32', 'f32')

        def output_type(self, shapes: Sequence[Sequence[Any]]) -> tuple[Any, list[Any]]:
            """Return that of the places where it looks, with the channels of the bias."""
            x, look, weight, scale, bias = shapes
            area, channels, outputs = self.attributes['kernel'] ** 2, x[3].get_length(), bias[0].get_length()
            groups, rest = divmod(look[3].get_length(), 3 * area)
            panels = [-(-outputs // LANES), -(-area * channels // FOURS), LANES, FOURS]
            if rest or not groups or channels % groups or list(weight) != panels or scale[0] != outputs:
                raise ValueError(f'expected weight {panels} and offsets of {area} taps, found {weight} and {look}')
            kind = openvino.Type.u8 if self.attributes['to_bytes'] else openvino.Type.f32
            return kind, [*list(look)[:3], bias[0]]

        def filling(self, out: np.ndarray, *inputs: np.ndarray) -> tuple[Fill, int]:
            """Return the call of the kernel, but for the share; and its multiplications."""
            x, look, *weights = inputs
            maps = look.transpose(0, 3, 1, 2)  # [B, 3 G k k, h, w]
            count = maps.shape[1] // 3 * 2
            numbers = [self.attributes[name] for name in CONVOLUTION_ATTRIBUTES if name != 'to_bytes']
            arguments = [x, maps[:, :count], maps[:, count:], *weights, out, *numbers, 1]
            work = out.size * self.attributes['kernel'] ** 2 * x.shape[3]
            return functools.partial(dcn.convolve_int8, *arguments), work

    return DeformableConvolutionInt8


@functools.cache
def upsampled_sum() -> type:
    """Return the class of a depthwise transposed convolution in int8, to whose output another map is added.

    Its inputs are low uint8 [B, h, w, C], added uint8 [B, H, W, C], weight float32 [k, k, C], and scale and bias
    float32 [1], as in `external.upsample.add_upsampled`; its output is uint8 [B, H, W, C].
    """
    openvino: Any = importlib.import_module('openvino')
    base: Any = base_operator()

    class UpsampledSumInt8(base):
        class_type_info = openvino.DiscreteTypeInfo(UPSAMPLED_SUM, OPSET)
        allowed = SUM_ATTRIBUTES
        input_types = ('u8', 'u8', 'f32', 'f32', 'f32')

        def output_type(self, shapes: Sequence[Sequence[Any]]) -> tuple[Any, list[Any]]:
            """Return that of the map that is added."""
            low, added, weight, *_ = shapes
            stride, padding, kernel = self.attributes['stride'], self.attributes['padding'], weight[0].get_length()
            sides = [(side.get_length() - 1) * stride - 2 * padding + kernel for side in low[1:3] if side.is_static]
            found = [side.get_length() for side in added[1:3] if side.is_static]
            if not stride <= kernel <= 2 * stride or (len(sides) == len(found) == 2 and sides != found):
                raise ValueError(f'expected a map of {sides} to add to {low}, found {added}')
            return openvino.Type.u8, list(added)

        def filling(self, out: np.ndarray, *inputs: np.ndarray) -> tuple[Fill, int]:
            """Return the call of the kernel, but for the share; and what takes as long."""
            low, added, weight, scale, bias = inputs
            numbers = [self.attributes[name] for name in SUM_ATTRIBUTES]
            arguments = [low, added, weight, out, *numbers, scale.item(), bias.item(), 1]
            return functools.partial(upsample.add_upsampled, *arguments), WORK_OF_SUM * out.size

    return UpsampledSumInt8
