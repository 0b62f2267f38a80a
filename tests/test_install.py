"""The project as a library: built from a copy of the sources, used from elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROGRAM = """
import numpy as np
import centernet
from centernet.external.nms import soft_nms
print(centernet.__file__)
print(soft_nms(np.array([[0, 0, 9, 9, 0.5], [0, 0, 9, 9, 0.9]], np.float32), Nt=0.5, method=0))
try:
    centernet.load_detector('nowhere.pth')
except centernet.UserError as error:
    print(error)
"""


def test_pip_install_gives_a_package_that_needs_no_checkout(tmp_path):
    """`pip install .` builds the kernels, takes every module along, and `import centernet` works anywhere.

    A user's mistake is its `UserError`.
    """
    checkout, target = tmp_path / 'checkout', tmp_path / 'target'
    built = shutil.ignore_patterns('*.so', '*.c', '__pycache__', '*.egg-info')
    shutil.copytree(ROOT / 'src', checkout / 'src', ignore=built)
    for name in ('setup.py', 'pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, checkout)
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps']
    subprocess.run([*pip, '--no-build-isolation', '--target', target, checkout], check=True, cwd=tmp_path)

    sources, installed = checkout / 'src/lib', target / 'centernet'
    modules = {path.relative_to(sources) for path in sources.rglob('*.py')}
    left_out = modules - {path.relative_to(installed) for path in installed.rglob('*.py')}
    assert not left_out, 'their folder lacks an __init__.py'

    shutil.rmtree(checkout)
    env = {**os.environ, 'PYTHONPATH': str(target)}
    run = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    place, kept, error = run.stdout.splitlines()
    assert (place, kept) == (str(installed / '__init__.py'), '[0]') and 'nowhere.pth' in error
