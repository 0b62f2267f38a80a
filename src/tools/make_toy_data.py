"""Draw a small data set for a task, to train, evaluate and look at on a laptop, with no download."""

import argparse

from centernet.datasets.toy import KINDS, make_toy_data
from centernet.utils.cli import OneLineParser, run_cli


def parse_size(text: str) -> tuple[int, int]:
    """Parse `'160'` or `'640x192'` as width and height."""
    width, _, height = text.partition('x')
    try:
        return int(width), int(height or width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no size: expected 160 or 640x192") from None


def main() -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument('out_dir', help='for ddd a --data_dir (kitti/ is made in it), else a folder for --dataset')
    parser.add_argument('--task', default='ctdet', choices=KINDS, help='whose annotations (default: ctdet)')
    parser.add_argument('--train', type=int, default=600, help='images to train on (default: 600)')
    parser.add_argument('--val', type=int, default=100, help='held-out images (default: 100)')
    parser.add_argument('--size', type=parse_size, help='pixels: 160, or WIDTHxHEIGHT (default: 160; ddd 640x192)')
    parser.add_argument('--seed', type=int, default=0, help='another seed gives other images (default: 0)')
    only = parser.add_argument_group('for one task only')
    only.add_argument('--classes', type=int, help='ctdet, exdet: classes of shapes, 1 to 8 (default: 3)')
    only.add_argument(
        '--colors', choices=('random', 'class'), help='ctdet, exdet: does the colour hint at the class? (random)'
    )
    only.add_argument('--joints', type=int, choices=(5, 17), help="multi_pose: 5, or COCO's 17 (default)")
    chosen = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    out_dir = make_toy_data(**chosen)
    print(f'{chosen["train"]} + {chosen["val"]} images for {chosen["task"]} in {out_dir}')


if __name__ == '__main__':
    run_cli(main)
