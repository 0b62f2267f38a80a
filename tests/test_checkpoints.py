"""Checkpoints: what is written, what is accepted, what is refused, and how a run goes on."""

import functools
import math
import operator
import os
import pickle
import re
import urllib.error
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from lib.models import checkpoint_files
from lib.models.model import (
    checkpoint_facts,
    create_model,
    load_checkpoint,
    load_model,
    save_model,
    unwrap_model,
)
from lib.models.networks import large_hourglass
from lib.models.networks.common import CenterNet, small_normal
from lib.utils.errors import UserError


class TinyNet(CenterNet):
    """A trunk of one layer, for tests that need no backbone."""

    backbone_prefixes = ('trunk.',)

    def __init__(self, heads: dict[str, int], head_conv: int = 4, width: int = 4):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.BatchNorm2d(width))
        # Named so that its parameters begin like DataParallel's prefix does.
        self.module_list = nn.ModuleList([nn.Conv2d(width, width, 1)])
        self.add_heads(heads, width, head_conv, small_normal)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.module_list[0](self.trunk(images))


HEADS = {'hm': 2, 'wh': 2}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'model.pth'


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One training step, so that the optimizer has a state."""
    optimizer.zero_grad()
    sum(values.square().mean() for values in model(torch.randn(2, 3, 32, 32))[0].values()).backward()
    optimizer.step()


def trained(heads: dict[str, int] | None = None, **options) -> tuple[TinyNet, torch.optim.Optimizer]:
    """A TinyNet after one step, and its optimizer."""
    model = TinyNet(heads or HEADS, **options)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    step(model, optimizer)
    return model, optimizer


def same_state(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


# -- there and back ---------------------------------------------------------------------------------


def test_round_trip_goes_on_exactly(path):
    """A run that is saved and resumed takes the very steps that it would have taken."""
    model, optimizer = trained()
    save_model(path, 7, model, optimizer)
    other = TinyNet(HEADS)
    other, other_optimizer, epoch = load_model(
        other, path, torch.optim.Adam(other.parameters(), 1e-3), resume=True, lr=1e-3, lr_step=[90]
    )
    assert epoch == 7
    assert same_state(model, other)
    for pair in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(1)
        step(*pair)
    assert same_state(model, other)


def test_returns(path):
    """The model alone without an optimizer; (model, optimizer, 0) with one but without resume."""
    model, optimizer = trained()
    save_model(path, 7, model, optimizer)
    assert load_model(model, path) is model
    assert load_model(model, path, optimizer) == (model, optimizer, 0)


def test_wrapped_models(path):
    """DataParallel and torch.compile leave no trace in a file, and a wrapped model can be filled."""
    model, _ = trained()
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.compile(nn.DataParallel(model))):
        assert unwrap_model(wrapped) is model
        save_model(path, 1, wrapped)
        assert load_checkpoint(path)['state_dict'].keys() == model.state_dict().keys()
    other = nn.DataParallel(TinyNet(HEADS))
    assert load_model(other, path) is other
    assert same_state(model, other.module)


def test_facts(path):
    """Facts come back as plain data, NumPy's too; None and keys that are no facts are for load_checkpoint only."""
    model, optimizer = trained()
    facts = {
        'task': 'ctdet',
        'heads': HEADS,
        'mean': np.float32([0.5, 0.25, 0.125]),
        'best': np.float64(1.5),
        'class_names': ['a', 'b'],
        'options': {'lr': 1e-3, 'lr_step': [90, 120], 'dataset': path.parent, 'heads': HEADS, 'nothing': None},
    }
    more = {'validated': None, 'rng': {'torch': torch.get_rng_state(), 'python': (3, (1, 2), None)}}
    save_model(path, 7, model, optimizer, **facts, **more)
    read = checkpoint_facts(path)
    options = {**facts['options'], 'dataset': str(path.parent)}
    assert read == {**facts, 'mean': [0.5, 0.25, 0.125], 'best': 1.5, 'options': options}
    assert torch.equal(load_checkpoint(path)['rng']['torch'], torch.get_rng_state())

    save_model(path, 7, model, optimizer)
    assert checkpoint_facts(path) == {}


