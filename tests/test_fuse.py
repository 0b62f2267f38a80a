"""Networks made fast for inference: the same outputs without batch norms, and copies that follow the weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.models import fuse
from lib.models.fast_layers import FastDCN, JoinedHeads
from lib.models.fuse import (
    DTYPES,
    FastNetwork,
    InFloat32,
    fold_batch_norm,
    network_dtype,
    widen_grouped_up_sampling,
)
from lib.models.model import create_model
from lib.models.networks import large_hourglass
from lib.models.networks.dcn import DCN
from lib.models.winograd import WinogradConv2d
from lib.utils.errors import UserError

HEADS = {'hm': 3, 'wh': 2, 'reg': 2}
ARCHS = ('res_18', 'res_50', 'resdcn_18', 'dlav0_34', 'dla_34', 'hourglass')


pytestmark = pytest.mark.usefixtures('seeded')


def lively(model):
    """The model at evaluation, with batch norms and offsets that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        if isinstance(module, DCN):
            nn.init.normal_(module.conv_offset_mask.weight, std=0.05)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def assert_same(found, wanted, tolerance):
    """Alike up to `tolerance` of the largest value."""
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize('arch', ARCHS)
def test_outputs_are_those_of_the_network(arch, monkeypatch):
    """Every family: the last stack's outputs (in double precision), no batch norm left, the network as it was."""
    monkeypatch.setattr(large_hourglass, 'CHANNELS', (8, 8, 12, 12, 12, 16))  # a thousandth of the weights
    monkeypatch.setattr(fuse, 'MOST_FOLDED', 1 << 40)
    network = lively(create_model(arch, HEADS, 16)).double()
    before = copy.deepcopy(network.state_dict())
    images = torch.randn(1, 3, *([128, 128] if arch == 'hourglass' else [32, 64]), dtype=torch.double)
    fast = FastNetwork(torch.double)
    output = fast(network, images)
    with torch.no_grad():
        wanted = network(images)[-1]
    assert list(output) == list(wanted)
    for head in wanted:
        assert output[head].dtype == torch.float32
        assert_same(output[head], wanted[head].float(), 1e-6)
    assert not batch_norms(fast.copy)
    after = network.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_work_for_other_stacks_is_left_out(monkeypatch):
    """Of an hourglass's first stack the heads are gone; its features, which the second stack reads, are not."""
    monkeypatch.setattr(large_hourglass, 'CHANNELS', (8, 8, 12, 12, 12, 16))
    fast = FastNetwork()
    fast(create_model('hourglass', HEADS, 16), torch.zeros(1, 3, 128, 128))
    names = {name.removeprefix('network.') for name, _ in fast.copy.named_parameters()}
    assert any(name.startswith('kps.0') for name in names) and any(name.startswith('hm.1') for name in names)
    assert not any(name.startswith(('hm.0', 'wh.0', 'reg.0')) for name in names)


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(4, 6, 3, stride=2, groups=2),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2),
        nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False),
        nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4),
        DCN(4, 6),
    ],
    ids=str,
)
@pytest.mark.parametrize('affine', [True, False])
def test_every_kind_of_convolution(conv, affine):
    """Groups, biases and transposed weights: exact in double precision."""
    out_channels = conv.weight.shape[0] if isinstance(conv, DCN) else conv.out_channels
    model = lively(nn.Sequential(conv, nn.BatchNorm2d(out_channels, affine=affine))).double()
    folded = fold_batch_norm(model)
    x = torch.randn(2, 4, 7, 9, dtype=torch.double)
    assert not batch_norms(folded)
    assert_same(folded(x), model(x), 1e-12)


class Branches(nn.Module):
    """Batch norms that have to stay, one that may go, and a convolution that nothing reads."""

    def __init__(self):
        super().__init__()
        self.shared, self.spare, self.after_shared = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.after_first, self.after_second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.alone, self.of_the_batch = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
        self.plain, self.goes = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.shared(x)
        self.spare(y)
        y = y + self.after_shared(y)
        y = self.after_first(self.twice(y)) + self.after_second(self.twice(y + 1))
        y = self.of_the_batch(self.alone(y))
        return self.goes(self.plain(y))


def test_folding_where_it_would_be_wrong():
    """A convolution that is read or used twice, and a norm by the batch's own statistics, keep their norms."""
    model = Branches()
    for module in batch_norms(model):
        if module.running_mean is not None:
            lively(module)
    folded = fold_batch_norm(model.eval())
    x = torch.randn(2, 3, 5, 5)
    assert_same(folded(x), model(x), 1e-5)
    names = {name.partition('.')[0] for name, _ in folded.named_parameters()}
    assert names == {name for name, _ in model.named_children()} - {'spare', 'goes'}


