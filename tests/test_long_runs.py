"""Options for long runs: each changes the run as it says, and a run that is stopped in an epoch goes on exactly."""

import math

import pytest
import torch

from helpers import batch_of, options
from lib.datasets.toy import make_toy_data
from lib.models import model
from lib.models.model import create_model
from lib.models.networks.common import CenterNet, conv_bn_relu, small_normal
from lib.opts import opts
from lib.trains.base_trainer import BaseTrainer
from lib.trains.freezing import freeze
from lib.trains.loss_watch import LossWatch
from lib.trains.train_factory import train_factory
from lib.utils.errors import UserError

# 12 images in batches of 4: 3 iterations an epoch.
TINY = ['--arch', 'res_18', '--head_conv', '0', '--input_res', '64', '--batch_size', '4', '--lr', '1e-3']
TINY += ['--gpus', '-1', '--pretrained', 'none', '--num_workers', '0', '--num_epochs', '2', '--val_intervals', '1']
TINY += ['--metric', 'loss']
RUNS = {
    'accumulate': ['--accumulate', '2'],
    'warmup': ['--warmup', '5'],
    'cosine': ['--lr_schedule', 'cosine'],
    'ema': ['--ema', '0.5'],
    'freeze': ['--freeze', 'backbone'],
    'clip_grad': ['--clip_grad', '0.01'],
    'bfloat16': ['--amp', 'bfloat16'],
    'float16': ['--amp', 'float16', '--ema', '0.9', '--clip_grad', '1'],
    'all': ['--accumulate', '2', '--ema', '0.9', '--freeze', 'backbone', '--warmup', '4', '--clip_grad', '1'],
}
RUNS['all'] += ['--amp', 'bfloat16']


class TinyNet(CenterNet):
    """A network of a few thousand weights with a backbone, a neck and heads, in place of a res_18."""

    backbone_prefixes = ('base.',)

    def __init__(self, heads):
        super().__init__()
        self.base = torch.nn.Sequential(conv_bn_relu(3, 8, 3, 2), conv_bn_relu(8, 16, 3, 2))
        self.neck = conv_bn_relu(16, 16, 3)
        self.add_heads(heads, 16, 0, small_normal)

    def features(self, images):
        return self.neck(self.base(images))


@pytest.fixture(autouse=True, scope='module')
def tiny_networks():
    """Runs of this file train a `TinyNet`, whatever the --arch; with --amp in its type, whatever is faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('lib.trains.precision.measure', lambda *_: 0.5)
        patch.setattr('lib.utils.precision.cpu_has_float16', lambda: True)
        patch.setattr(model, 'create_model', lambda arch, heads, *_: TinyNet(heads))
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A ctdet toy folder: 12 images to train on, 2 to validate, 64 px."""
    return str(make_toy_data(tmp_path_factory.mktemp('data') / 'toy', train=12, val=2, size=64))


@pytest.fixture(scope='module')
def sources(data, tmp_path_factory):
    """The options that name each task's toy data."""
    made = {'ctdet': ['--dataset', data]}
    for task in ('multi_pose', 'exdet', 'ddd'):
        folder = make_toy_data(tmp_path_factory.mktemp(task) / 'toy', task, train=4, val=1, size=(128, 64))
        made[task] = ['--dataset', 'kitti', '--data_dir', str(folder)] if task == 'ddd' else ['--dataset', str(folder)]
    return made


@pytest.fixture(scope='module')
def train(data, scripts, module_folder):
    """Train in this process: `train(name, *options)` returns the run's folder; again with the same name it resumes.

    With `stop` the run is stopped as by Ctrl-C after so many iterations.
    """
    exp_dir = module_folder

    def run(name, *args, stop=None):
        folder = exp_dir / 'ctdet' / name
        where = ['--dataset', data, '--exp_dir', str(exp_dir), '--exp_id', name]
        args = ['ctdet', *TINY, *where, *map(str, args), *(['--resume'] if folder.exists() else [])]
        if stop is None:
            scripts('main').main(args)
        else:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
                stop_after(stop, patch)
                scripts('main').main(args)
        return folder

    return run


