"""Exports in int8: which steps compute in it, what is said and recorded, what stays in float for AP; refusals."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip('onnx', reason='the extra [onnx] is not installed')
pytest.importorskip('onnxruntime', reason='the extra [onnx] is not installed')
pytest.importorskip('onnxscript', reason='the extra [onnx] is not installed')

from conftest import ROOT, run_program  # noqa: E402
from helpers import save_random_network  # noqa: E402
from lib import load_detector  # noqa: E402
from lib.datasets.toy import make_toy_data  # noqa: E402
from lib.exports import int8, sensitivity  # noqa: E402
from lib.exports.layers import CONVOLUTION, FLOAT_CONVOLUTION, OTHER, Step, float_steps, int8_weights  # noqa: E402
from lib.exports.writers import SUFFIXES  # noqa: E402
from lib.external import dcn  # noqa: E402
from lib.models import openvino_operators  # noqa: E402
from lib.models.exported import exported_facts, open_exported  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from lib.utils.image import normalize  # noqa: E402

SIDE = 64
LAST = ['network.hm.2.weight', 'network.wh.2.weight', 'network.reg.2.weight']  # of the heads, as a graph ends in them


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    """A random ctdet network, res_18 at 64 px."""
    return save_random_network(tmp_path_factory.mktemp('network') / 'model.pth', 'ctdet', 'res_18', SIDE)


@pytest.fixture(scope='module')
def data(checkpoint, tmp_path_factory) -> Path:
    """Toy pictures whose objects are what the network finds in them, so that its AP is high."""
    folder = tmp_path_factory.mktemp('data')
    make_toy_data(folder, train=5, val=3, size=SIDE)
    detector = load_detector(checkpoint, gpus=-1, dtype='float32')
    path = folder / 'annotations/val.json'
    coco = json.loads(path.read_text())
    coco['annotations'] = []
    for image in coco['images']:
        found = detector.run(str(folder / 'images' / image['file_name']))['results']
        for cls, rows in found.items():
            whole = (rows[:, :2] >= 0).all(1) & (rows[:, 2:4] <= SIDE).all(1) & (rows[:, 4] > 0.2)
            for x1, y1, x2, y2, _ in rows[whole].tolist():
                box = {'bbox': [x1, y1, x2 - x1, y2 - y1], 'category_id': cls, 'image_id': image['id']}
                coco['annotations'].append({'id': len(coco['annotations']) + 1, **box})
    assert len(coco['annotations']) > 10
    path.write_text(json.dumps(coco))
    return folder


def export(scripts, checkpoint, file: Path, data, *args) -> None:
    options = ['--calibration_images', '4', '--num_workers', '0', '--output', str(file), *args]
    scripts('export').main(['ctdet', '--load_model', checkpoint, '--int8', str(data), *options])


@pytest.fixture(scope='module')
def model(checkpoint, data, scripts, tmp_path_factory) -> Path:
    """The network as ONNX in int8."""
    file = tmp_path_factory.mktemp('onnx') / 'model.onnx'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, 'MOST_FLOAT', 0)  # random networks lose more than trained ones: one attempt is enough
        export(scripts, checkpoint, file, data)
    return file


def assert_finds_nearly_the_same(checkpoint: str, file: Path, data: Path) -> None:
    """Most objects that the checkpoint finds are found by the file, too, a little elsewhere."""
    image = str(next((data / 'images/val').iterdir()))
    ours, theirs = (load_detector(str(path), gpus=-1).run(image)['results'] for path in (checkpoint, file))
    near = []
    for cls, rows in ours.items():
        for row in rows[rows[:, 4] > 0.3]:
            distance = np.abs(theirs[cls][:, :4] - row[:4]).max(1) + 20 * np.abs(theirs[cls][:, 4] - row[4])
            near.append(distance.min() < 4)
    assert len(near) > 3 and np.mean(near) >= 0.5  # of a random network
    assert any(not np.array_equal(rows, theirs[cls]) for cls, rows in ours.items())


# -- which steps -----------------------------------------------------------------------------------------------


def test_which_steps_stay_in_float():
    """Normalisation, decoder, last convolutions, deformable convolutions and how offsets are made; nothing else."""
    steps = [
        Step('normalize', OTHER, ('',)),
        Step('stem', CONVOLUTION, ('normalize', ''), 'a'),
        Step('relu', OTHER, ('stem',)),
        Step('offsets', CONVOLUTION, ('relu', ''), 'b'),
        Step('bias', OTHER, ('offsets', '')),
        Step('split', OTHER, ('bias',)),
        Step('sigmoid', OTHER, ('split',)),
        Step('dcn', FLOAT_CONVOLUTION, ('relu', '', 'split', '', 'sigmoid'), 'c', looks=('split', 'sigmoid')),
        Step('add', OTHER, ('dcn', 'relu')),
        Step('head', CONVOLUTION, ('add', ''), 'd'),
        Step('head_relu', OTHER, ('head',)),
        Step('last', CONVOLUTION, ('head_relu', ''), 'e'),
        Step('topk', OTHER, ('last',)),
    ]
    inner = {'stem', 'relu', 'offsets', 'add', 'head', 'head_relu'}
    assert set(float_steps(steps)) == {step.name for step in steps} - inner
    assert set(float_steps(steps, ['d'])) == {step.name for step in steps} - inner | {'head'}
    assert int8_weights(steps) == {'a', 'b', 'd'}


def test_onnx_in_int8(model):
    """Weights of 8 bits with values of 7 in all convolutions but the last ones; a quarter of the bytes; the facts."""
    graph = onnx.load(model).graph
    weights = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    floats, levels = [], []
    for node in graph.node:
        if node.op_type == 'Conv' and node.input[1] in weights:
            floats.append(node.input[1])
        elif node.op_type == 'Conv':
            levels.append(weights[makers[node.input[1]].input[0]])
    assert sorted(name.removeprefix('network.') for name in floats) == sorted(LAST)
    assert len(levels) == 23 and {weight.dtype for weight in levels} == {np.dtype('int8')}
    assert max(int(np.abs(weight.astype(int)).max()) for weight in levels) <= 64
    facts = exported_facts(model)
    assert (facts['int8'], facts['calibration_images'], facts['float_layers']) == (True, 4, [])
    assert {output.name for output in graph.output} == {'boxes', 'scores', 'classes'}


def test_onnx_in_int8_runs_everywhere(model, checkpoint, data, scripts, tmp_path):
    """load_detector, test.py and the script without torch run it as they run other files."""
    assert_finds_nearly_the_same(checkpoint, model, data)
    common = ['--dataset', str(data), '--gpus', '-1', '--num_workers', '0', '--exp_dir', str(tmp_path)]
    scripts('test').main(['ctdet', '--load_model', str(model), *common])
    assert json.loads((tmp_path / 'ctdet/default/metrics.json').read_text())['AP'] > 0.1
    image = next((data / 'images/val').iterdir())
    script = [sys.executable, str(ROOT / 'docs/deploy/detect_onnx.py'), str(model), str(image)]
    done = subprocess.run([*script, '--output', str(tmp_path / 'a.png')], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 3
    assert cv2.imread(str(tmp_path / 'a.png')).shape == (SIDE, SIDE, 3)


def test_openvino_in_int8(checkpoint, data, scripts, tmp_path, capsys, monkeypatch):
    """By NNCF: as ONNX. What is printed is AP before and after, the loss and both times; the float files are gone."""
    openvino = pytest.importorskip('openvino', reason='the extra [int8] is not installed')
    pytest.importorskip('nncf', reason='the extra [int8] is not installed')
    monkeypatch.setattr(int8, 'MOST_FLOAT', 0)
    file = tmp_path / 'model.xml'
    export(scripts, checkpoint, file, data, '--format', 'openvino', '--float_input')
    steps = openvino.Core().read_model(str(file)).get_ordered_ops()
    kinds = Counter(step.get_type_name() for step in steps)
    rounded = [
        step.input_value(1).get_node().get_type_name() != 'Constant'
        for step in steps
        if step.get_type_name() in ('Convolution', 'ConvolutionBackpropData')
    ]
    assert rounded.count(False) == len(LAST) and rounded.count(True) == 26 and kinds['FakeQuantize'] > 10
    assert exported_facts(file)['int8'] is True
    printed = capsys.readouterr().out
    form = r'int8, calibrated with 4 images: AP ([\d.]+) before, ([\d.]+) after, loss (-?[\d.]+)'
    before, after, loss = map(float, re.search(form, printed).groups())
    assert before > 0.3 and 0.1 < after < 1 and loss == pytest.approx(before - after, abs=2e-4)
    ours, theirs, ratio = map(
        float, re.search(r'takes ([\d.]+) ms .*, ([\d.]+) ms .*: ([\d.]+) times', printed).groups()
    )
    assert ratio == pytest.approx(ours / theirs, rel=0.1)
    assert_finds_nearly_the_same(checkpoint, file, data)
    assert {path.name for path in tmp_path.iterdir()} == {'model.xml', 'model.bin'}


@pytest.mark.parametrize(('arch', 'convolutions', 'sums'), [('resdcn_18', 3, 0), ('dla_34', 16, 8)])
def test_own_deformable_convolution(arch, convolutions, sums, data, scripts, tmp_path, monkeypatch):
    """With --own_dcn it computes in int8, too, and so do the sums that it reads: a file that our programs run, on one
    thread or two to the same maps. What our operators give and take are bytes."""
    openvino = pytest.importorskip('openvino', reason='the extra [int8] is not installed')
    pytest.importorskip('nncf', reason='the extra [int8] is not installed')
    monkeypatch.setattr(int8, 'MOST_FLOAT', 0)
    checkpoint = save_random_network(tmp_path / 'model.pth', 'ctdet', arch, SIDE)
    file = tmp_path / 'model.xml'
    export(scripts, checkpoint, file, data, '--format', 'openvino', '--own_dcn', '--raw')
    core = openvino.Core()
    openvino_operators.register(core)
    steps = core.read_model(str(file)).get_ordered_ops()
    kinds = Counter(step.get_type_name() for step in steps)
    assert (kinds['DeformableConvolutionInt8'], kinds['DeformableConvolution']) == (convolutions, 0)
    assert (kinds['UpsampledSumInt8'], kinds['GroupConvolutionBackpropData']) == (sums, 0)
    own = [step for step in steps if step.get_type_name() == 'DeformableConvolutionInt8']
    assert {(step.attributes['relu'], step.attributes['to_bytes']) for step in own} == {(1, 1)}
    for step in own:
        types = [value.get_element_type().get_type_name() for value in step.input_values()]
        assert types == ['u8', 'f32', 'i8', 'f32', 'f32']
    assert load_detector(str(file), gpus=-1).run(str(next((data / 'images/val').iterdir())))['results']
    image = cv2.imread(str(next((data / 'images/val').iterdir())))[None]
    maps = float_maps(checkpoint, image)
    monkeypatch.setattr(openvino_operators, 'LEAST_WORK', 1000)  # so that small maps are shared
    kernel, shares = dcn.convolve_int8, []
    monkeypatch.setattr(dcn, 'convolve_int8', lambda *given: (shares.append(given[-1]), kernel(*given)))
    one, two = (open_exported(file, threads=threads).run(image) for threads in (1, 2))
    assert shares == convolutions * [1] + 2 * convolutions * [2]
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])
        assert np.corrcoef(values.ravel(), maps[name].ravel())[0, 1] > 0.8  # OpenVINO's own int8: 0.84 to 0.97


def float_maps(checkpoint: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """The maps {head: [B, c, h, w]} of a checkpoint's network for images uint8 [B, H, W, 3]."""
    detector = load_detector(checkpoint, gpus=-1, dtype='float32')
    given = np.stack([normalize(image, detector.opt.mean, detector.opt.std) for image in images])
    with torch.inference_mode():
        maps = detector.model(torch.from_numpy(given))[-1]
    return {name: values.numpy() for name, values in maps.items()}


