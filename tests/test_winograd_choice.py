"""Which convolutions Winograd's algorithm does: those in which it is faster, within the memory; remembered."""

import pytest
import torch
from torch import nn

from lib import load_detector
from lib.models import winograd_choice
from lib.models.fuse import FastNetwork
from lib.models.model import create_model, save_model
from lib.models.winograd import WinogradConv2d
from lib.models.winograd_choice import Candidate, choose_winograd, choose_within
from lib.opts import model_facts, opts
from lib.utils.measurements import cache_folder

FACTS, SHAPE = {'arch': 'three'}, (1, 3, 32, 32)


class Three(nn.Module):
    """A network of three convolutions that Winograd's algorithm can do, one that it cannot, and one unused."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, 4, 1)
        self.small, self.norm = nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.large, self.hm = nn.Conv2d(64, 128, 3, padding=1), nn.Conv2d(128, 16, 3, padding=1)
        self.spare = nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, images):
        maps = self.norm(self.small(self.first(images))).relu()
        self.spare(maps)
        return [{'hm': self.hm(self.large(maps))}]


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """An empty cache, and times by the number of output channels; returns the list of what is measured."""
    monkeypatch.undo()  # of conftest.py: here it is measured
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    asked = []
    seconds = {64: (2.0, 1.0), 128: (9.0, 4.0), 16: (1.0, 0.95)}

    def measure(candidate):
        asked.append(candidate.shape)
        return seconds[candidate.out_channels]

    monkeypatch.setattr(winograd_choice, 'measure', measure)
    return asked


def seeded_network():
    torch.manual_seed(0)
    network = Three().eval()
    nn.init.uniform_(network.norm.running_mean, -1, 1)
    return network


def test_what_gains_is_chosen(measured):
    """Not what gains less than a tenth, nor what is unused; each used shape is measured once, and nothing twice."""
    network = seeded_network()
    for _ in range(2):
        assert choose_winograd(network, FACTS, SHAPE, 100) == ('network.large', 'network.small')
    assert sorted(measured) == [(1, 32, 8, 8, 64), (1, 64, 8, 8, 128), (1, 128, 8, 8, 16)]
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # as ranks of fewer threads each: their results are those of one process
        patch.setattr(torch, 'get_num_threads', lambda: 5)
        assert choose_winograd(network, FACTS, SHAPE, 100) and len(measured) == 3
    assert choose_winograd(network, FACTS, (8, 3, 32, 64), 100) and len(measured) == 6
    assert measured[-1][:1] == (2,), 'of a batch no more than two images are measured'


@pytest.mark.parametrize(
    ('mebibytes', 'chosen'), [(0, ()), (1, ('network.small',)), (2, ('network.small', 'network.large'))]
)
def test_the_memory_is_a_bound(measured, mebibytes, chosen):
    """0.3 MiB for `small` gain 1 s, 1.1 for `large` 5 s: the better gain for its memory comes first."""
    assert set(choose_winograd(seeded_network(), FACTS, SHAPE, mebibytes)) == set(chosen)
    assert len(measured) == {0: 0, 1: 2, 2: 3}[mebibytes], 'what is too large is not measured'


def test_best_gain_for_its_memory_first():
    """The order is that of seconds a byte, then of names; what no longer fits is passed over for what does."""
    widths = {'b': 64, 'a': 64, 'wide': 128}
    candidates = [Candidate(name, (1, 64, 8, 8), width) for name, width in widths.items()]
    seconds = {candidates[0].shape: (3.0, 1.0), candidates[2].shape: (6.0, 1.0)}
    small = 4 * 36 * 64 * 64
    assert [one.bytes for one in candidates] == [small, small, 2 * small]
    for budget, want in ((small - 1, set()), (small, {'a'}), (2 * small, {'wide'}), (3 * small, {'wide', 'a'})):
        assert choose_within(candidates, seconds, budget) == want
    seconds[candidates[2].shape] = (6.0, 5.6)  # less than a tenth
    assert choose_within(candidates, seconds, 1 << 40) == {'a', 'b'}


@torch.inference_mode()
def test_the_network_does_what_was_chosen(measured):
    """The chosen convolutions, no others; the output is that of the network, its large layers' norms folded or not."""
    network, images = seeded_network(), torch.randn(2, 3, 32, 32)
    for winograd in ((), ('network.large',), ('network.small', 'network.hm')):
        fast = FastNetwork(winograd=winograd)
        torch.testing.assert_close(fast(network, images)['hm'], network(images)[-1]['hm'], rtol=1e-4, atol=1e-5)
        used = {name for name, layer in fast.copy.named_modules() if isinstance(layer, WinogradConv2d)}
        assert used == set(winograd)


def test_it_really_measures(monkeypatch, tmp_path):
    """Without a stand-in for the clock, both ways are run and timed."""
    monkeypatch.undo()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    plain, fast = winograd_choice.measure(Candidate('conv', (1, 64, 16, 16), 64))
    assert 0 < plain < 10 and 0 < fast < 10
    chosen = choose_winograd(seeded_network(), FACTS, SHAPE)
    assert chosen == choose_winograd(seeded_network(), FACTS, SHAPE)
    assert len(list(cache_folder().iterdir())) == 1


def test_who_asks(measured, monkeypatch, toy, tmp_path):
    """`load_detector` chooses with `--dtype auto`; with float32 nothing is measured; the option bounds the memory."""
    opt = opts().init(['ctdet', '--dataset', toy, '--arch', 'res_18', '--input_res', '64', '--gpus', '-1'])
    path = tmp_path / 'random.pth'
    save_model(path, 1, create_model('res_18', opt.heads, opt.head_conv).eval(), **model_facts(opt))
    monkeypatch.setattr(winograd_choice, 'measure', lambda candidate: measured.append(candidate.shape) or (2.0, 1.0))
    monkeypatch.setattr('lib.models.fast_dtype.may_gain', lambda device: False)
    assert load_detector(str(path), gpus=-1, dtype='float32').fast.winograd is None and not measured
    few, many = (load_detector(str(path), gpus=-1, winograd_memory=size).fast.winograd for size in (2, 1000))
    assert 0 < len(few) < len(many) and 'joined_0.hidden' in many
