"""Add extreme points (top, left, bottom, right of each object's segmentation) to a COCO annotation file, for exdet.

Objects without a usable segmentation are named, counted and keep their place without extreme points.
"""

import argparse
from pathlib import Path

import numpy as np

from centernet.datasets.index import Findings, read_coco
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError
from centernet.utils.extreme_points import extreme_points
from centernet.utils.files import write_json


def add_extreme_points(coco: dict, source: str) -> int:
    """Give each annotation `extreme_points` [[tx, ty], [lx, ly], [bx, by], [rx, ry]], in place.

    Returns how many got them.
    """
    sizes = {image['id']: (image.get('height', 0), image.get('width', 0)) for image in coco['images']}
    findings, num_done = Findings(source), 0
    for annotation in track(coco.get('annotations', []), 'extreme points'):
        try:
            points = extreme_points(annotation.get('segmentation'), *sizes.get(annotation['image_id'], (0, 0)))
        except UserError:
            findings.add('objects without extreme points, having no usable segmentation (ids)', annotation['id'])
            continue
        # 3 decimals hold the midpoint of two vertices of COCO's 2 decimals
        annotation['extreme_points'] = np.round(points.astype(np.float64), 3).tolist()
        num_done += 1
    findings.report()
    return num_done


def default_output(annotations: str) -> Path:
    """`instances_train2017.json` becomes `instances_extreme_train2017.json`, beside it."""
    path = Path(annotations)
    if not path.name.startswith('instances_'):
        raise UserError(
            f"give OUTPUT: '{path.name}' isn't instances_*.json, which would become instances_extreme_*.json"
        )
    return path.with_name(path.name.replace('instances_', 'instances_extreme_', 1))


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('annotations', help='annotation file with segmentations (instances_train2017.json)')
    parser.add_argument('output', nargs='?', help='file to write; default: instances_extreme_*.json beside it')
    args = parser.parse_args()
    output = Path(args.output) if args.output else default_output(args.annotations)
    coco = read_coco(args.annotations, images=('id',), annotations=('id', 'image_id'))
    num_done = add_extreme_points(coco, args.annotations)
    if not num_done:
        raise UserError(f"no object of '{args.annotations}' has a segmentation to take extreme points from")
    write_json(output, coco)
    print(f'{output}: {num_done} objects with extreme points')


if __name__ == '__main__':
    run_cli(main)
