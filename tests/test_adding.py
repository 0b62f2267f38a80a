"""Adding a task, an architecture, a dataset, a metric, an option or an augmentation, in the files of CONTRIBUTING.

A copy of the sources gets throw-away ones, in new files and one entry each, and is trained, tested and looked through.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

TASK_FILES = {
    'datasets/sample/trial.py': """
        from .ctdet import CtdetSample


        class TrialSample(CtdetSample):
            def targets(self, objects, view, index):
                targets, truth = super().targets(objects, view, index)
                targets['shape'] = targets['wh'][:, :1] / (targets['wh'].sum(1, keepdims=True) + 1e-4)  # [M, 1]
                return targets, truth
        """,
    'trains/trial.py': """
        from .ctdet import CtdetLoss, CtdetTrainer


        class TrialLoss(CtdetLoss):
            def part_weights(self, opt):
                return {**super().part_weights(opt), 'shape_loss': opt.shape_weight}

            def parts(self, output, batch):
                shape = self.offset_loss(output['shape'], batch['reg_mask'], batch['ind'], batch['shape'])
                return {**super().parts(output, batch), 'shape_loss': shape}


        class TrialTrainer(CtdetTrainer):
            def create_loss(self, opt):
                return TrialLoss(opt)
        """,
    'detectors/trial.py': """
        from .ctdet import CtdetDetector


        class TrialDetector(CtdetDetector):
            pass
        """,
}
TASK_ENTRY = """
    'trial': Task(
        summary='boxes and their shapes',
        sample='TrialSample',
        trainer='TrialTrainer',
        detector='TrialDetector',
        dataset='coco',
        heads={
            'hm': Head(num_classes),
            'wh': Head(fixed(2)),
            'reg': Head(fixed(2), unless=('not_reg_offset',)),
            'shape': Head(fixed(1)),
        },
        read_heads=lambda heads: {'num_classes': heads['hm']},
        describe_row=describe_box,
        options=TrialOptions,
    ),
}
"""
TASK_OPTIONS = """
@option_rows('trial')
class TrialOptions:
    \"\"\"Options of the trial.\"\"\"

    shape_weight: float = option(2.0, 'weight of the shape loss', check=at_least(0), **TRAINING)