def test_facts_of_other_kinds_are_refused(path):
    """What weights-only loading could not read back is not written in the first place."""
    with pytest.raises(TypeError, match="'opt'.*Linear"):
        save_model(path, 1, TinyNet(HEADS), opt=[nn.Linear(1, 1)])
    assert not path.exists()


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    """Whatever ends a save, the old checkpoint is still whole and nothing else lies about."""
    model, _ = trained()
    save_model(path, 1, model)
    before = path.read_bytes()

    def half_written(checkpoint, file):
        file.write(b'half a checkpoint')
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', half_written)
    with pytest.raises(KeyboardInterrupt):
        save_model(path, 2, model)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ['model.pth']


# -- learning rate and optimizer at resume ----------------------------------------------------------


@pytest.mark.parametrize(('epoch', 'rate'), [(0, 1.0), (89, 1.0), (90, 0.1), (119, 0.1), (120, 0.01), (140, 0.01)])
def test_resumed_learning_rate(path, epoch, rate):
    """lr x 0.1 for each entry of lr_step that the checkpoint's epoch has reached."""
    model, optimizer = trained()
    save_model(path, epoch, model, optimizer)
    _, optimizer, start = load_model(model, path, optimizer, resume=True, lr=2e-4, lr_step=[90, 120])
    assert start == epoch
    assert optimizer.param_groups[0]['lr'] == pytest.approx(2e-4 * rate)


def published_like(optimizer: dict) -> dict:
    """The optimizer also lists two parameters that the model hasn't, as the published dla ones do."""
    optimizer['param_groups'][0]['params'] += [1000, 1001]
    return optimizer


def of_another_shape(optimizer: dict) -> dict:
    """A moment of another number of classes."""
    optimizer['state'][0]['exp_avg'] = torch.zeros(5, 5)
    return optimizer


def changed(*keys, value) -> Callable[[dict], dict]:
    """Puts `value` under a path of keys of the optimizer's state."""

    def spoil(optimizer: dict) -> dict:
        functools.reduce(operator.getitem, keys[:-1], optimizer)[keys[-1]] = value
        return optimizer

    return spoil


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (published_like, 'it is of 16 parameters, the network has 14'),
        (of_another_shape, r'parameter 0: exp_avg has the shape \[5, 5\], not \[4, 3, 4, 4\]'),
        (lambda optimizer: [], 'expected a dict'),
        (lambda optimizer: None, 'has no optimizer state'),
        (changed('state', value=[]), 'expected a dict'),
        (changed('param_groups', value=[1]), 'param_groups'),
        (changed('param_groups', 0, 'params', value=[[0]]), 'by number'),
        (changed('param_groups', 0, 'params', value=[0] * 14), 'a parameter twice'),
        (changed('state', 0, value=3), 'parameter 0: its state is not a dict'),
        (changed('state', 0, value={'step': 1}), 'parameter 0: its state lacks exp_avg, exp_avg_sq'),
        # The fused Adam reads and writes past a scalar.
        (changed('state', 0, 'exp_avg', value=torch.zeros(())), r'exp_avg has the shape \[\]'),
        (changed('state', 0, 'exp_avg', value='x'), 'exp_avg is not a tensor'),
        (changed('state', 0, 'exp_avg_sq', value=torch.full((4, 3, 4, 4), -1.0)), 'exp_avg_sq holds'),
        (changed('state', 0, 'exp_avg', value=torch.full((4, 3, 4, 4), math.nan)), 'exp_avg holds'),
        (changed('state', 0, 'exp_avg', value=torch.zeros(4, 3, 4, 4, dtype=torch.int8)), 'exp_avg is not a tensor'),
        (changed('state', 0, 'step', value='x'), 'step is not a tensor'),
        (changed('state', 0, 'step', value=torch.ones(3)), r'step has the shape \[3\]'),
        (changed('state', 0, 'step', value=10**400), 'step is not a tensor'),
    ],
)
def test_optimizer_state_that_does_not_fit(path, spoil, reason, capsys):
    """It is left out with the reason, the epoch still counts, and training can go on."""
    model, optimizer = trained()
    torch.save({'epoch': 100, 'state_dict': model.state_dict(), 'optimizer': spoil(optimizer.state_dict())}, path)
    fresh = torch.optim.Adam(model.parameters(), 1e-3)
    _, fresh, start = load_model(model, path, fresh, resume=True, lr=1e-3, lr_step=[90])
    assert (start, len(fresh.state)) == (100, 0)
    assert fresh.param_groups[0]['lr'] == pytest.approx(1e-4)
    said = capsys.readouterr().out
    assert 'the optimizer starts anew' in said
    assert re.search(reason, said)
    step(model, fresh)


