"""Exported files: each family and task, the formats, the programs that run them, and what is refused."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

onnx = pytest.importorskip('onnx', reason='the extra [onnx] is not installed')
pytest.importorskip('onnxruntime', reason='the extra [onnx] is not installed')
pytest.importorskip('onnxscript', reason='the extra [onnx] is not installed')

from conftest import ROOT, run_program  # noqa: E402
from helpers import save_random_network  # noqa: E402
from lib import load_detector  # noqa: E402
from lib.exports import check, writers  # noqa: E402
from lib.models.networks import large_hourglass  # noqa: E402
from lib.models.utils import alpha_of  # noqa: E402
from lib.tasks import TASKS  # noqa: E402
from lib.utils.ddd_utils import get_alpha  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.version import __version__  # noqa: E402

# Each family's smallest network, exported in a way of its own.
FAMILIES = {
    'res_18': ['--flip_test'],
    'resdcn_18': ['--dynamic_size'],
    'dlav0_34': ['--float_input'],
    'dla_34': [],
    'hourglass': [],
}
EASY = {'ddd': {'peak_thresh': 0.01}}
NAMES = {
    'ctdet': {'boxes', 'scores', 'classes'},
    'exdet': {'boxes', 'scores', 'classes', 'extreme_points'},
    'multi_pose': {'boxes', 'scores', 'classes', 'keypoints', 'keypoint_scores'},
    'ddd': {'boxes', 'scores', 'classes', 'depths', 'dimensions', 'alphas', 'centers', 'sizes', 'rotations'},
}


@pytest.fixture
def export(scripts):
    """Export a checkpoint; returns the file."""

    def run(checkpoint: str, task: str, *args: str, suffix: str = '.onnx') -> str:
        scripts('export').main([task, '--load_model', checkpoint, *args])
        return str(Path(checkpoint).with_suffix(suffix))

    return run


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    """A random ctdet network, res_18 at 96 px."""
    return save_random_network(tmp_path_factory.mktemp('network') / 'model.pth', 'ctdet', 'res_18', 96)


@pytest.fixture(scope='module')
def model(checkpoint, scripts) -> str:
    """The same, exported."""
    scripts('export').main(['ctdet', '--load_model', checkpoint])
    return str(Path(checkpoint).with_suffix('.onnx'))


def image(height, width, task='ctdet') -> np.ndarray:
    """A toy image, for which the heads of the random networks are scaled."""
    return check.check_image(Namespace(demo='', task=task), height, width)


def assert_same_results(ours: dict, theirs: dict, score: int = 4) -> int:
    """Each row of ours with a score (in that column) over 1e-3 is one of theirs; returns how many."""
    assert ours.keys() == theirs.keys()
    count = 0
    for cls, rows in ours.items():
        rows, others = rows[rows[:, score] > 1e-3], theirs[cls]
        for row in rows:
            distances = np.abs(others - row).max(1)
            assert distances.min() < 2e-2 + 1e-4 * np.abs(row).max(), (cls, row)
        count += len(rows)
    return count


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('arch', FAMILIES)
def test_each_family_and_task(arch, task, tmp_path, export, monkeypatch):
    """The file passes the comparison with its checkpoint, holds standard operators and facts, and finds the same."""
    if arch == 'hourglass':  # narrower and flatter, for the time
        monkeypatch.setattr(large_hourglass, 'CHANNELS', (16, 24, 32))
        monkeypatch.setattr(large_hourglass, 'BLOCKS', (1, 1, 1))
        monkeypatch.setattr(large_hourglass, 'HEAD_CHANNELS', 32)
    side = 128 if arch == 'hourglass' else 64
    checkpoint = save_random_network(tmp_path / 'model.pth', task, arch, side)
    flip = [] if task == 'ddd' else ['--flip_test']
    own = FAMILIES[arch] if task == 'ctdet' or arch != 'resdcn_18' else []  # a second size is once enough
    few = ['--K', '20'] if task == 'exdet' and arch != 'res_18' else []  # of 40 points a side come 16 times the fours
    file = export(checkpoint, task, *(flip if '--flip_test' in own else own), *few)

    graph = onnx.load(file)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [('', writers.OPSET)]
    assert {node.domain for node in graph.graph.node} == {''} and not graph.functions
    operators = {node.op_type for node in graph.graph.node}
    assert 'BatchNormalization' not in operators and ('DeformConv' in operators) == (arch in ('resdcn_18', 'dla_34'))
    assert {output.name for output in graph.graph.output} == NAMES[task]
    facts = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert (facts['program'], facts['task'], facts['arch']) == ('centernet', task, arch)
    assert facts['K'] == (20 if few else TASKS[task].K) and len(facts['class_names']) == facts['heads'].get('hm', 3)

    options = {'gpus': -1, 'flip_test': facts['flip_test'], 'K': facts['K'], **EASY.get(task, {})}
    picture = image(side, 2 * side if task == 'ddd' else side, task)
    ours, theirs = (load_detector(path, **options).run(picture) for path in (checkpoint, file))
    assert_same_results(ours['results'], theirs['results'], score=12 if task == 'ddd' else 4)


def test_alpha_is_that_of_the_published_decoding():
    rot = torch.randn(50, 8)
    np.testing.assert_allclose(alpha_of(rot), get_alpha(rot.numpy()), atol=1e-6)


def test_the_version_is_that_of_the_package(model):
    facts = {entry.key: entry.value for entry in onnx.load(model, load_external_data=False).metadata_props}
    assert json.loads(facts['version']) == __version__


# -- formats -------------------------------------------------------------------------------------------


def test_torch_export_format(tmp_path, export):
    """A .pt2 holds no operator of ours, passes the comparison, and any program can load it."""
    checkpoint = save_random_network(tmp_path / 'model.pth', 'ctdet', 'resdcn_18', 64)
    file = export(checkpoint, 'ctdet', '--format', 'pt2', suffix='.pt2')
    program = torch.export.load(file)
    used = {str(node.target).split('.')[0] for node in program.graph.nodes if node.op == 'call_function'}
    assert not used & {'lib', 'centernet'} and 'torchvision' in used
    ours, theirs = (load_detector(path, gpus=-1).run(image(64, 64))['results'] for path in (checkpoint, file))
    assert assert_same_results(ours, theirs) > 20


def test_openvino_format(tmp_path, export):
    """An .xml with its .bin passes the comparison and runs; without its .bin, one line says so."""
    pytest.importorskip('openvino', reason='the extra [openvino] is not installed')
    checkpoint = save_random_network(tmp_path / 'model.pth', 'ctdet', 'resdcn_18', 64)
    file = export(checkpoint, 'ctdet', '--format', 'openvino', suffix='.xml')
    ours, theirs = (load_detector(path, gpus=-1).run(image(64, 64))['results'] for path in (checkpoint, file))
    assert assert_same_results(ours, theirs) > 20
    Path(file).with_suffix('.bin').unlink()
    with pytest.raises(UserError, match='has its weights in a file beside it'):
        load_detector(file, gpus=-1)


def test_raw_maps(checkpoint, tmp_path, export):
    """--raw: the maps; the programs then mirror and decode as they do for a checkpoint."""
    file = str(tmp_path / 'raw.onnx')
    export(checkpoint, 'ctdet', '--raw', '--output', file)
    assert {output.name for output in onnx.load(file).graph.output} == {'hm', 'wh', 'reg'}
    options = {'gpus': -1, 'flip_test': True, 'K': 30}
    ours, theirs = (load_detector(path, **options).run(image(96, 96))['results'] for path in (checkpoint, file))
    assert assert_same_results(ours, theirs) > 20


def test_half_keeps_its_inputs_and_outputs(checkpoint, tmp_path, export, monkeypatch):
    """--half: weights of 16 bits, half the bytes; images and detections are as before, nearly (random networks are
    more sensitive than trained ones)."""
    monkeypatch.setattr(check, 'HALF_LIMITS', {'boxes': 100, 'scores': 0.5, 'others': 1})
    file = str(tmp_path / 'half.onnx')
    export(checkpoint, 'ctdet', '--half', '--output', file)
    assert os.path.getsize(file) < 0.55 * os.path.getsize(checkpoint)
    graph = onnx.load(file).graph
    assert [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)] == [2, 1, 1, 7]


# -- programs ------------------------------------------------------------------------------------------

VARIANTS = [
    ('ctdet', ['--flip_test', '--test_batch_size', '4']),
    ('ctdet', ['--keep_res']),
    ('exdet', ['--test_batch_size', '4', '--K', '20']),
    ('multi_pose', ['--flip_test']),  # with more detections than there are peaks: the others are cells of score 0
    ('ddd', ['--test_batch_size', '4', '--peak_thresh', '0.02']),
]


@pytest.mark.parametrize(('task', 'args'), VARIANTS)
def test_scores_are_those_of_the_checkpoint(task, args, tmp_path, scripts, export):
    """test.py: metrics.json of the file equals the checkpoint's."""
    from lib.datasets.toy import make_toy_data

    data = tmp_path / 'data'
    make_toy_data(data, task, train=1, val=6, size=(192, 96) if task == 'ddd' else 96)
    place = ['--data_dir', str(data)] if task == 'ddd' else ['--dataset', str(data)]
    if task == 'multi_pose':  # joints that snap to the peaks of random maps hang on rounding
        place.append('--not_hm_hp')
    checkpoint = save_random_network(tmp_path / 'model.pth', task, 'res_18', 96, *place, spread=0.2)
    inside = [arg for arg in args if arg in ('--flip_test', '--K', '20')]
    inside += ['--dynamic_size'] if '--keep_res' in args else []
    file = export(checkpoint, task, *inside)
    metrics = []
    for model, folder in ((checkpoint, 'ours'), (file, 'theirs')):
        exp = ['--exp_dir', str(tmp_path / folder), '--gpus', '-1', '--num_workers', '0', '--no_report']
        scripts('test').main([task, *place, '--load_model', model, *exp, *args])
        metrics.append(json.loads((tmp_path / folder / task / 'default/metrics.json').read_text()))
    assert metrics[0].keys() == metrics[1].keys()
    np.testing.assert_allclose(
        [value for value in metrics[1].values() if value is not None],
        [value for value in metrics[0].values() if value is not None],
        atol=1e-4,
    )