def stop_after(iterations, patch):
    """Ask trainers to stop after so many iterations."""
    step, left = BaseTrainer.train_iteration, iter(range(iterations - 1, -1, -1))

    def counted(trainer, batch):
        if next(left) == 0:
            trainer.request_stop()
        return step(trainer, batch)

    patch.setattr(BaseTrainer, 'train_iteration', counted)


def load(folder, name='model_last.pth'):
    return torch.load(folder / name, weights_only=True)


def differences(a, b, path=''):
    """The places at which two checkpoints differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [found for key in a.keys() | b.keys() for found in differences(a.get(key), b.get(key), f'{path}/{key}')]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
    return [] if same else [path]


@pytest.fixture(scope='module')
def plain(train):
    """The run with none of the options."""
    return train('plain')


@pytest.mark.parametrize('name', list(RUNS))
def test_stopped_run_goes_on_exactly(train, plain, name):
    """Stopped in the middle of epoch 2 and resumed, a run ends in the same checkpoints, which are no plain run's."""
    whole = train(f'{name}_whole', *RUNS[name])
    stopped = train(f'{name}_stopped', *RUNS[name], stop=4)
    assert (load(stopped)['epoch'], load(stopped)['iteration']) == (1, 1)
    train(f'{name}_stopped')
    for file in ('model_last.pth', 'model_best.pth'):
        assert not differences(load(whole, file), load(stopped, file))
    assert differences(load(whole)['state_dict'], load(plain)['state_dict'])


@pytest.mark.parametrize(('ratio', 'chosen'), [(0.5, 'bfloat16'), (2.0, 'float32')])
def test_resumed_run_does_not_measure_again(train, monkeypatch, ratio, chosen):
    """--amp bfloat16 on the CPU: the checkpoint records the choice, which is kept where another would be made."""
    name = f'measured_{chosen}'
    monkeypatch.setattr('lib.trains.precision.measure', lambda *_: ratio)
    whole = train(f'{name}_whole', '--amp', 'bfloat16')
    stopped = train(name, '--amp', 'bfloat16', stop=4)
    assert load(stopped)['precision'] == chosen
    monkeypatch.setattr('lib.trains.precision.measure', lambda *_: 1 / ratio)
    train(name)
    assert not differences(load(whole), load(stopped))


def test_losing_mixed_precision_is_the_plain_run(train, plain, monkeypatch):
    """Where bfloat16 is slower, the run is that of float32, bit for bit."""
    monkeypatch.setattr('lib.trains.precision.measure', lambda *_: 2.0)
    slower = load(train('slower', '--amp', 'bfloat16'))
    assert not differences(slower['state_dict'], load(plain)['state_dict'])
    assert all(value.dtype != torch.bfloat16 for value in load(plain)['state_dict'].values())


# ------------------------------------------------------------------------------------------ --accumulate


class NoUpdate(torch.optim.SGD):
    """An optimizer that leaves the weights and their gradients as they are."""

    def step(self, closure=None):
        """Do nothing."""


def one_iteration(task, source, images, *args):
    """Gradients, buffers and losses of an iteration on these images of the data, from the weights of a seed."""
    opt, dataset = options(task, *source[1:], *TINY, *map(str, args))
    samples = dataset(opt, 'train')
    torch.manual_seed(0)
    network = TinyNet(opt.heads)
    trainer = train_factory[task](opt, network, NoUpdate(network.parameters(), 1))
    trainer.set_device(opt.device)
    trainer.start_learning()
    stats = trainer.train_iteration(batch_of(*(samples[i] for i in images)))
    return {name: p.grad for name, p in network.named_parameters()}, dict(network.named_buffers()), stats


@pytest.mark.parametrize(
    ('task', 'master'), [('ctdet', -1), ('ctdet', 1), ('multi_pose', 3), ('exdet', -1), ('ddd', 1)]
)
def test_accumulated_gradient_is_the_mean_over_chunks(sources, task, master):
    """Each chunk's loss is averaged on its own; the running statistics are the first chunk's."""
    args, first = ['--accumulate', 2, '--master_batch_size', master], 2 if master == -1 else master
    gradients, buffers, stats = one_iteration(task, sources[task], range(4), *args)
    (one, one_buffers, one_stats), (two, _, two_stats) = (
        one_iteration(task, sources[task], images, '--batch_size', len(images))
        for images in (range(first), range(first, 4))
    )
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, (one[name] + two[name]) / 2)
    assert not differences(buffers, one_buffers)
    for name, value in stats.items():
        assert value.item() == pytest.approx((one_stats[name] + two_stats[name]).item() / 2)


