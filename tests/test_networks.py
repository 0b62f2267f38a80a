"""The five network families: published names, reference outputs, initial values, shapes, gradients."""

import hashlib
import json
import math
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from conftest import SRC
from lib.models.families import ARCHS, family_of, split_arch
from lib.models.model import create_model
from lib.models.networks import large_hourglass
from lib.models.networks.common import CenterNet, bilinear_kernel
from lib.models.networks.dla import bilinear_upsampling
from lib.models.recognition import infer_facts
from lib.utils.errors import UserError

# Taken from runs of the published code: hashes of "name shape" lists (in order: optimizer states go by it) and
# seven values of each output for the weights of `fill` below.
REFERENCE = json.loads((Path(__file__).parent / 'fixtures' / 'networks.json').read_text())
FAMILIES = ('res_18', 'resdcn_18', 'dlav0_34', 'dla_34', 'hourglass')
CTDET = {'hm': 80, 'wh': 2, 'reg': 2}
MULTI_POSE = {'hm': 1, 'wh': 2, 'hps': 34, 'reg': 2, 'hm_hp': 17, 'hp_offset': 2}
HEADS = {'hm': 3, 'wh': 2, 'hm_hp': 5, 'reg': 2}


pytestmark = pytest.mark.usefixtures('seeded')


@pytest.fixture
def thin_hourglass(monkeypatch):
    """An hourglass of the same form with a thousandth of the weights; the reference outputs test the real one."""
    monkeypatch.setattr(large_hourglass, 'CHANNELS', (8, 8, 12, 12, 12, 16))


def published_head_conv(arch: str) -> int:
    return 256 if 'dla' in arch else 64


def fill(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that depend on their names alone, as the reference outputs were recorded with."""
    for name, tensor in model.state_dict().items():
        if name.endswith('num_batches_tracked'):
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) & 0x7FFFFFFF)
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith('running_var'):
            noise = 1 + 0.1 * noise.abs()
        elif tensor.dim() >= 2:
            noise *= (0.3 if 'conv_offset_mask' in name else 1) / math.sqrt(tensor[0].numel())
        else:
            noise = 0.1 * noise + (name.endswith('weight'))
        tensor.copy_(noise)
    return model


@pytest.mark.parametrize('arch', ARCHS)
def test_names_and_shapes_are_the_published_ones(arch):
    """Published checkpoints (and their optimizer states) find every parameter, in its place."""
    with torch.device('meta'):
        state = create_model(arch, CTDET, published_head_conv(arch)).state_dict()
    lines = [f'{name} {list(tensor.shape)}' for name, tensor in state.items()]
    reference = REFERENCE['state_dict'][arch]
    assert len(lines) == reference['count']
    assert hashlib.sha256('\n'.join(lines).encode()).hexdigest() == reference['sha256']


def test_every_published_arch_is_there():
    """The factory lists the 13 published architectures."""
    assert sorted(ARCHS) == sorted(REFERENCE['state_dict'])


@pytest.mark.parametrize(
    ('arch', 'task', 'heads'), [*((arch, 'ctdet', CTDET) for arch in FAMILIES), ('dla_34', 'multi_pose', MULTI_POSE)]
)
def test_outputs_are_the_published_ones(arch, task, heads):
    """Wiring: the same weights and input give the outputs that the published code gave."""
    model = fill(create_model(arch, heads, published_head_conv(arch))).eval()
    width = 128 if arch == 'hourglass' else 160
    images = torch.randn(1, 3, 128, width, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        outputs = model(images)
    compared = 0
    for stack, maps in enumerate(outputs):
        for head, values in maps.items():
            reference = REFERENCE['forward'][f'{arch}|{task}|{stack}|{head}']
            picked = values.flatten()[[int(i * (values.numel() - 1) / 6) for i in range(7)]]
            tolerance = 1e-3 * max(1, reference['scale'])
            torch.testing.assert_close(picked, torch.tensor(reference['values']), rtol=1e-3, atol=tolerance)
            compared += 1
    assert compared == sum(key.startswith(f'{arch}|{task}|') for key in REFERENCE['forward'])


def check_maps(outputs: list[dict[str, torch.Tensor]], stacks: int, images: torch.Tensor) -> None:
    """One finite map a head of `HEADS` and stack, at stride 4 of the images [B, 3, H, W]."""
    batch, _, height, width = images.shape
    assert len(outputs) == stacks
    for maps in outputs:
        shapes = {head: tuple(values.shape) for head, values in maps.items()}
        assert shapes == {head: (batch, channels, height // 4, width // 4) for head, channels in HEADS.items()}
        assert all(values.isfinite().all() for values in maps.values())


@pytest.mark.parametrize('arch', [arch for arch in ARCHS if arch not in FAMILIES])
def test_deeper_ones_run(arch):
    """The archs that `test_trains` leaves out give maps of the promised shapes."""
    model, images = create_model(arch, HEADS, 8).eval(), torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        check_maps(model(images), 1, images)


@pytest.mark.parametrize('arch', FAMILIES)
def test_trains(arch, thin_hourglass):
    """Maps of the promised shapes; a finite gradient everywhere but in the known dead ends."""
    model = create_model(arch, HEADS, 8).train()
    images = torch.randn(2, 3, model.side_multiple, model.side_multiple)
    outputs = model(images)
    check_maps(outputs, 2 if arch == 'hourglass' else 1, images)
    sum(values.square().mean() for maps in outputs for values in maps.values()).backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert idle == {name for name, _ in model.named_parameters() if name.startswith(model.unused_prefixes)}
    assert all(p.grad.isfinite().all() for name, p in model.named_parameters() if name not in idle)


@pytest.mark.parametrize('arch', [arch for arch in FAMILIES if arch != 'hourglass'])
def test_batches_and_memory_formats_agree(arch):
    """In eval mode an image's output depends neither on its batch nor on the memory format."""
    model = fill(create_model(arch, HEADS, 8)).eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        together = model(images)[0]
        alone = [model(image[None])[0] for image in images]
        model = model.to(memory_format=torch.channels_last)
        last = model(images.to(memory_format=torch.channels_last))[0]
    for head, values in together.items():
        scale = values.abs().max().item()
        for other in (torch.cat([maps[head] for maps in alone]), last[head]):
            torch.testing.assert_close(other, values, rtol=1e-3, atol=1e-4 * scale)


def test_can_be_exported_for_any_size():
    """torch.export takes a network with batch, height and width left open; the size check is no obstacle."""
    model = fill(create_model('resdcn_18', HEADS, 8)).eval()
    sides = {2: torch.export.Dim('h', min=2, max=20) * 32, 3: torch.export.Dim('w', min=2, max=20) * 32}
    program = torch.export.export(
        model, (torch.randn(2, 3, 96, 64),), dynamic_shapes=({0: torch.export.Dim('b'), **sides},)
    )
    images = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images)[0]['hm'], model(images)[0]['hm'])