@pytest.mark.parametrize(('form', 'options'), [('onnx', {}), ('openvino', {'own_dcn': True})])
def test_own_dcn_reaches_its_format_alone(form, options, tmp_path, monkeypatch):
    """With onnx, the default, it is idle: onnxruntime has no operator of ours."""
    given = []
    monkeypatch.setitem(int8.QUANTIZERS, form, lambda *args, **more: given.append(more))
    monkeypatch.setattr(int8, 'file_detector', lambda opt, path: None)
    made = object.__new__(int8.Quantization)
    made.opt, made.calibration = SimpleNamespace(own_dcn=True, format=form), range(8)
    made.judge = SimpleNamespace(metric=SimpleNamespace(main='AP'), score=lambda detector, label: 0.5)
    made.attempt(tmp_path / 'model', {}, {})
    assert given == [options]


# -- what AP asks for ------------------------------------------------------------------------------------------


def test_layers_in_float(checkpoint, data, scripts, tmp_path, monkeypatch, capsys):
    """The most sensitive layers stay in float, one, then two; the best file is kept, with a warning and status 0."""
    scores = iter([0.9, 0.5, 0.7, 0.6])
    monkeypatch.setattr(int8, 'MOST_FLOAT', 0.1)  # of 23 layers: attempts with 0, 1 and 2
    monkeypatch.setattr(int8.Judge, 'score', lambda self, detector, label: next(scores))
    file = tmp_path / 'model.onnx'
    export(scripts, checkpoint, file, data)
    printed = capsys.readouterr().out
    (name,) = exported_facts(file)['float_layers']
    assert f'in float for the sake of AP: {name}' in printed
    assert 'AP 0.9000 before, 0.7000 after, loss 0.2000' in printed
    assert 'warning: the loss is more than 0.005, whatever stayed in float' in printed
    graph = onnx.load(file).graph
    weights = {value.name for value in graph.initializer}
    floats = {node.input[1] for node in graph.node if node.op_type == 'Conv' and node.input[1] in weights}
    assert floats == {f'network.{last}' for last in LAST} | {f'network.network.{name}.weight'}
    assert [path.name for path in tmp_path.iterdir()] == ['model.onnx']


