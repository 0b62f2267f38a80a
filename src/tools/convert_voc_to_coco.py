"""Make an own-data folder (annotations/train.json, annotations/val.json, images/) from Pascal VOC XML.

A VOC folder may be a VOCdevkit year (Annotations, JPEGImages, ImageSets) or any folder with XML files and images
somewhere below it. Broken files and boxes are named, counted and left out; if they are more than a tenth, the status
is 1.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from lxml import etree

from centernet.datasets.coco_file import read_flag
from centernet.datasets.conversion import (
    AnnotatedImage,
    Tally,
    add_object,
    entry_paths,
    measure_image,
    read_names,
    split_randomly,
    write_own_data,
)
from centernet.datasets.findings import Findings
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError
from centernet.utils.files import read_bytes
from centernet.utils.media import is_image

T = TypeVar('T')

TOOL = 'convert_voc_to_coco'
BOX_KEYS = ('xmin', 'ymin', 'xmax', 'ymax')
EXPECTED_OBJECT = '<object> with <name> and <bndbox> of xmin, ymin, xmax, ymax'
EXPECTED_FILE = 'VOC XML (<annotation>), each with an image of the same name'
# Lists whose images train and validate where there are no lists of that very name.
TRAIN_LISTS, VAL_LISTS = ('train', 'training', 'trainval'), ('val', 'valid', 'validation', 'test')


def read_folder(folder: Path, output: Path, files: Tally, objects: Tally) -> dict[Path, AnnotatedImage]:
    """Read the usable images of a VOC folder.

    Args:
        folder: the folder.
        output: where the results go; what lies there, below the folder, is not read.
        files, objects: count XML files and their objects.

    Returns:
        The images by the path of their XML file.

    Raises:
        UserError: the folder is missing, has no XML file or is the output.
    """
    if not folder.is_dir():
        raise UserError(f"expected a VOC folder, there is none at '{folder}'")
    if Path(os.path.realpath(output)) == Path(os.path.realpath(folder)):
        raise UserError(f"OUTPUT: '{output}' is the folder that is read; name another one")
    nested = Path(os.path.realpath(folder)) in Path(os.path.realpath(output)).parents
    paths = sorted(
        path
        for path in folder.rglob('*')
        if path.is_file() and not (nested and Path(os.path.realpath(output)) in Path(os.path.realpath(path)).parents)
    )
    xml_files = [path for path in paths if path.suffix.lower() == '.xml']
    if not xml_files:
        raise UserError(f"no XML file below '{folder}'")
    by_stem = defaultdict(list)
    for path in paths:
        if is_image(path) and not path.parent.name.startswith('Segmentation'):  # VOC's masks have the same names
            by_stem[path.stem].append(path)
    roots = {path: root for path in track(xml_files, str(folder)) if (root := parse_xml(path, files)) is not None}
    images = {}
    for xml_file, path in pair_files(roots, by_stem, files).items():
        root = roots[xml_file]
        image = measure_image(path, files.findings, stated_size(root))
        if image is None:
            files.lose('XML files left out, of an image that cannot be used', xml_file.name)
            continue
        files.use()
        for item in root.findall('object'):
            read_object(item, image, objects)
        images[xml_file] = image
    return images


def parse_xml(path: Path, files: Tally) -> etree._Element | None:
    """Parse an annotation file, in any encoding; None, and a finding, if it is broken or none.

    A document with entities of its own is refused: annotations need none, and some expand without end.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(read_bytes(path), parser)  # not by its name, which need not be UTF-8
    except (UserError, etree.XMLSyntaxError, OSError, ValueError, LookupError) as error:
        files.lose('XML files left out, broken', f'{path.name} ({error})')
        return None
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and list(declared.iterentities()):
        files.lose('XML files left out, which declare entities', path.name)
        return None
    if root.tag != 'annotation':
        files.lose('XML files left out, not VOC annotations', path.name, f'<{root.tag}>')
        return None
    return root


def pair_files(
    roots: Mapping[Path, etree._Element], by_stem: Mapping[str, Sequence[Path]], files: Tally
) -> dict[Path, Path]:
    """Find the image of each XML file, and no image for two of them.

    An image has the name of the XML file, or else the one that the XML names. Of several it is the nearest: that with
    the most folders in common, seen from the root and then from the file (`annotations/val/1.xml` goes with
    `images/val/1.jpg`), and last that whose full name the XML has. Files between which that does not decide are left
    out.

    Args:
        roots: the content of each XML file.
        by_stem: image files by their names without suffix.
        files: counts XML files without an image.

    Returns:
        `{XML file: image file}`.
    """
    claims = defaultdict(list)  # image -> (nearness, XML file)
    for xml_file, root in roots.items():
        stated = PureWindowsPath((root.findtext('filename') or '').strip()).name  # understands both kinds of slash
        candidates = by_stem.get(xml_file.stem) or [
            path for path in by_stem.get(Path(stated).stem, []) if path.name == stated
        ]
        ranks = {path: (*nearness(xml_file, path), path.name == stated) for path in candidates}
        best = of_highest_rank(ranks)
        if not candidates:
            files.lose('XML files left out, without an image', xml_file.name, f'<filename>{stated}</filename>')
        elif len(best) > 1:
            files.lose('XML files left out, for which several images are as near', xml_file, str(best[0]))
        else:
            claims[best[0]].append((ranks[best[0]], xml_file))
    pairs = {}
    for path, claimants in claims.items():
        best = of_highest_rank({xml_file: rank for rank, xml_file in claimants})
        for _, xml_file in claimants:
            if [xml_file] == best:
                pairs[xml_file] = path
            else:
                files.lose('XML files left out, of an image that another describes', xml_file, str(path))
    return {xml_file: pairs[xml_file] for xml_file in roots if xml_file in pairs}


