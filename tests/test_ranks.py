"""Several processes: they change nothing but the time, and none is left waiting for another."""

import json
import multiprocessing
import os
import re
import signal
import time
from argparse import Namespace
from datetime import timedelta

import pytest
import torch

from campaigns.rank_kills import MAIN, SRC, TINY, both_ranks, equal, state, torchrun
from campaigns.ranks import Job, differences, make_data
from conftest import run_program
from lib.datasets.loaders import BatchShare, EpochSampler
from lib.opts import opts
from lib.utils import ranks, watch
from lib.utils.errors import UserError
from lib.utils.launch import ALONE, Launch, launch_of
from lib.utils.ranks import ONE, Ranks, interleave
from lib.utils.run_folder import folder_begun_by, note_beginners
from lib.utils.watch import Verdict

PLACE = {'RANK': '1', 'WORLD_SIZE': '2', 'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '2'}
ADDRESS = {'MASTER_ADDR': 'localhost', 'MASTER_PORT': '29500'}
SECOND = Launch(rank=1, count=2, local_rank=1, local_count=2)
MAY_TAKE = 30  # seconds that the others live on after a rank's death


def parse(*args, launch=ALONE, program='main.py'):
    return opts().parse(['ctdet', *args], program=program, launch=launch)


# ------------------------------------------------------------------------------------------------ one against many


@pytest.fixture(scope='module')
def folder(module_folder):
    return module_folder


def test_two_ranks_are_accumulate_2_bit_for_bit(folder):
    """In all four tasks, with uneven chunks, with deformable convolutions (tests/campaigns/ranks.py has more)."""
    kinds = [('ctdet', 'res_18', (2, 2), 4), ('ctdet', 'dla_34', (3, 1), 3), ('multi_pose', 'dlav0_34', (2, 2), 3)]
    kinds += [('exdet', 'res_18', (3, 1), 3), ('ddd', 'res_18', (2, 2), 3)]
    jobs = [Job(task, arch, make_data(folder / task, task), chunks, steps) for task, arch, chunks, steps in kinds]
    assert differences(jobs, 2, folder) == []


def test_four_ranks_are_accumulate_4_bit_for_bit(folder):
    """Their gradients are summed in the order of the chunks: DLA would magnify the rounding of another order."""
    jobs = [Job('ctdet', 'dla_34', make_data(folder / 'ctdet', 'ctdet'), (1, 1, 1, 1), 3)]
    assert differences(jobs, 4, folder) == []


def test_ranks_take_the_chunks_of_one_permutation():
    """Put together, the ranks' shares of each batch are the batches of one process."""
    sampler = EpochSampler(11, seed=3)
    whole = torch.utils.data.BatchSampler(sampler, 4, drop_last=True)
    shares = [BatchShare(whole, 0, 3), BatchShare(whole, 3, None)]
    assert [first + second for first, second in zip(*shares, strict=True)] == list(whole)
    assert [len(share) for share in shares] == [2, 2]


@pytest.mark.parametrize(('count', 'size'), [(10, 1), (10, 4), (3, 4), (0, 1)])
def test_every_image_is_validated_once(count, size):
    """Shares cover all items, none twice, and `interleave` puts them in order again."""
    members = [Ranks.__new__(Ranks) for _ in range(3)]
    for number, each in enumerate(members):
        each.rank, each.count = number, 3
    shares = [each.share(count, size) for each in members]
    assert sorted(item for share in shares for item in share) == list(range(count))
    if size == 1:
        assert interleave(shares) == list(range(count))
    assert ONE.share(count, size) == list(range(count))


# ------------------------------------------------------------------------------------------------ whole programs


def alone(*args):
    """Run a program in one process to its end."""
    done = run_program(*args)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for(path, run):
    """Wait until a file is there."""
    deadline = time.monotonic() + 180
    while not path.exists():
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.1)


def same(first, second, name='model_last.pth'):
    """Whether a checkpoint of two runs is equal bit for bit."""
    return equal(state(first, name), state(second, name))


