"""Options: defaults, what is derived from them, and that mistakes end in one line."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib import load_detector
from lib.datasets.dataset_factory import get_dataset
from lib.models import families
from lib.models.model import create_model, save_model
from lib.opts import TASKS, build_parser, chunk_sizes, model_facts, opts
from lib.utils.errors import UserError


def parse(*args, **kwargs):
    return opts().parse([*args, '--gpus', '-1'], **kwargs)


def prepared(*args):
    opt = parse(*args)
    return opts.update_dataset_info_and_set_heads(opt, get_dataset(opt.dataset, opt.task))


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['ctdt'], ['ctdt', "did you mean 'ctdet'"]),
        (['ctdet', '--dataset', 'cocoo'], ['cocoo', 'coco, ', 'nor a folder', "did you mean 'coco'"]),
        (['ctdet', '--arch', 'dla34'], ['dla34', "did you mean 'dla_34'"]),
        (['ctdet', '--bach_size', '3'], ['--bach_size', "did you mean '--batch_size'"]),
        (['ctdet', '--batch', '3'], ["unknown argument '--batch'"]),
        (['ctdet', 'coco'], ["unknown argument 'coco'", '--help']),
        (['ctdet', '--lr_step', '90;120'], ['lr_step', '90,120']),
        (['ctdet', '--batch_size', '0'], ['--batch_size 0', 'at least 1']),
        (['ctdet', '--batch_size', 'many'], ['batch_size', 'many']),
        (['ctdet', '--flip', '2'], ['--flip', '0 to 1']),
        (['ctdet', '--keep_res', '--fix_res'], ['exclude']),
        (['ctdet', '--dense_wh', '--cat_spec_wh'], ['choose one']),
        (['ctdet', '--down_ratio', '2'], ['down_ratio']),
        (['ctdet', '--lr', '0'], ['--lr']),
        (['ctdet', '--K', '0'], ['--K']),
        (['ctdet', '--test_scales', '0'], ['test_scales']),
        (['ctdet', '--debug', '7'], ['--debug']),
        (['ctdet', '--gpus', '0,0'], ['gpus']),
        (['ctdet', '--gpus', 'x'], ['gpus', 'GPU id such as 0']),
        (['ctdet', '--test_scales', '1,0'], ["'1,0'", 'over 0']),
        (['ctdet', '--pretrained', 'nowhere.pth'], ['nowhere.pth']),
        (['ctdet', '--trainval', '--metric', 'AP'], ['--trainval']),
        (['ctdet', '--eval_oracle_offset', '--not_reg_offset'], ['eval_oracle_offset']),
        (['ctdet', '--val_intervals', '0', '--metric', 'AP'], ['--val_intervals 0']),
        (['ctdet', '--scale', '1'], ['--scale', 'less than 1']),
        (['ctdet', '--shift', 'nan'], ['--shift', 'finite']),
        (['ctdet', '--test_scales', '1,inf'], ['--test_scales', 'finite']),
        (['ctdet', '--input_res', '8224'], ['--input_res', '8192']),  # checkpoints with it would be refused
        (['ctdet', '--num_iters', str(2**63)], ['--num_iters', '64 bits']),
        (['ctdet', '--shift=--'], ['--shift', 'expected a value']),
        (['ctdet', '--seed', '9' * 20], ['--seed']),
        (['ctdet', '--load_model', 'nowhere.pth', '--test'], ['nowhere.pth']),
        (['ctdet', '--exp_dir', '/nowhere', '--resume', '--test'], ['model_last.pth']),
        ([], ['TASK', '--help']),
    ],
)
def test_mistakes_are_one_line(args, words):
    """A wrong option is refused when it is read, in one line that names it and what is valid."""
    with pytest.raises(UserError) as caught:
        opts().parse(args)
    message = str(caught.value)
    assert '\n' not in message
    assert all(word in message for word in words), message


def test_input_size_must_suit_the_network():
    """Sides are multiples of 32, of 128 for hourglass."""
    assert prepared('ctdet', '--input_res', '96').output_h == 24
    with pytest.raises(UserError, match='multiples of 32'):
        prepared('ctdet', '--input_res', '100')
    with pytest.raises(UserError, match='multiples of 128'):
        prepared('ctdet', '--arch', 'hourglass', '--input_res', '96')


def test_unknown_metric_is_refused_before_training():
    """--metric is a figure of the dataset."""
    assert prepared('ctdet', '--metric', 'AP50').metric == 'AP50'
    with pytest.raises(UserError, match="'APP50'.*did you mean 'AP50'"):
        prepared('ctdet', '--metric', 'APP50')


def test_sizes():
    """h and w override res, which overrides the dataset's default."""
    opt = prepared('ctdet')
    assert (opt.input_h, opt.input_w, opt.output_h, opt.output_w) == (512, 512, 128, 128)
    opt = prepared('ctdet', '--dataset', 'pascal')
    assert (opt.input_h, opt.input_res, opt.output_res) == (384, 384, 96)
    opt = prepared('ctdet', '--input_res', '256', '--input_w', '320')
    assert (opt.input_h, opt.input_w, opt.input_res, opt.output_res) == (256, 320, 320, 80)
    assert prepared('ctdet', '--input_res', '384').hm_gauss == 3


