"""What a run says and keeps of itself: its plan, the time left, metrics.csv, options that can be given back."""

import csv
import json
import math
import re
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import SMALL
from lib.datasets.toy import make_toy_data
from lib.logger import Logger, write_arguments
from lib.opts import build_parser, opts
from lib.trains.plan import Plan
from lib.trains.run import Run
from lib.utils.errors import UserError
from lib.utils.history import History
from lib.utils.schedule import Schedule
from lib.utils.words import duration, plural

TRAINING = ['--input_res', '64', '--batch_size', '4', '--num_iters', '1', '--lr', '1e-3', '--seed', '5']


def rows_of(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def trained(scripts, module_folder):
    """A run of two epochs by its own defaults of --metric, validated after each: its data and its folder."""
    folder = module_folder
    make_toy_data(folder / 'toy set', train=4, val=3, size=64)
    args = ['ctdet', '--dataset', str(folder / 'toy set'), *SMALL, *TRAINING, '--exp_dir', str(folder / 'exp')]
    scripts('main').main([*args, '--exp_id', 'a', '--num_epochs', '2', '--val_intervals', '1'])
    return SimpleNamespace(data=folder / 'toy set', folder=folder / 'exp/ctdet/a', exp_dir=folder / 'exp')


def test_a_run_is_judged_by_ap(trained):
    """Without a word about it AP chooses model_best.pth, of equal APs the lower loss; the log has units and a plan."""
    best = torch.load(trained.folder / 'model_best.pth', weights_only=True)
    assert best['metric'] == 'AP' and math.isfinite(best['best_loss'])
    rows = rows_of(trained.folder / 'metrics.csv')
    ranks = [(float(row['val_AP']), -float(row['val_loss'])) for row in rows]
    assert best['epoch'] == 1 + ranks.index(max(ranks))
    log = (trained.folder / 'log.txt').read_text()
    assert 'plan: 2 epochs of 1 iteration (4 images in batches of 4); validated on 3 images every epoch' in log
    assert re.search(r'train epoch 1: loss [\d.]+ .* \| time [\d.e-]+ min \| lr 0.001', log)
    assert re.search(r'epoch 1 of 2 is done; about \d+ s left, without validation, until \d\d:\d\d', log)
    assert re.search(r'val epoch 2: .* \| time [\d.e-]+ min \| AP ', log) and 'done: 2 epochs, ' in log


def test_metrics_csv_has_a_row_an_epoch(trained):
    """Losses, times, rate and metrics of each epoch, as the log and metrics.json have them."""
    rows = rows_of(trained.folder / 'metrics.csv')
    assert [row['epoch'] for row in rows] == ['1', '2']
    metrics = json.loads((trained.folder / 'metrics.json').read_text())
    assert float(rows[-1]['val_AP']) == pytest.approx(metrics['AP'], abs=1e-6)
    log = (trained.folder / 'log.txt').read_text()
    for row, loss in zip(rows, re.findall(r'train epoch \d+: loss ([\d.]+)', log), strict=True):
        assert float(row['train_loss']) == pytest.approx(float(loss), rel=1e-4)
        assert float(row['train_lr']) == 1e-3 and float(row['val_loss']) > 0


def test_history_goes_on_where_a_run_does(tmp_path):
    """A resumed run keeps the rows before its epoch, and replaces those of another past; new columns are appended."""
    history = History(tmp_path / 'metrics.csv')
    for epoch in (1, 2, 3):
        history.add(epoch, {'train_loss': epoch / 3}, begins=True)
    history.add(3, {'val_loss': 0.5})
    history = History(tmp_path / 'metrics.csv')
    history.add(2, {'train_loss': 9.0}, begins=True)
    history.add(2, {'val_loss': 8.0, 'val_AP': 0.25})
    assert rows_of(tmp_path / 'metrics.csv') == [
        {'epoch': '1', 'train_loss': '0.3333333', 'val_loss': '', 'val_AP': ''},
        {'epoch': '2', 'train_loss': '9', 'val_loss': '8', 'val_AP': '0.25'},
    ]


@pytest.mark.parametrize('content', ['', 'no table\n1,2,3\n', 'epoch,train_loss\nx,1\n,2\n1,0.5,7,8\n', '\ufeff"'])
def test_history_survives_strange_files(tmp_path, content):
    (tmp_path / 'metrics.csv').write_text(content)
    history = History(tmp_path / 'metrics.csv')
    history.add(5, {'train_loss': 1.0}, begins=True)
    assert rows_of(tmp_path / 'metrics.csv')[-1]['epoch'] == '5'


def make_plan(**options):
    opt = Namespace(**{'num_epochs': 12, 'val_intervals': 5, 'batch_size': 8, **options})
    return Plan(opt, Schedule('step', [9, 11, 90], opt.num_epochs, 10, 0))


def test_time_left_is_of_the_whole_run():
    """Iterations and validations that are to come, at the pace so far."""
    plan = make_plan()
    assert plan.seconds_left(0, 0, 0) is None and plan.validations_left(0) == 3  # after 5, 10 and 12
    plan.trained(10, 1.0)  # 6 seconds each
    assert plan.seconds_left(1, 0, 0) == pytest.approx(11 * 10 * 6)
    plan.trained(10, 2.0)  # 9 seconds in the mean
    plan.validated(0.5)
    assert plan.seconds_left(5, 4, 5) == pytest.approx((7 * 10 - 4) * 9 + 2 * 30)
    assert plan.seconds_left(5, 4, 5, seconds=1.0) == pytest.approx(66 + 60)
    assert [plan.validations_left(epoch) for epoch in (5, 10, 12)] == [2, 1, 0]
    assert make_plan(num_epochs=10).validations_left(5) == 1
    assert make_plan(val_intervals=0).validations_left(0) == 0
    text = plan.describe(85, 'AP', 1)
    assert text == (
        'plan: 12 epochs of 10 iterations (85 images in batches of 8); validated on 1 image every 5 epochs and at the '
        'end, model_best.pth by AP; the rate drops tenfold after epochs 9 and 11'
    )
    assert 'without validation' in make_plan(val_intervals=0).describe(85, 'loss', 0)


def test_a_run_resumed_at_the_end_of_an_epoch_has_measured_nothing():
    """No iteration was left of the epoch: it is done, and the time left is not known; then it is."""
    plan = make_plan()
    plan.trained(0, 0.001)
    assert plan.progress(1, 0) == 'epoch 1 of 12 is done'
    plan.trained(10, 1.0)
    assert plan.progress(2, 0).startswith('epoch 2 of 12 is done; about 10 min left, without validation, until ')


def test_pace_counts_the_iterations_since_the_resume(trained, scripts):
    """State that is kept within an epoch moves on the run's iteration, but not where the measured time began."""
    args = ['ctdet', '--dataset', str(trained.data), *SMALL, *TRAINING, '--exp_dir', str(trained.exp_dir)]
    args += ['--exp_id', 'kept', '--num_epochs', '2', '--val_intervals', '0', '--save_minutes', '1e-6']
    scripts('main').main(args)
    log = (trained.exp_dir / 'ctdet/kept/log.txt').read_text()
    assert re.search(r'epoch 1 of 2 is done; about \d+ s left, until ', log)


def test_numbers_and_times_in_words():
    assert [plural(count, 'epoch') for count in (0, 1, 2)] == ['0 epochs', '1 epoch', '2 epochs']
    assert plural(3, 'class', 'classes') == '3 classes'
    lengths = {42: '42 s', 89.4: '89 s', 100: '2 min', 3599: '1 h 00 min', 3700: '1 h 02 min', 190_000: '2 d 4 h'}
    assert {seconds: duration(seconds) for seconds in lengths} == lengths


@pytest.mark.parametrize(
    ('metric', 'best', 'found', 'better'),
    [
        ('AP', None, (0.0, 9.0), True),
        ('AP', (0.2, 1.0), (0.3, 5.0), True),
        ('AP', (0.2, 1.0), (0.1, 0.5), False),
        ('AP', (0.0, 1.0), (0.0, 0.5), True),
        ('AP', (0.0, 1.0), (0.0, 1.0), False),
        ('AP', (0.0, -math.inf), (0.0, 0.5), False),  # resumed from a version that kept no loss
        ('loss', (1.0, 1.0), (0.5, 0.5), True),
        ('loss', (1.0, 1.0), (1.0, 1.0), False),
    ],
)
def test_better_is_by_metric_then_by_loss(metric, best, found, better):
    run = SimpleNamespace(metric=metric, best=best and best[0], best_loss=best and best[1])
    assert Run.is_better(run, *found) is better


def test_val_without_objects_falls_back_to_the_loss(trained, scripts, tmp_path, capsys):
    """Nothing to score: the loss chooses, and that is said; so it is without a word where --metric loss asks for it."""
    data = tmp_path / 'data'
    make_toy_data(data, train=4, val=2, size=64)
    coco = json.loads((data / 'annotations/val.json').read_text())
    (data / 'annotations/val.json').write_text(json.dumps(coco | {'annotations': []}))
    args = ['ctdet', '--dataset', str(data), *SMALL, *TRAINING, '--exp_dir', str(tmp_path / 'exp'), '--exp_id', 'a']
    scripts('main').main([*args, '--num_epochs', '1'])
    assert torch.load(tmp_path / 'exp/ctdet/a/model_best.pth', weights_only=True)['metric'] == 'loss'
    assert "val.json' has no object to find: the loss chooses model_best.pth" in capsys.readouterr().out
    assert not (tmp_path / 'exp/ctdet/a/metrics.json').exists()


# ------------------------------------------------------------------------------------------ options in files


def test_options_of_a_run_can_be_given_back(trained):
    """`@options.args` reads as the command line of the run did, from any folder and with blanks in paths."""
    text = (trained.folder / 'options.args').read_text()
    read = opts().parse(['ctdet', f'@{trained.folder / "options.args"}', '--exp_id', 'again'])
    assert read.record['dataset'] == str(trained.data) and ' ' in read.record['dataset']
    expected = {'arch': 'res_18', 'batch_size': 4, 'num_epochs': 2, 'lr': 1e-3, 'seed': 5, 'num_workers': 0}
    assert {name: read.record[name] for name in expected} == expected
    assert read.exp_id == 'again' and str(trained.exp_dir) in read.save_dir
    assert 'exp_id=' not in text and '--pretrained=none' in text


def test_a_resumed_run_keeps_what_it_began_with(tmp_path):
    """What is given with --resume counts from then on; the checkpoint that the run was fine-tuned from stays named."""
    path, record = tmp_path / 'options.args', {'load_model': "/it's/a b.pth", 'pretrained': 'none', 'num_epochs': 3}
    write_arguments(str(path), Namespace(task='ctdet', resume=False, record=record))
    resumed = {'load_model': '', 'pretrained': 'imagenet', 'num_epochs': 5}
    for _ in range(2):
        write_arguments(str(path), Namespace(task='ctdet', resume=True, record=resumed))
    parser = build_parser()
    read = parser.parse_args(['ctdet', f'@{path}'])
    assert (read.load_model, read.pretrained, read.num_epochs) == ("/it's/a b.pth", 'none', 5)
    assert len(path.read_text().splitlines()) == 4


def test_files_of_options_are_read_as_a_shell_does(tmp_path, monkeypatch):
    """Several words a line, quotes, comments; what follows the file counts, and a file may name another."""
    monkeypatch.chdir(tmp_path)
    Path('base.args').write_text('--lr 5e-4 --batch_size=16   # comment\n\n"--seed" \'7\'\n')
    Path('my.args').write_text('@base.args\n--flip_test\n')
    opt = opts().parse(['ctdet', '@my.args', '--seed', '8', '--gpus', '-1'], program='test.py')
    assert (opt.lr, opt.batch_size, opt.seed, opt.flip_test) == (5e-4, 16, 8, True)


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        (None, "No such file or directory: 'my.args'"),
        (b"--exp_id 'x\n", 'No closing quotation'),
        (b'@my.args\n', '@my.args reads itself'),
        (b'--exp_id \xff\xfe\x00\n', '@my.args is no text'),
        (b'--no_such 1\n', "unknown argument '--no_such'"),
        (b'--lr=--\n', 'argument --lr: expected a value'),
        (b'--lr fast\n', "invalid float value: 'fast'"),
    ],
)
def test_bad_files_of_options_are_one_line(tmp_path, monkeypatch, content, part):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path('my.args').write_bytes(content)
    with pytest.raises(UserError, match=re.escape(part)) as error:
        opts().parse(['ctdet', '@my.args'])
    assert '\n' not in str(error.value)