def test_short_batch_fills_the_first_chunks(sources):
    """Of 3 images in chunks of 2, 2 and 2 the second chunk gets one and the third none."""
    args = ['--batch_size', 6]
    gradients, _, _ = one_iteration('ctdet', sources['ctdet'], range(3), *args, '--accumulate', 3)
    one, two = (one_iteration('ctdet', sources['ctdet'], images, *args)[0] for images in (range(2), range(2, 3)))
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, (one[name] + two[name]) / 2)


# ------------------------------------------------------------------------------------------ one option each


def test_gradient_is_clipped_to_its_norm(sources):
    """--clip_grad scales the gradient as a whole: its direction stays. One that is shorter stays as it is."""
    whole, _, _ = one_iteration('ctdet', sources['ctdet'], range(4))
    norm = torch.cat([gradient.flatten() for gradient in whole.values()]).norm()
    for most in (norm / 3, 3 * norm):
        clipped, _, _ = one_iteration('ctdet', sources['ctdet'], range(4), '--clip_grad', most.item())
        for name, gradient in clipped.items():
            torch.testing.assert_close(gradient, whole[name] * min(1, most / norm))


def rates(patch):
    """A list that gets the learning rate of each step of Adam from now on."""
    found, step = [], torch.optim.Adam.step

    def noted(optimizer, closure=None):
        found.append(optimizer.param_groups[0]['lr'])
        return step(optimizer, closure)

    patch.setattr(torch.optim.Adam, 'step', noted)
    return found


