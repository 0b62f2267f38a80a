"""Reads and runs the files that `export.py` writes: a network with its normalisation and its decoder inside.

Importing this module imports neither torch nor a runtime; what runs a file is imported when it is opened.
"""

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from .facts import DECODER_FACTS, EXPORT_FACTS, FACTS, INT8_FACTS, check_facts, one_line
from .openvino_operators import register, share_out

PROGRAM = 'centernet'  # in the metadata of files that are ours
ANY_SHAPE: tuple[int, ...] = ()
MOST_SHAPES = 2  # for which a compiled network of OpenVINO's is kept: the batches that recur, and a shorter last one
PT2_FACTS = 'centernet.json'  # the file of the metadata within a .pt2


def is_exported(path: str | os.PathLike) -> bool:
    """Return whether a path has the suffix of an exported file."""
    return Path(path).suffix in FORMATS


def exported_facts(path: str | os.PathLike) -> dict[str, Any]:
    """Return the facts that an exported file records: those of its checkpoint, and `facts.EXPORT_FACTS`.

    Raises:
        UserError: as `open_exported`.
    """
    return open_exported(path).facts


def open_exported(path: str | os.PathLike, cuda: bool = False, threads: int = 0) -> 'ExportedFile':
    """Open an exported file, by its suffix.

    Args:
        path: the file.
        cuda: run it on the GPU where the runtime can.
        threads: that it computes with on the CPU; 0 leaves that to the runtime. A .pt2 has torch's.

    Raises:
        UserError: there is no such file, its runtime is not installed, or it is damaged or not of `export.py`.
    """
    if not os.path.isfile(path):
        raise UserError(f"'{path}' is no file" if os.path.exists(path) else f"no such exported file: '{path}'")
    return FORMATS[Path(path).suffix](path, cuda, threads)


def import_runtime(name: str, extra: str, path: str | os.PathLike) -> Any:
    """Import the package that runs a file.

    Raises:
        UserError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"'{path}' needs the package {name}: pip install .[{extra}] in the checkout") from None


class ExportedFile:
    """A file of `export.py`, opened to be run.

    A format's subclass gives `load`, `metadata` and `call`, and perhaps `prepare`.

    Attributes:
        path: the file.
        facts: what it records.
        threads: see `open_exported`.
        float_input, dynamic_size, raw: facts, see `facts.EXPORT_FACTS`.

    Raises:
        UserError: see `open_exported`.
    """

    def __init__(self, path: str | os.PathLike, cuda: bool, threads: int):
        self.path, self.threads = path, threads
        self.load(cuda)
        self.facts = self.read_facts()
        self.float_input: bool = self.facts['float_input']
        self.dynamic_size: bool = self.facts['dynamic_size']
        self.raw: bool = self.facts['raw']
        self.prepare()

    def load(self, cuda: bool) -> None:
        """Load the file, onto the GPU if `cuda`."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the network ready to run, where that depends on the facts."""

    def metadata(self) -> Mapping[str, str]:
        """Return the texts that the file holds beside its network, by name."""
        raise NotImplementedError

    def call(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run the network on images [B, H, W, 3], of the type that it takes; returns its outputs [B, ...] by name."""
        raise NotImplementedError

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Detect in images.

        Args:
            images: uint8 BGR [B, H, W, 3], of the network's size.

        Returns:
            The named outputs [B, n, ...] (`BaseDetector.name_rows`), or with `raw` the maps {head: [B, c, h, w]}.

        Raises:
            UserError: the file takes images of another size.
        """
        self.check_size(*images.shape[1:3])
        return self.call(images.astype(np.float32) if self.float_input else images)

    def check_size(self, height: int, width: int) -> None:
        """Refuse inputs of another size than the file takes."""
        sides = self.facts['input_h'], self.facts['input_w']
        if not self.dynamic_size and (height, width) != sides:
            raise UserError(
                f"'{self.path}' takes inputs of {sides[0]} x {sides[1]}, found {height} x {width}: export it with "
                '--dynamic_size for --keep_res and other sizes'
            )

    def read_facts(self) -> dict[str, Any]:
        """Return the facts in the file's metadata, checked."""
        texts = self.metadata()
        if texts.get('program') != json.dumps(PROGRAM):
            raise UserError(f"'{self.path}' is not of export.py: its metadata does not name this program")
        try:
            found = {name: json.loads(texts[name]) for name in (*FACTS, *EXPORT_FACTS) if name in texts}
        except ValueError:
            raise UserError(f"'{self.path}' is not of export.py: its metadata is not JSON") from None
        facts = check_facts(self.path, found, FACTS | EXPORT_FACTS)
        for name in ('task', 'arch', 'heads', 'class_names', 'input_h', 'input_w', 'mean', 'std', *EXPORT_FACTS):
            if name not in facts and name not in DECODER_FACTS + INT8_FACTS:
                raise UserError(f"'{self.path}' is not a whole file of export.py: its metadata lacks {name}")
        return facts


class OnnxFile(ExportedFile):
    """An ONNX file, run by onnxruntime."""

    def load(self, cuda: bool) -> None:
        runtime = import_runtime('onnxruntime', 'onnx', self.path)
        there = runtime.get_available_providers()
        wanted = (['CUDAExecutionProvider'] if cuda else []) + ['CPUExecutionProvider']
        settings = runtime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = self.threads
        try:
            self.session = runtime.InferenceSession(
                os.fspath(self.path), settings, providers=[name for name in wanted if name in there]
            )
        except Exception as error:  # the bytes are a stranger's
            raise cannot_be_run(self.path, 'onnxruntime', error) from None

    def metadata(self) -> Mapping[str, str]:
        return self.session.get_modelmeta().custom_metadata_map

    def call(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {'images': images}), strict=True))


