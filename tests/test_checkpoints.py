"""Checkpoints: what is written, what is accepted, what is refused, and how a run goes on."""

import os
import pickle
import re
import urllib.error

import numpy as np
import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize('spoil', [published_like, of_another_shape, lambda optimizer: [], lambda optimizer: None])
def test_optimizer_state_that_does_not_fit(path, spoil, capsys):
    """It is left out, said so, the epoch still counts, and training can go on."""
    model, optimizer = trained()
    torch.save({'epoch': 100, 'state_dict': model.state_dict(), 'optimizer': spoil(optimizer.state_dict())}, path)
    fresh = torch.optim.Adam(model.parameters(), 1e-3)
    _, fresh, start = load_model(model, path, fresh, resume=True, lr=1e-3, lr_step=[90])
    assert (start, len(fresh.state)) == (100, 0)
    assert fresh.param_groups[0]['lr'] == pytest.approx(1e-4)
    assert 'the optimizer starts anew' in capsys.readouterr().out
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


# -- pretrained trunks ------------------------------------------------------------------------------


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
