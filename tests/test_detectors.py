"""What all detectors share: several images at a time, the network's precision, evaluation of both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib import load_detector
from lib.datasets import test_images
from lib.detectors.detector_factory import detector_factory
from lib.models.model import create_model, save_model
from lib.opts import model_facts, opts
from lib.utils.ddd_utils import DEFAULT_CALIB
from lib.utils.errors import UserError

SIZES = ((60, 50), (64, 64), (40, 90), (60, 50))  # height, width
TIMES = ('tot', 'load', 'pre', 'net', 'dec', 'post', 'merge')
RUNS = [
    ('ctdet', []),
    ('ctdet', ['--flip_test', '--test_scales', '0.75,1']),
    ('ctdet', ['--keep_res']),
    ('multi_pose', []),
    ('multi_pose', ['--flip_test', '--test_scales', '0.75,1', '--keep_res']),
    ('exdet', ['--agnostic_ex', '--scores_thresh', '0', '--center_thresh', '0', '--K', '6']),
    ('exdet', ['--flip_test', '--agnostic_ex', '--scores_thresh', '0', '--center_thresh', '0', '--K', '6']),
    ('ddd', ['--peak_thresh', '0']),
    ('ddd', ['--peak_thresh', '0', '--keep_res']),
]


class Tiny(nn.Module):
    """A network that says something else of every cell."""

    def __init__(self, heads):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16)
        self.heads = nn.ModuleDict({name: nn.Conv2d(16, channels, 1) for name, channels in heads.items()})
        nn.init.constant_(self.heads['wh' if 'wh' in heads else 'reg_t'].bias, 4)

    def forward(self, images):
        x = self.bn(self.conv(images))  # [B, 16, h, w]
        return [{name: 3 * head(x) for name, head in self.heads.items()}]


def make_detector(task, *args):
    """A detector whose network is a `Tiny`."""
    size = ['--input_h', '64', '--input_w', '96'] if task == 'ddd' else ['--input_res', '64']
    opt = opts().init([task, '--arch', 'res_18', '--gpus', '-1', *size, *args])
    detector = detector_factory[task](opt)
    torch.manual_seed(0)
    detector.model = Tiny(opt.heads).eval()
    return detector


def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for size in SIZES]


def assert_same_answers(found, wanted):
    """Results and what else there is, by class and row; not the times."""
    assert found.keys() == wanted.keys() and set(TIMES) < set(found)
    for name in found.keys() - set(TIMES):
        assert found[name].keys() == wanted[name].keys()
        for cls, rows in found[name].items():
            np.testing.assert_allclose(rows, wanted[name][cls], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(('task', 'args'), RUNS, ids=lambda value: value if isinstance(value, str) else ' '.join(value))
def test_a_batch_is_its_images_one_by_one(task, args):
    """Mirrored, at several scales, at sizes of their own: each image keeps its own answer."""
    detector, images = make_detector(task, *args), pictures()
    metas = None
    if task == 'ddd':
        cameras = [DEFAULT_CALIB * np.array([[1 + k / 9], [1], [1]], np.float32) for k in range(len(images))]
        metas = [{'calib': camera} for camera in cameras]
    together = detector.run_batch(images, metas)
    alone = [detector.run(image, meta) for image, meta in zip(images, metas or [None] * 4, strict=True)]
    for found, wanted in zip(together, alone, strict=True):
        assert_same_answers(found, wanted)
    first, last = (np.concatenate(list(answer['results'].values())) for answer in (together[0], together[3]))
    assert min(len(first), len(last)) > 3
    assert not np.allclose(first[:3], last[:3])  # of one size, yet different


def test_the_network_sees_images_of_one_size_together(monkeypatch):
    """At a fixed size all at once; at their own sizes those that agree; with their mirror images behind them."""
    seen = []
    for args in ([], ['--keep_res'], ['--keep_res', '--flip_test']):
        detector = make_detector('ctdet', *args)
        forward = detector.forward
        monkeypatch.setattr(
            detector, 'forward', lambda images, forward=forward: seen.append(list(images.shape)) or forward(images)
        )
        detector.run_batch(pictures())
    assert seen == [
        *[[4, 3, 64, 64]],
        *[[2, 3, 64, 64], [1, 3, 96, 96], [1, 3, 64, 96]],
        *[[4, 3, 64, 64], [2, 3, 96, 96], [2, 3, 64, 96]],
    ]


def test_a_batch_takes_what_run_takes(tmp_path):
    """Paths, arrays and prefetched images, mixed; none at all; the image that is none is named."""
    import cv2

    detector, image = make_detector('ctdet'), pictures()[0]
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    kinds = [str(tmp_path / 'a.png'), image, detector.pre_process.prefetch(image), {'image': image, 'meta': {}}]
    answers = detector.run_batch(kinds)
    for answer in answers:
        assert_same_answers(answer, answers[0])
    assert detector.run_batch([]) == []
    with pytest.raises(UserError, match=r'nowhere\.png'):
        detector.run_batch([image, tmp_path / 'nowhere.png'])
    with pytest.raises(UserError, match='expected a uint8 BGR image'):
        detector.run_batch([image, image[0]])


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'L', 'I;16', 'CMYK'])
def test_images_of_pillow_are_taken(mode):
    """`run` of an image of Pillow is `run` of its BGR array, turned as its EXIF orientation says."""
    from PIL import Image

    detector, image = make_detector('ctdet'), pictures()[0]
    if mode in ('L', 'I;16', 'P'):
        image = np.repeat(image[..., :1], 3, axis=2)
    pillow = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    if mode == 'I;16':
        pillow = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
    elif mode == 'P':
        pillow = Image.fromarray(image[..., 0]).convert('P')
    elif mode == 'RGBA':
        pillow.putalpha(100)
    else:
        pillow = pillow.convert(mode)
    assert pillow.mode == mode
    assert_same_answers(detector.run(pillow), detector.run(image))
    turned = pillow.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be shown turned back
    assert_same_answers(detector.run(turned), detector.run(image))
    with pytest.raises(UserError, match='found NoneType'):
        detector.run(None)
    with pytest.raises(UserError, match='empty'):
        detector.run(Image.new('RGB', (0, 5)))


def test_times_are_shares(monkeypatch):
    """The images of a batch share its seconds evenly: together they are what passed."""
    now = iter(range(100))
    monkeypatch.setattr('time.perf_counter', lambda: next(now))
    answers = make_detector('ctdet').run_batch(pictures())
    for answer in answers:
        assert [answer[stage] for stage in TIMES] == [7 / 4, 1 / 4, 2 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4]


def test_debug_pictures_of_a_batch(tmp_path):
    """Level 4 saves each image's own views, numbered on from one batch to the next."""
    detector = make_detector('ctdet', '--debug', '4')
    detector.opt.debug_dir = str(tmp_path)
    images = pictures()[:2]
    detector.run_batch(images)
    detector.run(images[1])
    views = ('1_pred_hm', '1_pred_boxes', 'ctdet')
    assert {path.stem for path in tmp_path.iterdir()} == {f'{number}_{view}' for number in range(3) for view in views}
    for view in views:
        first, second, third = ((tmp_path / f'{number}_{view}.png').read_bytes() for number in range(3))
        assert first != second and second == third


