"""Whatever kernels and operators are called with, they compute or refuse: no crash, no hang, no wrong result."""

import os
import subprocess
import sys
from pathlib import Path

import lib


def test_random_calls():
    """500 random calls, most of them wrong, in a process of their own; what fails is named with its seed.

    `python tests/kernel_calls.py --seed N` makes the same calls again.
    """
    program = Path(__file__).with_name('kernel_calls.py')
    environment = {**os.environ, 'PYTHONPATH': str(Path(lib.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(program), '--seed', '0', '--count', '500'],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    *_, last = done.stdout.splitlines() or ['no call was made']
    assert (done.returncode, last) == (0, 'all calls made'), f'{last}\n{done.stderr[-3000:]}'