@pytest.mark.parametrize(
    ('args', 'heads'),
    [
        ([], {'hm': 80, 'wh': 2, 'reg': 2}),
        (['--cat_spec_wh'], {'hm': 80, 'wh': 160, 'reg': 2}),
        (['--not_reg_offset'], {'hm': 80, 'wh': 2}),
        (['--dataset', 'pascal'], {'hm': 20, 'wh': 2, 'reg': 2}),
    ],
)
def test_heads(args, heads):
    """Heads, their channels and their order."""
    opt = prepared('ctdet', *args)
    assert list(opt.heads.items()) == list(heads.items())


def test_derived():
    """Attributes that follow from options: lists, switches, what -1 stands for, folders, devices."""
    opt = parse('ctdet', '--exp_id', 'x', '--exp_dir', '/tmp/e', '--lr_step', '3,5', '--test_scales', '0.5,1')
    assert (opt.lr_step, opt.test_scales) == ([3, 5], [0.5, 1.0])
    assert (opt.gpus, opt.reg_offset, opt.fix_res, opt.pad, opt.num_stacks) == ([-1], True, True, 31, 1)
    assert (opt.head_conv, opt.K) == (256, 100)
    assert (opt.save_dir, opt.debug_dir) == ('/tmp/e/ctdet/x', '/tmp/e/ctdet/x/debug')
    assert opt.data_dir == str(Path(__file__).resolve().parent.parent / 'data')
    opt = parse('ctdet', '--arch', 'hourglass', '--keep_res', '--trainval', '--debug', '1')
    assert (opt.pad, opt.num_stacks, opt.fix_res, opt.val_intervals) == (127, 2, False, 0)
    assert (opt.batch_size, opt.num_workers) == (1, 0)
    assert parse('ctdet', '--arch', 'res_18').head_conv == 64
    assert parse('exdet', '--dataset', 'coco').K == 40
    assert not parse('multi_pose', '--not_hm_hp').reg_hp_offset
    opt = opts().parse(['ctdet', '--gpus', '2,3'])
    assert (opt.gpus, opt.gpus_str) == ([0, 1], '2,3')


def test_chunk_sizes():
    """The master's share first, the rest evenly, its remainder to the first of the rest."""
    assert chunk_sizes(32, -1, 1) == [32]
    assert chunk_sizes(32, -1, 4) == [8, 8, 8, 8]
    assert chunk_sizes(33, 4, 4) == [4, 10, 10, 9]
    assert chunk_sizes(32, 4, 4) == [4, 10, 9, 9]
    with pytest.raises(UserError, match='without images'):
        opts().parse(['ctdet', '--gpus', '0,1', '--batch_size', '1'])


@pytest.mark.parametrize(
    'args',
    [
        ['ctdet', '--dense_hp'],
        ['ctdet', '--master_batch_size', '4'],
        ['ctdet', '--lr_schedule', 'cosine', '--lr_step', '90'],
        ['ctdet', '--val_intervals', '0', '--patience', '5'],
        ['ctdet', '--arch', 'hourglass', '--head_conv', '64'],
        ['ctdet', '--shift', '0.2'],
        ['ctdet', '--hm_gauss', '3'],
        ['ddd', '--flip', '0.1'],
        ['exdet', '--reg_loss', 'l2'],
        ['ctdet', '--flip_test'],
        ['ctdet', '--output', 'x'],
        ['multi_pose', '--keep_res'],
    ],
)
def test_idle_options_are_reported(args, capsys):
    """An option that cannot act in the run is said so, once."""
    parse(*args)
    assert capsys.readouterr().out.count('note:') == 1


