"""Look at a dataset before training: writes report.html with its numbers, what the check finds, and samples as the
network will see them. Options of main.py that shape what the network sees (--input_res, --not_rand_crop, --flip, ...)
may follow.
"""

import argparse
import html
import logging
import os
from pathlib import Path

from centernet.datasets.dataset_factory import get_dataset
from centernet.datasets.statistics import gather
from centernet.opts import Options, opts
from centernet.reports.inspection import MARK, inspection_page
from centernet.tasks import TASKS
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError
from centernet.utils.files import refuse_replacing
from centernet.utils.log import PACKAGES


class Listener(logging.Handler):
    """Keeps the lines of warnings: what the check of the data finds."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning's line."""
        self.lines.append(record.getMessage())


def main() -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--dataset', required=True, help='a folder of own data, or coco | coco_hp | kitti | pascal')
    parser.add_argument('--task', help=f"{' | '.join(TASKS)} (default: the dataset's own, ctdet of own data)")
    parser.add_argument('--output', default='report.html', help='the page (default: report.html)')
    parser.add_argument('--samples', type=int, default=12, help='images that are shown (default: 12)')
    args, further = parser.parse_known_args()
    opt = read_options(args.dataset, args.task or task_of(args.dataset), further)
    if args.samples < 0:
        raise UserError(f'--samples {args.samples}: expected at least 0')
    refuse_replacing(args.output, is_own, '--output')

    heard = Listener()
    for package in PACKAGES:
        logging.getLogger(package).addHandler(heard)
    Dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, Dataset)
    train = Dataset(opt, 'train')
    splits = [gather(train)]
    try:
        splits.append(gather(Dataset(opt, 'val')))
    except UserError as error:
        print(f'note: no images validate: {error}')
        heard.lines.append(f'no images validate: {error}')
    name = os.path.abspath(opt.dataset) if os.path.isdir(opt.dataset) else opt.dataset
    page = inspection_page(f'Data of {name}', train, splits, heard.lines, args.samples)
    page.write(args.output)
    for split in splits:
        lost, shared = split.vanishing().sum(), split.sharing(True).sum()
        print(f'{split.split}: {len(split)} objects, {lost} vanish and {shared} share a centre cell at this input size')
    print(f'wrote {args.output}')


def read_options(dataset: str, task: str, further: list[str]) -> Options:
    """Return the options that main.py would have; the network itself is not looked at."""
    network = [] if '--arch' in further else ['--arch', 'res_18']
    return opts().parse([task, '--dataset', dataset, '--gpus', '-1', *network, *further])


def task_of(dataset: str) -> str:
    """Return the task that takes a built-in dataset where none is given; ctdet for own data."""
    return next((name for name, task in TASKS.items() if task.dataset == dataset), 'ctdet')


def is_own(path: Path) -> bool:
    """Return whether a file is a page of this program."""
    with open(path, 'rb') as file:
        return f'<p class="subtitle">{html.escape(MARK)}: '.encode() in file.read(16_384)


if __name__ == '__main__':
    run_cli(main)
