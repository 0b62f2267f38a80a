"""Exports a checkpoint: writes the file beside its place, compares it with the detector, then renames it."""

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..detectors.detector_factory import detector_factory
from ..models.exported import open_exported
from ..utils.errors import UserError
from ..utils.files import refuse_overwriting, writable_folder
from .check import check_file
from .graph import ExportedNetwork, trace
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


def export(opt: 'Options', path: Path) -> dict[str, float]:
    """Export the checkpoint of `--load_model` to a file.

    Returns:
        The largest differences from the checkpoint (`check_file`).

    Raises:
        UserError: the options cannot be exported, packages are missing, or the file differs too much from the
            checkpoint; nothing is left then.
    """
    check_packages(opt.format)
    detector = detector_factory[opt.task](opt)
    logger.info('tracing %s', opt.arch)
    program = trace(ExportedNetwork(detector))
    folder = Path(tempfile.mkdtemp(prefix=f'.{path.stem[:100]}-writing-', dir=path.parent))
    try:
        beside = folder / path.name
        logger.info('writing %s', opt.format)
        WRITERS[opt.format](program, beside, export_metadata(opt))
        logger.info('comparing with the checkpoint')
        differences = check_file(detector, open_exported(beside))
        for name in files_of(Path(path.name)):
            os.replace(folder / name, path.parent / name)
    finally:
        shutil.rmtree(folder)
    return differences