@pytest.fixture(scope='module')
def whole(folder):
    """The folder of a run of one process with --accumulate 2 that nobody disturbed: 6 epochs of 2 iterations."""
    alone('main.py', 'ctdet', *run_args(folder), '--exp_id', 'whole', '--accumulate', 2)
    return folder / 'exp/ctdet/whole'


def run_args(folder, epochs=6):
    data = make_data(folder / 'ctdet', 'ctdet')
    args = ['--dataset', data, '--exp_dir', folder / 'exp', *TINY, '--num_epochs', epochs, '--val_intervals', 3]
    args += ['--pretrained', 'none', '--num_workers', 0]
    return [*args, '--print_iter', 1]


def test_training_and_scoring_in_two_processes(folder, whole):
    """The run's checkpoints, its validation and test.py's files are those of one process; rank 0 alone writes."""
    run = torchrun(MAIN, 'ctdet', *run_args(folder), '--exp_id', 'two')
    output = run.communicate(timeout=300)[0]
    assert run.returncode == 0, output
    two = folder / 'exp/ctdet/two'
    assert same(whole, two) and same(whole, two, 'model_best.pth')
    values = [re.findall(r'val epoch .*?(?= \| time)', (place / 'log.txt').read_text()) for place in (whole, two)]
    assert values[0] == values[1] and len(values[0]) == 2
    assert output.count('train: 8 images') == output.count('done: 6 epochs') == 1
    common = ['ctdet', *run_args(folder)[:2], '--gpus', '-1', '--dtype', 'float32']
    alone('test.py', *common, '--load_model', whole / 'model_last.pth')
    test = [*common, '--num_workers', 1, '--load_model', two / 'model_last.pth']
    run = torchrun(SRC / 'test.py', *test)
    output = run.communicate(timeout=300)[0]
    assert run.returncode == 0, output
    for name in ('results.json', 'metrics.json'):
        assert (whole / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize('rank', [0, 1])
def test_a_death_ends_the_others(rank, folder, whole):
    """Killed without a word: the other rank is gone in seconds, one line names the rank; the run goes on exactly."""
    place = folder / f'exp/ctdet/killed_{rank}'
    args = ['ctdet', *run_args(folder), '--exp_id', place.name, '--save_minutes', '0.00001']
    run = torchrun(MAIN, *args)
    victim = both_ranks(run)[rank]
    wait_for(place / 'model_last.pth', run)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    output = run.communicate(timeout=120)[0]
    assert time.monotonic() - killed < MAY_TAKE and run.returncode != 0
    assert len(re.findall(rf'^error: rank {rank} \(process {victim} on .* has died: ', output, re.MULTILINE)) == 1
    # another number of processes goes on with it
    alone('main.py', 'ctdet', *run_args(folder), '--exp_id', place.name, '--resume', '--accumulate', 2)
    assert same(whole, place)


def test_a_stop_signal_to_one_rank_stops_all(folder, whole):
    """SIGTERM to rank 1: all stop after the same iteration, with a checkpoint; the same number of ranks goes on."""
    place = folder / 'exp/ctdet/stopped'
    args = ['ctdet', *run_args(folder), '--exp_id', place.name, '--save_minutes', '0.00001']
    run = torchrun(MAIN, *args)
    second = both_ranks(run)[1]
    wait_for(place / 'model_last.pth', run)
    os.kill(second, signal.SIGTERM)
    output = run.communicate(timeout=120)[0]
    assert run.returncode != 0
    epoch, iteration = map(int, re.search(r'stopped in epoch (\d) after (\d) iterations?: go on', output).groups())
    kept = state(place)
    assert (int(kept['epoch']), int(kept['iteration'])) == (epoch - 1, iteration)
    run = torchrun(MAIN, *args, '--resume')
    assert run.communicate(timeout=300)[0].count('done: 6 epochs') == 1
    assert same(whole, place)


def test_a_restarted_group_goes_on_by_itself(folder, whole):
    """torchrun --max_restarts 1: after a death the run goes on from its last checkpoint, in its own folder."""
    earlier = folder / 'exp2/ctdet/default'
    earlier.mkdir(parents=True)
    (earlier / 'model_last.pth').write_bytes((whole / 'model_last.pth').read_bytes())  # somebody's earlier run
    args = ['ctdet', *run_args(folder), '--exp_dir', folder / 'exp2', '--save_minutes', '0.00001']
    run = torchrun(MAIN, *args, options=['--max_restarts', '1'])
    victim = both_ranks(run)[1]
    place = folder / 'exp2/ctdet/default_2'
    wait_for(place / 'model_last.pth', run)
    os.kill(victim, signal.SIGKILL)
    output = run.communicate(timeout=300)[0]
    assert run.returncode == 0, output
    assert 'the run goes on from its last checkpoint' in output
    assert same(whole, place)
    assert sorted(path.name for path in (folder / 'exp2/ctdet').iterdir()) == ['default', 'default_2']


def test_a_failure_in_one_rank_is_said_once(folder):
    """Options, data, or a folder that differ in one rank: one line names it, and no rank waits."""
    script = folder / 'uneven.py'
    script.write_text(
        'import os, sys\n'
        f'sys.path.insert(0, {str(SRC)!r})\n'
        'import main\n'
        'from lib.utils.launch import run_ranked\n'
        "args = sys.argv[2:] + (sys.argv[1].split() if os.environ['RANK'] == '1' else [])\n"
        'run_ranked(main.main, args)\n'
    )
    other = make_data(folder / 'other', 'multi_pose')
    for change, line in [
        ('--lr 0.5', 'error: rank 1 has --lr 0.5, but rank 0 has 0.001'),
        ('--freeze everything', 'error: rank 1 .*: argument --freeze'),
        (f'--dataset {other}', 'error: rank 1 has'),
        (f'--exp_dir {folder}/unseen', r"error: rank 1 .* does not see the folder '.*/unseen/"),
    ]:
        args = [*map(str, run_args(folder)), '--exp_id', f'uneven{len(change)}', '--overwrite']
        run = torchrun(script, change, 'ctdet', *args)
        output = run.communicate(timeout=120)[0]
        assert run.returncode != 0
        errors = [text for text in output.splitlines() if text.startswith('error: ')]
        assert len(errors) == 1 and re.match(line, errors[0]), output


# ------------------------------------------------------------------------------------------------ who started us


def test_places_in_a_group():
    """torchrun's variables are read; one process needs none."""
    assert launch_of({}) == launch_of({**PLACE, **ADDRESS, 'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0',
                                       'LOCAL_WORLD_SIZE': '1'}) == ALONE  # fmt: skip
    launch = launch_of({**PLACE, **ADDRESS, 'TORCHELASTIC_RESTART_COUNT': '2'})
    assert (launch.rank, launch.count, launch.local_rank, launch.local_count, launch.restarts) == (1, 2, 1, 2, 2)


@pytest.mark.parametrize(
    ('environment', 'words'),
    [
        ({'WORLD_SIZE': '2'}, 'WORLD_SIZE=2.*RANK'),
        ({**PLACE}, 'MASTER_ADDR'),
        ({'OMPI_COMM_WORLD_SIZE': '4'}, 'OMPI_COMM_WORLD_SIZE=4'),
        ({'SLURM_STEP_NUM_TASKS': '8', 'WORLD_SIZE': '1'}, 'SLURM_STEP_NUM_TASKS=8'),
        ({**PLACE, **ADDRESS, 'RANK': '2'}, 'RANK=2'),
        ({**PLACE, **ADDRESS, 'LOCAL_RANK': 'first'}, 'LOCAL_RANK=first'),
    ],
)
def test_unknown_launchers_are_refused(environment, words):
    """One of several processes that do not know of each other would train a whole copy into one folder."""
    with pytest.raises(UserError, match=words):
        launch_of(environment)


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--gpus', '0,1'], 'torchrun'),
        (['--batch_size', '1'], 'without images'),
        (['--batch_size', '4', '--master_batch_size', '4'], 'without images'),
        (['--batch_size', '4', '--accumulate', '3'], '--accumulate 3 in 2 processes'),
        (['--debug', '1'], '--debug'),
        (['--sync_bn', '--gpus', '-1'], '--sync_bn'),
    ],
)
def test_bad_options_of_ranks(args, words):
    """What cannot be shared out is refused in one line."""
    with pytest.raises(UserError, match=words) as error:
        parse(*args, launch=SECOND)
    assert '\n' not in str(error.value)