@pytest.mark.parametrize('fused', [False, True])
def test_optimizer_state_in_another_layout(path, fused):
    """A saved state of other strides, or of one value for all, is used as if it had the parameter's."""
    model, optimizer = trained()
    saved = optimizer.state_dict()
    weight = max(saved['state'], key=lambda index: saved['state'][index]['exp_avg'].ndim)
    saved['state'][weight]['exp_avg_sq'] = torch.full((1,), 0.5).expand(saved['state'][weight]['exp_avg_sq'].shape)
    saved['state'][weight]['exp_avg'] = saved['state'][weight]['exp_avg'].to(memory_format=torch.channels_last)
    torch.save({'epoch': 1, 'state_dict': model.state_dict(), 'optimizer': saved}, path)
    fresh = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)
    load_model(model, path, fresh, resume=True)
    for parameter, state in fresh.state.items():
        assert state['exp_avg'].stride() == state['exp_avg_sq'].stride() == parameter.stride()
    parameter = list(model.parameters())[weight]
    assert torch.equal(fresh.state[parameter]['exp_avg'], saved['state'][weight]['exp_avg'])
    step(model, fresh)


def test_optimizer_options_stay_its_own(path):
    """Options of the groups are the program's: what a file says of them, or leaves out, has no effect."""
    model, optimizer = trained()
    saved = optimizer.state_dict()
    saved['param_groups'] = [{'params': saved['param_groups'][0]['params'], 'betas': 'x', 'lr': [1]}]
    torch.save({'epoch': 3, 'state_dict': model.state_dict(), 'optimizer': saved}, path)
    fresh = torch.optim.Adam(model.parameters(), 2e-3)
    load_model(model, path, fresh, resume=True)
    assert fresh.param_groups[0]['lr'] == 2e-3
    assert torch.equal(fresh.state[model.trunk[0].weight]['exp_avg'], saved['state'][0]['exp_avg'])
    step(model, fresh)


# -- files that fit in part -------------------------------------------------------------------------


def test_other_classes_keep_the_trunk(path, capsys):
    """Fine-tuning: another number of classes re-starts the last layer of that head, names it and the option."""
    model, _ = trained()
    save_model(path, 1, model)
    other = TinyNet({'hm': 5, 'wh': 2})
    initial = other.hm[2].weight.clone()
    load_model(other, path)
    assert torch.equal(other.trunk[0].weight, model.trunk[0].weight)
    assert torch.equal(other.hm[0].weight, model.hm[0].weight)
    assert torch.equal(other.hm[2].weight, initial)
    assert (other.hm[2].bias == -2.19).all()
    said = capsys.readouterr().out
    for name in ('hm.2.weight [2, 4, 1, 1] -> [5, 4, 1, 1]', 'hm.2.bias [2] -> [5]'):
        assert said.count(name) == 1
    assert 'wh' not in said
    assert re.search('likely cause: another --dataset.*$', said.strip())


@pytest.mark.parametrize(
    ('heads', 'options', 'cause'),
    [
        ({'hm': 5, 'wh': 2}, {}, '--dataset'),
        (HEADS, {'head_conv': 8}, '--head_conv'),
        (HEADS, {'head_conv': 0}, '--head_conv'),
        ({'hm': 2, 'wh': 2, 'dep': 1}, {}, 'another task'),
        (HEADS, {'width': 6}, r'--arch \(the file is of tiny_4\)'),
    ],
)
def test_likely_cause_and_strictness(path, heads, options, cause, capsys):
    """The option to look at is named, whether the misfit is reported or (test, demo) refused."""
    save_model(path, 1, TinyNet(HEADS), arch='tiny_4')
    model = TinyNet(heads, **options)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(UserError, match=f'unfilled.*{cause}'):
        load_model(model, path, strict=True)
    assert all(map(torch.equal, before, model.parameters()))
    load_model(model, path)
    assert re.search(cause, capsys.readouterr().out)


