"""Export trained toy models of the four tasks in int8: AP before and after, and both times.

    python benchmarks/int8_accuracy.py [--load_models DIR] [--tasks ctdet] [--archs dla_34] [--formats own_dcn]

The models are trained in DIR where they are missing, which takes minutes each; without DIR in a temporary folder.
Prints a table; exits 1 if a file loses more AP than export.py allows.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from centernet.exports.export import export, output_path
from centernet.exports.int8 import Int8Report
from centernet.exports.writers import SUFFIXES
from centernet.models.families import ARCHS
from centernet.opts import opts
from centernet.utils.cli import run_cli
from centernet.utils.option_rows import EXPORT
from timing import table
from toy_models import ARCH, RECIPES, ToyModel, toy_model

HEADER = ('task', 'arch', 'format', 'metric', 'before', 'after', 'loss', 'ours, ms', 'int8, ms', 'ratio', 'in float')

# The words of export.py; own_dcn is OpenVINO's format with our operators.
FORMATS = {'onnx': ['onnx'], 'openvino': ['openvino'], 'own_dcn': ['openvino', '--own_dcn']}
# Of `make bench`: without deformable convolutions, and with ours.
BENCHMARK = (('ctdet', ARCH, 'openvino'), ('ctdet', 'dla_34', 'own_dcn'))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--load_models', type=Path, help='folder of the models; made where they are missing')
    parser.add_argument('--tasks', nargs='+', default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument('--archs', nargs='+', default=[ARCH], choices=list(ARCHS))
    parser.add_argument('--formats', nargs='+', default=['onnx', 'openvino'], choices=list(FORMATS))
    args = parser.parse_args()
    text, dear = measure(product(args.tasks, args.archs, args.formats), args.load_models)
    print(text)
    print(f'{dear} lose more than is allowed')
    sys.exit(dear > 0)


def measure(ways: Iterable[tuple[str, str, str]], models: Path | None) -> tuple[str, int]:
    """Export models in int8, (task, arch, format) each; returns the table, and how many lose more AP than is allowed.

    `models` is the folder of the models, made where they are missing; without, a temporary one.
    """
    rows, dear = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        for task, arch, form in ways:
            report = export_int8(toy_model(task, models or Path(temporary), arch), form, Path(temporary))
            dear += report.is_dear
            rows.append(row_cells(task, arch, form, report))
    return table(HEADER, rows), dear


def export_int8(model: ToyModel, form: str, folder: Path) -> Int8Report:
    """Write a model's file in int8 to a folder; `form` is one of `FORMATS`."""
    name, *options = FORMATS[form]
    file = (folder / f'{model.checkpoint.stem}-{form}').with_suffix(SUFFIXES[name])
    words = [model.task, '--load_model', str(model.checkpoint), '--output', str(file), '--format', name, *options]
    words += ['--int8', model.dataset, '--gpus', '-1', '--num_workers', '0', *RECIPES[model.task].scoring.split()]
    words += model.place if model.task == 'ddd' else []
    opt = opts().init(words, program=EXPORT)
    report = export(opt, output_path(opt)).int8
    assert report is not None  # --int8 was asked for
    return report


def row_cells(task: str, arch: str, form: str, report: Int8Report) -> tuple[str, ...]:
    """Return the cells of a line of the table."""
    scores = [f'{value:.4f}' for value in (report.before, report.after, report.loss)]
    times = [f'{report.ours:.1f}', f'{report.theirs:.1f}', f'{report.ours / report.theirs:.2f}']
    return task, arch, form, report.metric, *scores, *times, ', '.join(report.float_layers) or 'none'


if __name__ == '__main__':
    run_cli(main)
