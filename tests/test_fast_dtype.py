"""`--dtype auto`: which number type it chooses, what it remembers, and who asks for it."""

import json
import time
from typing import ClassVar

import pytest
import torch
from torch import nn

from lib import load_detector
from lib.detectors.detector_factory import detector_factory
from lib.models import fast_dtype
from lib.models.fast_dtype import choose_dtype
from lib.models.model import create_model, save_model
from lib.opts import model_facts, opts
from lib.utils.measurements import cache_folder
from lib.utils.ranks import Ranks

FACTS = {'arch': 'paced', 'heads': {'hm': 2}}
SHAPE = (1, 3, 32, 32)
SLOW = 0.02  # seconds


class Paced(nn.Module):
    """A network that takes `seconds[type]` longer; its output in bfloat16 is changed by `spoil`."""

    runs: ClassVar[list] = []  # the type of each run of any copy

    def __init__(self, seconds=None, spoil=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, 4)
        self.seconds, self.spoil = seconds or {}, spoil

    def forward(self, images):
        name = 'bfloat16' if images.dtype == torch.bfloat16 else 'float32'  # cannot be traced: it runs as it is
        self.runs.append(name)
        time.sleep(self.seconds.get(name, 0))
        maps = self.conv(images)
        return [{'hm': self.spoil(maps) if self.spoil and name == 'bfloat16' else maps}]


def seeded_network(seconds=None, spoil=None):
    """A `Paced` of the same weights each time; nothing has run."""
    torch.manual_seed(0)
    Paced.runs.clear()
    return Paced(seconds, spoil).eval()


@pytest.fixture(autouse=True)
def measured(monkeypatch, tmp_path):
    """A processor that may gain, and an empty cache; returns the list of what is measured."""
    monkeypatch.setattr(fast_dtype, 'may_gain', lambda device: True)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    asked = []
    for name in ('seconds', 'difference'):
        real = getattr(fast_dtype.Trial, name)
        monkeypatch.setattr(fast_dtype.Trial, name, lambda self, name=name, real=real: asked.append(name) or real(self))
    return asked


@pytest.fixture
def times(monkeypatch):
    """A function that sets the times, in seconds, which measuring finds for float32 and bfloat16."""

    def set_times(float32, bfloat16):
        found = {torch.float32: float32, torch.bfloat16: bfloat16}
        monkeypatch.setattr(fast_dtype, 'faster_dtype', lambda *args: (min(found, key=found.__getitem__), found))

    return set_times


# ------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(('slow', 'chosen'), [('float32', 'bfloat16'), ('bfloat16', 'float32')])
def test_the_slowed_one_is_left(slow, chosen, capsys):
    """A type that is slowed on purpose is not chosen, whichever it is; one line says what was measured."""
    assert choose_dtype(seeded_network({slow: SLOW}), FACTS, SHAPE) == chosen
    told = [line for line in capsys.readouterr().out.splitlines() if '--dtype auto' in line]
    assert len(told) == 1 and told[0].endswith(f'computes in {chosen}')
    assert 'ms in float32' in told[0] and 'ms in bfloat16' in told[0]


@pytest.mark.parametrize(('bfloat16', 'chosen'), [(0.95, 'float32'), (0.85, 'bfloat16')])
def test_a_small_gain_is_left(times, bfloat16, chosen):
    """Less than a tenth is within what other programs do to a measurement: float32 stays."""
    times(1.0, bfloat16)
    assert choose_dtype(seeded_network(), FACTS, SHAPE) == chosen


@pytest.mark.parametrize('spoil', [lambda maps: maps * float('nan'), lambda maps: maps / 0, lambda maps: maps * 1.1])
def test_the_answer_is_kept(times, capsys, spoil):
    """A faster type whose output is not finite, or another one, is not chosen, also when the time is remembered."""
    times(1.0, 0.5)
    for _ in range(2):
        assert choose_dtype(seeded_network(spoil=spoil), FACTS, SHAPE) == 'float32'
    assert capsys.readouterr().out.count('whose output differs by') == 2


def test_without_the_instructions(monkeypatch, measured):
    """A processor that would emulate bfloat16 is not measured."""
    monkeypatch.undo()
    monkeypatch.setattr(fast_dtype, 'cpu_has_bfloat16', lambda: False)
    network = seeded_network({'float32': SLOW})
    assert choose_dtype(network, FACTS, SHAPE) == 'float32' and not network.runs


def test_a_large_batch_is_not_measured_whole(monkeypatch):
    """The CPU is measured with two images at most."""
    sizes = []
    monkeypatch.setattr(
        fast_dtype.Trial,
        'seconds',
        lambda self: sizes.append(len(self.images)) or dict.fromkeys(('float32', 'bfloat16'), 1.0),
    )
    for count in (1, 2, 32):
        choose_dtype(seeded_network(), FACTS, (count, *SHAPE[1:]))
    assert sizes == [1, 2]  # and 32 is remembered from 2


# ------------------------------------------------------------------------------------------ what is remembered