# -- the network's weights and precision ---------------------------------------------------------------


@pytest.fixture(scope='module')
def checkpoint(toy, tmp_path_factory):
    """A random res_18 for the toy classes, with its facts; what it says differs from cell to cell."""
    opt = opts().init(['ctdet', '--dataset', toy, '--arch', 'res_18', '--input_res', '64', '--gpus', '-1'])
    torch.manual_seed(0)
    network = create_model('res_18', opt.heads, opt.head_conv).eval()
    for weight in network.parameters():
        if weight.dim() == 4:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    with torch.no_grad():
        for head, maps in network(torch.randn(1, 3, 64, 64))[-1].items():
            getattr(network, head)[-1].weight /= maps.std()
    path = tmp_path_factory.mktemp('model') / 'random.pth'
    save_model(path, 1, network, **model_facts(opt))
    return str(path)


def test_the_model_is_the_published_one(checkpoint):
    """det.model has the checkpoint's names and values, also after a run; what is written to it acts."""
    detector, image = load_detector(checkpoint, gpus=-1), pictures()[0]
    before = detector.run(image)['results']
    state, saved = detector.model.state_dict(), torch.load(checkpoint)['state_dict']
    assert list(state) == list(saved) and all(torch.equal(state[name], saved[name]) for name in saved)
    nn.init.constant_(detector.model.hm[-1].bias, -50)
    after = detector.run(image)['results']
    assert max(rows[:, 4].max() for rows in before.values() if len(rows)) > 0.3
    assert max(rows[:, 4].max() for rows in after.values() if len(rows)) < 1e-9