def of_highest_rank(ranks: Mapping[T, tuple]) -> list[T]:
    """Return the keys whose value is the highest one."""
    return [key for key, rank in ranks.items() if rank == max(ranks.values())]


def nearness(a: Path, b: Path) -> tuple[int, int]:
    """Count the folders that two files have in common, from the root and from the files."""
    return common_length(a.parent.parts, b.parent.parts), common_length(a.parent.parts[::-1], b.parent.parts[::-1])


def common_length(a: Iterable[str], b: Iterable[str]) -> int:
    """Return the number of items that are alike before the first difference."""
    pairs = [x == y for x, y in zip(a, b, strict=False)]
    return pairs.index(False) if False in pairs else len(pairs)


def stated_size(root: etree._Element) -> tuple[int, int] | None:
    """Return the width and height in the XML; None where there are none, or zeros."""
    try:
        size = int(root.findtext('size/width')), int(root.findtext('size/height'))
    except (TypeError, ValueError):
        return None
    return size if min(size) > 0 else None


def read_object(item: etree._Element, image: AnnotatedImage, objects: Tally) -> None:
    """Give an image the object of an `<object>`, its box moved from VOC's 1-based pixels to 0-based ones."""
    text = ' '.join(''.join(item.itertext()).split())
    name = ' '.join((item.findtext('name') or '').split())
    try:
        xmin, ymin, xmax, ymax = (float(item.findtext(f'bndbox/{key}')) for key in BOX_KEYS)
    except (TypeError, ValueError):
        name = ''
    if not name:
        objects.lose('objects left out, without a name or four numbers', image.path.name, text)
        return
    stated = item.findtext('difficult')
    difficult = read_flag(stated or '0')
    if difficult is None:
        objects.findings.add(f"objects whose <difficult> is '{stated}', taken as not difficult", image.path.name)
    # the published VOC annotations keep the devkit's lengths: xmax - xmin, not + 1
    box = (xmin - 1, ymin - 1, xmax - 1, ymax - 1)
    add_object(image, name, box, objects, image.path.name, text, bool(difficult))


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
    by_stem = defaultdict(list)
    for xml_file, image in images.items():
        for stem in {xml_file.stem, image.path.stem}:
            by_stem[stem].append(xml_file)
    split_of = name_splits([Path(path).stem for path in split_files])
    splits: dict[str, dict[Path, AnnotatedImage]] = {split: {} for split in split_of.values()}
    for path in split_files:
        names = Tally('names', Findings(path))
        for entry in read_names(path):
            entry_file = find_entry(entry, Path(os.path.realpath(path)), images, by_stem, names)
            if entry_file is not None:
                names.use()
                splits[split_of[Path(path).stem]][entry_file] = images[entry_file]
        names.findings.report()
        names.require_used('names of images')
        names.require_most_used('names of images')
    for split in ('train', 'val'):
        if split not in splits:
            print(f"note: no list for '{split}': training needs annotations/{split}.json too")
    return {split: list(members.values()) for split, members in splits.items()}


def name_splits(stems: Sequence[str]) -> dict[str, str]:
    """Return the split that each list (by its name without suffix) makes."""
    split_of = {stem: stem for stem in stems}
    for split, kinds in (('train', TRAIN_LISTS), ('val', VAL_LISTS)):
        serving = [stem for kind in kinds for stem in split_of if stem == kind]
        if serving:
            split_of[serving[0]] = split
    return split_of


def find_entry(
    entry: str,
    list_file: Path,
    images: Mapping[Path, AnnotatedImage],
    by_stem: Mapping[str, Sequence[Path]],
    names: Tally,
) -> Path | None:
    """Find the XML file of the image that a line of a list names, with or without folders and suffix.

    Of several images of that name it is the one in the folders that the line names, and then the nearest to the list.
    """
    for path in entry_paths(entry):
        # a name may hold a dot that is no suffix
        candidates = by_stem.get(path.name) or by_stem.get(path.stem) or []
        ranks = {}
        for xml_file in candidates:
            folders = max(
                common_length(path.parts[-2::-1], place.parent.parts[::-1])
                for place in (xml_file, images[xml_file].path)
            )
            ranks[xml_file] = (folders, common_length(list_file.parts, Path(os.path.realpath(xml_file)).parts))
        best = of_highest_rank(ranks)
        if len(best) == 1:
            return best[0]
        if best:
            names.lose('names left out, that several images have', entry, entry)
            return None
    names.lose('names left out, without a usable image', entry, entry)
    return None


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
        images |= read_folder(Path(folder), Path(args.output), files, objects)
    found = {name for image in images.values() for name, _, _ in image.objects}
    classes = args.classes or sorted(found)
    findings.report()
    for name in sorted(found.difference(classes)):
        print(f"note: objects of class '{name}' are left out, --classes doesn't name it")
    files.require_used(EXPECTED_FILE)
    objects.require_used(EXPECTED_OBJECT)
    splits = split_images(images, args.split_file, args.val_fraction, args.seed)
    write_own_data(args.output, splits, {name: name for name in classes}, args.link, TOOL)
    files.require_most_used(EXPECTED_FILE)
    objects.require_most_used(EXPECTED_OBJECT)


if __name__ == '__main__':
    run_cli(main)
