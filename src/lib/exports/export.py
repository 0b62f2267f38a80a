"""Exports a checkpoint: writes the file beside its place, compares it with the detector, then renames it."""

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..detectors.detector_factory import detector_factory
from ..models.exported import open_exported
from ..utils.errors import UserError
from ..utils.files import refuse_overwriting, writable_folder
from .check import INT8_LIMITS, check_file, compare_file
from .graph import ExportedNetwork, trace
from .int8 import Int8Report, Quantization
from .writers import SUFFIXES, WRITERS, check_packages, export_metadata

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)


def output_path(opt: 'Options') -> Path:
    """Return where the file goes: `--output`, or beside the checkpoint.

    Raises:
        UserError: it has another suffix than its format, is there already, or cannot be written.
    """
    suffix = SUFFIXES[opt.format]
    path = Path(opt.output) if opt.output else Path(opt.load_model).with_suffix(suffix)
    if path.suffix != suffix:
        raise UserError(f"--output '{path}': a file of --format {opt.format} ends in {suffix}")
    refuse_overwriting(path, [opt.load_model])
    if path.is_dir():
        raise UserError(f"--output '{path}' is a folder: name a file")
    for place in files_of(path):
        if os.path.lexists(place) and not opt.force:
            raise UserError(f"'{place}' exists: name another --output, or replace it with --force")
    writable_folder(path.parent)
    return path


def files_of(path: Path) -> list[Path]:
    """Return the files that make up an exported file: OpenVINO's weights lie beside its graph."""
    return [path.with_suffix('.bin'), path] if path.suffix == '.xml' else [path]


@dataclass(frozen=True)
class Exported:
    """The facts of a file that was exported.

    Attributes:
        differences: the largest ones from the checkpoint (`check.compare_file`).
        int8: the price and the gain of int8, where it was asked for.
    """

    differences: dict[str, float]
    int8: Int8Report | None = None


def export(opt: 'Options', path: Path) -> Exported:
    """Export the checkpoint of `--load_model` to a file.

    Raises:
        UserError: the options cannot be exported, packages are missing, the file differs too much from the checkpoint,
            or the dataset of `--int8` cannot be used; nothing is left then.
    """
    check_packages(opt.format, bool(opt.int8))
    detector = detector_factory[opt.task](opt)
    quantization = Quantization(detector) if opt.int8 else None
    logger.info('tracing %s', opt.arch)
    network = ExportedNetwork(detector)
    program = trace(network)
    folder = Path(tempfile.mkdtemp(prefix=f'.{path.stem[:100]}-writing-', dir=path.parent))
    try:
        beside = folder / path.name
        metadata = export_metadata(opt)
        logger.info('writing %s', opt.format)
        WRITERS[opt.format](program, beside, metadata)
        logger.info('comparing with the checkpoint')
        done = Exported(check_file(detector, open_exported(beside)))
        if quantization is not None:
            beside, report = quantization.run(network, beside, metadata)
            done = Exported(compare_file(detector, open_exported(beside), INT8_LIMITS), report)
        for name in files_of(Path(path.name)):
            os.replace(beside.parent / name, path.parent / name)
    finally:
        shutil.rmtree(folder)
    return done
