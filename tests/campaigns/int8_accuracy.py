"""Export trained toy models of the four tasks in int8: AP before and after, and both times.

    python tests/campaigns/int8_accuracy.py [--load_models DIR] [--tasks ctdet] [--archs dla_34] [--formats own_dcn]

The models are trained in DIR where they are missing, which takes minutes each; without DIR in a temporary folder.
Prints a table; exits 1 if a file loses more AP than export.py allows.
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

from toy_models import ARCH, RECIPES, toy_model

from centernet.exports.export import export, output_path
from centernet.exports.writers import SUFFIXES
from centernet.models.families import ARCHS
from centernet.opts import opts
from centernet.utils.cli import run_cli
from centernet.utils.option_rows import EXPORT

HEADER = '| task | arch | format | metric | before | after | loss | ours, ms | int8, ms | ratio | in float for AP |'

# The words of export.py; own_dcn is OpenVINO's format with our operator.
FORMATS = {'onnx': ['onnx'], 'openvino': ['openvino'], 'own_dcn': ['openvino', '--own_dcn']}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--load_models', type=Path, help='folder of the models; made where they are missing')
    parser.add_argument('--tasks', nargs='+', default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument('--archs', nargs='+', default=[ARCH], choices=list(ARCHS))
    parser.add_argument('--formats', nargs='+', default=['onnx', 'openvino'], choices=list(FORMATS))
    args = parser.parse_args()
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        for task, arch in product(args.tasks, args.archs):
            model = toy_model(task, args.load_models or Path(temporary), arch)
            for name in args.formats:
                form, *options = FORMATS[name]
                file = (Path(temporary) / f'{task}-{arch}-{name}').with_suffix(SUFFIXES[form])
                words = [task, '--load_model', str(model.checkpoint), '--output', str(file), '--format', form, *options]
                words += ['--int8', model.dataset, '--gpus', '-1', '--num_workers', '0', *RECIPES[task].scoring.split()]
                words += model.place if task == 'ddd' else []
                opt = opts().init(words, program=EXPORT)
                report = export(opt, output_path(opt)).int8
                assert report is not None  # --int8 was asked for
                failed += report.is_dear
                scores = [f'{value:.4f}' for value in (report.before, report.after, report.loss)]
                times = [f'{report.ours:.1f}', f'{report.theirs:.1f}', f'{report.ours / report.theirs:.2f}']
                rows.append(
                    [task, arch, name, report.metric, *scores, *times, ', '.join(report.float_layers) or 'none']
                )
    print('\n'.join([HEADER, '| --- ' * len(rows[0]) + '|', *(f'| {" | ".join(row)} |' for row in rows)]))
    print(f'{failed} lose more than is allowed')
    sys.exit(failed > 0)


if __name__ == '__main__':
    run_cli(main)
