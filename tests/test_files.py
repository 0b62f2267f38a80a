"""Files and folders through accidents: kills, full disks, loss of power, two runs in one folder, signals."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from conftest import ROOT, SRC
from lib.utils.errors import UserError
from lib.utils.files import TEMPORARY, atomic_path, remove_abandoned, write_json
from lib.utils.lock import FolderLock
from lib.utils.signals import stop_signals_interrupt


def python(code: str, *args, **options) -> subprocess.Popen:
    """A process of its own that runs `code`, with the package `lib` at hand."""
    command = [sys.executable, '-u', '-c', code, *map(str, args)]
    return subprocess.Popen(command, cwd=SRC, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


WRITE_AND_WAIT = """
import sys, time
from lib.utils.files import atomic_path
with atomic_path(sys.argv[1]) as beside:
    beside.write_text('half')
    print('writing', flush=True)
    time.sleep(60)
"""


def test_files_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path):
    """A killed writer's file goes, at any depth; a living writer's and the user's own stay."""
    living, dead = (python(WRITE_AND_WAIT, tmp_path / 'sub' / name) for name in ('a.pth', 'b.pth'))
    for process in (living, dead):
        assert process.stdout.readline() == 'writing\n'
    dead.kill()
    dead.wait()
    own = ['.model_last-abcd123.pth', '.notes-abcd1234.txt', '.x-writing-ABCD1234.pth', 'model_last-abcd1234.pth']
    for name in [*own, '.model_last-abcd1234.pth', '.model_12-abcd_234.pth']:
        (tmp_path / name).write_text('1234')
    (tmp_path / 'kept').write_text('1')
    (tmp_path / '.l-writing-abcd1234.txt').symlink_to(tmp_path / 'kept')
    assert remove_abandoned(tmp_path) == 3 * 4
    assert {path.name for path in tmp_path.iterdir()} == {*own, 'sub', 'kept', '.l-writing-abcd1234.txt'}
    (beside,) = (tmp_path / 'sub').iterdir()
    assert beside.name.startswith('.a-writing-') and TEMPORARY.fullmatch(beside.name)
    living.kill()
    living.wait()
    assert remove_abandoned(tmp_path) == 4 and not list((tmp_path / 'sub').iterdir())


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """fsync of the file, then the rename, then fsync of the folder."""
    steps = []
    sync, replace = os.fsync, os.replace

    def note_sync(handle):
        kind = 'folder' if stat.S_ISDIR(os.fstat(handle).st_mode) else f'file of {os.fstat(handle).st_size}'
        steps.append(kind)
        sync(handle)

    monkeypatch.setattr(os, 'fsync', note_sync)
    monkeypatch.setattr(os, 'replace', lambda a, b: (steps.append('rename'), replace(a, b)))
    write_json(tmp_path / 'x.json', [1, 2])
    assert steps == ['file of 6', 'rename', 'folder']
    steps.clear()
    with atomic_path(tmp_path / 'y.txt', durable=False) as beside:
        beside.write_text('y')
    assert steps == ['rename']


def test_longest_names(tmp_path):
    """A name that fills the 255 bytes of a file system can be written, whatever its letters take."""
    for name in ('n' * 251 + '.txt', 'ü' * 125 + 'a.txt', 'n' * 255):
        with atomic_path(tmp_path / name) as beside:
            assert beside.suffix == (tmp_path / name).suffix and TEMPORARY.fullmatch(beside.name)
            beside.write_text(name)
        assert (tmp_path / name).read_text() == name
    assert len(list(tmp_path.iterdir())) == 3


def test_refusals_name_the_file_that_was_asked_for(tmp_path):
    """A folder that is a file, a target that is a folder; an error about another file stays what it is."""
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder').mkdir()
    for path in (tmp_path / 'file/x.json', tmp_path / 'folder'):
        with pytest.raises(UserError, match=rf"'{path}' cannot be written: "):
            write_json(path, 1)
    with pytest.raises(FileNotFoundError, match='nowhere'), atomic_path(tmp_path / 'x') as beside:
        beside.write_bytes((tmp_path / 'nowhere').read_bytes())
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'folder'}


HOLD = """
import sys, time
from lib.utils.lock import FolderLock
lock = FolderLock(sys.argv[1], 'x.lock', 'another run trains in')
print('locked', flush=True)
time.sleep(60)
"""


def test_one_owner_a_folder(tmp_path):
    """A living owner is named with its lock file; a dead one's lock is no obstacle; a release leaves no file."""
    owner = python(HOLD, tmp_path)
    assert owner.stdout.readline() == 'locked\n'
    assert json.loads((tmp_path / 'x.lock').read_text())['pid'] == owner.pid
    words = rf"another run trains in '{tmp_path}' \(process {owner.pid} on .*--exp_id .*'{tmp_path / 'x.lock'}'"
    with pytest.raises(UserError, match=words):
        FolderLock(tmp_path, 'x.lock', 'another run trains in')
    owner.kill()
    owner.wait()
    lock = FolderLock(tmp_path, 'x.lock', 'another run trains in')
    assert json.loads((tmp_path / 'x.lock').read_text())['pid'] == os.getpid()
    second = python(HOLD, tmp_path)
    assert f'process {os.getpid()} on' in second.communicate()[0]
    lock.release()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_child_processes_do_not_keep_the_lock(tmp_path):
    """Loader processes may outlive a killed run by seconds; a new run need not wait for them."""
    code = HOLD.replace("print('locked'", "import os; child = os.fork()\nif child: print('locked', child")
    owner = python(code.replace('flush=True)', 'flush=True)', 1), tmp_path, start_new_session=True)
    child = int(owner.stdout.readline().split()[1])
    owner.kill()
    owner.wait()
    os.kill(child, 0)  # it lives
    FolderLock(tmp_path, 'x.lock', 'another run trains in').release()
    os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_stop_signals_leave_files_whole(tmp_path, number):
    """Both raise KeyboardInterrupt in the block: what was being written is removed."""
    (tmp_path / 'x').write_text('old')
    with pytest.raises(KeyboardInterrupt), stop_signals_interrupt(), atomic_path(tmp_path / 'x') as beside:
        beside.write_text('new')
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert (tmp_path / 'x').read_text() == 'old' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_stop_signals_at_the_start_of_a_program(number):
    """While a program imports they end it with one word and status 130, wherever they come."""
    code = """
import time
from lib.utils.signals import exit_on_stop_signals
exit_on_stop_signals()
print('importing')
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
    process = python(code)
    assert process.stdout.readline() == 'importing\n'
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == 'interrupted\n' and process.returncode == 130


def test_kill_campaign():
    """Two kills of a run at random moments: every chain ends as the run that was left alone."""
    command = [sys.executable, str(ROOT / 'tests/campaigns/kills.py'), '--kills', '2', '--workers', '2', '--seed', '1']
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ', 0 chains differ' in done.stdout
