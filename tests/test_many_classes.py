"""Thousands of classes: the objects' Gaussians travel in place of heatmaps, and teach the same."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch

from helpers import batch_of, options
from lib.datasets.sample import base
from lib.datasets.toy import make_toy_data
from lib.models.heatmaps import SparseHeatmap, draw_heatmaps, drawn_targets
from lib.models.model import create_model
from lib.reports.inspection import augmented_view
from lib.trains.train_factory import train_factory

TASKS = ('ctdet', 'exdet')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Toy pictures with extreme points, of 96 px."""
    path = tmp_path_factory.mktemp('many') / 'toy'
    make_toy_data(path, train=6, val=3, size=96)
    for split in ('train', 'val'):
        file = path / 'annotations' / f'{split}.json'
        data = json.loads(file.read_text())
        for row in data['annotations']:
            x, y, w, h = row['bbox']
            row['extreme_points'] = [[x + w / 2, y], [x, y + h / 2], [x + w / 2, y + h], [x + w, y + h / 2]]
        file.write_text(json.dumps(data))
    return path


def both(task, folder, monkeypatch, split, *args):
    """The options, and the samples of a split with drawn heatmaps and with Gaussians."""
    opt, dataset = options(task, folder, '--input_res', '64', *args)
    data = dataset(opt, split)
    drawn = [data[i] for i in range(len(data))]
    monkeypatch.setattr(base, 'MOST_DRAWN', 1)
    return opt, drawn, [data[i] for i in range(len(data))]


@pytest.mark.parametrize(
    ('task', 'args', 'count'),
    [('ctdet', [], 1), ('ctdet', ['--mse_loss'], 1), ('exdet', [], 5), ('exdet', ['--agnostic_ex'], 1)],
)
def test_gaussians_are_the_heatmaps(task, args, count, folder, monkeypatch):
    """Drawn later they give the same maps to the last bit, in a batch and one by one; nothing else differs."""
    opt, drawn, undrawn = both(task, folder, monkeypatch, 'train', *args)
    assert any(name.endswith('_gaussians') for name in undrawn[0])
    expected = batch_of(*drawn)
    batch = draw_heatmaps(batch_of(*undrawn), opt.num_classes, opt.down_ratio)
    assert batch.keys() == expected.keys()
    sparse = [name for name, item in batch.items() if isinstance(item, SparseHeatmap)]
    assert len(sparse) == count
    for name, item in batch.items():
        assert torch.equal(item.dense() if name in sparse else item, expected[name]), name
        assert name not in sparse or expected[name].amax() == 1
    alone = drawn_targets(undrawn[1], opt.num_classes, (16, 16))
    assert all(np.array_equal(alone[name], drawn[1][name]) for name in drawn[1])


@pytest.mark.parametrize('args', [[], ['--mse_loss', '--eval_oracle_hm']])
@pytest.mark.parametrize('task', TASKS)
def test_training_is_the_same(task, args, folder, monkeypatch):
    """Losses, weights after a step in chunks of a batch, and what validation detects."""
    opt, drawn, undrawn = both(task, folder, monkeypatch, 'val', '--batch_size', '3', '--accumulate', '2', *args)
    stats, weights, found = [], [], []
    for samples in (drawn, undrawn):
        torch.manual_seed(0)
        model = create_model('res_18', opt.heads, 64)
        trainer = train_factory[task](opt, model, torch.optim.SGD(model.parameters(), 1e-3))
        trainer.start_learning()
        stats.append(trainer.train_iteration(batch_of(*samples)))
        weights.append([value.clone() for value in model.state_dict().values()])
        results = {}
        trainer.result.eval()
        with torch.inference_mode():
            stats.append(trainer.val_iteration(batch_of(samples[0]), results, collect=True))
        found.append(next(iter(results.values())))
    for first, second in zip(stats[:2], stats[2:], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
    for cls in found[0]:
        np.testing.assert_allclose(found[0][cls], found[1][cls], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('task', TASKS)
def test_heatmaps_are_shown(task, folder, monkeypatch):
    """In the page about a dataset and in the views of `--debug`."""
    opt, dataset = options(task, folder, '--input_res', '64')
    data = dataset(opt, 'train')
    pages, views = [], []
    for most in (300, 1):
        monkeypatch.setattr(base, 'MOST_DRAWN', most)
        pages.append(augmented_view(data, 1))
        shown = Namespace(**{**vars(opt), 'debug': 3, 'debugger_theme': 'white'})
        trainer = train_factory[task](shown, create_model('res_18', opt.heads, 64))
        monkeypatch.setattr('lib.utils.debugger.Debugger.finish', lambda self, *args: views.append(self.imgs))
        monkeypatch.setattr(trainer.loss, 'with_oracles', lambda output, batch: output)
        sample = dataset(shown, 'val')[0]
        batch = trainer.to_device(batch_of(sample))
        output = {head: torch.zeros(1, channels, 16, 16) for head, channels in opt.heads.items()}
        trainer.look([output], batch)
    assert np.array_equal(*pages)
    assert views[0].keys() == views[1].keys() and any('gt' in name for name in views[0])
    for name, view in views[0].items():
        assert np.array_equal(view, views[1][name]), name


def test_samples_of_a_thousand_classes_are_small(tmp_path):
    """A sample is little more than its picture, where its heatmaps alone had 16 MiB; up to 300 classes are drawn."""
    for count, names in ((300, {'hm'}), (1000, {'hm_gaussians'})):
        folder = tmp_path / str(count)
        make_toy_data(folder, train=2, val=1, size=96)
        for file in (folder / 'annotations').glob('*.json'):
            data = json.loads(file.read_text())
            data['categories'] = [{'id': i + 1, 'name': f'kind {i}'} for i in range(count)]
            file.write_text(json.dumps(data))
        opt, dataset = options('ctdet', folder, '--input_res', '256')
        sample = dataset(opt, 'train')[0]
        assert {name for name in sample if name.startswith('hm')} == names
    assert opt.heads['hm'] == 1000
    assert sum(values.nbytes for values in sample.values()) < 1.1 * sample['input'].nbytes