def test_missing_and_unknown_are_named_once(path, capsys):
    """Each parameter that the file lacks or has too many appears once in the summary."""
    save_model(path, 1, TinyNet({'hm': 2, 'dep': 1}))
    load_model(TinyNet({'hm': 2, 'wh': 2}), path)
    said = capsys.readouterr().out
    names = [f'{head}.{layer}' for head in ('wh', 'dep') for layer in ('0.weight', '0.bias', '2.weight', '2.bias')]
    assert [said.count(name) for name in names] == [1] * len(names)
    assert 'trunk' not in said


def test_unknown_alone_passes_strictness(path, capsys):
    """A file with more than the network needs serves test and demo; what is dropped is named."""
    model = TinyNet({**HEADS, 'dep': 1})
    save_model(path, 1, model)
    other = TinyNet(HEADS)
    load_model(other, path, strict=True)
    assert torch.equal(other.hm[0].weight, model.hm[0].weight)
    assert 'dep.0.weight' in capsys.readouterr().out


def test_nothing_fits(path):
    """A file of something else is refused; counters of batch norms, which always fit, are nothing."""
    state = {'trunk.1.num_batches_tracked': torch.tensor(3), 'encoder.weight': torch.zeros(3)}
    torch.save({'epoch': 1, 'state_dict': state}, path)
    with pytest.raises(UserError, match='nothing in .* fits the network.*--arch'):
        load_model(TinyNet(HEADS), path)


def test_names(path, capsys):
    """A leading `module.` goes, `module_list.` stays; files without batch norm counters are whole."""
    model, _ = trained()
    state = {f'module.{k}': v for k, v in model.state_dict().items() if not k.endswith('num_batches_tracked')}
    torch.save({'epoch': 3, 'state_dict': state}, path)
    other = load_model(TinyNet(HEADS), path, strict=True)
    assert torch.equal(other.module_list[0].weight, model.module_list[0].weight)
    assert capsys.readouterr().out.splitlines() == [f"loaded '{path}', epoch 3"]


def test_bare_state_dict(path):
    """A file that is only a state dict is a checkpoint of epoch 0."""
    model, _ = trained()
    torch.save(model.state_dict(), path)
    assert load_checkpoint(path)['epoch'] == 0
    assert same_state(load_model(TinyNet(HEADS), path, strict=True), model)


def test_published_dla_checkpoint(path, capsys):
    """Old format, `module.` names, the classifier's two leftovers: loads without a word about them."""
    heads = {'hm': 80, 'wh': 2, 'reg': 2}
    model = create_model('dla_34', heads, 256)
    state = {f'module.{name}': value for name, value in model.state_dict().items()}
    state |= {'module.base.fc.weight': torch.zeros(1000, 512, 1, 1), 'module.base.fc.bias': torch.zeros(1000)}
    published = {'epoch': 140, 'state_dict': state, 'optimizer': {'state': {}, 'param_groups': []}}
    torch.save(published, path, _use_new_zipfile_serialization=False)

    other = create_model('dla_34', heads, 256)
    assert load_model(other, path, strict=True) is other
    assert same_state(model, other)
    assert capsys.readouterr().out.splitlines() == [f"loaded '{path}', epoch 140"]
    assert checkpoint_facts(path) == {
        'task': 'ctdet',
        'arch': 'dla_34',
        'heads': heads,
        'head_conv': 256,
        'num_classes': 80,
        'cat_spec_wh': False,
        'not_reg_offset': False,
    }

    own = create_model('dla_34', {**heads, 'hm': 3}, 256)
    load_model(own, path)
    assert torch.equal(own.base.level5.root.conv.weight, model.base.level5.root.conv.weight)
    said = capsys.readouterr().out
    assert 'hm.2.weight [80, 256, 1, 1] -> [3, 256, 1, 1]' in said
    assert 'fc' not in said


def test_dlav0_fills_its_classifier(path):
    """In dlav0 `base.fc` is a parameter like any other."""
    model = create_model('dlav0_34', {'hm': 1}, 0)
    save_model(path, 1, model)
    other = load_model(create_model('dlav0_34', {'hm': 1}, 0), path, strict=True)
    assert torch.equal(other.base.fc.weight, model.base.fc.weight)


