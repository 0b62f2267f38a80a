"""Training runs: checkpoints, kill and resume, validation, learning rate, and what stops a run."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from conftest import SRC, run_program
from lib.datasets.toy import make_toy_data
from lib.logger import LOCK, Logger
from lib.trains.base_trainer import LossMeter
from lib.utils.errors import UserError
from lib.utils.lock import FolderLock

TINY = ['--arch', 'res_18', '--head_conv', '0', '--input_res', '64', '--batch_size', '3', '--lr', '1e-3']
TINY += ['--gpus', '-1', '--pretrained', 'none']
# Augmentation that is off unless asked for, and the option that names the data.
TASKS = {
    'ctdet': ['--dataset'],
    'multi_pose': ['--aug_rot', '0.5', '--rotate', '30', '--dataset'],
    'exdet': ['--dataset'],
    'ddd': ['--aug_ddd', '0.7', '--data_dir'],
}
OTHERS = [task for task in TASKS if task != 'ctdet']
LOOPS = {'ctdet': ['--num_epochs', 3, '--lr_step', 2, '--val_intervals', 1, '--metric', 'loss']}
LOOPS |= dict.fromkeys(OTHERS, ['--num_epochs', 2, '--val_intervals', 2])


def command(data, exp_dir, exp_id, *args, task='ctdet'):
    """12 pictures in batches of 3: 4 iterations an epoch."""
    where = ['--exp_dir', str(exp_dir), '--exp_id', exp_id]
    return [task, *TASKS[task], str(data), *TINY, *where, *map(str, args)]


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def run_until(args, line, number):
    """Start main.py, send it signal `number` as soon as it prints `line`; returns its exit status."""
    process = subprocess.Popen(
        [sys.executable, '-u', str(SRC / 'main.py'), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen = []
    for text in process.stdout:
        seen.append(text)
        if re.search(line, text):
            os.killpg(process.pid, number)  # its data workers too, as a terminal or a batch system does
            break
    else:
        pytest.fail(''.join(seen))
    process.stdout.read()
    return process.wait(timeout=60)


@pytest.fixture(scope='module')
def toys(toy, tmp_path_factory):
    """Each task's toy data, drawn when it is asked for."""
    drawn = {'ctdet': toy}

    def folder(task):
        if task not in drawn:
            size = (128, 64) if task == 'ddd' else 64
            drawn[task] = make_toy_data(tmp_path_factory.mktemp(task), task, train=12, val=2, size=size)
        return drawn[task]

    return folder


@pytest.fixture(scope='module')
def undisturbed(toys, module_folder, scripts):
    """Each task's run in one go, made when it is asked for."""
    exp_dir = module_folder

    def folder(task):
        run = exp_dir / task / 'whole'
        if not run.exists():
            scripts('main').main(command(toys(task), exp_dir, 'whole', *LOOPS[task], '--num_workers', 0, task=task))
        return run

    return folder


@pytest.fixture(scope='module')
def uninterrupted(undisturbed):
    """The run of ctdet: three epochs in one go, validated after each."""
    return undisturbed('ctdet')


