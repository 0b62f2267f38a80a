"""Score trained toy models of the four tasks and their exported files by test.py: metrics.json must be the same.

    PYTHONPATH=benchmarks python tests/campaigns/exported_metrics.py [--load_models DIR] [--tasks ctdet] [--only plain]

Each is scored as it is, with --flip_test, with --keep_res and with --test_batch_size 4, and keeps 20 detections: the
small maps have fewer than 100 peaks, and which cells of score 0 fill the rest is up to the way to sort, though their
boxes count in AR. The models are trained in DIR where they are missing, which takes minutes each; without DIR in a
temporary folder. Prints a line each; exits 1 if a metric differs by more than 1e-4 (of KITTI's percents: 1e-2).
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from centernet.exports.writers import SUFFIXES
from centernet.tasks import TASKS
from centernet.utils.cli import run_cli
from toy_models import RECIPES, ToyModel, run, toy_model

MOST = 1e-4  # of an AP of 1
FEW = ['--K', '20']  # detections (exdet: points a side) that are kept
SHOWN = ('kp_AP', 'AP', 'car_2d_moderate_AP11')
VARIANTS = {
    'plain': ([], []),
    '--flip_test': (['--flip_test'], ['--flip_test']),
    '--keep_res': (['--dynamic_size'], ['--keep_res']),
    '--test_batch_size 4': ([], ['--test_batch_size', '4']),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--load_models', type=Path, help='folder of the models; made where they are missing')
    parser.add_argument('--tasks', nargs='+', default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument('--only', choices=list(VARIANTS), help='one way to score, such as --only=--keep_res')
    parser.add_argument('--format', default='onnx', choices=list(SUFFIXES))
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for task in args.tasks:
            model = toy_model(task, args.load_models or Path(temporary))
            for name, (exporting, testing) in VARIANTS.items():
                if name == '--flip_test' and not TASKS[task].merges_views or args.only not in (None, name):
                    continue
                found = compare(model, args.format, exporting, testing, Path(temporary))
                failed += not found.passes
                print(f'{task:10} {name:19} {found}', flush=True)
    print(f'{failed} failed')
    sys.exit(failed > 0)


@dataclass(frozen=True)
class Comparison:
    """The metrics of a checkpoint beside those of its file.

    Attributes:
        count: of metrics.
        shown: `name value` of one of them, of the checkpoint.
        worst: the largest difference.
        most: that is allowed.
    """

    count: int
    shown: str
    worst: float
    most: float

    @property
    def passes(self) -> bool:
        """Whether all metrics are the same, to what is allowed."""
        return self.worst <= self.most

    def __str__(self) -> str:
        verdict = 'ok' if self.passes else 'FAILED'
        return f'{self.shown}; {self.count} metrics differ by at most {self.worst:.1e} {verdict}'


def compare(model: ToyModel, form: str, exporting: list[str], testing: list[str], folder: Path) -> Comparison:
    """Export a checkpoint, and score it and its file by test.py.

    Args:
        model: of the checkpoint.
        form: as `--format`.
        exporting, testing: further options of export.py and of test.py.
        folder: for the file and the scores.
    """
    task, file = model.task, folder / f'{model.task}{SUFFIXES[form]}'
    written = ['--format', form, '--output', str(file), '--force']
    run('export.py', task, '--load_model', str(model.checkpoint), *written, *FEW, *exporting)
    metrics = []
    for path in (model.checkpoint, file):
        own = [
            '--load_model',
            str(path),
            '--exp_dir',
            str(folder / 'exp'),
            '--exp_id',
            'scored',
            '--gpus',
            '-1',
            '--num_workers',
            '0',
        ]
        run('test.py', task, *model.place, *own, '--dtype', 'float32', *FEW, *testing)
        metrics.append(json.loads((folder / 'exp' / task / 'scored/metrics.json').read_text()))
    ours, theirs = metrics
    if ours.keys() != theirs.keys():
        sys.exit(f'other metrics: {sorted(ours)} and {sorted(theirs)}')
    there = [name for name, value in ours.items() if value is not None and value >= 0]
    shown = next(name for name in SHOWN if name in ours)
    worst = max(abs(theirs[name] - ours[name]) for name in there)
    return Comparison(len(there), f'{shown} {ours[shown]:.4f}', worst, MOST * (100 if task == 'ddd' else 1))


if __name__ == '__main__':
    run_cli(main)