def test_several_gpus_need_to_be_there():
    """`--gpus 0,5`: the first that is missing is met before any process starts; demo.py takes one."""
    with pytest.raises(UserError, match='--gpus 0,5'):
        _ = parse('--gpus', '0,5').device
    with pytest.raises(UserError, match='0,0'):
        parse('--gpus', '0,0')
    with pytest.raises(UserError, match='one GPU'):
        parse('--gpus', '0,1', program='demo.py')


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason='there are such GPUs')
@pytest.mark.parametrize('program', ['main.py', 'test.py'])
def test_missing_gpus_are_named_as_they_were_asked_for(program, folder, whole):
    """One line about all of --gpus, before a process is started."""
    options = ['--gpus', '0,1', '--load_model', whole / 'model_last.pth']
    done = run_program(program, 'ctdet', *run_args(folder)[:2], *options)
    assert done.returncode == 1 and done.stderr.startswith('error: --gpus 0,1: '), done.stderr
    assert done.stderr.count('\n') == 1


def test_processes_that_do_not_come_are_said(monkeypatch):
    """A rank that finds nobody ends with one line that says where it looked."""
    monkeypatch.setattr(ranks, 'JOINING', timedelta(seconds=1))
    for name, value in {**PLACE, **ADDRESS, 'MASTER_PORT': '1'}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match='rank 1 of 2 did not find the others at localhost:1 ') as error:
        ranks.meet(SECOND)
    assert '\n' not in str(error.value)


