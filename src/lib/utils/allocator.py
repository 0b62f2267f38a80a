"""Memory of freed activations is kept for the next ones, where the C library would give it back to the system."""

import ctypes
import os
import sys
from collections.abc import Mapping

# Parameters of glibc's mallopt, by their numbers in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT = 1 << 30  # bytes at the top of the heap that stay with the process; more than a batch's maps
OTHER_ALLOCATORS = ('jemalloc', 'tcmalloc', 'mimalloc')


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, so that the next image's maps need no new pages from the system.

    By default glibc maps each large block anew, and the system clears its pages one fault at a time: for a batch of
    images that costs up to a quarter of the time. `benchmarks/allocator.py` measures it. The programs call this at
    their start; `import centernet` does not, since it concerns the whole process.

    Returns:
        Whether it was done: not with another C library, nor where the environment has chosen an allocator.
    """
    if sys.platform != 'linux' or chosen_by(os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, 'gnu_get_libc_version') or not hasattr(library, 'mallopt'):
        return False
    done = [library.mallopt(M_MMAP_MAX, 0), library.mallopt(M_TRIM_THRESHOLD, KEPT)]
    return done == [1, 1]


def chosen_by(environment: Mapping[str, str]) -> str:
    """Return the name of the variable by which an environment chooses or tunes the allocator; '' where none does."""
    for name, value in environment.items():
        preloads = name == 'LD_PRELOAD' and any(other in value for other in OTHER_ALLOCATORS)
        tunes = name == 'GLIBC_TUNABLES' and 'glibc.malloc' in value
        if preloads or tunes or (name.startswith('MALLOC_') and name.endswith('_') and value):
            return name
    return ''