def test_the_script_without_torch_finds_the_same(checkpoint, model, tmp_path, scripts):
    """docs/deploy/detect_onnx.py, in a process where torch and this package cannot be imported."""
    cv2.imwrite(str(tmp_path / 'image.png'), image(96, 96))
    script = ROOT / 'docs/deploy/detect_onnx.py'
    assert len(script.read_text().splitlines()) <= 150
    blocked = 'import sys, runpy; sys.modules.update(torch=None, torchvision=None, lib=None, centernet=None); '
    code = f'{blocked}sys.argv[1:] = {[model, str(tmp_path / "image.png"), "--threshold", "0.1"]!r}; '
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    demo = ['ctdet', '--demo', str(tmp_path / 'image.png'), '--load_model', checkpoint, '--gpus', '-1', '--no_display']
    scripts('demo').main([*demo, '--output', str(tmp_path / 'demo')])
    (found,) = json.loads((tmp_path / 'demo/results.json').read_text())
    ours = [one for one in found['detections'] if one['score'] >= 0.1]
    assert len(ours) == len(theirs) > 5
    for one, other in zip(ours, theirs, strict=True):
        assert one['class'] == other['class'] and abs(one['score'] - other['score']) < 1e-4
        np.testing.assert_allclose(one['box'], other['box'], atol=0.02)
    assert cv2.imread(str(tmp_path / 'image-found.png')).shape == (96, 96, 3)


