"""Freed memory is kept: large blocks that come and go cost no page faults, unless the user has chosen otherwise."""

import subprocess
import sys

import pytest

from conftest import ROOT
from lib.utils.allocator import chosen_by

FAULTS = """
import resource, sys
import torch
sys.path.insert(0, {src!r})
from lib.utils.allocator import keep_freed_memory
torch.set_num_threads(1)
if {kept}:
    print(keep_freed_memory())
def work():
    return [torch.ones(8 << 20) for _ in range(4)]  # 32 MiB each
for _ in range(4):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept, **environment):
    """Return what `keep_freed_memory` gave ('' where it was not called), and the page faults of 16 blocks of 32 MiB."""
    code = FAULTS.format(src=str(ROOT / 'src'), kept=kept)
    env = {'PATH': '/usr/bin:/bin', **environment}
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=env).stdout
    *answer, count = output.split()
    return ''.join(answer), int(count)


@pytest.mark.skipif(sys.platform != 'linux', reason="only glibc's allocator is told")
def test_blocks_are_used_again():
    """16 blocks of 8192 pages: each page is a fault where blocks go back to the system (fewer where pages are huge)."""
    answer, count = faults(kept=True)
    assert answer == 'True'
    assert count < faults(kept=False)[1] / 10


@pytest.mark.skipif(sys.platform != 'linux', reason="only glibc's allocator is told")
def test_what_the_user_has_set_stays():
    assert faults(kept=True, MALLOC_TRIM_THRESHOLD_='131072')[0] == 'False'


@pytest.mark.parametrize(
    ('environment', 'name'),
    [
        ({'LD_PRELOAD': '/usr/lib/libjemalloc.so.2'}, 'LD_PRELOAD'),
        ({'LD_PRELOAD': '/usr/lib/libasan.so'}, ''),
        ({'GLIBC_TUNABLES': 'glibc.malloc.arena_max=1'}, 'GLIBC_TUNABLES'),
        ({'MALLOC_ARENA_MAX': '1', 'MALLOC_MMAP_MAX_': '0'}, 'MALLOC_MMAP_MAX_'),
        ({'PATH': '/bin'}, ''),
    ],
)
def test_choice_of_the_environment(environment, name):
    assert chosen_by(environment) == name
