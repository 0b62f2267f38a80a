"""Loops in C: `dcn`, `focal`, `nms`, `peaks`, `raster`, `upsample`, `winograd`, each compiled of its `.pyx`.

Where they are not built, the modules of the same names in `slow/` stand in, with the same functions in NumPy.
`CENTERNET_NO_KERNELS=1` takes these in any case.
"""

import logging
import multiprocessing
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

KERNELS = ('dcn', 'focal', 'nms', 'peaks', 'raster', 'upsample', 'winograd')
FOLDER = Path(__file__).parent
FORBIDDEN = os.environ.get('CENTERNET_NO_KERNELS', '') not in ('', '0')

logger = logging.getLogger(__name__)


def is_compiled(name: str) -> bool:
    """Return whether a kernel is built, and its module not the slow one."""
    return not FORBIDDEN and any((FOLDER / f'{name}{suffix}').is_file() for suffix in EXTENSION_SUFFIXES)


def warn_of_slow_kernels() -> None:
    """Say in one line which kernels are slow, and how to build them; of several processes the first one says it."""
    slow = [name for name in KERNELS if not is_compiled(name)]
    if not slow or multiprocessing.parent_process() is not None:
        return
    if FORBIDDEN:
        remedy = 'CENTERNET_NO_KERNELS is set'
    elif (FOLDER.parents[2] / 'setup.py').is_file():
        remedy = 'they are not built: run `make setup`'
    else:
        remedy = (
            'they are not built: install a C compiler, then the package anew: pip install --force-reinstall --no-deps'
        )
    logger.warning('slow kernels of NumPy stand in for the compiled %s (%s)', ', '.join(slow), remedy)


__path__ = [str(FOLDER / 'slow'), *__path__] if FORBIDDEN else [*__path__, str(FOLDER / 'slow')]
warn_of_slow_kernels()