# -- bad files --------------------------------------------------------------------------------------


class Code:
    """Its pickle would run a command."""

    def __reduce__(self):
        return os.system, ('exit 1',)


def whole_file(path, **options) -> bytes:
    torch.save({'epoch': 1, 'state_dict': TinyNet(HEADS).state_dict()}, path, **options)
    return path.read_bytes()


def write_cut(path):
    path.write_bytes(whole_file(path)[:-200])


def write_cut_early(path):
    path.write_bytes(whole_file(path)[:100])


def write_cut_old_format(path):
    path.write_bytes(whole_file(path, _use_new_zipfile_serialization=False)[:-20])


def write_code(path):
    torch.save({'epoch': 1, 'state_dict': TinyNet(HEADS).state_dict(), 'more': Code()}, path)


def write_module(path):
    torch.save(nn.Linear(2, 2), path)


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (lambda path: None, 'no such checkpoint'),
        (lambda path: path.mkdir(), 'Is a directory'),
        (lambda path: path.write_bytes(b''), 'not a checkpoint, or was cut short'),
        (lambda path: path.write_text('<!DOCTYPE html>\n'), 'not a checkpoint, or was cut short'),
        (lambda path: path.write_bytes(pickle.dumps(Code())), 'not a checkpoint, or was cut short'),
        (write_cut, 'cut short'),
        (write_cut_early, 'cut short'),
        (write_cut_old_format, 'cut short'),
        (write_code, r'holds code \(\w+\.system\)'),
        (write_module, r'holds code \(torch.nn.modules.linear.Linear\)'),
        (lambda path: torch.save([1, 2], path), 'expected a dict.*found a list'),
        (lambda path: torch.save({'epoch': 1, 'weights': {}}, path), 'found the keys epoch, weights'),
        (lambda path: torch.save({}, path), 'not a checkpoint'),
        (lambda path: torch.save({'state_dict': {'a': 1}}, path), 'not a checkpoint'),
    ],
)
def test_bad_files(path, write, message):
    """Whatever is wrong with a file, it is one line that names the file and what is wrong."""
    write(path)
    for read in (load_checkpoint, checkpoint_facts, lambda path: load_model(TinyNet(HEADS), path)):
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert '\n' not in str(caught.value)


# -- checkpoints of other programs ------------------------------------------------------------------


def lightning(state: dict) -> dict:
    return {'epoch': 2, 'state_dict': {f'model.{name}': value for name, value in state.items()}, 'loops': {}}


def compiled_in_part(state: dict) -> dict:
    return {f'module._orig_mod.{name.replace("trunk.", "trunk._orig_mod.")}': value for name, value in state.items()}


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: {'model': state, 'epoch': 2},
        lambda state: {'ema': state, 'model': {name: value * 0 for name, value in state.items()}},
        lambda state: {'ema': {'module': state, 'updates': 5}, 'epoch': 2},
        lambda state: {'model': {'state_dict': state}},
        lightning,
        compiled_in_part,
    ],
)
def test_weights_of_other_programs(path, wrap):
    """Weights are found under the keys of other programs and the prefixes of theirs, averaged ones first."""
    model, _ = trained()
    torch.save(wrap(model.state_dict()), path)
    assert same_state(load_model(TinyNet(HEADS), path, strict=True), model)


@pytest.mark.parametrize('name', ['model.safetensors', 'model.pth'])
def test_safetensors(tmp_path, name):
    """A safetensors file loads, whatever it is called; its facts show in its shapes."""
    model = create_model('res_18', {'hm': 3, 'wh': 2}, 0)
    path = tmp_path / name
    safetensors.torch.save_file(model.state_dict(), path)
    assert checkpoint_facts(path)['heads'] == {'hm': 3, 'wh': 2}
    other = load_model(create_model('res_18', {'hm': 3, 'wh': 2}, 0), path, strict=True)
    assert same_state(model, other)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match='safetensors'):
        load_checkpoint(path)


def test_one_name_twice(path):
    """Prefixes that leave one name for two tensors are refused."""
    torch.save({'a.weight': torch.zeros(1), 'module.a.weight': torch.ones(1)}, path)
    with pytest.raises(UserError, match="'a.weight' twice"):
        load_checkpoint(path)


