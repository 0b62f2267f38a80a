"""Whatever is broken in their input, the programs refuse it in one line or do their work undamaged."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lib
from centernet.utils.errors import UserError
from fuzz import run
from fuzz.case import Case


def test_random_damage():
    """1,000 broken inputs of all formats, in processes of their own; a fault is named with the command to repeat it."""
    environment = {**os.environ, 'PYTHONPATH': str(Path(lib.__file__).parents[1])}
    command = [sys.executable, str(Path(run.__file__)), '--count', '1000', '--seed', '0']
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, f'{done.stdout[-6000:]}\n{done.stderr[-2000:]}'
    last = done.stdout.splitlines()[-2].split()
    assert last[:2] == ['all', '1000'] and int(last[2]) > 200 and int(last[3]) > 200  # neither is the only outcome


def faulty_case(rng, base, folder):
    """The cases of `KINDS`, one after the other."""
    kind = KINDS[int(folder.name.rpartition('-')[2])]
    inside, outside = folder / 'output', folder / 'input'
    inside.mkdir()
    outside.mkdir()

    def program():
        if kind == 'hang':
            time.sleep(60)
        elif kind == 'signal':
            os.kill(os.getpid(), signal.SIGSEGV)
        elif kind == 'traceback':
            raise KeyError('x')
        elif kind == 'input':
            (outside / 'new').touch()
        elif kind == 'output':
            (inside / 'a.json').write_text(json.dumps([float('nan')]))
        elif kind == 'refusal':
            raise UserError('no')

    def check(result, shown):
        assert kind != 'damage', 'a box is lost'

    return Case(kind, program, check, [outside], inside)


KINDS = ['survived', 'hang', 'signal', 'refusal', 'traceback', 'input', 'output', 'damage', 'survived']


def test_faults_are_found(tmp_path, monkeypatch):
    """A hang, a signal, a traceback and each kind of damage count, and the attempts after them are made."""
    monkeypatch.setattr(run, 'SECONDS', 3)
    monkeypatch.setitem(run.FORMATS, 'own', (lambda folder: None, faulty_case, 1))
    report = run.campaign(run.plan(['own'], 0, len(KINDS)), 0, tmp_path, shown=0)
    assert report.counts == {('own', 'survived'): 2, ('own', 'refused'): 1, ('own', 'fault'): 6}
    found = {KINDS[attempt.index]: text.split('\n')[-1 if '\n' not in text else 1] for attempt, text in report.faults}
    assert found['hang'].startswith('hang') and found['signal'].endswith('SIGSEGV')
    assert found['traceback'].startswith('traceback')
    for kind in ('input', 'output', 'damage'):
        assert found[kind].startswith('damage'), found


def test_attempts_repeat(tmp_path):
    """An attempt is the same whichever others are made before it."""
    run.prepare(['yolo'], tmp_path)
    reports = [run.campaign(run.plan(['yolo'], first, 3), 5, tmp_path, keep=True, shown=0) for first in (0, 3)]
    assert not any(report.faults for report in reports)
    files = [(tmp_path / 'yolo-4/data').rglob('*')]
    before = {path.name: path.read_bytes() for path in files[0] if path.is_file()}
    for index in range(6):
        os.rename(tmp_path / f'yolo-{index}', tmp_path / f'earlier-{index}')
    run.campaign(run.plan(['yolo'], 4, 1), 5, tmp_path, keep=True, shown=0)
    after = {path.name: path.read_bytes() for path in (tmp_path / 'yolo-4/data').rglob('*') if path.is_file()}
    assert before == after