@pytest.mark.parametrize('name', ['--lr', '--batch_size', '--not_prefetch_test'])
def test_options_of_other_programs_are_reported(name, capsys):
    """demo.py says that options of training and test.py do not act there."""
    parse('ctdet', *([name] if name == '--not_prefetch_test' else [name, '1']), program='demo.py')
    assert f'note: {name} acts in' in capsys.readouterr().out


def test_oracles_belong_to_the_training_side():
    """test.py and demo.py have no truth to put in place of a head."""
    with pytest.raises(UserError, match='main.py --test'):
        parse('ctdet', '--eval_oracle_hm', program='test.py')


def test_oracles_need_their_head():
    """The truth of a head that is switched off is refused; multi_pose has its boxes also under --not_reg_bbox."""
    with pytest.raises(UserError, match='--eval_oracle_wh replaces a head'):
        parse('ddd', '--test', '--not_reg_bbox', '--eval_oracle_wh')
    with pytest.raises(UserError, match='--eval_oracle_hmhp replaces a head'):
        parse('multi_pose', '--test', '--not_hm_hp', '--eval_oracle_hmhp')
    assert parse('multi_pose', '--test', '--not_reg_bbox', '--eval_oracle_wh').eval_oracle_wh


def checkpoint(path, *args):
    opt = prepared(*args)
    save_model(path, 1, torch.nn.Linear(1, 1), **model_facts(opt))
    return str(path)


def test_checkpoint_facts_are_adopted(tmp_path):
    """test and demo take arch, heads and input size from the checkpoint; the command line may change the size."""
    path = checkpoint(tmp_path / 'm.pth', 'ctdet', '--arch', 'res_18', '--input_res', '256', '--cat_spec_wh')
    opt = opts().init(['ctdet', '--load_model', path, '--gpus', '-1'])
    assert (opt.arch, opt.input_h, opt.cat_spec_wh, opt.heads['wh']) == ('res_18', 256, True, 160)
    assert opts().init(['ctdet', '--load_model', path, '--input_res', '128', '--gpus', '-1']).input_h == 128
    assert parse('ctdet', '--load_model', path).arch == 'dla_34'  # fine-tuning chooses for itself


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['ctdet', '--arch', 'dla_34'], ['res_18', 'dla_34']),
        (['ctdet', '--not_reg_offset'], ['not_reg_offset']),
        (['multi_pose'], ['ctdet', 'multi_pose']),
    ],
)
def test_contradiction_of_a_checkpoint_names_both(tmp_path, args, words):
    """An option that contradicts what the checkpoint was trained with is refused."""
    path = checkpoint(tmp_path / 'm.pth', 'ctdet', '--arch', 'res_18')
    with pytest.raises(UserError) as caught:
        parse(*args, '--load_model', path, program='test.py')
    assert all(word in str(caught.value) for word in words)


def test_other_classes_than_the_checkpoint(tmp_path):
    """A dataset with other classes than the checkpoint's is refused; both are named."""
    path = checkpoint(tmp_path / 'm.pth', 'ctdet', '--arch', 'res_18')
    opt = parse('ctdet', '--dataset', 'pascal', '--load_model', path, program='test.py')
    with pytest.raises(UserError, match='person.*pascal.*aeroplane'):
        opts.update_dataset_info_and_set_heads(opt, get_dataset('pascal', 'ctdet'))


def test_help_lists_every_option():
    """--help works, every option has a help text, and each task has an example."""
    parser = build_parser()
    assert all(action.help for action in parser._actions)
    text = parser.format_help()
    assert '--kitti_split' in text
    for task in TASKS:
        assert f'python main.py {task} [--dataset' in text


ROOT = Path(__file__).resolve().parent.parent