def test_facts_are_completed(path):
    """Facts that a checkpoint lacks are read off its network; those that it has stay."""
    model = create_model('res_18', {'hm': 3, 'wh': 6}, 0)
    save_model(path, 1, model, arch='res_18', class_names=['a', 'b', 'c'], mean=[0.5] * 3)
    facts = checkpoint_facts(path)
    assert facts['class_names'] == ['a', 'b', 'c']
    assert (facts['task'], facts['head_conv'], facts['cat_spec_wh'], facts['num_classes']) == ('ctdet', 0, True, 3)


def test_old_hourglass_facts(path):
    """Hourglass checkpoints that recorded a head_conv of 64, which did not act, have the 256 of their heads."""
    save_model(path, 1, TinyNet(HEADS), task='ctdet', arch='hourglass', heads=HEADS, head_conv=64)
    assert checkpoint_facts(path)['head_conv'] == 256


def test_an_old_file_is_read_once(path, monkeypatch):
    """A file of PyTorch before 1.6 is read whole for its facts, and not again when it is loaded, unless it changed."""
    model, _ = trained()
    torch.save({'epoch': 3, 'state_dict': model.state_dict()}, path, _use_new_zipfile_serialization=False)
    reads, read = [], torch.load
    monkeypatch.setattr(torch, 'load', lambda *args, **options: reads.append(args) or read(*args, **options))
    checkpoint_facts(path)
    checkpoint_facts(path)
    assert same_state(load_model(TinyNet(HEADS), path), model)
    assert len(reads) == 1
    assert not checkpoint_files.waiting  # nothing is kept for longer
    checkpoint_facts(path)
    torch.save({'epoch': 4, 'state_dict': model.state_dict()}, path, _use_new_zipfile_serialization=False)
    os.utime(path, ns=(1, 1))
    assert load_checkpoint(path)['epoch'] == 4


# -- values that no network can compute with --------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'value', 'found'),
    [
        ('trunk.0.weight', math.nan, 'NaN'),
        ('hm.2.bias', -math.inf, 'infinite'),
        ('trunk.1.running_var', -1.0, 'negative variances'),
    ],
)
def test_values_that_are_not_finite(path, name, value, found):
    """They are refused with the parameter's name, in training's start as in test and demo, and nothing is loaded."""
    model, _ = trained()
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state[name].view(-1)[0] = value
    torch.save({'epoch': 1, 'state_dict': state}, path)
    other = TinyNet(HEADS)
    before = [parameter.clone() for parameter in other.parameters()]
    for strict in (False, True):
        with pytest.raises(UserError, match=f"'{name}' holds {found}"):
            load_model(other, path, strict=strict)
    assert all(map(torch.equal, before, other.parameters()))


def test_too_large_for_float32(path):
    """A float64 weight that becomes infinite in the network is refused as well."""
    model, _ = trained()
    torch.save({**model.state_dict(), 'hm.2.bias': torch.full((2,), 1e300, dtype=torch.float64)}, path)
    with pytest.raises(UserError, match="'hm.2.bias' holds infinite"):
        load_model(TinyNet(HEADS), path)


# -- damaged and hostile files ----------------------------------------------------------------------


@pytest.mark.parametrize('where', ['data/0', 'data.pkl', 'version'])
def test_a_flipped_bit(path, where):
    """One wrong bit anywhere in the archive is found before use, and its member named."""
    whole_file(path)
    with zipfile.ZipFile(path) as archive:
        (member,) = [each for each in archive.infolist() if each.filename.endswith(f'/{where}')]
        content = archive.read(member)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{where}' is damaged"):
        load_model(TinyNet(HEADS), path)


def test_a_file_without_checksums(path):
    """torch.save can be asked to leave the checksums out: such a file loads."""
    model, _ = trained()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'state_dict': model.state_dict()}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same_state(load_model(TinyNet(HEADS), path), model)


def write_compressed(path):
    """The members of a checkpoint, a long run of zeros among them, compressed."""
    torch.save({'state_dict': {'a': torch.zeros(1_000_000)}}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_twice(path):
    whole_file(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, 'a') as archive:
        warnings.simplefilter('ignore')
        archive.writestr(archive.namelist()[0], b'')


def write_allocation(path):
    """A constructor that could be asked for a terabyte in a few bytes."""
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'x': bytearray(b'12')}, path)