@pytest.mark.parametrize(
    ('task', 'workers', 'signals'),
    [
        ('ctdet', 0, [signal.SIGKILL]),
        ('ctdet', 1, [signal.SIGINT]),
        ('ctdet', 2, [signal.SIGKILL, signal.SIGTERM]),
        *((task, 1, [signal.SIGKILL, signal.SIGTERM]) for task in OTHERS),
    ],
)
def test_disturbed_run_ends_as_the_undisturbed_one(toys, undisturbed, task, workers, signals, scripts, tmp_path):
    """Ended in the middle of epoch 2 and resumed, perhaps twice: bit for bit the weights of the run left alone.

    After SIGKILL that epoch starts again; SIGTERM and Ctrl-C keep the iteration reached.
    """
    args = [*LOOPS[task], '--num_workers', workers, '--print_iter', 1]
    args = command(toys(task), tmp_path, 'disturbed', *args, task=task)
    folder = tmp_path / task / 'disturbed'
    for i, number in enumerate(signals):
        killed = number == signal.SIGKILL
        status = run_until(args + ['--resume'] * (i > 0), rf'train \[2\]: {2 if killed else 1}/4', number)
        assert status == (-number if killed else 130)
        last = torch.load(folder / 'model_last.pth', weights_only=True)
        assert last['epoch'] == 1 and last['iteration'] in ([0] if killed else [1, 2, 3])
    scripts('main').main([*args, '--resume'])
    whole = undisturbed(task)
    for name in ('model_last.pth', 'model_best.pth'):
        assert_same_weights(whole / name, folder / name)
    left_alone, resumed = (torch.load(run / 'model_best.pth', weights_only=True) for run in (whole, folder))
    assert left_alone['best'] == resumed['best'] and left_alone['epoch'] == resumed['epoch']


def test_run_leaves_what_was_promised(uninterrupted):
    """Checkpoints of the last, the best and the lr_step epochs, options, log and TensorBoard events."""
    names = {path.name for path in uninterrupted.iterdir()}
    assert {'model_last.pth', 'model_best.pth', 'model_2.pth', 'opt.txt', 'log.txt', 'logs'} <= names
    assert 'model_1.pth' not in names and 'model_3.pth' not in names
    log = (uninterrupted / 'log.txt').read_text()
    assert log.count('train epoch') == 3 and log.count('val epoch') == 3
    assert 'learning rate 0.001 for batches of 3' in log
    assert 'arch: res_18' in (uninterrupted / 'opt.txt').read_text()


def test_learning_rate_drops_after_the_epoch(uninterrupted):
    """Checkpoints hold the rate of the next iteration: a tenth of --lr from the end of epoch 2 on."""
    rates = {
        epoch: torch.load(uninterrupted / f'{name}.pth', weights_only=True)['optimizer']['param_groups'][0]['lr']
        for epoch, name in {2: 'model_2', 3: 'model_last'}.items()
    }
    assert rates == {2: pytest.approx(1e-4), 3: pytest.approx(1e-4)}


def test_resumed_run_tells_the_rate_in_force(toy, uninterrupted, scripts, tmp_path, capsys):
    """A run that goes on after an epoch of --lr_step starts by telling the lowered rate, with its batch size."""
    shutil.copytree(uninterrupted, tmp_path / 'ctdet' / 'resumed')
    scripts('main').main(command(toy, tmp_path, 'resumed', *LOOPS['ctdet'], '--num_workers', 0, '--resume'))
    assert 'learning rate 0.0001 for batches of 3' in capsys.readouterr().out


def test_best_is_the_lowest_loss(uninterrupted):
    """With --metric loss model_best.pth is of the epoch with the lowest validation loss."""
    losses = [float(x) for x in re.findall(r'val epoch \d+: loss ([\d.]+)', (uninterrupted / 'log.txt').read_text())]
    best = torch.load(uninterrupted / 'model_best.pth', weights_only=True)
    assert best['epoch'] == 1 + losses.index(min(losses))
    assert best['best'] == pytest.approx(min(losses), rel=1e-4)


def test_options_of_the_loop_act(toy, scripts, tmp_path, capsys):
    """--num_iters, --save_all, --print_iter, --hide_data_time, --val_intervals and --num_workers do what they say."""
    args = ['--num_epochs', 2, '--num_iters', 2, '--save_all', '--print_iter', 1, '--hide_data_time']
    scripts('main').main(command(toy, tmp_path, 'a', *args, '--val_intervals', 2))
    said = capsys.readouterr().out
    assert len(re.findall(r'train \[\d\]: \d/2', said)) == 4
    assert 'data 0.' not in said
    folder = tmp_path / 'ctdet/a'
    assert (folder / 'model_1.pth').exists() and (folder / 'model_2.pth').exists()
    metrics = json.loads((folder / 'metrics.json').read_text())
    best = torch.load(folder / 'model_best.pth', weights_only=True)
    assert best['metric'] == 'AP' and best['best'] == metrics['AP'] and 'AP/disc' in metrics
    assert json.loads((folder / 'results.json').read_text())


