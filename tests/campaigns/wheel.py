"""Build a wheel, install it into an empty environment outside the checkout, and use it there: toy data to detections.

    python tests/campaigns/wheel.py                # sees the dependencies of this environment, which saves gigabytes
    python tests/campaigns/wheel.py --fresh        # installs them, too
    python tests/campaigns/wheel.py --installed    # uses what is installed already, as cibuildwheel's tests do

Needs the packages that build: Cython and setuptools. Prints each command with its time; exits 1 where one fails or
leaves out what it should write.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP = ('setup.py', 'pyproject.toml', 'requirements.txt', 'MANIFEST.in', 'README.md', 'LICENSE')
BUILT = shutil.ignore_patterns('*.so', '*.c', '__pycache__', '*.egg-info')
PIP = ['-m', 'pip', '--disable-pip-version-check', '--quiet']
RUN = 'exp/ctdet/trial'
TRAIN = ['--dataset', 'toy', '--arch', 'res_18', '--pretrained', 'none', '--input_res', '96', '--batch_size', '4']
MODEL = ['--load_model', f'{RUN}/model_last.pth', '--dtype', 'float32', '--gpus', '-1']
# Words after `centernet`, and what they have to write.
STEPS: list[tuple[list[str], list[str]]] = [
    (['--version'], []),
    (['--help'], []),
    (['toy', 'toy', '--train', '8', '--val', '4', '--size', '96'], ['toy/annotations/train.json']),
    (['inspect', '--dataset', 'toy', '--samples', '2', '--input_res', '96'], ['report.html']),
    (['overlap', 'toy/annotations/train.json'], []),
    (
        ['train', 'ctdet', '--exp_id', 'trial', '--num_epochs', '1', '--gpus', '-1', '--num_workers', '1', *TRAIN],
        [f'{RUN}/model_last.pth', f'{RUN}/log.txt'],
    ),
    (['test', 'ctdet', '--dataset', 'toy', *MODEL], [f'{RUN}/metrics.json', f'{RUN}/results.json']),
    (
        ['demo', 'ctdet', '--demo', 'toy/images/val', '--no_display', '--output', 'drawn', *MODEL],
        ['drawn/results.json'],
    ),
    (['eval', 'coco', 'toy/annotations/val.json', f'{RUN}/results.json', '--json', 'again.json'], ['again.json']),
    (['draw', 'toy/annotations/val.json', f'{RUN}/results.json', 'toy/images', '--output', 'seen'], ['seen']),
]
LIBRARY = f"""
import centernet
from centernet.external import KERNELS, is_compiled
assert all(map(is_compiled, KERNELS)), 'kernels are missing'
detector = centernet.load_detector('{RUN}/model_last.pth', gpus=-1, dtype='float32')
print(centernet.__version__, centernet.__file__, type(detector).__name__)
"""


def call(command: list[str], folder: Path, **options) -> float:
    """Run a command in a folder, without this environment's paths; returns its seconds, or exits with what it said."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'CENTERNET'))}
    start = time.time()
    done = subprocess.run(command, cwd=folder, env=env | options, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'FAILED ({done.returncode}): {" ".join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}')
    return time.time() - start


def build(folder: Path) -> Path:
    """Build the wheel from a copy of the sources."""
    copy = folder / 'sources'
    shutil.copytree(ROOT / 'src', copy / 'src', ignore=BUILT)
    for name in TOP:
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, *PIP, 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', str(folder), '.']
    seconds = call(command, copy, CENTERNET_REQUIRE_KERNELS='1')
    (wheel,) = folder.glob('*.whl')
    print(f'{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, built in {seconds:.0f} s', flush=True)
    shutil.rmtree(copy)
    return wheel


def install(wheel: Path, folder: Path, fresh: bool) -> Path:
    """Install the wheel into an environment of its own; returns its folder of programs."""
    place = folder / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', str(place)], check=True)
    python = str(place / 'bin/python')
    if not fresh:
        version = f'python{sys.version_info.major}.{sys.version_info.minor}'
        others = {sysconfig.get_paths()['purelib'], sysconfig.get_paths()['platlib']}
        (place / 'lib' / version / 'site-packages' / 'others.pth').write_text('\n'.join(sorted(others)))
    seconds = call([python, *PIP, 'install', *([] if fresh else ['--no-deps']), str(wheel)], folder)
    size = sum(path.stat().st_size for path in place.rglob('*') if path.is_file() and not path.is_symlink())
    print(f'installed in {seconds:.0f} s: {size / 1e6:.0f} MB', flush=True)
    return place / 'bin'


def use(programs: Path, folder: Path) -> None:
    """Run the steps in an empty folder, and look for what they write."""
    folder.mkdir()
    for words, written in STEPS:
        seconds = call([str(programs / 'centernet'), *words], folder)
        missing = [path for path in written if not (folder / path).exists()]
        if missing:
            sys.exit(f'FAILED: centernet {" ".join(words)} has not written {", ".join(missing)}')
        print(f'{seconds:5.1f} s  centernet {" ".join(words)}', flush=True)
    print(f'{call([str(programs / "python"), "-c", LIBRARY], folder):5.1f} s  import centernet, load_detector')
    print(f'{call([str(programs / "python"), "-m", "centernet", "--version"], folder):5.1f} s  python -m centernet')


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--fresh', action='store_true', help='install all dependencies')
    which.add_argument('--installed', action='store_true', help='use the package that is installed')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = Path(sys.executable).parent
        use(own if args.installed else install(build(folder), folder, args.fresh), folder / 'work')
    print('all of it works')


if __name__ == '__main__':
    main()