def experiment_lines() -> list:
    lines = []
    for path in sorted((ROOT / 'experiments').glob('*.sh')):
        for line in path.read_text().replace('\\\n', ' ').splitlines():
            if line.startswith(('python main.py', 'python test.py')) and '$' not in line:
                lines.append(pytest.param(line.split()[1:], id=f'{path.stem}: {line[7:60]}'))
    return lines


@pytest.mark.parametrize('words', experiment_lines())
def test_experiments_parse(words, tmp_path, monkeypatch):
    """Every command line of experiments/ is one that opts understands, without a note about idle options."""
    args = [*words[1:], '--gpus', '-1', '--exp_dir', str(tmp_path)]
    exp_id = words[words.index('--exp_id') + 1]
    last = tmp_path / words[1] / exp_id / 'model_last.pth'
    save_model(last, 1, torch.nn.Linear(1, 1))
    opt = opts().parse(args, program=words[0])
    assert opt.exp_id == exp_id
    if words[0] == 'test.py':
        assert opt.load_model == str(last)


@pytest.mark.parametrize('task', ['ctdet', 'multi_pose', 'exdet', 'ddd'])
def test_demo_lines_parse(task, tmp_path):
    """What `make demo` and its like run, with a `python` in the way that only notes its arguments."""
    demo = tmp_path / 'checkout' / 'experiments' / 'demo.sh'
    (tmp_path / 'checkout' / 'src').mkdir(parents=True)
    demo.parent.mkdir()
    demo.write_text((ROOT / 'experiments' / 'demo.sh').read_text())
    lists = tmp_path / 'checkout' / 'data' / 'toy_ddd' / 'kitti' / 'ImageSets_3dop'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('000007\n')
    noted = tmp_path / 'noted'
    stub = tmp_path / 'python'
    stub.write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >> {noted}; echo >> {noted}\n')
    stub.chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
    subprocess.run(['bash', demo, task], env=env, check=True)
    lines = [line.rstrip('\t').split('\t') for line in noted.read_text().splitlines()]
    assert [line[0] for line in lines] == ['tools/make_toy_data.py', 'main.py', 'demo.py', 'test.py']
    data = tmp_path / 'data'
    (data / 'annotations').mkdir(parents=True)
    (data / 'annotations/train.json').write_text('{"images": []}')
    model = tmp_path / 'model.pth'
    save_model(model, 1, torch.nn.Linear(1, 1))
    for words in lines[1:]:
        values = {'--dataset': str(data), '--load_model': str(model)}
        args = [values.get(before, word) for before, word in zip(words, words[1:], strict=False)]
        opt = opts().parse(args, program=words[0])
        assert opt.task == task and opt.exp_id == 'demo'


def test_experiments_are_shell():
    """bash can read each script."""
    for path in (ROOT / 'experiments').glob('*.sh'):
        subprocess.run(['bash', '-n', path], check=True)


@pytest.mark.parametrize('program', ['main.py', 'test.py', 'demo.py'])
def test_starting_is_quick(program):
    """Reading options, --help and a typing error need neither torch nor cv2, whose imports take seconds."""
    for args in (['--help'], ['ctdet', '--bach_size', '3']):
        code = (
            f'import sys, runpy; sys.argv = [{program!r}, *{args}]\n'
            f'try: runpy.run_path({str(ROOT / "src" / program)!r}, run_name="__main__")\n'
            'except SystemExit: print({"torch", "cv2", "torchvision"} & set(sys.modules))'
        )
        env = {**os.environ, 'PYTHONPATH': str(ROOT / 'src')}
        done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[-1] == 'set()', done.stdout + done.stderr


def test_help_is_of_the_program():
    """Each program's --help lists the options that act there; the others are understood all the same."""
    texts = {program: build_parser(program).format_help() for program in ('main.py', 'test.py', 'demo.py')}
    assert '--lr ' in texts['main.py'] and '--lr ' not in texts['test.py'] and '--lr ' not in texts['demo.py']
    assert '--save_video' in texts['demo.py'] and '--save_video' not in texts['main.py']
    assert '--test_batch_size' in texts['test.py'] and '--test_batch_size' not in texts['demo.py']
    assert all('--load_model' in text for text in texts.values())