@pytest.mark.parametrize(('arch', 'size'), [('res_18', (48, 64)), ('dla_34', (64, 40)), ('hourglass', (64, 128))])
def test_other_sizes_are_refused(arch, size, thin_hourglass):
    """An input that the strides don't divide ends in one line that names the multiple and the size."""
    model = create_model(arch, {'hm': 1}, 0)
    with pytest.raises(UserError, match=rf'multiples of {model.side_multiple}.*{size[0]} x {size[1]}'):
        model(torch.zeros(1, 3, *size))


def test_unknown_arch_names_the_valid_ones():
    """A misspelled arch is refused with the list and the nearest."""
    with pytest.raises(UserError, match="res_18, .*hourglass; found 'dla34'; did you mean 'dla_34'"):
        create_model('dla34', CTDET, 64)


def test_heads_without_hidden_layer():
    """head_conv = 0 makes each head one 1x1 convolution, with the same initial values."""
    for arch in ('res_18', 'resdcn_18', 'dlav0_34', 'dla_34'):
        model = create_model(arch, HEADS, 0)
        assert model.hm.weight.shape[2:] == (1, 1)
        assert (model.hm.bias == -2.19).all()
        assert (model.reg.bias == 0).all()


# -- initial values ---------------------------------------------------------------------------------


@pytest.mark.parametrize('arch', FAMILIES)
def test_initial_heatmap_bias(arch, thin_hourglass):
    """Heatmap heads, joints' too, start at -2.19; no other head does."""
    model = create_model(arch, HEADS, 8)
    for head, channels in HEADS.items():
        ends = [
            parameter
            for name, parameter in getattr(model, head).named_parameters()
            if name.endswith('bias') and len(parameter) == channels
        ]
        assert len(ends) == (2 if arch == 'hourglass' else 1)
        for bias in ends:
            assert torch.all(bias == -2.19).item() == ('hm' in head)


