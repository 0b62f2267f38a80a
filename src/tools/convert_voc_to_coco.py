"""Make an own-data folder (annotations/train.json, annotations/val.json, images/) from Pascal VOC XML.

A VOC folder may be a VOCdevkit year (Annotations, JPEGImages, ImageSets) or any folder with XML files and images
somewhere below it. Broken files and boxes are named, counted and left out; if they are more than a tenth, the status
is 1.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from centernet.datasets.conversion import AnnotatedImage, Tally, split_randomly, write_own_data
from centernet.datasets.findings import Findings
from centernet.datasets.voc_files import (
    EXPECTED_FILE,
    EXPECTED_OBJECT,
    class_names,
    name_splits,
    read_folder,
    read_list,
    stems_of,
)
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError

TOOL = 'convert_voc_to_coco'


def check_folder(folder: Path, output: Path) -> Path:
    """Return the folder that is read.

    Raises:
        UserError: it is missing or is the output.
    """
    if not folder.is_dir():
        raise UserError(f"expected a VOC folder, there is none at '{folder}'")
    if Path(os.path.realpath(output)) == Path(os.path.realpath(folder)):
        raise UserError(f"OUTPUT: '{output}' is the folder that is read; name another one")
    return folder


def split_images(
    images: Mapping[Path, AnnotatedImage], split_files: Sequence[str], val_fraction: float, seed: int
) -> dict[str, list[AnnotatedImage]]:
    """Divide images by lists of names, or at random where there is no list.

    Returns:
        The images of each split: of each list under its name, but as train and val where no list has that very name
        and another can serve (trainval and test).

    Raises:
        UserError: a list cannot be read, or more than a tenth of its names have no image.
    """
    if not split_files:
        xml_files = split_randomly(list(images), val_fraction, seed)
        return {split: [images[xml_file] for xml_file in members] for split, members in xml_files.items()}
    by_stem = stems_of(images)
    split_of = name_splits([Path(path).stem for path in split_files])
    splits: dict[str, dict[Path, AnnotatedImage]] = {split: {} for split in split_of.values()}
    for path in split_files:
        members, names = read_list(path, images, by_stem)
        names.findings.report()
        names.require_used('names of images')
        names.require_most_used('names of images')
        splits[split_of[Path(path).stem]] |= members
    for split in ('train', 'val'):
        if split not in splits:
            print(f"note: no list for '{split}': training needs annotations/{split}.json too")
    return {split: list(members.values()) for split, members in splits.items()}


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('voc', nargs='+', help='VOC folders')
    parser.add_argument('output', help='folder to make')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='classes to keep, in order; default: all, sorted')
    parser.add_argument('--val_fraction', type=float, default=0.2, help='part of the images for val (default 0.2)')
    parser.add_argument('--seed', type=int, default=0, help='of the random split (default 0)')
    parser.add_argument(
        '--split_file',
        nargs='+',
        default=[],
        metavar='FILE',
        help='lists of image names in place of the random split: train.txt (or trainval.txt) makes\n'
        'annotations/train.json, val.txt (or test.txt) makes annotations/val.json',
    )
    parser.add_argument('--link', action='store_true', help='link to the images instead of copying them')
    args = parser.parse_args()

    findings = Findings(', '.join(args.voc))
    files, objects = Tally('XML files', findings), Tally('objects', findings)
    images: dict[Path, AnnotatedImage] = {}
    for folder in args.voc:
        checked = check_folder(Path(folder), Path(args.output))
        images |= read_folder(checked, files, objects, Path(args.output), track)
    found = class_names(images.values())
    classes = args.classes or found
    findings.report()
    for name in sorted(set(found).difference(classes)):
        print(f"note: objects of class '{name}' are left out, --classes doesn't name it")
    files.require_used(EXPECTED_FILE)
    objects.require_used(EXPECTED_OBJECT)
    splits = split_images(images, args.split_file, args.val_fraction, args.seed)
    write_own_data(args.output, splits, {name: name for name in classes}, args.link, TOOL)
    files.require_most_used(EXPECTED_FILE)
    objects.require_most_used(EXPECTED_OBJECT)


if __name__ == '__main__':
    run_cli(main)