@pytest.mark.parametrize(
    ('word', 'proposed'),
    [
        ('--batch', '--batch_size'),
        ('--amp', None),
        ('--bach_size', '--batch_size'),
        ('--zzz', None),
        ('--lr_stp', '--lr_step'),
    ],
)
def test_only_near_names_are_proposed(word, proposed):
    """A name that shares little with an option is not taken for a misspelling of it."""
    with pytest.raises(UserError) as caught:
        opts().parse(['ctdet', word, '3'])
    assert ('did you mean' in str(caught.value)) == (proposed is not None)
    assert proposed is None or f"did you mean '{proposed}'" in str(caught.value)


def test_the_family_says_what_inputs_and_heads_it_has(monkeypatch, tmp_path):
    """Input multiples and head widths come from the entry of the family, whatever the name of the arch."""
    family = dataclasses.replace(families.model_factory['res'], side_multiple=64)
    monkeypatch.setitem(families.model_factory, 'res', family)
    with pytest.raises(UserError, match='multiples of 64'):
        prepared('ctdet', '--arch', 'res_18', '--input_res', '96')
    opt = prepared('ctdet', '--arch', 'hourglass', '--head_conv', '64')
    assert opt.head_conv == 256 and model_facts(opt)['head_conv'] == 256


def test_old_hourglass_checkpoints_recorded_another_width(tmp_path):
    """They recorded 64, which did not act: they load, also with the width that their heads have."""
    opt = prepared('ctdet', '--arch', 'hourglass')
    save_model(tmp_path / 'm.pth', 1, torch.nn.Linear(1, 1), **{**model_facts(opt), 'head_conv': 64})
    for args in ([], ['--head_conv', '256']):
        read = parse('ctdet', '--load_model', str(tmp_path / 'm.pth'), *args, program='test.py')
        assert read.head_conv == 256


def test_a_resumed_run_keeps_its_options(tmp_path, capsys):
    """--resume takes all options from the run; what the command line changes is said, what it repeats is not."""
    run = ['ctdet', '--exp_dir', str(tmp_path), '--exp_id', 'run']
    started = [
        '--arch',
        'res_18',
        '--batch_size',
        '4',
        '--lr_step',
        '3,5',
        '--flip',
        '0.25',
        '--not_rand_crop',
        '--seed',
        '9',
    ]
    opt = prepared(*run, *started, '--input_res', '96')
    save_model(Path(opt.save_dir, 'model_last.pth'), 1, torch.nn.Linear(1, 1), **model_facts(opt))
    capsys.readouterr()
    same = prepared(*run, '--resume')
    names = ('arch', 'batch_size', 'lr_step', 'flip', 'not_rand_crop', 'seed', 'input_h', 'lr', 'hm_gauss')
    assert {name: getattr(same, name) for name in names} == {name: getattr(opt, name) for name in names}
    assert 'other options' not in capsys.readouterr().out
    assert model_facts(same) == model_facts(opt)  # so that a resumed run ends in the same file
    other = prepared(*run, '--resume', '--batch_size', '8', '--flip', '0.25', '--input_res', '128')
    assert (other.batch_size, other.flip, other.input_h, other.input_w) == (8, 0.25, 128, 128)
    said = capsys.readouterr().out
    assert '--batch_size 8 (before: 4)' in said and '--flip' not in said
    # what a second resume finds is what the first one ran with
    save_model(Path(opt.save_dir, 'model_last.pth'), 2, torch.nn.Linear(1, 1), **model_facts(other))
    assert prepared(*run, '--resume').batch_size == 8


def test_a_run_is_resumed_from_another_folder(tmp_path, monkeypatch):
    """Paths in the record of a run's options do not depend on where the program was started."""
    data = tmp_path / 'data'
    (data / 'annotations').mkdir(parents=True)
    (data / 'annotations/train.json').write_text(json.dumps({'images': [], 'categories': [{'id': 1, 'name': 'cat'}]}))
    monkeypatch.chdir(tmp_path)
    opt = prepared('ctdet', '--dataset', 'data', '--exp_dir', 'exp')
    save_model(Path(opt.save_dir, 'model_last.pth'), 1, torch.nn.Linear(1, 1), **model_facts(opt))
    monkeypatch.chdir(data)
    assert prepared('ctdet', '--exp_dir', str(tmp_path / 'exp'), '--resume').dataset == str(data)


