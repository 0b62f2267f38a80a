"""Writes exported files, one function a format, each with the facts that the programs need to run them."""

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..models.exported import PROGRAM, PT2_FACTS
from ..models.facts import DECODER_FACTS, FACTS
from ..opts import model_facts
from ..utils.errors import UserError
from ..version import __version__

if TYPE_CHECKING:
    from ..opts import Options

OPSET = 20
PACKAGES = {'onnx': ('onnxscript', 'onnxruntime'), 'openvino': ('openvino',), 'pt2': (), 'int8': ('nncf',)}
SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'pt2': '.pt2'}


def check_packages(name: str, int8: bool = False) -> None:
    """Refuse a format whose packages are not installed; names the extra.

    Args:
        name: the format.
        int8: whether the network is to compute in int8, which OpenVINO's format needs NNCF for.
    """
    extra = 'int8' if int8 and name == 'openvino' else name
    for package in (*PACKAGES[name], *(PACKAGES[extra] if extra != name else ())):
        if importlib.util.find_spec(package) is None:
            asked = f'--format {name}' + (' --int8' if int8 else '')
            raise UserError(f'{asked} needs the package {package}: pip install .[{extra}] in the checkout')


def export_metadata(opt: 'Options') -> dict[str, str]:
    """Return what an exported file records, as JSON texts by name: the checkpoint's facts, and how it was exported."""
    facts: dict[str, Any] = {name: value for name, value in model_facts(opt).items() if name in FACTS}
    facts.pop('options', None)  # of the training
    facts |= {'program': PROGRAM, 'version': __version__, 'units': 'cells of the output map: times down_ratio, pixels'}
    facts |= {name: getattr(opt, name) for name in ('float_input', 'dynamic_size', 'raw', 'half')}
    if not opt.raw:
        facts |= {name: getattr(opt, name) for name in DECODER_FACTS}
    return {name: json.dumps(value) for name, value in facts.items()}


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced network as ONNX."""
    with quiet():
        onnx = torch.onnx.export(
            program,
            opset_version=OPSET,
            dynamo=True,
            input_names=['images'],
            output_names=output_names(program),
            verbose=False,
        )
    assert onnx is not None
    onnx.model.metadata_props.update(metadata)
    name_axes(onnx.model.graph.inputs, ('batch', 'height', 'width'))
    name_axes(onnx.model.graph.outputs, ('batch',))
    onnx.save(str(path))


def name_axes(values: Iterable[Any], names: Sequence[str]) -> None:
    """Name the first axes of an ONNX graph's inputs or outputs, where their sizes are not fixed."""
    for value in values:
        sizes = list(value.shape)
        value.shape = type(value.shape)(
            [names[i] if i < len(names) and not isinstance(size, int) else size for i, size in enumerate(sizes)]
        )


def output_names(program: torch.export.ExportedProgram) -> list[str]:
    """Return the names of the outputs in their order."""
    spec = program.call_spec.out_spec
    assert spec is not None
    return list(spec.context)


def write_pt2(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced network as a file of `torch.export`."""
    with quiet():
        torch.export.save(program, str(path), extra_files={PT2_FACTS: json.dumps(dict(metadata))})


def write_openvino(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced network for OpenVINO: the graph to `path`, the weights to a `.bin` beside it."""
    openvino = importlib.import_module('openvino')
    with quiet():
        model = openvino.convert_model(program)
    for output, name in zip(model.outputs, output_names(program), strict=True):
        output.get_tensor().set_names({name})
    model.inputs[0].get_tensor().set_names({'images'})
    save_openvino(model, path, metadata)


def save_openvino(model: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Save a model of OpenVINO with its metadata."""
    for name, text in metadata.items():
        model.set_rt_info(text, [PROGRAM, name])
    importlib.import_module('openvino').save_model(model, str(path), compress_to_fp16=False)


WRITERS = {'onnx': write_onnx, 'openvino': write_openvino, 'pt2': write_pt2}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out the notes of exporters about their own workings."""
    names = ('torch.onnx', 'onnxscript', 'onnx_ir', 'torch.export', 'nncf')
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