TASKS: dict[str, Task] = {"""
ARCH_FILE = """
    from torch import nn

    from .common import CenterNet, conv_bn_relu, small_normal


    class Tiny(CenterNet):
        backbone_prefixes = ('layers.',)

        def __init__(self, heads, head_conv):
            super().__init__()
            self.layers = nn.Sequential(conv_bn_relu(3, 8, 3, 2), conv_bn_relu(8, 8, 3, 2))
            self.add_heads(heads, 8, head_conv, small_normal)

        def features(self, images):
            return self.layers(images)


    def get_tiny(num_layers, heads, head_conv):
        return Tiny(heads, head_conv)
    """
DATASET_FILE = """
    import os

    from ..source import BOXES, Source


    class Toy(Source):
        offers = (BOXES,)
        class_names = CLASS_NAMES
        cat_ids = {i + 1: i for i in range(len(CLASS_NAMES))}

        def locate(self, opt, split, variant=''):
            return os.path.join(opt.data_dir, 'annotations', f'{split}.json'), os.path.join(opt.data_dir, 'images')
    """
METRIC_FILE = """
    from .coco_boxes import CocoBoxes


    class Count(CocoBoxes):
        names = ('count',)
        main = 'count'

        def score(self, ground_truth, saved):
            return {'count': float(len(saved))}
    """


def add(path: Path, before: str, after: str) -> None:
    """Replace a piece of a file that is there once."""
    text = path.read_text()
    assert text.count(before) == 1, f'{path}: {before!r}'
    path.write_text(text.replace(before, after))


def write(path: Path, text: str) -> None:
    """Write a new file, its indentation taken away."""
    assert not path.exists()
    indent = re.match(r'\n( *)', text)[1]
    path.write_text(re.sub(rf'^{indent}', '', text.lstrip('\n'), flags=re.MULTILINE))


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A copy of `src`, kernels and all."""
    src = tmp_path_factory.mktemp('tree') / 'src'
    shutil.copytree(ROOT / 'src', src, ignore=shutil.ignore_patterns('__pycache__'))
    return src


@pytest.fixture(scope='module')
def grown(tree, toy):
    """The copy with a task, an architecture, a dataset and a metric more."""
    lib = tree / 'lib'
    for name, text in TASK_FILES.items():
        write(lib / name, text)
    add(lib / 'tasks.py', '\nTASKS: dict[str, Task] = {', TASK_OPTIONS)
    text = (lib / 'tasks.py').read_text()
    end = text.index('\n}\n', text.index('TASKS: dict[str, Task] = {'))
    (lib / 'tasks.py').write_text(text[:end] + TASK_ENTRY + text[end + 3 :])

    write(lib / 'models/networks/tiny.py', ARCH_FILE)
    families = lib / 'models/families.py'
    table = 'model_factory: dict[str, Family] = {\n'
    add(families, table, f"{table}    'tiny': Family('tiny', 'get_tiny', side_multiple=4),\n")

    names = [row['name'] for row in json.loads((Path(toy) / 'annotations/train.json').read_text())['categories']]
    write(lib / 'datasets/dataset/toyset.py', DATASET_FILE.replace('CLASS_NAMES', repr(names)))
    sources = lib / 'datasets/source_factory.py'
    add(sources, "    'pascal': Pascal,\n", "    'pascal': Pascal,\n    'toyset': Toy,\n")
    add(
        sources,
        'from .dataset.pascal import Pascal\n',
        'from .dataset.pascal import Pascal\nfrom .dataset.toyset import Toy\n',
    )

    write(lib / 'datasets/evaluation/count.py', METRIC_FILE)
    metrics = lib / 'datasets/evaluation/metric_factory.py'
    add(metrics, "    'voc': Voc,\n", "    'voc': Voc,\n    'count': Count,\n")
    add(metrics, 'from .kitti_eval import Kitti\n', 'from .count import Count\nfrom .kitti_eval import Kitti\n')
    return tree


def run(src: Path, *args) -> str:
    """Run a program of the copy; its output."""
    env = {**os.environ, 'PYTHONPATH': str(src)}
    done = subprocess.run(
        [sys.executable, src / args[0], *map(str, args[1:])], capture_output=True, text=True, timeout=300, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_task_is_three_files_and_an_entry(grown, toy, tmp_path):
    """With an architecture, a dataset and a metric of its own it trains, is scored, and looks; nothing is amiss."""
    common = ['--data_dir', toy, '--exp_dir', tmp_path, '--exp_id', 'run', '--gpus', '-1', '--num_workers', '0']
    train = ['--arch', 'tiny', '--pretrained', 'none', '--input_res', '64', '--batch_size', '4', '--num_epochs', '1']
    data = ['--dataset', 'toyset', '--eval_metric', 'count']
    said = run(
        grown, 'main.py', 'trial', *common, *train, *data, '--metric', 'AP', '--flip', '0.1', '--shape_weight', '3'
    )
    assert 'does not act' not in said and 'shape_loss' in said
    best = tmp_path / 'trial/run/model_best.pth'
    run(grown, 'test.py', 'trial', *common, *data, '--load_model', best, '--flip_test')
    assert json.loads((best.parent / 'metrics.json').read_text())['count'] > 0
    image = sorted((Path(toy) / 'images/val').iterdir())[0]
    run(grown, 'demo.py', 'trial', '--gpus', '-1', '--no_display', '--load_model', best, '--demo', image)
    (entry,) = json.loads((best.parent / 'demo/results.json').read_text())
    assert entry['detections'] and {'class', 'score', 'box'} <= entry['detections'][0].keys()


def test_help_and_errors_know_what_was_added(grown):
    """The tables are the only places: help, names in messages and notes follow from them."""
    text = run(grown, 'main.py', '--help')
    assert 'trial' in text and 'tiny' in text and '--shape_weight' in text
    done = subprocess.run(
        [sys.executable, grown / 'main.py', 'trial', '--dataset', 'kitti'], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "dataset 'kitti' serves ddd, not trial" in done.stderr


def test_a_pixel_augmentation_is_one_file(tree, toy):
    """A step of `augment_pixels` reaches the samples of training, and those of validation it does not."""
    pixels = tree / 'lib/datasets/sample/pixels.py'
    text = pixels.read_text()
    add(pixels, '    return window, color\n', '    return np.full_like(window, 255), None\n')
    code = f"""
from lib.datasets.dataset_factory import get_dataset
from lib.opts import opts
opt = opts().parse(['ctdet', '--dataset', {toy!r}, '--gpus', '-1', '--input_res', '64'])
Dataset = get_dataset(opt.dataset, 'ctdet')
opts.update_dataset_info_and_set_heads(opt, Dataset)
print([len(set(Dataset(opt, split)[0]['input'][0].ravel().tolist())) for split in ('train', 'val')])
"""
    env = {**os.environ, 'PYTHONPATH': str(tree)}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, env=env)
    pixels.write_text(text)
    assert done.returncode == 0, done.stderr
    train, val = json.loads(done.stdout.splitlines()[-1])
    assert train == 1 and val > 1
