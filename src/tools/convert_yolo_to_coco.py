"""Make an own-data folder (annotations/train.json, annotations/val.json, images/) from YOLO text labels.

Images lie where data.yaml says, in images/{train,val}, {train,valid}/images or {train,val}, or unsplit in images or in
the folder itself; labels in the folder `labels` in place of `images`, or beside their images. A label line is
`class cx cy w h`, in parts of the image, perhaps followed by joints (`kpt_shape` in data.yaml), or a class and the
points of an outline, whose box is taken; an image without a label file is background. Class names come from --classes,
data.yaml or classes.txt. If more than a tenth of the lines cannot be used, the status is 1.
"""

import argparse
import os
from pathlib import Path

from centernet.datasets.coco_file import distinct_names
from centernet.datasets.conversion import Tally, split_randomly, write_own_data
from centernet.datasets.findings import Findings
from centernet.datasets.yolo_folder import (
    EXPECTED_FILE,
    EXPECTED_LINE,
    YoloNames,
    find_names,
    find_splits,
    images_of,
    label_files,
    read_split,
)
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError

TOOL = 'convert_yolo_to_coco'
HINT = '; or give --classes'


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('yolo', help='YOLO folder')
    parser.add_argument('output', help='folder to make')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='names of the classes 0, 1, ...')
    parser.add_argument(
        '--val_fraction', type=float, default=0.2, help='part of undivided images for val (default 0.2)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the random split (default 0)')
    parser.add_argument('--link', action='store_true', help='link to the images instead of copying them')
    args = parser.parse_args()

    folder = Path(args.yolo)
    if not folder.is_dir():
        raise UserError(f"expected a YOLO folder, there is none at '{folder}'")
    if os.path.realpath(args.output) == os.path.realpath(folder):
        raise UserError(f"OUTPUT: '{args.output}' is the folder that is read; name another one")
    names = YoloNames(distinct_names(dict(enumerate(args.classes)))) if args.classes else find_names(folder, HINT)
    findings = Findings(args.yolo)
    lines, files = Tally('lines', findings), Tally('label files', findings)
    found = find_splits(folder, names)
    findings.remarks += [*names.remarks, *found.remarks]
    by_split = {
        split: read_split(images_of(places, folder, findings), label_files(places), names, folder, lines, files)
        for split, places in found.places.items()
        if split != 'test'
    }
    findings.report()
    files.require_used(EXPECTED_FILE)
    lines.require_used(EXPECTED_LINE)
    if 'val' not in by_split or 'train' not in by_split:
        (images,) = by_split.values()
        divided = split_randomly(list(images), args.val_fraction, args.seed)
        by_split = {split: {path: images[path] for path in paths} for split, paths in divided.items()}
    splits = {split: list(images.values()) for split, images in by_split.items()}
    write_own_data(args.output, splits, names.classes, args.link, TOOL, names.facts)
    files.require_most_used('an image of the same name for each')
    lines.require_most_used(EXPECTED_LINE)


if __name__ == '__main__':
    run_cli(main)