def write_many(path, **options):
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'x': [{} for _ in range(300_000)]}, path, **options)


def write_long_storage(path):
    """Its pickle says that the tensor is longer than what the file holds."""
    torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            if name.endswith('data.pkl'):
                content = content.replace(b'M\xe8\x03', b'J\xff\xff\xff\x7f')  # 1000 as an int16, 2**31 - 1
            archive.writestr(name, content)


def write_quantized(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # newer releases of PyTorch deprecate them
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    torch.save({'state_dict': {'a': quantized}}, path)


def saves(value):
    return lambda path: torch.save({'state_dict': {'a': torch.zeros(1), 'b': value}}, path)


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (write_compressed, 'is compressed'),
        (write_twice, 'is there twice'),
        (write_allocation, r'holds code \((__builtin__|builtins).bytearray\)'),
        (write_many, 'too much beside its tensors|bytes beside its tensors'),
        (lambda path: write_many(path, _use_new_zipfile_serialization=False), 'too much beside its tensors'),
        (write_long_storage, 'not a checkpoint, or was cut short'),
        (saves(torch.eye(2).to_sparse()), 'sparse, quantized or meta'),
        (saves(torch.empty(2, device='meta')), 'sparse, quantized or meta'),
        (write_quantized, 'sparse, quantized or meta'),
        (saves(torch.ones(2, dtype=torch.complex64)), "'b' is not a dense tensor of real numbers"),
        (lambda path: torch.save({'state_dict': {'a\n\ud800': torch.zeros(1)}}, path), 'is no name of a parameter'),
        (lambda path: torch.save({'epoch': '3', 'state_dict': {'a': torch.zeros(1)}}, path), "epoch is '3', expected"),
        (lambda path: torch.save({'epoch': -3, 'state_dict': {'a': torch.zeros(1)}}, path), 'epoch is -3, expected'),
        (os.mkfifo, 'found a pipe or device'),
        (lambda path: path.symlink_to('/dev/zero'), 'found a pipe or device'),
    ],
)
def test_hostile_files(path, write, message):
    """Each is refused at once, in one line, by the facts as by loading."""
    write(path)
    for read in (checkpoint_facts, lambda path: load_model(TinyNet(HEADS), path)):
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert str(caught.value).isprintable()


def nested(depth: int) -> list:
    """Lists in lists, each twice in the next: 2 ** depth leaves in a few bytes."""
    value = [1]
    for _ in range(depth):
        value = [value, value]
    return value


def cycle() -> dict:
    value: dict = {}
    value['self'] = value
    return value


WRONG_FACTS = {
    'task': [3, 'x' * 2000, '\ud800'],
    'arch': ['dla_35', ['dla_34'], '\ud800'],
    'heads': [{}, {'hm': 0}, {'hm': 10**9}, {3: 3}, [['hm', 3]], nested(40), cycle()],
    'head_conv': ['64', -1, 10**6, True, 64.0],
    'down_ratio': [[], 2],
    'mse_loss': [1, 'no'],
    'class_names': [5, [], 'person', [1, 2], ['a', '\udc80'], nested(40)],
    'mean': ['x', [0.5], [0.5, 0.5, math.nan], [0.5, 0.5, 10**400]],
    'std': [[1.0], [1, 1, 0], [1, 1, -1]],
    'input_h': ['128', 320_000, 0, -512, 512.0, 10**500],
    'input_w': [[512], 2**63],
    'num_joints': [0, 10**6, '17'],
    'flip_idx': [[1, 2], [[1]], [[1, 2, 3]], [[0, -1]], [[0, 10**6]], nested(40)],
    'skeleton': [5, [['a', 'b']]],
    'iteration': [-1, '5', 1.5],
    'batch_size': ['4'],
    'best': [math.nan, '0.5', [0.5], 10**400],
    'metric': [5],
    'validated': [-1],
    'options': [[], {1: 2}, {'lr': math.nan}, {'lr': nested(40)}, {'lr': cycle()}, {'lr': torch.zeros(1)}],
}