# -- refusals ------------------------------------------------------------------------------------------


def test_options_that_the_file_has_inside(model):
    """They are taken from the file; others are refused, naming both."""
    assert load_detector(model, gpus=-1).opt.K == 100
    for options, words in {
        ('flip_test', True): 'was exported with flip_test False',
        ('K', 7): 'was exported with K 100',
        ('input_res', 64): 'takes inputs of 96 x 96, found 64 x 64: export it with --dynamic_size',
        ('debug', 2): 'give the checkpoint',
    }.items():
        with pytest.raises(UserError, match=words):
            load_detector(model, gpus=-1, **dict([options]))
    with pytest.raises(UserError, match='takes inputs of 96 x 96'):
        load_detector(model, gpus=-1, keep_res=True).run(image(40, 40))


def test_no_file_is_overwritten_unasked(checkpoint, model, scripts, tmp_path):
    before = Path(model).read_bytes()
    with pytest.raises(UserError, match='exists: name another --output, or replace it with --force'):
        scripts('export').main(['ctdet', '--load_model', checkpoint])
    with pytest.raises(UserError, match='ends in .onnx'):
        scripts('export').main(['ctdet', '--load_model', checkpoint, '--output', str(tmp_path / 'a.pt')])
    assert Path(model).read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_that_cannot_be_written(checkpoint, scripts, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match='is read-only'):
        scripts('export').main(['ctdet', '--load_model', checkpoint, '--output', str(tmp_path / 'a.onnx')])


