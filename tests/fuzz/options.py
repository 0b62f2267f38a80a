"""Random command lines."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from centernet.opts import ALL_ROWS, opts
from centernet.utils.option_rows import DEMO, MAIN, TEST

from .case import Case
from .mutations import pick

VALUES = [
    *('', ' ', '0', '1', '-1', '2', '0.5', '-0.5', '1e400', '-1e400', 'nan', 'inf', '1e-320', '9' * 400, '-0'),
    *(str(2**63), str(2**31), str(-(2**63)), '\u0663', '\u00b2', '1_000', '0x10', 'x', 'é' * 300, '\ud800', '\0'),
    *('a/b', '../..', '.', '1,2', ',', '1,,2', '90,120', '0.5,1,2', '0.5,-1', ',' * 1000, '1,' * 5000 + '1', '-'),
    *('--', '--lr', 'True', 'none', 'coco', 'kitti', 'pascal', 'coco_hp', 'dla_34', 'hourglass', 'res_18', 'res_1'),
    *('white', 'l1', 'bbox', 'AP', '/', '/dev/null', '/dev/zero', '/nonexistent', 'webcam', 'webcam:\u00b2', '~'),
    *('%s', '{}', '-5,3', '64', '512', '320000'),
]
WORDS = ['--', '-x', '--no_such_option', '--lr_', '---', 'ctdet', '--help=1', '--\ud800', '--lr=', '-5', '=', '']


def make_base(folder: Path) -> None:
    """No files are needed."""


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """Return a task and up to six options with values that may be anything."""
    words = [pick(rng, ['ctdet'] * 4 + ['multi_pose', 'exdet', 'ddd', 'ctdt', '', 'CTDET', '--lr'])]
    program = pick(rng, [MAIN, MAIN, TEST, DEMO])
    for _ in range(int(rng.integers(1, 7))):
        name = pick(rng, list(ALL_ROWS))
        kind = rng.random()
        if kind < 0.05:
            words.append(pick(rng, WORDS))
        elif ALL_ROWS[name].default is False:
            words.append(f'--{name}')
        elif kind < 0.2:
            words.append(f'--{name}={pick(rng, VALUES)}')
        elif kind < 0.5:  # values that many options take
            words += [f'--{name}', str(ALL_ROWS[name].default)]
        else:
            words += [f'--{name}', pick(rng, VALUES)]
    words += ['--exp_dir', str(folder / 'exp')]

    def check(opt: Any, shown: str) -> None:
        for name, value in vars(opt).items():
            for number in value if isinstance(value, list) else [value]:
                assert not isinstance(number, float) or math.isfinite(number), f'--{name} is {number}'
                assert not isinstance(number, int) or abs(number) < 2**63, f'--{name} is {number}'

    return Case(f'{program} {words}'[:400], lambda: opts().parse(words, program), check)