def test_training_without_validation(toy, scripts, tmp_path):
    """--val_intervals 0 never reads val; the last checkpoint is the best that is known."""
    scripts('main').main(
        command(toy, tmp_path, 'a', '--num_epochs', 1, '--num_iters', 1, '--val_intervals', 0, '--num_workers', 0)
    )
    assert_same_weights(tmp_path / 'ctdet/a/model_last.pth', tmp_path / 'ctdet/a/model_best.pth')


def test_seed_and_lr_change_the_weights(toy, scripts, tmp_path):
    """Two runs with one seed are the same; another seed or rate gives another network."""
    runs = {'a': [], 'b': [], 'seed': ['--seed', 1], 'lr': ['--lr', 1e-4]}
    for name, args in runs.items():
        scripts('main').main(
            command(
                toy,
                tmp_path,
                name,
                '--num_epochs',
                1,
                '--num_iters',
                1,
                '--val_intervals',
                0,
                '--num_workers',
                0,
                *args,
            )
        )
    last = {name: tmp_path / 'ctdet' / name / 'model_last.pth' for name in runs}
    assert_same_weights(last['a'], last['b'])
    for name in ('seed', 'lr'):
        assert not torch.equal(weights(last['a'])['hm.weight'], weights(last[name])['hm.weight'])


def test_loss_that_is_not_finite_stops_the_run(toy, scripts, tmp_path):
    """The run ends with the parts of the loss, and without a checkpoint of the broken network."""
    args = command(toy, tmp_path, 'a', '--num_epochs', 1, '--num_workers', 0)
    args[args.index('--lr') + 1] = '1e30'
    with pytest.raises(UserError, match=r'not finite: loss .*hm_loss .*wh_loss .*off_loss'):
        scripts('main').main(args)
    assert not (tmp_path / 'ctdet/a/model_last.pth').exists()


def test_loss_meter_keeps_the_first_bad_parts():
    """Averages are over images; the message tells the parts where it went wrong, not the last ones."""
    meter = LossMeter(['loss', 'hm_loss'])
    meter.add({'loss': torch.tensor(1.0), 'hm_loss': torch.tensor(2.0)}, 1)
    meter.add({'loss': torch.tensor(4.0), 'hm_loss': torch.tensor(2.0)}, 2)
    assert meter.averages() == {'loss': 3.0, 'hm_loss': 2.0}
    meter.add({'loss': torch.tensor(float('inf')), 'hm_loss': torch.tensor(7.0)}, 1)
    meter.add({'loss': torch.tensor(float('nan')), 'hm_loss': torch.tensor(float('nan'))}, 1)
    with pytest.raises(UserError, match='loss inf, hm_loss 7'):
        meter.averages()


def test_programs_end_in_one_line(toy, tmp_path):
    """A user's mistake: exit status 1, one line on stderr, no traceback; also from another folder than src."""
    cases = [
        ['main.py', 'ctdet', '--arch', 'dla34'],
        ['main.py', 'ctdet', '--dataset', toy, '--gpus', '3', '--pretrained', 'none'],
        ['test.py', 'ctdet', '--dataset', toy, '--load_model', 'nowhere.pth'],
    ]
    for args in cases:
        done = run_program(*args, cwd=tmp_path)
        assert done.returncode == 1, done
        assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr


def test_output_that_cannot_be_written(toy, scripts, tmp_path):
    """An output folder that cannot be made is told in one line."""
    (tmp_path / 'taken').write_text('a file, not a folder')
    with pytest.raises(UserError, match='taken'):
        scripts('main').main(command(toy, tmp_path / 'taken', 'a', '--num_workers', 0))


