"""Files and folders through accidents: kills, full disks, loss of power, two runs in one folder, signals."""

import json
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import time

import pytest

from conftest import ROOT, SRC
from lib.utils import files
from lib.utils.errors import UserError
from lib.utils.files import TEMPORARY, atomic_path, read_json, remove_abandoned, write_json
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


OBJECT = b'{"images": [{"id": 1, "name": "a"}], "x": {"y": [[1, 2.5], {"z": null}]}}'
TEXTS = [
    OBJECT,
    *(b'1', b'"a"', b'[]', b'{}', b'', b' \n', b'[1, 2', b'[1,]', b'{"a": 1,}', b'{1: 2}', b'tru', b"'a'", b'// a\n1'),
    *(b'[1] [2]', b'[1]\0', b'\0[1]', b'\x0c[1]', b'\xc2\xa0[1]', b'"\x1f"', b'"\t"', b'"\\x"', b'"\\u00zz"', b'"a'),
    # keys: twice, twice in other spellings, twice beside texts that look like keys, lists of objects twice, none
    *(b'{"a": 1, "a": 2}', b'{"a": 1, "\\u0061": 2}', b'[{"b": {"a":1,"a" :2}}, {"c\\":": 3}]', b'{"": 1, "" : 2}'),
    *(b'{"a": [{"b": 1}], "a": [{"b": 2}]}', b'{"a": [{"b": 1}], "a": []}', b'[{}, [{}], {"a": {}}]'),
    *(b'{"a" : 1, "b"\n:2}', b'{"a": "b\\":", "c": "\\": "}', b'{"a": 1, "a": 2, "b": "x\\":y"}', b'["a\\":"]'),
    # numbers
    *(b'NaN', b'[Infinity, -Infinity]', b'-NaN', b'1e999', b'-1e999', b'1e-999', b'-0', b'-0.0', b'1E5', b'1.', b'.5'),
    *(
        b'01',
        b'+1',
        b'1_0',
        b'0x1',
        b'18446744073709551616',
        b'-9223372036854775809',
        b'9' * 40,
        b'9' * 4000,
        b'9' * 5000,
    ),
    *(b'1.7976931348623158e308', b'2.4703282292062328e-324', b'9007199254740993.0', b'0.' + b'1' * 400),
    # texts: lone surrogates, halves in the wrong order, escapes, pairs, what no UTF-8 is
    *(b'"\\ud800"', b'{"\\ud800": 1}', b'"\\ude00\\ud83d"', b'"\\ud83dA"', b'"\\ud83d\\ude00"', b'"\\u0000\\/"'),
    *(b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xff"', b'{"caf\xe9": 1, "caf\xe9": 2}', b'"\xe2\x82"', b'"\x7f\xc2\x80"'),
    # encodings and nesting
    *(OBJECT.decode().encode(encoding) for encoding in ('utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32', 'utf-32-be')),
    *(b'[' * depth + b']' * depth for depth in (500, 1100, 200_000)),
    b'{"a":' * 1100 + b'1' + b'}' * 1100,
]


def outcome(path):
    """What `read_json` makes of a file: the value's text, or the error, and the warnings."""
    warnings: list[str] = []
    try:
        return repr(read_json(path, warnings.append)), warnings
    except UserError as error:
        return f'error: {error}', warnings


@pytest.mark.parametrize('text', TEXTS, ids=lambda text: repr(text[:40])[2:-1])
def test_the_fast_reader_of_json_changes_nothing(tmp_path, monkeypatch, text):
    """Values, types, errors and warnings are those of Python's reader, whatever the file holds."""
    (tmp_path / 'x.json').write_bytes(text)
    found = outcome(tmp_path / 'x.json')

    def refuse(data):
        raise ValueError

    monkeypatch.setattr(files, '_read_plain_json', refuse)
    assert found == outcome(tmp_path / 'x.json')


def test_numbers_are_those_of_pythons_reader(tmp_path):
    """Bit for bit: floats of all sizes with few and many digits, halves between two floats, integers of any length."""
    rng = random.Random(0)
    floats = [struct.unpack('d', struct.pack('Q', rng.getrandbits(64)))[0] for _ in range(20_000)]
    texts = [f'{each:.{rng.randrange(30)}e}' for each in floats if 0 < abs(each) < 1e300]
    texts += [str(rng.randrange(10 ** rng.randrange(1, 40))) for _ in range(5_000)]
    texts += [f'{2 * rng.getrandbits(53) + 1 << rng.randrange(60)}.0' for _ in range(5_000)]
    (tmp_path / 'x.json').write_text(f'[{",".join(texts)}]')
    expected = json.loads(f'[{",".join(texts)}]')
    assert repr(files._read_plain_json((tmp_path / 'x.json').read_bytes())) == repr(expected)
    assert repr(read_json(tmp_path / 'x.json')) == repr(expected)


@pytest.mark.parametrize(
    ('text', 'is_plain'),
    [
        (OBJECT, True),
        (b'{"a" : [{"b"\t: 1}], "c": "d: e"}', True),
        (b'[{"a": 1}, {"a": 2}]', True),
        (b'{"a": 1, "a": 1}', False),
        (b'{"a": [1, [{"b": 1, "b": 1}]]}', False),
        (b'{"a": "\\":"}', False),  # could be a key's end
        (b'[NaN]', False),
    ],
)
def test_doubled_keys_are_never_read_fast(text, is_plain):
    """The fast reader takes what surely has no key twice, however deep, and nothing else."""
    if is_plain:
        assert files._read_plain_json(text) == json.loads(text)
    else:
        with pytest.raises(ValueError):
            files._read_plain_json(text)