class Small(nn.Module):
    """A network of one convolution and a head."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.hm = nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Conv2d(20, 2, 1)

    def forward(self, images):
        return [{'hm': self.hm(self.bn(self.conv(images)))}]


def test_the_copy_follows_the_weights():
    """Another network, an exchanged layer and every way to write weights are seen; without a change nothing is made."""
    network, fast, images = lively(Small()), FastNetwork(), torch.randn(1, 3, 8, 8)

    def check():
        """Whether a new copy was made; it is right in any case."""
        before = fast.copy
        output = fast(network, images)
        with torch.no_grad():
            assert_same(output['hm'], network(images)[-1]['hm'], 1e-5)
        return fast.copy is not before

    assert check() and not check() and not check()
    network.load_state_dict(lively(Small()).state_dict())
    assert check() and not check()
    with torch.no_grad():
        network.hm.bias[-1] += 1
    assert check() and not check()
    network.bn.running_var.mul_(2)
    assert check() and not check()
    network.conv.weight.data.mul_(-1)
    assert check() and not check()
    network.hm = copy.deepcopy(network.hm)
    assert check() and not check()
    network.hm.weight.data = network.hm.weight.data.flip(0)
    assert check() and not check()
    network = lively(Small())
    assert check() and not check()


@pytest.mark.parametrize('most', [107, 108])
def test_large_layers_keep_their_norms(monkeypatch, most):
    """A convolution of 4 * 3 * 3 * 3 = 108 weights is folded, and copied, where no more than these are allowed."""
    monkeypatch.setattr(fuse, 'MOST_FOLDED', most)
    network = lively(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded, x = fold_batch_norm(network), torch.randn(1, 3, 8, 8)
    assert bool(batch_norms(folded)) == (most < 108)
    assert (folded.get_submodule('0').weight.data_ptr() == network[0].weight.data_ptr()) == (most < 108)
    assert_same(folded(x), network(x), 1e-5)


def test_large_up_sampling_is_folded(monkeypatch):
    """A transposed convolution's map is large: its norm goes, however many weights it has."""
    monkeypatch.setattr(fuse, 'MOST_FOLDED', 1)
    network = lively(nn.Sequential(nn.ConvTranspose2d(3, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4)))
    folded, x = fold_batch_norm(network), torch.randn(1, 3, 8, 8)
    assert not batch_norms(folded)
    assert_same(folded(x), network(x), 1e-5)


def test_only_what_is_folded_takes_memory():
    """A layer without a batch norm lies where the network's does; a folded one has weights of its own."""
    network = lively(Small()).eval()
    folded = fold_batch_norm(network)
    assert folded.hm.weight.data_ptr() == network.hm.weight.data_ptr()
    assert folded.conv.weight.data_ptr() != network.conv.weight.data_ptr()
    assert network.hm.weight.requires_grad and not folded.hm.weight.requires_grad


def test_networks_made_in_inference_mode():
    """Their tensors keep no count of writes; they run, and a change is seen."""
    with torch.inference_mode():
        network, fast, images = lively(Small()), FastNetwork(), torch.randn(1, 3, 8, 8)
        before = fast(network, images)['hm']
        network.hm.bias.add_(1)
        torch.testing.assert_close(fast(network, images)['hm'], before + 1)


@pytest.mark.parametrize('arch', ['res_18', 'dla_34'])
def test_sizes_are_still_checked(arch):
    """An input that does not suit the network ends in the same line."""
    with pytest.raises(UserError, match='multiples of 32, found 40 x 64'):
        FastNetwork()(create_model(arch, HEADS, 16), torch.zeros(1, 3, 40, 64))


class Undecided(Small):
    """A network whose path depends on what it sees."""

    def forward(self, images):
        return super().forward(images if images.mean() > 0 else -images)


def test_networks_that_cannot_be_traced(capsys):
    """They run as they are, and that is said once."""
    network, fast = lively(Undecided()), FastNetwork()
    images = torch.randn(2, 3, 4, 4)
    for seen in (images, -images):
        torch.testing.assert_close(fast(network, seen)['hm'], network(seen)[0]['hm'].detach())
    assert capsys.readouterr().out.count('note: Undecided runs as it is') == 1


@pytest.mark.parametrize('arch', ['resdcn_18', 'dla_34'])
def test_bfloat16_is_nearly_float32(arch):
    """The copy is in bfloat16, what comes out in float32: near what float32 says, and not the same."""
    network = lively(create_model(arch, HEADS, 16))
    images = torch.randn(1, 3, 32, 32)
    fast = FastNetwork(DTYPES['bfloat16'])
    output, wanted = fast(network, images), FastNetwork()(network, images)
    narrow = [name for name, parameter in fast.copy.named_parameters() if parameter.dtype == torch.bfloat16]
    wide = [name for name, parameter in fast.copy.named_parameters() if parameter.dtype != torch.bfloat16]
    assert len(narrow) > 40 and all('.up_' in name for name in wide)  # DLA's grouped up-sampling
    for head in wanted:
        assert output[head].dtype == torch.float32 and not torch.equal(output[head], wanted[head])
        assert_same(output[head], wanted[head], 0.1)