@pytest.mark.parametrize(
    ('full', 'scores', 'chosen', 'is_dear'),
    [(1.0, [0.9, 0.897], 0, False), (1.0, [0.9, 0.8, 0.85, 0.897, 0.9], 2, False), (100.0, [60, 59.4, 59.6], 1, False)],
)
def test_the_first_file_that_costs_little_is_kept(full, scores, chosen, is_dear, monkeypatch):
    """0.005 of an AP whose best is 1, 0.5 of KITTI's percents; what is dearer is tried with more layers in float."""
    left = iter(scores[1:])
    made = object.__new__(int8.Quantization)
    made.detector, made.opt, made.calibration = None, None, range(8)
    metric = SimpleNamespace(main='AP', full=full)
    made.judge = SimpleNamespace(metric=metric, score=lambda detector, label: scores[0])
    made.plans = lambda network, source: iter([{}, {'a': ''}, {'a': '', 'b': ''}, {'a': '', 'b': '', 'c': ''}])
    made.attempt = lambda source, floats, metadata: int8.Attempt(Path(str(len(floats))), next(left), tuple(floats))
    made.milliseconds = lambda trial: (10.0, 4.0)
    monkeypatch.setattr(int8, 'file_detector', lambda opt, path: None)
    path, report = made.run(None, Path('model'), {})
    assert (path, len(report.float_layers)) == (Path(str(chosen)), chosen)
    assert (report.is_dear, report.before, report.after) == (is_dear, scores[0], scores[chosen + 1])
    assert len(list(left)) == len(scores) - 2 - chosen