def test_rates_of_the_schedules(train, monkeypatch, capsys):
    """3 iterations an epoch at --lr 1e-3: tenfold drops, a warm-up before them, half a cosine, and both."""
    found = rates(monkeypatch)
    train('drops', '--lr_step', 1)
    train('warm_drops', '--lr_step', 1, '--warmup', 4)
    train('half_cosine', '--lr_schedule', 'cosine')
    train('warm_cosine', '--lr_schedule', 'cosine', '--warmup', 2)
    cosine = [(1 + math.cos(math.pi * t / 6)) / 2 for t in range(6)]
    after = [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    expected = [1, 1, 1, 0.1, 0.1, 0.1, 0.25, 0.5, 0.75, 0.1, 0.1, 0.1, *cosine, 0.5, 1, *after]
    assert found == pytest.approx([1e-3 * share for share in expected])
    assert 'learning rate 0.0005 (rising to 0.001 for 2 iterations)' in capsys.readouterr().out


@pytest.mark.parametrize(('choice', 'learnt'), [('backbone', ['neck', 'heads']), ('all-but-heads', ['heads'])])
def test_frozen_parts_stay(train, choice, learnt):
    """Their weights and batch norm statistics are those of the start after two epochs; the others' are not."""
    start, end = (
        load(train(f'{choice}_{epochs}', '--freeze', choice, '--num_epochs', epochs))['state_dict'] for epochs in (1, 2)
    )
    parts = {'base': [], 'neck': [], 'heads': []}
    for name in start:
        parts.get(name.split('.')[0], parts['heads']).append(torch.equal(start[name], end[name]))
    for part, kept in parts.items():
        assert not any(kept) if part in learnt else all(kept)


@pytest.mark.parametrize('arch', ['res_18', 'resdcn_18', 'dlav0_34', 'dla_34', 'hourglass'])
def test_what_each_family_freezes(arch):
    """A frozen backbone is what pretraining fills; all but the heads leaves nothing else to learn."""
    with torch.device('meta'):
        network = create_model(arch, {'hm': 2, 'wh': 2}, 64)
    assert not freeze(network, 'none') and all(parameter.requires_grad for parameter in network.parameters())
    norms = freeze(network, 'backbone')
    frozen = {name.split('.')[0] for name, parameter in network.named_parameters() if not parameter.requires_grad}
    with_weights = {name for name, module in network.named_children() if any(True for _ in module.parameters())}
    assert frozen == {prefix.removesuffix('.') for prefix in network.backbone_prefixes} & with_weights
    assert norms and not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
    freeze(network, 'all-but-heads')
    learnt = {name.split('.')[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learnt == {'hm', 'wh'}


def test_average_is_kept_beside_the_weights(train, plain, monkeypatch):
    """--ema trains as without it; what is validated and saved is the average over the steps, the first step's whole."""
    average, update = {}, BaseTrainer.update

    def noted(trainer):
        update(trainer)
        for name, value in trainer.model.state_dict().items():
            average[name] = 0.75 * average.get(name, value) + 0.25 * value

    monkeypatch.setattr(BaseTrainer, 'update', noted)
    last = load(train('averaged', '--ema', 0.75))
    assert not differences(last['raw_state_dict'], load(plain)['state_dict'])
    assert last['state_dict'].keys() == average.keys()
    for name, value in last['state_dict'].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[name])
    assert last['best'] != load(plain)['best']


def test_average_can_begin_and_end_with_a_resume(train, plain):
    """--ema given anew averages from then on; --ema 0 goes on with the weights, not with their average."""
    begun = train('begun', '--num_epochs', 1)
    assert 'raw_state_dict' not in load(begun)
    last = load(train('begun', '--num_epochs', 2, '--ema', 0.9))
    assert not differences(last['raw_state_dict'], load(plain)['state_dict'])
    train('ended', '--num_epochs', 1, '--ema', 0.9)
    last = load(train('ended', '--num_epochs', 2, '--ema', 0))
    assert 'raw_state_dict' not in last
    assert not differences(last['state_dict'], load(plain)['state_dict'])


def worse_from(epoch, patch):
    """Let the validated loss rise after that epoch."""
    validate = BaseTrainer.val

    def worse(trainer, number, *args, **kwargs):
        figures, results = validate(trainer, number, *args, **kwargs)
        return {**figures, 'loss': 100 + abs(number - epoch)}, results

    patch.setattr(BaseTrainer, 'val', worse)


@pytest.mark.parametrize(('intervals', 'end'), [(1, 4), (3, 6)])
def test_training_ends_when_patience_does(train, monkeypatch, capsys, intervals, end):
    """Best after epoch 2 (or, validated every 3, after 3): two worse epochs are enough, seen when one validates."""
    worse_from(2, monkeypatch)
    folder = train(f'impatient_{intervals}', '--num_epochs', 9, '--val_intervals', intervals, '--patience', 2)
    assert load(folder)['epoch'] == end
    assert load(folder, 'model_best.pth')['epoch'] == (2 if intervals == 1 else 3)
    assert '--patience 2' in capsys.readouterr().out
    train(f'impatient_{intervals}', '--num_epochs', 9)
    assert load(folder)['epoch'] == end  # resumed, it is still over


def test_patience_is_kept_by_a_resume(train, monkeypatch):
    """Stopped in the epoch that uses it up, and resumed: over after that epoch."""
    worse_from(1, monkeypatch)
    folder = train('patient', '--num_epochs', 9, '--patience', 2, stop=8)
    assert (load(folder)['epoch'], load(folder)['best_epoch']) == (2, 1)
    train('patient', '--num_epochs', 9)
    assert load(folder)['epoch'] == 3


class PowerCut(Exception):
    """Stands for what ends a program at once."""


def cut_power_after(iterations, patch):
    """End the program at once when it begins the iteration after so many."""
    step, left = BaseTrainer.train_iteration, iter(range(iterations, -1, -1))

    def until_power_cut(trainer, batch):
        if next(left) == 0:
            raise PowerCut
        return step(trainer, batch)

    patch.setattr(BaseTrainer, 'train_iteration', until_power_cut)


@pytest.mark.parametrize(
    ('minutes', 'reached', 'args'), [(1e-9, 1, []), (1e-9, 1, RUNS['all']), (0, 0, []), (30, 0, [])]
)
def test_epochs_are_saved_in_their_middle(train, minutes, reached, args):
    """--save_minutes: a program that is ended at once goes on, exactly, from an iteration and not from an epoch."""
    name = f'cut_{minutes}_{len(args)}'
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
        cut_power_after(4, patch)
        train(name, '--save_minutes', minutes, *args)
    whole = train(f'{name}_whole', '--save_minutes', minutes, *args)
    folder = whole.parent / name
    assert (load(folder)['epoch'], load(folder)['iteration']) == (1, reached)
    train(name)
    for file in ('model_last.pth', 'model_best.pth'):
        assert not differences(load(whole, file), load(folder, file))


def test_broken_network_is_not_saved_in_time(train, plain, monkeypatch):
    """A loss that is not finite ends the run; the checkpoint is of the iteration before."""
    step, left = BaseTrainer.train_iteration, iter(range(4, -1, -1))

    def until_broken(trainer, batch):
        stats = step(trainer, batch)
        return stats if next(left) else {name: value * math.nan for name, value in stats.items()}

    monkeypatch.setattr(BaseTrainer, 'train_iteration', until_broken)
    with pytest.raises(UserError, match='not finite'):
        train('broken', '--save_minutes', 1e-9)
    assert (load(plain.parent / 'broken')['epoch'], load(plain.parent / 'broken')['iteration']) == (1, 1)


def explosions(losses, skip=0):
    """The numbers of the losses, from 1, at which a `LossWatch` notices an explosion."""
    watch = LossWatch(skip)
    return [i for i, loss in enumerate(losses, 1) if watch.add(torch.tensor(float(loss))) is not None]


def test_explosions_are_noticed_once():
    """Ten times the median before, 50 iterations in a row; falls, single peaks and the warm-up are none."""
    calm = [1 + i % 3 for i in range(150)]  # of a median of 2
    assert explosions([*calm, *[21] * 200]) == [200]
    assert explosions([*calm, *[19] * 200]) == []
    assert explosions([*calm, *[21] * 49, 2, *[21] * 49, 2]) == []
    assert explosions([1000 / i for i in range(1, 300)]) == []
    assert explosions([*[1] * 20, *[21] * 100], skip=20) == []
    assert explosions([*[21] * 20, *[1] * 50, *[21] * 100], skip=20) == [120]


def test_explosion_is_said_with_the_rate(train, monkeypatch, capsys):
    """One line in a run whose loss explodes, although it stays finite."""
    monkeypatch.setattr('lib.trains.loss_watch.LENGTH', 3)
    step, factors = BaseTrainer.train_iteration, iter([1] * 8 + [100] * 7)

    def exploding(trainer, batch):
        factor = next(factors)
        return {name: factor * value for name, value in step(trainer, batch).items()}

    monkeypatch.setattr(BaseTrainer, 'train_iteration', exploding)
    folder = train('exploding', '--num_epochs', 5, '--val_intervals', 0)
    said = capsys.readouterr().out
    assert said.count('times its median') == (folder / 'log.txt').read_text().count('times its median') == 1
    assert 'with a learning rate of 0.001' in said


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda weight: weight * math.nan, 'holds NaN'),
        (lambda weight: weight.to_sparse(), 'sparse'),
        (lambda weight: weight.to(torch.complex64), 'not a dense tensor'),
    ],
)
def test_spoilt_weights_beside_an_average_are_refused(train, spoil, words):
    """The weights that training goes on with are checked as the average is."""
    name = f'spoilt_{words}'.replace(' ', '_')
    folder = train(name, '--num_epochs', 1, '--ema', 0.9)
    checkpoint = load(folder)
    checkpoint['raw_state_dict']['hm.weight'] = spoil(checkpoint['raw_state_dict']['hm.weight'])
    torch.save(checkpoint, folder / 'model_last.pth')
    with pytest.raises(UserError, match=words):
        train(name)


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--save_minutes', '-1'], '--save_minutes'),
        (['--patience', '-1'], '--patience'),
        (['--ema', '1'], '--ema 1.* less than 1'),
        (['--ema', '-0.1'], '--ema'),
        (['--freeze', 'heads'], 'all-but-heads'),
        (['--warmup', '-1'], '--warmup'),
        (['--lr_schedule', 'linear'], 'cosine'),
        (['--clip_grad', '-1'], '--clip_grad'),
        (['--batch_size', '2', '--accumulate', '3'], '--accumulate 3'),
        (['--batch_size', '4', '--accumulate', '2', '--master_batch_size', '4'], '--master_batch_size 4'),
        (['--accumulate', '0'], '--accumulate'),
    ],
)
def test_bad_options_end_in_one_line(args, words):
    """Values that cannot be followed are refused when options are read."""
    with pytest.raises(UserError, match=words) as error:
        opts().parse(['ctdet', '--gpus', '-1', *args])
    assert '\n' not in str(error.value)