def test_grouped_up_sampling_in_float32():
    """Only the grouped transposed convolutions of a bfloat16 model compute in float32; what they answer is bfloat16."""
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4), nn.ConvTranspose2d(4, 4, 4, 2, 1)).bfloat16()
    x = torch.randn(1, 4, 5, 5).bfloat16()
    want = F.conv_transpose2d(x.float(), model[0].weight.float(), model[0].bias.float(), 2, 1, groups=4).bfloat16()
    widen_grouped_up_sampling(model)
    assert isinstance(model[0], InFloat32) and type(model[1]) is nn.ConvTranspose2d
    assert torch.equal(model[0](x), want)
    assert model(x).dtype == torch.bfloat16


def test_where_bfloat16_does_not_suit(monkeypatch, capsys):
    """Old GPUs are refused in one line, processors that would emulate it run in float32; float32 suits all."""
    gpu = torch.device('cuda', 0)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Tesla V100')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 0))
    with pytest.raises(UserError, match='Tesla V100'):
        network_dtype('bfloat16', gpu)
    assert network_dtype('float32', gpu) == torch.float32
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    assert network_dtype('bfloat16', gpu) == torch.bfloat16
    cpu = torch.device('cpu')
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr('lib.models.fuse.cpu_has_bfloat16', lambda has=has: has)
        assert network_dtype('bfloat16', cpu) == dtype and network_dtype('float32', cpu) == torch.float32
        assert capsys.readouterr().out.count('note: this processor has no bfloat16') == (not has)


def test_the_copy_follows_the_backend():
    """A backend of the deformable convolutions that is set after the first run is used from then on."""
    network, fast, images = lively(create_model('resdcn_18', HEADS, 8)), FastNetwork(), torch.randn(1, 3, 64, 64)
    first = fast(network, images)
    for layer in network.modules():
        if isinstance(layer, DCN):
            layer.backend = 'torchvision'
    second = fast(network, images)
    used = {layer.backend for layer in fast.copy.modules() if isinstance(layer, DCN)}
    assert used == {'torchvision'}
    for head in HEADS:
        assert_same(second[head], first[head], 1e-4)


def fast_layers(fast: FastNetwork) -> dict:
    """The layers of a fast copy by name, without the network's own prefix."""
    return {name.removeprefix('network.'): layer for name, layer in fast.copy.named_modules()}


@pytest.mark.parametrize(
    ('arch', 'width', 'joined'), [('res_18', 64, True), ('dla_34', 16, True), ('dla_34', 128, False)]
)
def test_small_heads_are_joined(arch, width, joined):
    """Heads of 64 hidden channels or fewer are one convolution, wider ones stay; the outputs are the same."""
    network, fast, images = lively(create_model(arch, HEADS, width)), FastNetwork(), torch.randn(2, 3, 64, 32)
    output = fast(network, images)
    with torch.no_grad():
        wanted = network(images)[-1]
    layers = fast_layers(fast)
    assert isinstance(layers.get('joined_0'), JoinedHeads) == joined and ('hm' in layers) != joined
    assert list(output) == list(wanted)
    for head in HEADS:
        assert_same(output[head], wanted[head], 1e-4)


class OddHeads(nn.Module):
    """Heads that must not be joined: one reads other maps, one has no ReLU, one's hidden maps are read twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, 2, 1)
        for name in 'abcd':
            head = nn.Sequential(nn.Conv2d(64, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1))
            self.add_module(name, head)
        self.c[1] = nn.Sigmoid()

    def forward(self, images):
        maps = self.stem(images)
        hidden = self.d[1](self.d[0](maps))
        return [{'a': self.a(maps), 'b': self.b(maps + 1), 'c': self.c(maps), 'd': self.d[2](hidden), 'e': hidden}]


def test_other_heads_are_not_joined():
    network, fast, images = OddHeads().eval(), FastNetwork(), torch.randn(1, 3, 16, 16)
    output = fast(network, images)
    assert not any(isinstance(layer, JoinedHeads) for layer in fast.copy.modules())
    with torch.no_grad():
        for head, maps in network(images)[-1].items():
            assert_same(output[head], maps, 1e-4)


class Activated(nn.Module):
    """Convolutions before a ReLU: one that nothing else reads, one that is added to it, one that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU()
        self.once, self.read, self.twice = (nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))
        self.dcn = DCN(64, 64)

    def forward(self, images):
        maps = self.relu(self.once(self.stem(images)))
        before = self.read(maps)
        maps = self.relu(before) + before
        maps = self.relu(self.twice(maps)) + self.twice(maps)
        return [{'hm': self.relu(self.dcn(maps))}]


def test_relu_is_taken_in_where_nothing_else_reads():
    network, fast, images = lively(Activated()), FastNetwork(), torch.randn(1, 3, 16, 16)
    output = fast(network, images)['hm']
    with torch.no_grad():
        assert_same(output, network(images)[-1]['hm'], 1e-4)
    layers = fast_layers(fast)
    assert [layers[name].relu for name in ('once', 'read', 'twice', 'dcn')] == [True, False, False, True]
    assert isinstance(layers['dcn'], FastDCN) and isinstance(layers['dcn.look'], WinogradConv2d)
    assert all(isinstance(layers[name], WinogradConv2d) for name in ('once', 'read', 'twice'))