def test_rate_for_another_batch_size_is_scaled(capsys):
    """--lr_for 128: a quarter of the rate for batches of 32, said in a line; test.py has no rate to scale."""
    opt = opts().parse(['ctdet', '--lr', '5e-4', '--lr_for', '128', '--batch_size', '32', '--gpus', '-1'])
    assert opt.lr == pytest.approx(1.25e-4) and opt.record['lr'] == 5e-4
    assert '--lr 0.0005 for batches of 128 becomes 0.000125 for batches of 32' in capsys.readouterr().out
    assert opts().parse(['ctdet', '--lr', '5e-4', '--gpus', '-1']).lr == 5e-4
    with pytest.raises(UserError, match='--lr_for -1'):
        opts().parse(['ctdet', '--lr_for', '-1'])


# ------------------------------------------------------------------------------------------ test.py and demo.py


def test_programs_find_the_thresholds(trained, scripts, capsys):
    """test.py writes them beside the checkpoint with its report; `--vis_thresh best` takes them, or says what lacks."""
    checkpoint = str(trained.folder / 'model_best.pth')
    args = ['ctdet', '--dataset', str(trained.data), '--gpus', '-1', '--num_workers', '0', '--load_model', checkpoint]
    scripts('test').main([*args, '--no_report'])
    assert not {'report.html', 'thresholds.json'} & {path.name for path in trained.folder.iterdir()}
    looking = ['ctdet', '--load_model', checkpoint, '--gpus', '-1', '--vis_thresh']
    with pytest.raises(UserError, match=r"--vis_thresh best: there is no 'thresholds.json' in .*test.py writes it"):
        opts().init([*looking, 'best'])
    scripts('test').main(args)
    assert (trained.folder / 'report.html').is_file() and 'report: ' in capsys.readouterr().out
    path = trained.folder / 'thresholds.json'
    saved = json.loads(path.read_text())
    names = list(saved['classes'])
    path.write_text(json.dumps(saved | {'all': 0.4, 'classes': dict.fromkeys(names) | {names[1]: 0.2}}))
    assert opts().init([*looking, 'best']).vis_thresh == [0.4, 0.2, 0.4]
    assert opts().init([*looking, str(path)]).vis_thresh == [0.4, 0.2, 0.4]
    assert 'note: the thresholds' not in capsys.readouterr().out
    last = str(trained.folder / 'model_last.pth')
    opts().init(['ctdet', '--load_model', last, '--gpus', '-1', '--vis_thresh', 'best'])
    assert "are of 'model_best.pth', not of 'model_last.pth'" in capsys.readouterr().out
    assert opts().init([*looking, '0.25']).vis_thresh == 0.25
    for wrong in ('1.5', 'beste', 'nan'):
        with pytest.raises(UserError, match=f'--vis_thresh .?{wrong}'):
            opts().init([*looking, wrong])


def test_a_disk_that_refuses_the_table_does_not_stop_the_run(tmp_path, capsys):
    """metrics.csv is left be with a note; the log goes on."""
    record = {'arch': 'res_18'}
    opt = Namespace(save_dir=str(tmp_path), resume=False, overwrite=False, task='ctdet', exp_id='a', record=record)
    with Logger(opt) as logger:
        logger.history.path = tmp_path / 'log.txt' / 'metrics.csv'  # below a file
        for epoch in (1, 2):
            logger.scalars('train', epoch, {'loss': 1.0}, lambda name: 'm')
    said = capsys.readouterr().out
    assert said.count('note: metrics.csv cannot be written any more') == 1
    assert 'train epoch 2: loss 1 m' in said
    assert '--arch=res_18' in (tmp_path / 'options.args').read_text()