def test_dtype_changes_little(checkpoint, monkeypatch):
    """--dtype bfloat16 acts, where the processor has it: scores are nearly those of float32."""
    monkeypatch.setattr('lib.models.fuse.cpu_has_bfloat16', lambda: True)
    image = pictures()[0]
    detectors = [load_detector(checkpoint, gpus=-1, dtype=dtype) for dtype in ('float32', 'bfloat16')]
    answers = [detector.run(image)['results'] for detector in detectors]
    plain, rounded = (np.sort(np.concatenate([rows[:, 4] for rows in found.values()]))[-50:] for found in answers)
    assert plain.dtype == rounded.dtype == np.float32
    assert not np.array_equal(plain, rounded)
    np.testing.assert_allclose(plain, rounded, atol=0.05)


# -- test.py -------------------------------------------------------------------------------------------


def evaluate(scripts, data, checkpoint, folder, *args):
    """What test.py writes into results.json."""
    common = ['ctdet', '--dataset', data, '--load_model', checkpoint, '--gpus', '-1', '--exp_dir', str(folder)]
    scripts('test').main([*common, *args])
    found = json.loads((folder / 'ctdet/default/results.json').read_text())
    return np.array(sorted([row['image_id'], row['category_id'], *row['bbox'], row['score']] for row in found))


@pytest.mark.parametrize('args', [['--num_workers', '1'], ['--not_prefetch_test']], ids=['prefetched', 'unfetched'])
def test_batches_find_what_single_images_do(toy, checkpoint, scripts, tmp_path, monkeypatch, args):
    """test.py with --test_batch_size 4 on 6 images: the same boxes, the network asked twice."""
    single = evaluate(scripts, toy, checkpoint, tmp_path / 'single', *args)
    sizes = []
    detector_class = detector_factory['ctdet']
    forward = detector_class.forward
    monkeypatch.setattr(
        detector_class, 'forward', lambda self, images: sizes.append(len(images)) or forward(self, images)
    )
    batched = evaluate(scripts, toy, checkpoint, tmp_path / 'batched', *args, '--test_batch_size', '4')
    assert sizes == [4, 2]
    np.testing.assert_allclose(single, batched, atol=0.02)


def test_a_network_is_asked_for(scripts):
    """Without a checkpoint test.py would score a random network over the results of a run."""
    with pytest.raises(UserError, match="--load_model '.*model_best.pth'"):
        scripts('test').main(['ctdet', '--gpus', '-1'])


def test_broken_images_in_a_batch(toy, checkpoint, scripts, tmp_path, monkeypatch, capsys):
    """They are named, counted and left out; the others of their batch, and a batch without any other, are done."""
    whole = evaluate(scripts, toy, checkpoint, tmp_path / 'whole', '--not_prefetch_test')
    index = json.loads((Path(toy) / 'annotations/val.json').read_text())
    broken = index['images'][1:4]
    read_image = test_images.read_image

    def failing(path, *args, **options):
        if any(str(path).endswith(image['file_name']) for image in broken):
            raise UserError(f'{path} broke after the data check')
        return read_image(path, *args, **options)

    monkeypatch.setattr(test_images, 'read_image', failing)
    capsys.readouterr()
    found = evaluate(scripts, toy, checkpoint, tmp_path / 'broken', '--not_prefetch_test', '--test_batch_size', '2')
    told = capsys.readouterr().out
    assert told.count('skipped: ') == 3 and '3 of 6 images could not be read' in told
    assert all(image['file_name'] in told for image in broken)
    of_others = ~np.isin(whole[:, 0], [image['id'] for image in broken])
    np.testing.assert_allclose(found, whole[of_others], atol=0.02)


def test_options(capsys):
    """At least one image; one with --debug; what training does not use is said; precisions are named."""
    with pytest.raises(UserError, match='--test_batch_size 0: expected at least 1'):
        opts().parse(['ctdet', '--test_batch_size', '0'])
    with pytest.raises(UserError, match='float32.*bfloat16'):
        opts().parse(['ctdet', '--dtype', 'float16'])
    assert opts().parse(['ctdet', '--test_batch_size', '8', '--debug', '1'], 'test.py').test_batch_size == 1
    capsys.readouterr()
    opts().parse(['ctdet', '--test_batch_size', '8', '--dtype', 'bfloat16'])
    told = capsys.readouterr().out
    assert '--test_batch_size acts in test.py' in told and '--dtype acts in test.py and demo.py' in told
