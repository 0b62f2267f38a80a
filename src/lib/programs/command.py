"""The command `centernet`: every program and tool of the package under one name.

centernet train ctdet --dataset FOLDER
centernet convert voc VOC_FOLDER FOLDER
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from ..utils.cli import COMMAND, fail, run_cli
from ..utils.errors import UserError, did_you_mean
from ..utils.launch import run_ranked
from ..utils.signals import stop_signals_exit
from ..version import __version__

PACKAGE = __name__.removesuffix('.programs.command')


class Command(NamedTuple):
    """A command.

    Attributes:
        module: whose `main` it calls, below the package.
        summary: what it does, for `centernet --help`.
        run: runs `main`, alone or as one of several ranks.
    """

    module: str
    summary: str
    run: Callable[[Callable[..., Any]], None] = run_cli


# What is typed after `centernet`, of one word or two -> what runs.
COMMANDS: dict[str, Command] = {
    'train': Command('programs.train', 'train a network', run_ranked),
    'test': Command('programs.test', 'score a trained network on a dataset', run_ranked),
    'demo': Command('programs.demo', 'detect in images, videos or a camera, and draw'),
    'export': Command('programs.export', 'write a trained network into a file that runs without PyTorch'),
    'toy': Command('tools.make_toy_data', 'draw a small data set to try all this on'),
    'inspect': Command('tools.inspect_data', 'look at a data set before training: report.html'),
    'convert voc': Command('tools.convert_voc_to_coco', 'Pascal VOC folders to a folder for --dataset'),
    'convert yolo': Command('tools.convert_yolo_to_coco', 'a YOLO folder to a folder for --dataset'),
    'convert kitti': Command('tools.convert_kitti_to_coco', "KITTI's files to the annotations of ddd"),
    'convert extreme': Command('tools.gen_coco_extreme_points', 'segmentations to the extreme points of exdet'),
    'convert hourglass': Command('tools.convert_hourglass_weight', 'weights of ExtremeNet to a checkpoint'),
    'merge': Command('tools.merge_pascal_json', 'annotation files in COCO format into one'),
    'eval coco': Command('tools.eval_coco', "score boxes of a results file by COCO's metrics"),
    'eval coco_hp': Command('tools.eval_coco_hp', "score joints of a results file by COCO's metrics"),
    'eval voc': Command('tools.eval_voc', "score a results file by Pascal VOC's metrics"),
    'eval kitti': Command('tools.eval_kitti', "score a folder of results by KITTI's metrics"),
    'overlap': Command('tools.calc_coco_overlap', 'count objects that share a centre or overlap'),
    'draw': Command('tools.vis_pred', 'draw a results file on its images'),
}


def run() -> None:
    """Run what the command line asks for, and end as that ends."""
    words = sys.argv[1:]
    if not words or words[0] in ('-h', '--help'):
        print(overview())
    elif words == ['--version']:
        print(f'{COMMAND} {__version__}')
    else:
        run_command(words)


def run_command(words: Sequence[str]) -> None:
    """Run the command that some words begin with; it finds those that follow in `sys.argv`, as a script does."""
    try:
        name = command_name(words)
    except UserError as error:
        fail(str(error))
    sys.argv = [f'{COMMAND} {name}', *words[len(name.split()) :]]
    command = COMMANDS[name]
    with stop_signals_exit():
        module = import_module(f'{PACKAGE}.{command.module}')
    command.run(module.main)


def command_name(words: Sequence[str]) -> str:
    """Return the command that some words begin with, of one word or two.

    Raises:
        UserError: there is none; names those there are.
    """
    for length in (1, 2):
        if ' '.join(words[:length]) in COMMANDS:
            return ' '.join(words[:length])
    kinds = [name.partition(' ')[2] for name in COMMANDS if name.startswith(f'{words[0]} ')]
    if kinds and len(words) < 2:
        raise UserError(f"'{COMMAND} {words[0]}' takes one of: {', '.join(kinds)}")
    if kinds:
        raise UserError(f"'{COMMAND} {words[0]} {words[1]}': expected one of {', '.join(kinds)}")
    hint = did_you_mean(words[0], {name.partition(' ')[0] for name in COMMANDS})
    raise UserError(f"no command '{words[0]}'" + (hint or f' ({COMMAND} --help lists them)'))


def overview() -> str:
    """Return the text of `centernet --help`."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {command.summary}' for name, command in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {COMMAND} COMMAND ...',
            '',
            'CenterNet ("Objects as Points"): detection, pose, extreme points and 3D boxes from centre points.',
            '',
            *lines,
            '',
            f'{COMMAND} COMMAND --help explains one; {COMMAND} --version',
        ]
    )
