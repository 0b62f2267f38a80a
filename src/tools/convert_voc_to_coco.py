"""Make an own-data folder (annotations/train.json, annotations/val.json, images/) from Pascal VOC XML.

A VOC folder may be a VOCdevkit year (Annotations, JPEGImages, ImageSets) or any folder with XML files and images
somewhere below it. Broken files and boxes are named, counted and left out.
"""

import argparse
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from centernet.datasets.conversion import (
    Picture,
    add_object,
    read_names,
    split_randomly,
    usable_picture,
    write_own_data,
)
from centernet.datasets.index import Findings
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError
from centernet.utils.media import is_image

BOX_KEYS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_folder(folder: Path, findings: Findings) -> dict[Path, Picture]:
    """All usable pictures of a VOC folder by the path of their XML file.

    Raises:
        UserError: the folder is missing or has no XML file.
    """
    if not folder.is_dir():
        raise UserError(f"expected a VOC folder, there is none at '{folder}'")
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    xml_files = [path for path in files if path.suffix.lower() == '.xml']
    if not xml_files:
        raise UserError(f"no XML file below '{folder}'")
    images = defaultdict(list)
    for path in files:
        if is_image(path) and not path.parent.name.startswith('Segmentation'):  # VOC's masks have the same names
            images[path.stem].append(path)
    pictures, described = {}, set()
    for xml_file in track(xml_files, str(folder)):
        picture = read_xml(xml_file, images, findings)
        if picture is not None and picture.path in described:
            findings.add('XML files left out, of an image that another describes', xml_file.name)
        elif picture is not None:
            described.add(picture.path)
            pictures[xml_file] = picture
    return pictures


def read_xml(path: Path, images: dict[str, list[Path]], findings: Findings) -> Picture | None:
    """The picture that an XML file describes, its boxes moved from VOC's 1-based pixels to 0-based ones."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        findings.add('XML files left out, broken', f'{path.name} ({error})')
        return None
    if root.tag != 'annotation':
        findings.add('XML files left out, not VOC annotations', path.name)
        return None
    image = find_image(path, root.findtext('filename') or '', images)
    if image is None:
        findings.add('XML files left out, without an image', path.name)
        return None
    picture = usable_picture(image, findings, told_size(root))
    if picture is not None:
        for item in root.findall('object'):
            read_object(item, picture, findings)
    return picture


def find_image(xml_file: Path, file_name: str, images: dict[str, list[Path]]) -> Path | None:
    """The image with the XML's own name (the nearest, if several), else the one that the XML names."""
    file_name = PureWindowsPath(file_name).name  # understands both kinds of slash
    same_stem = images.get(xml_file.stem)
    if same_stem:
        return max(
            same_stem,
            key=lambda path: (
                path.parent == xml_file.parent,
                path.parent.name == xml_file.parent.name,
                path.name == file_name,
            ),
        )
    return next((path for path in images.get(Path(file_name).stem, []) if path.name == file_name), None)


def told_size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        return int(root.findtext('size/width')), int(root.findtext('size/height'))
    except (TypeError, ValueError):
        return None


def read_object(item: ElementTree.Element, picture: Picture, findings: Findings) -> None:
    name = (item.findtext('name') or '').strip()
    try:
        xmin, ymin, xmax, ymax = (float(item.findtext(f'bndbox/{key}')) for key in BOX_KEYS)
        difficult = int(item.findtext('difficult') or 0) != 0
    except (TypeError, ValueError):
        name = ''
    if not name:
        findings.add('objects left out, without a name or four numbers', picture.path.name)
        return
    # the published VOC annotations keep the devkit's lengths: xmax - xmin, not + 1
    add_object(picture, name, (xmin - 1, ymin - 1, xmax - 1, ymax - 1), findings, difficult)


def split_pictures(
    pictures: dict[Path, Picture], split_files: Sequence[str], val_fraction: float, seed: int
) -> dict[str, list[Picture]]:
    """Pictures by split: by lists of names (a file `train.txt` makes the split train), else drawn at random."""
    if not split_files:
        xml_files = split_randomly(list(pictures), val_fraction, seed)
        return {split: [pictures[xml_file] for xml_file in members] for split, members in xml_files.items()}
    by_name = defaultdict(list)
    for xml_file, picture in pictures.items():
        by_name[xml_file.stem].append(picture)
    splits = defaultdict(list)
    for path in split_files:
        findings = Findings(path)
        for name in read_names(path):
            if name not in by_name:
                findings.add('names left out, without a usable picture', name)
            splits[Path(path).stem] += by_name.get(name, [])
        findings.report()
    return splits


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
        help='lists of image names in place of the random split: train.txt makes annotations/train.json',
    )
    parser.add_argument('--link', action='store_true', help='link to the images instead of copying them')
    args = parser.parse_args()

    findings = Findings(', '.join(args.voc))
    pictures: dict[Path, Picture] = {}
    for folder in args.voc:
        pictures |= read_folder(Path(folder), findings)
    found = {name for picture in pictures.values() for name, _, _ in picture.objects}
    classes = args.classes or sorted(found)
    for name in found.difference(classes):
        print(f"note: objects of class '{name}' are left out, --classes doesn't name it")
    findings.report()
    splits = split_pictures(pictures, args.split_file, args.val_fraction, args.seed)
    write_own_data(args.output, splits, classes, args.link)


if __name__ == '__main__':
    run_cli(main)