@pytest.mark.parametrize('name', WRONG_FACTS)
def test_wrong_facts(path, name):
    """A fact of another type or size is named in one line, and costs no time."""
    for value in WRONG_FACTS[name]:
        torch.save({'state_dict': {'a': torch.zeros(1)}, name: value}, path)
        with pytest.raises(UserError, match=f'its {name} is .*, expected ') as caught:
            checkpoint_facts(path)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
        load_checkpoint(path)  # the weights alone can be used


def test_joints_beside_their_number(path):
    """Pairs of joints name joints that there are."""
    facts = {'num_joints': 3, 'flip_idx': [[0, 2]], 'skeleton': [[0, 3]]}
    torch.save({'state_dict': {'a': torch.zeros(1)}, **facts}, path)
    with pytest.raises(UserError, match='its skeleton names joint 3, but it has 3 joints'):
        checkpoint_facts(path)


def test_unknown_keys_cost_nothing(path):
    """Keys that are no facts are ignored, whatever they hold."""
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'extra': nested(40), 'more': cycle(), 3: 4, 'task': 'ddd'}, path)
    assert checkpoint_facts(path) == {'task': 'ddd'}


# -- pretrained backbones ------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch.hub cache, and no network."""

    def refuse(url, *args):
        raise urllib.error.URLError('no network')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    return tmp_path / 'checkpoints'


@pytest.mark.parametrize(('arch', 'file'), [('res_18', 'resnet18-f37072fd.pth'), ('dla_34', 'dla34-ba72cf86.pth')])
def test_weights_that_cannot_be_fetched(hub, arch, file):
    """The error names the file, where to put it, and the way without."""
    with pytest.raises(UserError, match=f'no network.*put .*{re.escape(str(hub / file))}.*--pretrained none'):
        create_model(arch, {'hm': 1}, 0, pretrained='imagenet')


@pytest.mark.parametrize(
    ('arch', 'file', 'prefix'),
    [('resdcn_18', 'resnet18-f37072fd.pth', ''), ('dla_34', 'dla34-ba72cf86.pth', 'base.')],
)
def test_imagenet_weights_from_the_cache(hub, arch, file, prefix):
    """Weights already in the cache fill the trunk and nothing else; dead ends may be missing."""
    model = create_model(arch, {'hm': 1}, 0)
    weights = {
        name.removeprefix(prefix): torch.full_like(value, 7)
        for name, value in model.state_dict().items()
        if name.startswith(model.backbone_prefixes) and not name.startswith(model.unused_prefixes)
    }
    hub.mkdir()
    torch.save({**weights, 'fc.bias': torch.zeros(1000)}, hub / file)
    state = create_model(arch, {'hm': 1}, 0, pretrained='imagenet').state_dict()
    filled = {name for name, value in state.items() if (value == 7).all()}
    assert filled == {prefix + name for name in weights}

    del weights[next(iter(weights))]
    torch.save(weights, hub / file)
    with pytest.raises(UserError, match='does not fit the backbone.*missing'):
        create_model(arch, {'hm': 1}, 0, pretrained='imagenet')


def test_trunk_from_a_file(path):
    """--pretrained FILE takes the trunk, not the heads, of another checkpoint; another family's is refused."""
    model = create_model('res_18', {'hm': 2}, 0)
    save_model(path, 1, model)
    other = create_model('res_18', {'hm': 2}, 0, pretrained=str(path))
    assert torch.equal(other.layer4[1].conv2.weight, model.layer4[1].conv2.weight)
    assert not torch.equal(other.hm.weight, model.hm.weight)
    with pytest.raises(UserError, match='does not fit the backbone'):
        create_model('res_34', {'hm': 2}, 0, pretrained=str(path))
    with pytest.raises(UserError, match="no such checkpoint: 'imagnet'"):
        create_model('res_18', {'hm': 2}, 0, pretrained='imagnet')


def test_no_imagenet_weights_for_the_hourglass(hub, monkeypatch, capsys):
    """Hourglass has none: it starts from random weights and says so."""
    monkeypatch.setattr(large_hourglass, 'get_large_hourglass_net', lambda layers, heads, width: TinyNet(heads, width))
    create_model('hourglass', HEADS, 4, pretrained='imagenet')
    assert 'there are no ImageNet weights' in capsys.readouterr().out
