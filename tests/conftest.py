"""What tests share: toy data, the programs and tools of src/, and a cache folder of their own."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# For maps this small more threads only wait for one another. Sums may depend on their number, so the programs that
# tests start have as many as the tests. To be said before torch is imported.
os.environ['OMP_NUM_THREADS'] = '1'
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# The files that take minutes begin, so that no process is left with one of them while the others are done.
SLOW_FILES = ('test_export.py', 'test_ranks.py', 'test_training.py', 'test_files.py', 'test_install.py')
SRC = ROOT / 'src'


def pytest_collection_modifyitems(items):
    """The order of the files; within a file it stays."""
    places = {name: place for place, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True, scope='session')
def shown_messages():
    """The library's messages appear on the screen, as in the programs."""
    from lib.utils.log import configure_logging

    configure_logging()


@pytest.fixture
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope='session')
def own_cache(tmp_path_factory):
    """Tests leave the user's cache of image headers and of measurements alone."""
    os.environ['XDG_CACHE_HOME'] = str(tmp_path_factory.mktemp('cache'))


@pytest.fixture(autouse=True)
def measures_nothing(monkeypatch):
    """`--dtype auto` is float32 on every processor, and a fixed rule chooses the convolutions that Winograd's algorithm
    does, so that no result depends on a measurement."""
    monkeypatch.setattr('lib.models.fast_dtype.may_gain', lambda device: False)
    monkeypatch.setattr('lib.models.winograd_choice.may_choose', lambda device: False)


@pytest.fixture(scope='module')
def module_folder(tmp_path_factory) -> Iterator[Path]:
    """A folder for the runs that the tests of a file share, gone when they are done: checkpoints take gigabytes."""
    folder = tmp_path_factory.mktemp('module')
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope='session')
def toy(tmp_path_factory) -> str:
    """A ctdet toy folder: 12 pictures to train on, 6 to validate, 96 px."""
    from lib.datasets.toy import make_toy_data

    folder = tmp_path_factory.mktemp('data') / 'toy'
    make_toy_data(folder, train=12, val=6, size=96)
    return str(folder)


@pytest.fixture(scope='session')
def scripts():
    """The programs of src/ as modules: `scripts('test').main([...])`."""
    loaded = {}

    def load(name: str):
        if name not in loaded:
            spec = importlib.util.spec_from_file_location(f'centernet_{name}', SRC / f'{name}.py')
            loaded[name] = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded[name]  # worker processes unpickle its classes by name
            spec.loader.exec_module(loaded[name])
        return loaded[name]

    return load


def run_program(*args, **options) -> subprocess.CompletedProcess:
    """A program of src/ in a process of its own, such as `run_program('main.py', 'ctdet', ...)`."""
    command = [sys.executable, str(SRC / args[0]), *map(str, args[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def tool(tmp_path):
    """Run a tool in tmp_path: `tool(name, *args)` returns its output, `tool(..., code=1)` the one line of its error."""

    def run(name: str, *args, code: int = 0) -> str:
        done = run_program(f'tools/{name}.py', *args, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        if code == 0:
            return done.stdout
        assert 'Traceback' not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
        return line

    return run


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Run a tool's main in tmp_path; returns what it prints, or with `fails` the message of its UserError."""
    monkeypatch.chdir(tmp_path)

    def run(name, *args, fails=False):
        program = importlib.import_module(f'tools.{name}')
        monkeypatch.setattr('sys.argv', [name, *map(str, args)])
        if not fails:
            program.main()
            return capsys.readouterr().out
        with pytest.raises(program.UserError) as caught:
            program.main()
        assert '\n' not in str(caught.value)
        return str(caught.value) + capsys.readouterr().out

    return run