def test_chunks_of_ranks(capsys):
    """The batch is shared out among processes, and each one's share among its chunks; --sync_bn says where it acts."""
    opt = parse('--gpus', '0,1', '--batch_size', '7', '--master_batch_size', '3')
    assert (opt.processes, opt.chunk_sizes) == (2, [3, 4])
    opt = parse('--gpus', '0,1', '--batch_size', '8', '--accumulate', '2')
    assert opt.chunk_sizes == [2, 2, 2, 2]
    own = Launch(rank=1, count=2, local_rank=1, local_count=2, own=True)
    opt = parse('--gpus', '2,5', '--batch_size', '8', launch=own)
    assert (opt.gpus_str, opt.gpus, opt.chunk_sizes) == ('5', [0], [4, 4])
    opt = parse('--gpus', '-1', launch=SECOND, program='test.py')
    assert opt.processes == 2


def test_a_restarted_run_is_found_by_its_agents(tmp_path):
    """Of FOLDER, FOLDER_2, ... the one that the same launcher began; nobody else's."""
    for name in ('run', 'run_2'):
        (tmp_path / name).mkdir()
    note_beginners(str(tmp_path / 'run'), ['a:1'])
    note_beginners(str(tmp_path / 'run_2'), ['a:2', 'b:7'])
    assert json.loads((tmp_path / 'run_2/processes.json').read_text()) == {'agents': ['a:2', 'b:7']}
    found = folder_begun_by('b:7', str(tmp_path / 'run'), numbered=True)
    assert found == str(tmp_path / 'run_2')
    assert folder_begun_by('b:7', str(tmp_path / 'run'), numbered=False) is None
    assert folder_begun_by('c:1', str(tmp_path / 'run'), numbered=True) is None


def test_verdicts_name_the_rank():
    """One line: which rank, where, and why."""
    assert Verdict(3, 'host', 7, 'no space').line() == 'rank 3 (process 7 on host): no space'
    assert Verdict(3, 'host', 7).line().startswith('rank 3 (process 7 on host) has died: ')


def test_a_forked_process_holds_no_connection_of_its_rank(monkeypatch):
    """Else the others would take a dead rank for alive as long as one of its loader processes runs."""
    mine, theirs = multiprocessing.Pipe()
    rank = Namespace(links={0: mine})
    monkeypatch.setattr(watch, '_watches', [rank])
    child = os.fork()
    if child == 0:
        os._exit(0 if mine.closed else 1)
    assert os.waitpid(child, 0)[1] == 0
    mine.send('alive')
    assert theirs.recv() == 'alive'