def test_rounding_of_layers():
    """127 values of a weight's channel, 256 of the inputs, 0 among them; the most sensitive layer comes first."""
    torch.manual_seed(0)
    weight = torch.randn(2, 300, 3, 3) * torch.tensor([1.0, 100.0]).view(2, 1, 1, 1)
    rounded = sensitivity.round_weight(weight, is_transposed=False)
    assert [len(channel.unique()) <= 127 for channel in rounded] == [True, True]
    assert ((rounded - weight).abs().amax((1, 2, 3)) <= weight.abs().amax((1, 2, 3)) / 126 * 1.001).all()
    x = torch.rand(1, 3, 40, 40) + 0.5
    inputs = sensitivity.round_inputs(x)
    assert len(inputs.unique()) <= 256 and (inputs - x).abs().max() <= x.max() / 510 * 1.001
    layer = nn.Conv2d(3, 2, 1)
    before, given = layer.weight, layer(x)
    with sensitivity.rounded(layer):
        assert not torch.equal(layer(x), given)
    assert layer.weight is before and torch.equal(layer(x), given)


def test_images_to_calibrate_with(checkpoint, data, tmp_path):
    """Evenly spread over train, or over val where there is no train; as the file takes them."""
    from lib.detectors.detector_factory import detector_factory
    from lib.opts import opts
    from lib.utils.option_rows import EXPORT

    args = ['ctdet', '--load_model', checkpoint, '--gpus', '-1', '--int8', str(data), '--calibration_images']
    detector = detector_factory['ctdet'](opts().init([*args, '3'], program=EXPORT))
    calibration = int8.Calibration(detector)
    assert (calibration.split.split, calibration.images) == ('train', [0, 2, 4])
    assert [(image.shape, image.dtype) for image in calibration] == 3 * [((1, SIDE, SIDE, 3), np.dtype('uint8'))]
    train = data / 'annotations/train.json'
    train.rename(tmp_path / 'train.json')
    try:
        other = int8.Calibration(detector_factory['ctdet'](opts().init([*args, '9'], program=EXPORT)))
        assert (other.split.split, other.images) == ('val', [0, 1, 2])
    finally:
        (tmp_path / 'train.json').rename(train)