class OpenVinoFile(ExportedFile):
    """A file of OpenVINO's (`.xml`, with its weights in a `.bin` beside it).

    Compiled for images of one shape it takes less time than for images of any, which is left to `dynamic_size`.
    """

    def load(self, cuda: bool) -> None:
        runtime = import_runtime('openvino', 'openvino', self.path)
        if not os.path.isfile(Path(self.path).with_suffix('.bin')):
            raise UserError(f"'{self.path}' has its weights in a file beside it, which is missing: copy the .bin, too")
        self.core = runtime.Core()
        register(self.core)
        self.compiled: dict[tuple[int, ...], Any] = {}  # by the shape of the images
        try:
            self.model = self.core.read_model(os.fspath(self.path))
        except Exception as error:  # the bytes are a stranger's
            raise cannot_be_run(self.path, 'OpenVINO', error) from None
        share_out(self.model, self.threads)

    def prepare(self) -> None:
        self.compile(ANY_SHAPE if self.dynamic_size else (1, self.facts['input_h'], self.facts['input_w'], 3))

    def metadata(self) -> Mapping[str, str]:
        if not self.model.has_rt_info([PROGRAM]):
            return {}
        return {name: value.astype(str) for name, value in self.model.get_rt_info([PROGRAM]).astype(dict).items()}

    def call(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        run = self.compile(ANY_SHAPE if self.dynamic_size else images.shape)
        try:
            found = run(images)
        except Exception as error:  # our operators see here what does not go together in a damaged file
            raise cannot_be_run(self.path, 'OpenVINO', error) from None
        return {output.get_any_name(): np.array(values) for output, values in found.items()}

    def compile(self, shape: tuple[int, ...]) -> Any:
        """Return the model compiled for images of a shape (B, H, W, 3), or of `ANY_SHAPE`; the last ones are kept."""
        if shape not in self.compiled:
            model = self.model.clone()
            settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': str(self.threads)}
            try:
                if shape != ANY_SHAPE:
                    model.reshape(list(shape))
                made = self.core.compile_model(model, 'CPU', settings)
            except Exception as error:  # as in `load`
                raise cannot_be_run(self.path, 'OpenVINO', error) from None
            for old in list(self.compiled)[: 1 - MOST_SHAPES]:
                del self.compiled[old]
            self.compiled[shape] = made
        return self.compiled[shape]


class TorchExportFile(ExportedFile):
    """A file of `torch.export`, run by torch on the CPU."""

    def load(self, cuda: bool) -> None:
        torch = import_runtime('torch', 'dev', self.path)
        importlib.import_module('torchvision')  # which registers its deformable convolution
        self.extra = {PT2_FACTS: ''}
        try:
            self.module = torch.export.load(os.fspath(self.path), extra_files=self.extra).module()
        except Exception as error:  # the bytes are a stranger's
            raise cannot_be_run(self.path, 'torch.export', error) from None
        self.torch = torch

    def metadata(self) -> Mapping[str, str]:
        text = self.extra[PT2_FACTS]
        return json.loads(text) if text else {}

    def call(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        with self.torch.no_grad():
            found = self.module(self.torch.from_numpy(images))
        return {name: values.numpy() for name, values in found.items()}


def cannot_be_run(path: str | os.PathLike, runtime: str, error: Exception) -> UserError:
    """Return the error of one line for a file that a runtime does not take."""
    reason = one_line(error).partition(' At: ')[0]  # after which OpenVINO lists our functions
    return UserError(f"'{path}' is no file that {runtime} can run: {reason[-300:]}")


FORMATS: dict[str, type[ExportedFile]] = {'.onnx': OnnxFile, '.xml': OpenVinoFile, '.pt2': TorchExportFile}