def test_measured_once(measured, capsys):
    """The second time nothing runs and nothing is said; other weights are compared, and other networks measured."""
    assert choose_dtype(seeded_network({'float32': SLOW}), FACTS, SHAPE) == 'bfloat16'
    assert measured == ['seconds', 'difference']
    capsys.readouterr()
    second = seeded_network({'bfloat16': SLOW})
    assert choose_dtype(second, FACTS, SHAPE) == 'bfloat16' and not second.runs
    assert measured == ['seconds', 'difference'] and not capsys.readouterr().out
    nn.init.constant_(second.conv.bias, 1)
    assert choose_dtype(second, FACTS, SHAPE) == 'bfloat16' and measured[2:] == ['difference']
    assert choose_dtype(second, {**FACTS, 'arch': 'other'}, SHAPE) == 'float32' and measured[3:] == ['seconds']
    assert choose_dtype(second, FACTS, (1, 3, 64, 64)) == 'float32' and measured[4:] == ['seconds']


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: '',
        lambda text: text[: len(text) // 2],
        lambda text: '[]',
        lambda text: text.replace('"bfloat16":', '"bfloat17":'),
        lambda text: text.replace('paced', 'other'),
        lambda text: json.dumps({**json.loads(text), 'values': {'float32': 'fast', 'bfloat16': True}}),
    ],
)
def test_a_damaged_file_is_measured_anew(measured, damage):
    """Whatever it holds; the new one is used from then on."""
    network = seeded_network({'bfloat16': SLOW})
    choose_dtype(network, FACTS, SHAPE)
    (file,) = cache_folder().iterdir()
    file.write_text(damage(file.read_text()))
    for _ in range(2):
        assert choose_dtype(network, FACTS, SHAPE) == 'float32'
    assert measured == ['seconds'] * 2


def test_where_nothing_can_be_remembered(measured, capsys, tmp_path):
    """A cache folder that cannot be made costs a note and a measurement each time."""
    (tmp_path / 'cache').write_text('a file in its place')
    for _ in range(2):
        assert choose_dtype(seeded_network({'bfloat16': SLOW}), FACTS, SHAPE) == 'float32'
    assert measured == ['seconds'] * 2 and 'measured again next time' in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ who asks


@pytest.fixture(scope='module')
def checkpoint(toy, tmp_path_factory):
    """A random res_18 for the toy classes, with its facts."""
    opt = opts().init(['ctdet', '--dataset', toy, '--arch', 'res_18', '--input_res', '64', '--gpus', '-1'])
    path = tmp_path_factory.mktemp('model') / 'random.pth'
    save_model(path, 1, create_model('res_18', opt.heads, opt.head_conv).eval(), **model_facts(opt))
    return str(path)


@pytest.fixture
def bfloat16_is_faster(monkeypatch):
    monkeypatch.setattr('lib.models.fuse.cpu_has_bfloat16', lambda: True)
    monkeypatch.setattr('lib.detectors.base_detector.choose_dtype', lambda *args: 'bfloat16')


def test_load_detector_chooses(checkpoint, bfloat16_is_faster):
    """By default the faster type; what is named is not measured; a detector made by hand stays with float32."""
    assert load_detector(checkpoint, gpus=-1).fast.dtype == torch.bfloat16
    assert load_detector(checkpoint, gpus=-1, dtype='float32').fast.dtype == torch.float32
    by_hand = detector_factory['ctdet'](opts().init(['ctdet', '--load_model', checkpoint, '--gpus', '-1']))
    assert by_hand.fast.dtype == torch.float32


def test_programs_choose(checkpoint, bfloat16_is_faster, toy, scripts, tmp_path, monkeypatch, capsys):
    """test.py and demo.py compute in the faster type, and test.py says in which; `--dtype float32` is obeyed."""
    used = []
    forward = detector_factory['ctdet'].forward
    monkeypatch.setattr(
        detector_factory['ctdet'], 'forward', lambda self, images: used.append(self.dtype) or forward(self, images)
    )
    common = ['ctdet', '--gpus', '-1', '--load_model', checkpoint, '--exp_dir', str(tmp_path)]
    data = ['--dataset', toy, '--not_prefetch_test']
    for args, dtype in (([], 'bfloat16'), (['--dtype', 'float32'], 'float32')):
        used.clear()
        scripts('test').main([*common, *data, *args])
        assert set(used) == {dtype} and f'the network computes in {dtype}' in capsys.readouterr().out
        used.clear()
        scripts('demo').main([*common, '--demo', f'{toy}/images/val', '--no_display', *args])
        assert set(used) == {dtype}


def test_all_ranks_take_that_of_rank_0(checkpoint, bfloat16_is_faster, toy, scripts, monkeypatch, tmp_path, capsys):
    """What rank 0 has chosen goes to the others, which measure nothing."""

    class OfLead(Ranks):
        is_lead = False

        def __init__(self):
            super().__init__()
            self.is_lead = False

        def from_lead(self, value):
            assert value == ('', None)
            return 'bfloat16', None

    seen = []
    monkeypatch.setattr('lib.programs.test.detect_all', lambda opt, data, detector, ranks: seen.append(detector.dtype))
    for name in ('choose_dtype', 'choose_winograd'):
        monkeypatch.setattr(f'lib.detectors.base_detector.{name}', lambda *args: pytest.fail('measured'))
    common = ['ctdet', '--gpus', '-1', '--load_model', checkpoint, '--exp_dir', str(tmp_path), '--dataset', toy]
    scripts('test').main(common, OfLead())
    assert seen == ['bfloat16'] and 'the network computes' not in capsys.readouterr().out