def test_a_hostile_record_of_options_is_refused(tmp_path):
    """A recorded option that is no value of it is one line, not a traceback later."""
    opt = prepared('ctdet', '--exp_dir', str(tmp_path))
    for options in ({'batch_size': 'many'}, {'flip': 7.0}, {'reg_loss': 'l9'}, {'lr_step': '1;2'}, {'debug': True}):
        facts = {**model_facts(opt), 'options': options}
        save_model(Path(opt.save_dir, 'model_last.pth'), 1, torch.nn.Linear(1, 1), **facts)
        with pytest.raises(UserError, match=next(iter(options))):
            parse('ctdet', '--exp_dir', str(tmp_path), '--resume')


def test_results_go_to_the_run_of_the_checkpoint(tmp_path):
    """test.py, demo.py, --test and --resume work in the folder of the run whose checkpoint they are given."""
    run = tmp_path / 'exp' / 'ctdet' / 'mine'
    opt = prepared('ctdet', '--exp_dir', str(tmp_path / 'exp'), '--exp_id', 'mine')
    best = run / 'model_best.pth'
    save_model(best, 1, torch.nn.Linear(1, 1), **model_facts(opt))
    load = ['ctdet', '--load_model', str(best)]
    assert parse(*load, program='test.py').save_dir.endswith('exp/ctdet/default')  # no record of a run beside it
    (run / 'opt.txt').write_text('')
    for program, extra in (('test.py', []), ('demo.py', []), ('main.py', ['--test']), ('main.py', ['--resume'])):
        assert parse(*load, *extra, program=program).save_dir == str(run)
        assert parse(*load, *extra, '--exp_dir', str(tmp_path / 'exp'), program=program).save_dir == str(run)
    fine_tuning = parse(*load, '--exp_dir', str(tmp_path / 'exp'))
    assert fine_tuning.save_dir == str(tmp_path / 'exp/ctdet/default')
    named = parse(*load, '--exp_dir', str(tmp_path / 'other'), program='test.py')
    assert named.save_dir == str(tmp_path / 'other/ctdet/default')
    assert parse(*load, '--exp_dir', str(tmp_path / 'exp'), '--exp_id', 'x', program='test.py').exp_id == 'x'


@pytest.mark.parametrize('exp_id', ['..', '../other', '/tmp/elsewhere', 'a/../..', '', '.', 'x' * 300, 'a\0b'])
def test_a_run_stays_in_its_folder(exp_id, tmp_path):
    """--exp_id names a folder below exp/TASK and nothing else."""
    with pytest.raises(UserError, match='--exp_id'):
        parse('ctdet', '--exp_dir', str(tmp_path), '--exp_id', exp_id)
    assert parse('ctdet', '--exp_dir', str(tmp_path), '--exp_id', 'a/b').save_dir == str(tmp_path / 'ctdet/a/b')


def test_a_checkpoint_without_facts_shows_its_network(tmp_path):
    """Arch, head width, classes and switches of a published checkpoint are read off its parameters."""
    network = create_model('resdcn_18', {'hm': 20, 'wh': 2}, 64)
    torch.save({'epoch': 3, 'state_dict': network.state_dict()}, tmp_path / 'published.pth')
    load = ['ctdet', '--load_model', str(tmp_path / 'published.pth'), '--gpus', '-1']
    opt = opts().init(load)
    assert (opt.arch, opt.head_conv, opt.not_reg_offset, opt.dataset) == ('resdcn_18', 64, True, 'pascal')
    assert opt.class_names[0] == 'aeroplane' and opt.heads == {'hm': 20, 'wh': 2}
    with pytest.raises(UserError, match="resdcn_18.*'coco'|resdcn_18|heads"):
        opts().init([*load, '--dataset', 'coco'])
    network = create_model('res_18', {'hm': 7, 'wh': 2, 'reg': 2}, 64)
    torch.save({'epoch': 3, 'state_dict': network.state_dict()}, tmp_path / 'published.pth')
    assert opts().init(load).class_names == [f'class {i}' for i in range(1, 8)]


def test_load_detector_refuses_unknown_tasks(tmp_path):
    """A task that there is not is named, as on the command line."""
    with pytest.raises(UserError, match="task 'pose'"):
        load_detector(str(tmp_path / 'x.pth'), task='pose')