def test_a_file_that_differs_is_not_kept(checkpoint, scripts, tmp_path, monkeypatch):
    monkeypatch.setitem(check.LIMITS, 'boxes', 1e-12)
    with pytest.raises(UserError, match='differs from the checkpoint by .* in boxes, more than 1e-12'):
        scripts('export').main(['ctdet', '--load_model', checkpoint, '--output', str(tmp_path / 'a.onnx')])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('args', [['--raw', '--flip_test'], ['--aggr_weight', '0.1'], ['--load_model', '']])
def test_what_cannot_be_exported(args, checkpoint, scripts, tmp_path):
    with pytest.raises(UserError):
        scripts('export').main(['exdet' if '--aggr_weight' in args else 'ctdet', '--load_model', checkpoint, *args])


def test_strange_files(model, tmp_path):
    """Garbage, ONNX of another program and of an opset of the future: one line each."""
    garbage = tmp_path / 'garbage.onnx'
    garbage.write_bytes(b'not ONNX')
    other, future = onnx.load(model), onnx.load(model)
    del other.metadata_props[:]
    onnx.save(other, str(tmp_path / 'other.onnx'))
    future.opset_import[0].version = 999
    onnx.save(future, str(tmp_path / 'future.onnx'))
    changed = onnx.load(model)
    next(entry for entry in changed.metadata_props if entry.key == 'mean').value = '"grey"'
    onnx.save(changed, str(tmp_path / 'changed.onnx'))
    for name, words in {
        'garbage': 'is no file that onnxruntime can run',
        'other': 'is not of export.py',
        'future': 'is no file that onnxruntime can run: .*opset',
        'changed': 'its mean is',
        'nowhere': 'no such exported file',
    }.items():
        with pytest.raises(UserError, match=words) as error:
            load_detector(str(tmp_path / f'{name}.onnx'), gpus=-1)
        assert '\n' not in str(error.value)


def test_a_missing_runtime_is_asked_for_by_name(model, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r'needs the package onnxruntime: pip install \.\[onnx\]'):
        load_detector(model, gpus=-1)


@pytest.mark.parametrize('args', [['main.py'], ['main.py', '--test'], ['export.py']])
def test_an_exported_file_cannot_be_trained(args, model):
    done = run_program(args[0], 'ctdet', '--load_model', model, '--gpus', '-1', *args[1:])
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'is an exported file, which test.py and demo.py run' in done.stderr.splitlines()[-1]


def test_a_peak_that_rounding_brings_is_no_difference():
    """Guards the comparison: a detection of the file alone counts, unless our own maps give it when they are shaken."""

    def found(*rows):
        """Boxes of two cells a side, by x and score; one of score 0 fills up."""
        rows = [*rows, (30.0, 0.0)]
        boxes = np.array([[x, 0, x + 2, 2] for x, _ in rows], np.float32)
        scores = np.array([score for _, score in rows], np.float32)
        return {'boxes': boxes, 'scores': scores, 'classes': np.zeros(len(rows), np.int64)}

    ours, theirs = found((0.0, 0.9)), found((0.0, 0.9), (8.0, 0.5))
    shaken = [ours, found((0.0, 0.9), (8.00001, 0.50001))]
    assert check.compare_detections(ours, theirs, 4, check.LIMITS)['boxes'] > 1
    assert check.compare_detections(ours, theirs, 4, check.LIMITS, [ours, found((0.0, 0.9), (8.0, 0.6))])['boxes'] > 1
    assert check.compare_detections(ours, theirs, 4, check.LIMITS, shaken) == {'boxes': 0.0, 'scores': 0.0}