@pytest.mark.parametrize(
    ('arch', 'small', 'zero'),
    [
        ('res_18', {'2'}, {'2'}),
        ('resdcn_18', {'0', '2'}, {'0', '2'}),
        ('dlav0_34', {'0', '2'}, {'0', '2'}),
        ('dla_34', set(), {'0', '2'}),
    ],
)
def test_initial_regression_heads(arch, small, zero):
    """Which convolutions of a regression head start from N(0, 0.001) and which biases at zero differs by family."""
    parameters = dict(create_model(arch, {'wh': 16}, 16).wh.named_parameters())
    assert {name.split('.')[0] for name, p in parameters.items() if 'weight' in name and p.std() < 0.0015} == small
    assert all(parameters[f'{name}.weight'].std() > 0.0005 for name in small)
    assert {name.split('.')[0] for name, p in parameters.items() if 'bias' in name and (p == 0).all()} == zero


@pytest.mark.parametrize(
    ('arch', 'layers'),
    [
        ('res_18', ['layer3.0.conv2.weight']),
        ('resdcn_18', ['layer3.0.conv2.weight']),
        ('dlav0_34', ['base.level4.tree1.tree1.conv2.weight', 'dla_up.ida_1.node_2.0.weight']),
        ('dla_34', ['base.level4.tree1.tree1.conv2.weight']),
    ],
)
def test_initial_backbone(arch, layers):
    """Trunks start from N(0, sqrt(2 / (k * k * out)))."""
    state = create_model(arch, HEADS, 8).state_dict()
    for layer in layers:
        weight = state[layer]
        wanted = math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))
        assert weight.std().item() == pytest.approx(wanted, rel=0.02)


def test_initial_upsampling():
    """res: N(0, 0.001); resdcn: only the first output channel bilinear; DLAs: every channel bilinear."""
    weight = create_model('res_18', {'hm': 1}, 8).deconv_layers[0].weight
    assert weight.std().item() == pytest.approx(0.001, rel=0.02)

    weight = create_model('resdcn_18', {'hm': 1}, 8).deconv_layers[3].weight  # [256, 256, 4, 4]
    bilinear = bilinear_kernel(4).expand(256, 4, 4)
    assert torch.equal(weight[:, 0], bilinear)
    assert not torch.equal(weight[:, 1], bilinear)

    for arch, layer, factor in (('dlav0_34', 'dla_up.ida_1.up_2', 2), ('dla_34', 'ida_up.up_2', 4)):
        weight = create_model(arch, {'hm': 1}, 8).get_submodule(layer).weight  # [64, 1, 2 * factor, 2 * factor]
        assert torch.equal(weight, bilinear_kernel(2 * factor).expand_as(weight))


@pytest.mark.parametrize('factor', [2, 4, 8])
def test_bilinear_upsampling(factor):
    """The initial up-sampling is linear interpolation, away from the border."""
    x = torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        got = bilinear_upsampling(3, factor)(x)
    want = F.interpolate(x, scale_factor=factor, mode='bilinear', align_corners=False)
    inner = slice(factor, -factor)
    assert got.shape == want.shape
    torch.testing.assert_close(got[:, :, inner, inner], want[:, :, inner, inner])


