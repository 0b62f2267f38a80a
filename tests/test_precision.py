"""Mixed precision (`--amp`): what computes in the short type and what does not, and how the type is chosen."""

import copy

import pytest
import torch

from helpers import batch_of, options
from lib.datasets.toy import make_toy_data
from lib.models.facts import FACTS
from lib.models.networks.common import CenterNet, conv_bn_relu, small_normal
from lib.models.networks.dcn import DCN
from lib.opts import opts
from lib.trains import precision
from lib.trains.base_trainer import TaskLoss
from lib.trains.precision import Precision, choose_precision, measure
from lib.trains.train_factory import train_factory
from lib.utils.errors import UserError
from lib.utils.precision import check_computes_in, faster_dtype

TINY = ['--head_conv', '0', '--input_res', '64', '--batch_size', '4', '--lr', '1e-3']
SHORT = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


class TinyDCN(CenterNet):
    """A backbone, a deformable convolution and heads, of a few thousand weights."""

    backbone_prefixes = ('base.',)

    def __init__(self, heads):
        super().__init__()
        self.base = torch.nn.Sequential(conv_bn_relu(3, 8, 3, 2), conv_bn_relu(8, 16, 3, 2))
        self.neck = torch.nn.Sequential(DCN(16, 16), torch.nn.BatchNorm2d(16), torch.nn.ReLU())
        self.add_heads(heads, 16, 0, small_normal)
        torch.nn.init.normal_(self.neck[0].conv_offset_mask.weight, std=0.1)

    def features(self, images):
        return self.neck(self.base(images))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A ctdet toy folder: 8 images to train on, 1 to validate, 64 px."""
    return str(make_toy_data(tmp_path_factory.mktemp('data') / 'toy', train=8, val=1, size=64))


@pytest.fixture
def ratio(monkeypatch):
    """A dict whose `value` measuring finds: how long a step takes in the short type; and whose `asked` counts."""
    found = {'value': 0.5, 'asked': 0}

    def told(*args):
        found['asked'] += 1
        return found['value']

    monkeypatch.setattr(precision, 'measure', told)
    monkeypatch.setattr('lib.utils.precision.cpu_has_float16', lambda: True)
    return found


def trainer_of(data, *args):
    """A trainer of a `TinyDCN` from the weights of a seed, and a batch of 4 images."""
    opt, dataset = options('ctdet', data, *TINY, *map(str, args))
    samples = dataset(opt, 'train')
    torch.manual_seed(0)
    network = TinyDCN(opt.heads)
    trainer = train_factory['ctdet'](opt, network, torch.optim.Adam(network.parameters(), opt.lr, fused=True))
    trainer.start_precision()
    if trainer.precision.scaler.is_enabled():  # at its default the first steps would overflow
        trainer.precision.scaler.load_state_dict({**trainer.precision.scaler.state_dict(), 'scale': 8.0})
    trainer.set_device(opt.device)
    trainer.start_learning()
    return trainer, batch_of(*(samples[i] for i in range(4)))


def differ(a, b):
    """Whether two state dicts hold other values."""
    return any(not torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------ what it does


@pytest.mark.parametrize('amp', list(SHORT))
def test_losses_and_weights_are_float32(data, ratio, monkeypatch, amp):
    """The network computes in the type; the loss gets float32 outside autocast; the step's weights are near float32's.

    They are others, so that the option acts, and all tensors of the checkpoint stay float32.
    """
    seen, layer = [], []

    def noted(self, outputs, batch):
        seen.extend(maps.dtype for output in outputs for maps in output.values())
        seen.append(torch.is_autocast_enabled('cpu'))
        return forward(self, outputs, batch)

    forward = TaskLoss.forward
    monkeypatch.setattr(TaskLoss, 'forward', noted)
    weights, losses = {}, {}
    for name in ('none', amp):
        trainer, batch = trainer_of(data, '--amp', name)
        trainer.model.neck[0].register_forward_hook(
            lambda module, inputs, out: layer.append((inputs[0].dtype, out.dtype))
        )
        losses[name] = trainer.train_iteration(batch)['loss']
        weights[name] = trainer.model.state_dict()
    assert layer == [(torch.float32,) * 2, (SHORT[amp],) * 2]
    assert set(seen) == {torch.float32, False} and losses[amp].dtype == torch.float32
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights[amp].values())
    assert differ(weights['none'], weights[amp])
    torch.testing.assert_close(losses[amp], losses['none'], rtol=0.02, atol=0)


@pytest.mark.parametrize('amp', list(SHORT))
def test_validation_computes_in_it_too(data, ratio, amp):
    """Validated in the type that training computes in; detections come out of float32 maps."""
    trainer, _ = trainer_of(data, '--amp', amp, '--test')
    trainer.result.eval()
    images, found = torch.randn(1, 3, 64, 64), {}
    for name in ('float32', amp):
        with torch.inference_mode():
            found[name] = Precision(name).run(trainer.result, images)[0]
    assert all(maps.dtype == torch.float32 for maps in found[amp].values())
    assert differ(found['float32'], found[amp])
    batch = batch_of(trainer_dataset(data)[0])
    results, seen = {}, []
    trainer.result.hm.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    with torch.inference_mode():
        trainer.val_iteration(batch, results, collect=True)
    assert seen == [SHORT[amp]] and len(results) == 1


def trainer_dataset(data):
    """The validation samples, with `meta`."""
    opt, dataset = options('ctdet', data, *TINY, '--test')
    return dataset(opt, 'val')


@pytest.mark.parametrize('amp', list(SHORT))
def test_it_works_with_the_other_options(data, ratio, amp):
    """Chunks, a clipped gradient, an average and a frozen backbone: the gradient is nearly that of float32."""
    args = ['--accumulate', 2, '--clip_grad', 0.1, '--ema', 0.9, '--freeze', 'backbone']
    gradients = {}
    for name in ('none', amp):
        trainer, batch = trainer_of(data, '--amp', name, *args)
        trainer.start_averaging()
        start = copy.deepcopy(trainer.model.state_dict())
        trainer.train_iteration(batch)
        gradients[name] = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad])
        changed = {
            key.split('.')[0]
            for key, value in trainer.model.state_dict().items()
            if differ({'': value}, {'': start[key]})
        }
        assert changed == {'neck', 'hm', 'wh', 'reg'}
        assert not differ(trainer.result.state_dict(), trainer.model.state_dict())  # an average begins so
    assert gradients[amp].norm().item() == pytest.approx(0.1, rel=1e-3)
    assert torch.cosine_similarity(gradients['none'], gradients[amp], dim=0) > 0.99


def test_learning_in_bfloat16_is_learning(data, ratio):
    """60 steps on the same images end at nearly the loss of float32, well below the start."""
    ends = {}
    for name in ('none', 'bfloat16'):
        trainer, batch = trainer_of(data, '--amp', name, '--lr', 5e-3)
        losses = [trainer.train_iteration(batch)['loss'].item() for _ in range(60)]
        assert losses[-1] < losses[0] / 3
        ends[name] = losses[-1]
    assert ends['bfloat16'] == pytest.approx(ends['none'], rel=0.15)


# ------------------------------------------------------------------------------------------ float16's scaler


def test_overflowing_step_is_skipped(data, ratio):
    """Weights and average stay as they are, the scale is halved, and the rate goes on with the iterations."""
    trainer, batch = trainer_of(data, '--amp', 'float16', '--ema', 0.5)
    trainer.start_averaging()
    trainer.train_iteration(batch)
    before = copy.deepcopy((dict(trainer.model.named_parameters()), dict(trainer.result.named_parameters())))
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.learner, 1, 0.5)
    trainer.precision.scaler.update(1e38)  # of which every gradient overflows
    trainer.train_iteration(batch)
    assert trainer.precision.scaler.get_scale() == pytest.approx(0.5e38)
    assert not differ(before[0], dict(trainer.model.named_parameters()))
    assert not differ(before[1], dict(trainer.result.named_parameters()))
    assert trainer.learning_rate() == pytest.approx(0.5e-3)
    trainer.precision.scaler.update(8.0)
    trainer.train_iteration(batch)
    assert differ(before[0], dict(trainer.model.named_parameters()))
    assert differ(before[1], dict(trainer.result.named_parameters()))


def test_scaler_goes_on_from_a_checkpoint(data, ratio):
    """Its state is a fact that a checkpoint may hold, and a run that is resumed has it back."""
    trainer, batch = trainer_of(data, '--amp', 'float16')
    trainer.train_iteration(batch)
    state = trainer.precision.scaler.state_dict()
    assert FACTS['scaler'].valid(state) and (state['scale'], state['_growth_tracker']) == (8.0, 1)
    facts = {'options': {'amp': 'float16'}, 'precision': 'float16', 'scaler': state}
    opt = options('ctdet', data, *TINY, '--amp', 'float16')[0]
    opt.facts, opt.resume = facts, True
    network = TinyDCN(opt.heads)
    resumed = train_factory['ctdet'](opt, network, torch.optim.Adam(network.parameters()))
    resumed.start_precision()
    assert resumed.precision.scaler.state_dict() == state


def test_run_that_skips_every_step_ends(data, ratio):
    """A scale that has been halved dozens of times cannot help; the line names what can."""
    trainer, batch = trainer_of(data, '--amp', 'float16')
    trainer.train_iteration(batch)
    assert trainer.precision.scaler_state()['scale'] == 8.0
    trainer.precision.scaler.update(1e-4)
    with pytest.raises(UserError, match='--amp bfloat16'):
        trainer.precision.scaler_state()
    assert Precision('bfloat16', learns=True).scaler_state() is None


@pytest.mark.parametrize(
    'change',
    [{'scale': 0.0}, {'scale': float('nan')}, {'growth_interval': 0}, {'_growth_tracker': 1.5}, {'more': 1}],
)
def test_spoilt_scaler_is_no_fact(change):
    """A state that a scaler could not go on from is refused with the checkpoint."""
    state = torch.amp.GradScaler('cpu').state_dict()
    assert FACTS['scaler'].valid(state) and not FACTS['scaler'].valid({**state, **change})


# ------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(('value', 'chosen'), [(0.6, 'bfloat16'), (1.4, 'float32')])
def test_cpu_takes_what_is_faster(data, ratio, capsys, value, chosen):
    """One line says the ratio and the choice, and the choice is followed."""
    ratio['value'] = value
    trainer, _ = trainer_of(data, '--amp', 'bfloat16')
    assert trainer.precision.name == chosen and not trainer.precision.scaler.is_enabled()
    said = capsys.readouterr().out
    assert said.count('note:') == 1 and f'{value:.2f} x as long' in said and f'computes in {chosen}\n' in said


@pytest.mark.parametrize(
    ('facts', 'asked', 'chosen'),
    [
        ({'options': {'amp': 'bfloat16'}, 'precision': 'float32'}, 0, 'float32'),
        ({'options': {'amp': 'bfloat16'}, 'precision': 'bfloat16'}, 0, 'bfloat16'),
        ({'options': {'amp': 'none'}}, 1, 'bfloat16'),
        ({'options': {'amp': 'float16'}, 'precision': 'float16'}, 1, 'bfloat16'),
    ],
)
def test_resumed_run_keeps_its_choice(data, ratio, facts, asked, chosen):
    """Not measured again, unless another --amp is given than the run had."""
    opt = options('ctdet', data, *TINY, '--amp', 'bfloat16')[0]
    opt.facts, opt.resume = facts, True
    assert choose_precision(opt, TinyDCN(opt.heads), learns=True) == chosen
    assert ratio['asked'] == asked


def test_measuring_leaves_no_trace():
    """Weights, statistics, mode, gradients and random numbers are as before; both ways give a time."""
    torch.manual_seed(3)
    network = TinyDCN({'hm': 2}).train()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    for learns in (True, False):
        assert measure(network, 'bfloat16', (64, 64), learns) > 0
    assert not differ(before, network.state_dict()) and torch.equal(state, torch.get_rng_state())
    assert network.training and all(parameter.grad is None for parameter in network.parameters())


def test_fastest_type_is_found():
    """Types take turns after a warm-up; the shortest time of each counts, and the first wins a draw."""
    now, calls = [0.0], []
    costs = {torch.float32: iter([100, 3, 9]), torch.bfloat16: iter([1, 5, 4]), torch.float16: iter([1, 3, 7])}

    def run(dtype):
        calls.append(dtype)
        now[0] += next(costs[dtype])

    chosen, seconds = faster_dtype(run, list(costs), rounds=2, clock=lambda: now[0])
    assert chosen == torch.float32
    assert seconds == {torch.float32: 3, torch.bfloat16: 4, torch.float16: 3}
    assert calls == [*costs] * 3


# ------------------------------------------------------------------------------------------ bad input


def test_float16_needs_a_processor_that_has_it(monkeypatch):
    """Refused when options are read, with what to use instead; one that has it passes."""
    for has in (False, True):
        monkeypatch.setattr('lib.utils.precision.cpu_has_float16', lambda has=has: has)
        if has:
            opts().parse(['ctdet', '--gpus', '-1', '--amp', 'float16'])
            continue
        with pytest.raises(UserError, match='--amp float16: .* no float16 .*; use bfloat16') as error:
            opts().parse(['ctdet', '--gpus', '-1', '--amp', 'float16'])
        assert '\n' not in str(error.value)


def test_bfloat16_needs_a_gpu_that_has_it(monkeypatch):
    """Older GPUs have float16."""
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Old GPU')
    for capability in ((7, 5), (8, 0)):
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device, found=capability: found)
        if capability == (8, 0):
            check_computes_in('bfloat16', torch.device('cuda', 0), '--amp')
            continue
        with pytest.raises(UserError, match='--amp bfloat16: Old GPU .* use float16'):
            check_computes_in('bfloat16', torch.device('cuda', 0), '--amp')


def test_option_is_checked_and_idle_elsewhere(capsys):
    """Another value is refused; test.py and demo.py name the program in which it acts."""
    with pytest.raises(UserError, match='bfloat16'):
        opts().parse(['ctdet', '--amp', 'half'])
    opts().parse(['ctdet', '--gpus', '-1', '--amp', 'float16'], program='test.py')
    assert '--amp acts in main.py' in capsys.readouterr().out


def test_defaults_compute_as_ever(data):
    """Without --amp nothing is measured, and outputs are the network's own tensors."""
    trainer, batch = trainer_of(data)
    assert trainer.precision.name == 'float32'
    outputs = [{'hm': torch.zeros(1, 2, 3, 3, dtype=torch.float64)}]
    assert trainer.precision.run(lambda images: outputs, batch['input']) is outputs