def test_debug_views_are_saved(toy, scripts, tmp_path):
    """--debug 4 writes the network's maps and boxes beside the true ones."""
    args = command(toy, tmp_path, 'a', '--num_epochs', 1, '--num_iters', 1, '--debug', 4, '--val_intervals', 0)
    scripts('main').main(args)
    names = {path.name for path in (tmp_path / 'ctdet/a/debug').iterdir()}
    assert {'0_pred_hm.png', '0_gt_hm.png', '0_pred_boxes.png', '0_gt_boxes.png'} <= names


def test_full_disk_keeps_the_old_checkpoint(toy, uninterrupted, tmp_path):
    """When a checkpoint cannot be written the run ends in one line, and the last good one is still there whole."""
    shutil.copytree(uninterrupted, tmp_path / 'ctdet' / 'full')
    before = (tmp_path / 'ctdet/full/model_last.pth').read_bytes()
    done = run_program(
        'main.py',
        *command(toy, tmp_path, 'full', '--num_epochs', 4, '--num_workers', 0, '--val_intervals', 0, '--resume'),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),  # no file over 1 MB
    )
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1].startswith('error: ') and 'Traceback' not in done.stderr, done.stderr
    assert (tmp_path / 'ctdet/full/model_last.pth').read_bytes() == before
    assert not [path for path in (tmp_path / 'ctdet/full').iterdir() if path.name.startswith('.')]


def test_small_data_resumes_in_the_middle(toy, scripts, tmp_path):
    """A stop in an epoch of one short batch, and a resume with another batch size, both go on."""
    args = command(toy, tmp_path, 'small', '--num_epochs', 1, '--num_workers', 0, '--val_intervals', 0)
    args[args.index('--batch_size') + 1] = '32'
    opt_file = tmp_path / 'ctdet/small/model_last.pth'
    scripts('main').main(args)
    checkpoint = torch.load(opt_file, weights_only=True)
    torch.save({**checkpoint, 'epoch': 0, 'iteration': 1}, opt_file)
    scripts('main').main([*args, '--resume'])
    torch.save({**checkpoint, 'epoch': 0, 'iteration': 1}, opt_file)
    args[args.index('--batch_size') + 1] = '4'
    scripts('main').main([*args, '--resume'])
    last = torch.load(opt_file, weights_only=True)
    assert last['epoch'] == 1 and last['iteration'] == 0


@pytest.mark.parametrize(('option', 'words'), [('--eval_oracle_hm', '--test'), ('--keep_res', '--batch_size 1')])
def test_options_that_training_cannot_follow(toy, scripts, tmp_path, option, words):
    """Oracle heads and inputs of different sizes are refused before training starts."""
    with pytest.raises(UserError, match=words):
        scripts('main').main(command(toy, tmp_path, 'x', '--num_epochs', 1, option))


def test_oracles_with_kept_resolution(toy, uninterrupted, scripts, tmp_path):
    """--test --keep_res with oracle heads: their maps have each image's own size."""
    args = command(toy, tmp_path, 'x', '--test', '--keep_res', '--load_model', uninterrupted / 'model_last.pth')
    oracles = ['--eval_oracle_hm', '--eval_oracle_wh', '--eval_oracle_offset']
    scripts('main').main([*args, *oracles, '--num_workers', '0'])
    assert json.loads((tmp_path / 'ctdet/x/metrics.json').read_text())['AP'] > 0.98


