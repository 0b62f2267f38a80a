"""Turns exported float files into ones whose network computes in int8, one function a format."""

import contextlib
import importlib
import io
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .layers import float_steps, int8_weights, read_onnx_steps, read_openvino_steps
from .own_operators import use_own_operators
from .writers import quiet, save_openvino

logger = logging.getLogger(__name__)

# Operators that onnxruntime computes in int8 on the CPU; what lies between two of them stays in int8.
ONNX_OPERATORS = ['Conv', 'Add', 'MaxPool', 'Relu', 'Concat']


def quantize_onnx(
    source: Path,
    target: Path,
    images: Iterable[np.ndarray],
    float_weights: Collection[str],
    metadata: Mapping[str, str],
) -> None:
    """Write an ONNX file in int8, by onnxruntime: QuantizeLinear and DequantizeLinear round each step.

    Weights have 7 bits, a scale for each channel out: processors without VNNI add pairs of products in 16 bits, which
    those of 8 bits would overflow, so that the file gives the same answer everywhere.

    Args:
        source: the float file.
        target: the file to write.
        images: inputs [1, H, W, 3] to calibrate with, of the type that the file takes.
        float_weights: digests of the weights of convolutions that stay in float (`layers.float_steps`).
        metadata: texts by name.
    """
    onnx = importlib.import_module('onnx')
    quantization = importlib.import_module('onnxruntime.quantization')
    processing = importlib.import_module('onnxruntime.quantization.shape_inference')
    prepared = target.with_name('prepared.onnx')
    with quiet_roots():
        processing.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
        quantization.quantize_static(
            model,
            str(target),
            images_reader(quantization.CalibrationDataReader, images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=ONNX_OPERATORS,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=float_steps(read_onnx_steps(model), float_weights),
        )
    prepared.unlink()
    made = onnx.load(str(target))
    onnx.helper.set_model_props(made, dict(metadata))
    onnx.save(made, str(target))


def images_reader(base: type, images: Iterable[np.ndarray]) -> Any:
    """Return what onnxruntime reads images [1, H, W, 3] from, of its class `base`."""

    class Reader(base):
        def __init__(self) -> None:
            self.items = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Return the next input by name, None after the last."""
            image = next(self.items, None)
            return None if image is None else {'images': image}

    return Reader()


def quantize_openvino(
    source: Path,
    target: Path,
    images: Iterable[np.ndarray],
    float_weights: Collection[str],
    metadata: Mapping[str, str],
    own_dcn: bool = False,
) -> None:
    """Write a file of OpenVINO in int8, by NNCF; widths of weights as `quantize_onnx`.

    Args:
        source, target, images, float_weights, metadata: as `quantize_onnx` takes them.
        own_dcn: put our int8 operators in the place of deformable convolutions, which OpenVINO has in float alone, and
            of the sums of upsampled maps that they read.
    """
    openvino = importlib.import_module('openvino')
    with quiet():
        nncf = importlib.import_module('nncf')
    model = openvino.Core().read_model(str(source))
    floats = float_steps(read_openvino_steps(model), float_weights)
    with quiet_roots(), contextlib.redirect_stdout(io.StringIO()):  # NNCF draws bars
        made = nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=sum(1 for _ in images),
            target_device=nncf.TargetDevice.CPU,
            ignored_scope=nncf.IgnoredScope(names=floats),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    if own_dcn and not use_own_operators(made):
        logger.warning('warning: --own_dcn changes nothing: the convolutions that say where to look are in float')
    save_openvino(made, target, metadata)


def onnx_weights(source: Path) -> set[str]:
    """Return the digests of the weights of an ONNX file that may be in int8 (`layers.int8_weights`)."""
    return int8_weights(read_onnx_steps(importlib.import_module('onnx').load(str(source))))


def openvino_weights(source: Path) -> set[str]:
    """Return the digests of the weights of a file of OpenVINO that may be in int8 (`layers.int8_weights`)."""
    return int8_weights(read_openvino_steps(importlib.import_module('openvino').Core().read_model(str(source))))


QUANTIZERS = {'onnx': quantize_onnx, 'openvino': quantize_openvino}
WEIGHTS = {'onnx': onnx_weights, 'openvino': openvino_weights}


@contextlib.contextmanager
def quiet_roots() -> Iterator[None]:
    """Leave out what packages log through the root logger, and as `quiet`."""
    logging.disable(logging.WARNING)
    try:
        with quiet():
            yield
    finally:
        logging.disable(logging.NOTSET)