# -- refusals --------------------------------------------------------------------------------------------------


def test_what_int8_cannot_be_made_of(checkpoint, data, scripts, tmp_path, monkeypatch):
    """Data without pictures, without objects in val, of other classes; formats without int8; NNCF that is missing."""
    (tmp_path / 'empty').mkdir()
    for name in ('no_folder', 'no_pictures', 'no_objects', 'other'):
        (tmp_path / name / 'annotations').mkdir(parents=True)
        for split in ('train', 'val'):
            coco = json.loads((data / f'annotations/{split}.json').read_text())
            if name == 'no_objects' and split == 'val':
                coco['annotations'] = []
            if name == 'other':
                coco['categories'][0]['name'] = 'cat'
            (tmp_path / name / f'annotations/{split}.json').write_text(json.dumps(coco))
        if name in ('no_objects', 'other'):
            (tmp_path / name / 'images').symlink_to(data / 'images')
    (tmp_path / 'no_pictures/images').mkdir()
    monkeypatch.setitem(sys.modules, 'nncf', None)
    for name, args, words in (
        ('nowhere', [], 'is neither a built-in'),
        ('empty', [], "own data in '.*empty'"),
        ('no_folder', [], 'images folder .* is missing'),
        ('no_pictures', [], 'no_pictures'),
        ('no_objects', [], 'has no objects, so that AP cannot be measured'),
        ('other', [], 'was trained with class_names'),
        (data, ['--half'], '--int8 and --half exclude each other'),
        (data, ['--keep_res'], '--keep_res gives inputs of other sizes: add --dynamic_size'),
        (data, ['--format', 'pt2'], '--int8 and --format pt2 exclude each other'),
        (data, ['--own_dcn', '--format', 'openvino'], 'res_18 has no deformable convolution'),
    ):
        with pytest.raises(UserError, match=words) as error:
            export(
                scripts,
                checkpoint,
                (tmp_path / 'model').with_suffix(SUFFIXES[args[-1]] if args[1:] else '.onnx'),
                tmp_path / name,
                *args,
            )
        assert '\n' not in str(error.value)
    with pytest.raises(UserError, match=r'--format openvino --int8 needs the package nncf: pip install \.\[int8\]'):
        export(scripts, checkpoint, tmp_path / 'model.xml', data, '--format', 'openvino')
    assert not [path for path in tmp_path.iterdir() if 'model' in path.name]


def test_calibration_images_act_with_int8_alone(checkpoint):
    done = run_program('export.py', 'ctdet', '--load_model', checkpoint, '--calibration_images', '0')
    assert done.returncode == 1 and 'expected a number from 1 to 10000' in done.stderr.splitlines()[-1]