def test_killed_loader_process_loses_no_iteration(toy, uninterrupted, scripts, tmp_path):
    """Exit status 1 with one line that names the image; resumed, the run ends as the one that was left alone."""
    args = command(toy, tmp_path, 'lost', *LOOPS['ctdet'], '--num_workers', 1, '--print_iter', 1)
    process = subprocess.Popen(
        [sys.executable, '-u', str(SRC / 'main.py'), *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if re.search(r'train \[2\]: 1/4', line):
            (worker, *_) = (
                int(pid)
                for pid in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
                if b'main.py' in Path(f'/proc/{pid}/cmdline').read_bytes()  # not multiprocessing's resource tracker
            )
            os.kill(worker, signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert re.fullmatch(
        r"error: a loader process was killed \(SIGKILL\) at image '.*\.\w+': .*--num_workers.*\n", said[-1]
    )
    assert 'Traceback' not in ''.join(said)
    last = torch.load(tmp_path / 'ctdet/lost/model_last.pth', weights_only=True)
    assert (last['epoch'], last['iteration']) >= (1, 1)
    scripts('main').main([*args, '--resume'])
    for name in ('model_last.pth', 'model_best.pth'):
        assert_same_weights(uninterrupted / name, tmp_path / 'ctdet/lost' / name)
    assert not list((tmp_path / 'ctdet/lost').glob('*.lock'))


def test_second_run_in_a_folder_is_refused(toy, tmp_path):
    """While a process trains there, another one names it and its lock, and touches nothing."""
    folder = tmp_path / 'ctdet' / 'shared'
    folder.mkdir(parents=True)
    lock = FolderLock(folder, LOCK, 'another run trains in')
    args = command(toy, tmp_path, 'shared', '--num_epochs', 1, '--num_iters', 1, '--val_intervals', 0)
    done = run_program('main.py', *args, '--num_workers', 0)
    assert done.returncode == 1
    assert re.search(
        rf"error: another run trains in '{folder}' \(process {os.getpid()} on", done.stderr.splitlines()[-1]
    )
    assert [path.name for path in folder.iterdir()] == [LOCK]
    lock.release()


def test_batch_norm_of_one_value_is_refused(toy, scripts, tmp_path):
    """One image whose deepest map is a single cell: a line that says what to do, in place of PyTorch's traceback."""
    args = command(toy, tmp_path, 'a', '--num_epochs', 1, '--num_workers', 0)
    args[args.index('--batch_size') + 1] = '1'
    args[args.index('--input_res') + 1] = '32'
    with pytest.raises(UserError, match=r'batch norm .* 1 image of 32 x 32 .*--batch_size 2 .*--input_res'):
        scripts('main').main(args)


def test_log_on_a_full_disk_does_not_stop_the_run(tmp_path, capsys):
    """The log and the events are left be with one note each; what is said still shows."""
    logger = Logger(Namespace(save_dir=str(tmp_path), resume=False, overwrite=False, task='ctdet', record={}))
    logger.log.close()
    logger.log = open('/dev/full', 'a')  # noqa: SIM115  closed by the logger
    logger.writer.add_scalar = lambda *args: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'No space left on device'))
    for epoch in (1, 2):
        logger.scalars('train', epoch, {'loss': 1.0})
    logger.close()
    said = capsys.readouterr().out
    for name in ('log.txt', 'TensorBoard events'):
        assert said.count(f'note: {name} cannot be written any more (No space left on device)') == 1
    assert 'train epoch 1: loss 1' in said and 'train epoch 2: loss 1' in said
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_stopped_scoring_leaves_no_half_result(toy, uninterrupted, tmp_path, number):
    """test.py ends with 130 and one word, and writes no results of a part of the images."""
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test
from lib.detectors.base_detector import BaseDetector
from lib.utils.cli import run_cli
run = BaseDetector.run_batch
def stop(self, images):
    os.kill(os.getpid(), int(sys.argv[2]))
    return run(self, images)
BaseDetector.run_batch = stop
run_cli(lambda: test.main(sys.argv[3:]))
"""
    args = ['ctdet', '--dataset', toy, '--gpus', '-1', '--load_model', str(uninterrupted / 'model_last.pth')]
    args += ['--num_workers', '1', '--exp_dir', str(tmp_path), '--exp_id', 'a']
    done = subprocess.run(
        [sys.executable, '-c', code, str(SRC), str(int(number)), *args], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 130 and done.stderr.splitlines()[-1] == 'interrupted', done.stderr
    assert 'Traceback' not in done.stderr
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]
    assert not (uninterrupted / 'results.json').exists()