@pytest.mark.parametrize('arch', ARCHS)
def test_family_facts_are_the_networks(arch):
    """What options read of a family without building it is what its networks are."""
    family, (_, layers) = family_of(arch), split_arch(arch)
    width = 8
    with torch.device('meta'):
        model = family.build(layers, {'hm': 2}, width)
        assert isinstance(model, CenterNet)
        side = family.side_multiple
        assert model.side_multiple == side
        hidden = [weight.shape[0] for name, weight in model.state_dict().items() if name.startswith('hm')][0]
        assert hidden == (family.fixed_head_conv or width)
        if arch in FAMILIES and not uses_dcn(arch):  # our operator has no meta form
            assert [maps['hm'].shape for maps in model(torch.zeros(1, 3, side, 2 * side))] == [
                (1, 2, side // 4, side // 2)
            ] * family.stacks
    assert family.default_head_conv == (256 if arch == 'hourglass' else published_head_conv(arch))
    assert any(key.startswith(model.backbone_prefixes) for key in model.state_dict())


def uses_dcn(arch: str) -> bool:
    return arch.startswith(('resdcn', 'dla_'))


def test_family_facts_need_no_torch():
    """`--help` and a typo are answered at once: the families and the facts do not import torch."""
    code = 'import sys, lib.models.families, lib.models.facts; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=SRC).returncode == 0


def test_unknown_family():
    """An arch that there is not is refused, wherever its family is asked for."""
    with pytest.raises(UserError, match="found 'res_17'; did you mean 'res_1"):
        family_of('res_17')


def test_hourglass_features(thin_hourglass):
    """`features` keeps its base's contract: the map that the last stack's heads read."""
    model = create_model('hourglass', {'wh': 2}, 64).eval()
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        features = model.features(images)
        assert features.shape == (1, 8, 32, 32)
        torch.testing.assert_close(model.wh[1](features), model(images)[-1]['wh'])


# -- networks recognised by their parameters --------------------------------------------------------

TASKS = {
    'ctdet': (CTDET, {'num_classes': 80, 'cat_spec_wh': False, 'not_reg_offset': False}),
    'exdet': (
        {
            **dict.fromkeys(('hm_t', 'hm_l', 'hm_b', 'hm_r', 'hm_c'), 80),
            **dict.fromkeys(('reg_t', 'reg_l', 'reg_b', 'reg_r'), 2),
        },
        {'num_classes': 80, 'agnostic_ex': False, 'not_reg_offset': False},
    ),
    'ddd': (
        {'hm': 3, 'dep': 1, 'rot': 8, 'dim': 3, 'wh': 2, 'reg': 2},
        {'num_classes': 3, 'not_reg_bbox': False, 'not_reg_offset': False},
    ),
    'multi_pose': (
        MULTI_POSE,
        {
            'num_classes': 1,
            'num_joints': 17,
            'not_hm_hp': False,
            'not_reg_hp_offset': False,
            'not_reg_offset': False,
        },
    ),
}


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('arch', ARCHS)
def test_networks_are_recognised(arch, task):
    """Arch, task, heads, head_conv, classes and joints of each network are read off its names and shapes."""
    heads, facts = TASKS[task]
    with torch.device('meta'):
        state = create_model(arch, heads, published_head_conv(arch)).state_dict()
    width = 256 if arch == 'hourglass' else published_head_conv(arch)
    assert infer_facts(state) == {'arch': arch, 'task': task, 'heads': heads, 'head_conv': width, **facts}


@pytest.mark.parametrize(
    ('heads', 'facts'),
    [
        ({'hm': 3, 'wh': 6, 'reg': 2}, {'task': 'ctdet', 'cat_spec_wh': True, 'not_reg_offset': False}),
        ({'hm': 1, 'wh': 2}, {'task': 'ctdet', 'cat_spec_wh': False, 'not_reg_offset': True}),
        (
            {**dict.fromkeys(('hm_t', 'hm_l', 'hm_b', 'hm_r'), 1), 'hm_c': 5},
            {'task': 'exdet', 'agnostic_ex': True, 'not_reg_offset': True, 'num_classes': 5},
        ),
        ({'hm': 3, 'dep': 1, 'rot': 8, 'dim': 3}, {'task': 'ddd', 'not_reg_bbox': True, 'not_reg_offset': True}),
        (
            {'hm': 1, 'wh': 2, 'hps': 10, 'hm_hp': 5},
            {'task': 'multi_pose', 'num_joints': 5, 'not_hm_hp': False, 'not_reg_hp_offset': True},
        ),
        ({'hm': 1, 'wh': 2, 'hps': 10}, {'task': 'multi_pose', 'not_hm_hp': True, 'not_reg_hp_offset': True}),
        ({'seg': 7}, {'arch': 'res_18', 'heads': {'seg': 7}, 'head_conv': 0}),
    ],
)
def test_options_of_the_heads_are_recognised(heads, facts):
    """Options that shape the heads show in them; heads of no task give the arch alone."""
    with torch.device('meta'):
        state = create_model('res_18', heads, 0).state_dict()
    found = infer_facts(state)
    assert found | facts == found
    assert found['head_conv'] == 0
    assert ('task' in found) == ('task' in facts)


def test_other_networks_are_not_recognised():
    """A part of a network, or another one, gives no facts; batch norm counters are not asked for."""
    with torch.device('meta'):
        state = create_model('dla_34', CTDET, 256).state_dict()
    assert infer_facts({'encoder.weight': torch.zeros(2, 2)}) == {}
    old = {name: value for name, value in state.items() if not name.endswith('num_batches_tracked')}
    assert infer_facts(old)['arch'] == 'dla_34'
    del old['ida_up.node_2.conv.weight']
    assert infer_facts(old) == {}
