"""Add extreme points (top, left, bottom, right of each object's segmentation) to a COCO annotation file, for exdet.

Objects without a usable segmentation are named, counted and keep their place without extreme points; all else stays as
it is. OUTPUT may be the annotation file itself.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from centernet.datasets.coco_file import name_of, normalise_coco
from centernet.datasets.conversion import MARK, refuse_foreign
from centernet.datasets.findings import Findings
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError
from centernet.utils.extreme_points import extreme_points
from centernet.utils.files import read_json, write_json

TOOL = 'gen_coco_extreme_points'


def add_extreme_points(content: Any, source: str) -> int:
    """Give each annotation `extreme_points` [[tx, ty], [lx, ly], [bx, by], [rx, ry]] in image pixels, in place.

    Args:
        content: the content of a COCO-format file.
        source: its name, for messages.

    Returns:
        The number of annotations that got them.

    Raises:
        UserError: it is not COCO format.
    """
    findings, num_done = Findings(source), 0
    coco = normalise_coco(content, findings)
    sizes = {image['id']: (image.get('height', 0), image.get('width', 0)) for image in coco['images']}
    rows = zip(content.get('annotations') or [], coco['annotations'], strict=True)
    for place, (annotation, normalised) in enumerate(track(list(rows), 'extreme points')):
        try:
            points = extreme_points(normalised.get('segmentation'), *sizes.get(normalised.get('image_id'), (0, 0)))
        except UserError:
            name = name_of(normalised, place)
            findings.add('objects without extreme points, having no usable segmentation (ids)', name)
            continue
        # 3 decimals hold the midpoint of two vertices of COCO's 2 decimals
        annotation['extreme_points'] = np.round(points.astype(np.float64), 3).tolist()
        num_done += 1
    findings.report()
    return num_done


def default_output(annotations: str) -> Path:
    """Return `instances_extreme_train2017.json` for `instances_train2017.json`, beside it."""
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
    content = read_json(args.annotations)
    in_place = output.exists() and os.path.samefile(output, args.annotations)
    if not in_place:
        refuse_foreign(output, TOOL)
    num_done = add_extreme_points(content, args.annotations)
    if not num_done:
        raise UserError(f"no object of '{args.annotations}' has a segmentation to take extreme points from")
    if not in_place:
        content[MARK] = {'tool': TOOL}
    # a link stays one: what it leads to is replaced
    write_json(Path(os.path.realpath(output)) if in_place else output, content)
    print(f'{output}: {num_done} objects with extreme points')


if __name__ == '__main__':
    run_cli(main)
