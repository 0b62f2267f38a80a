"""Make an own-data folder (annotations/train.json, annotations/val.json, images/) from YOLO text labels.

Images lie in images/{train,val}, {train,valid}/images or {train,val}, or unsplit in images or in the folder itself;
labels in the folder `labels` in place of `images`, or beside their images. A label line is `class cx cy w h`, in parts
of the image, or a class and the points of an outline, whose box is taken; an image without a label file is background.
Class names come from --classes, data.yaml or classes.txt. If more than a tenth of the lines cannot be used, the status
is 1.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from centernet.datasets.coco_file import distinct_names
from centernet.datasets.conversion import (
    AnnotatedImage,
    Tally,
    add_object,
    measure_image,
    split_randomly,
    write_own_data,
)
from centernet.datasets.findings import Findings
from centernet.datasets.yolo_files import (
    BadLine,
    listed_class_names,
    overhangs,
    read_line,
    read_yaml,
    yaml_class_names,
)
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError
from centernet.utils.files import read_text
from centernet.utils.media import is_image

TOOL = 'convert_yolo_to_coco'
SPLIT_NAMES = {'train': ('train',), 'val': ('val', 'valid', 'validation')}
NAME_FILES = ('classes.txt', 'obj.names')
LISTS = {'classes', 'train', 'val', 'valid', 'test'}  # text files beside labels that are none, without suffix
EXPECTED = '`class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`, in parts of the image'


def find_names(folder: Path) -> tuple[dict[int, str], tuple[int, int] | None]:
    """Find the names of the classes, and what joints follow the boxes.

    Returns:
        `{number: name}` of data.yaml (or another YAML file that has `names`) or classes.txt; number and values of the
        joints (`kpt_shape` of data.yaml), or None.

    Raises:
        UserError: there is no such file, it cannot be understood, or two YAML files differ.
    """
    main_file = folder / 'data.yaml'
    others = (path for pattern in ('*.yaml', '*.yml') for path in sorted(folder.glob(pattern)))
    found = {}
    for path in [main_file] if main_file.is_file() else others:
        content = read_yaml(path)
        if 'names' in content:
            found[path] = yaml_class_names(content['names'], path), joint_shape(content.get('kpt_shape'))
    if found:
        facts = next(iter(found.values()))
        if any(other != facts for other in found.values()):
            raise UserError(f'{", ".join(map(str, found))} name other classes: keep one, or give --classes')
        return facts
    for place in (folder, folder / 'labels', folder / 'images', *folder.glob('*/')):
        for name in NAME_FILES:
            if (place / name).is_file():
                return listed_class_names(place / name), None
    raise UserError(f"no class names in '{folder}': expected data.yaml with `names` or classes.txt; or give --classes")


def joint_shape(value: Any) -> tuple[int, int] | None:
    """Read `kpt_shape` as two integers; None where there is none."""
    try:
        joints, values = map(int, value)
    except (TypeError, ValueError):
        return None
    return joints, values


def find_splits(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Find the folders of the splits.

    Returns:
        `{split: (images folder, labels folder)}`; the split is '' where the images are not divided. The labels folder
        need not exist.

    Raises:
        UserError: there is none.
    """
    splits = {}
    for split, names in SPLIT_NAMES.items():
        for images, labels in (
            layout
            for name in names
            for layout in (
                (Path('images', name), Path('labels', name)),
                (Path(name, 'images'), Path(name, 'labels')),
                (Path(name), Path(name)),
            )
        ):
            if split not in splits and (folder / images).is_dir():
                splits[split] = (folder / images, folder / labels)
    for place, beside in (('images', 'labels'), ('obj_train_data', 'obj_train_data'), ('.', 'labels')):
        if not splits and (folder / place).is_dir() and (place != '.' or any(map(is_image, folder.iterdir()))):
            splits[''] = (folder / place, folder / beside)
    if not splits:
        raise UserError(f"expected images/train, train/images or images in '{folder}': found none of them")
    return splits


def read_split(
    images_dir: Path,
    labels_dir: Path,
    classes: Mapping[int, str],
    joints: tuple[int, int] | None,
    lines: Tally,
    files: Tally,
) -> dict[Path, AnnotatedImage]:
    """Read the usable images of a folder, with their objects.

    Args:
        images_dir, labels_dir: folders of the images and of their labels.
        classes: names by number.
        joints: what follows each box.
        lines, files: count lines, and label files.

    Returns:
        The images by path.
    """
    images, read = {}, set()
    class_ids = {name: number for number, name in classes.items()}
    for path in track(sorted(filter(is_image, images_dir.rglob('*'))), str(images_dir)):
        in_labels = (labels_dir / path.relative_to(images_dir)).with_suffix('.txt')
        label_file = in_labels if in_labels.is_file() else path.with_suffix('.txt')
        read.add(label_file)
        image = measure_image(path, files.findings, upright=True)  # YOLO's parts are of the image as shown
        if image is None:
            if label_file.is_file():
                files.lose('label files left out, of an image that cannot be used', label_file.name)
            continue
        if label_file.is_file():
            files.use()
            read_labels(label_file, image, classes, class_ids, joints, lines)
        images[path] = image
    for label_file in sorted(labels_dir.rglob('*.txt')):
        if label_file not in read and label_file.stem not in LISTS:
            files.lose('label files left out, without an image', label_file.name, str(label_file))
    return images


def read_labels(
    path: Path,
    image: AnnotatedImage,
    classes: Mapping[int, str],
    class_ids: Mapping[str, int],
    joints: tuple[int, int] | None,
    lines: Tally,
) -> None:
    """Give an image the objects of its label file."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        place = f'{path.name}:{number}'
        if not line.strip():
            continue
        try:
            found = read_line(line, class_ids, joints)
        except BadLine as error:
            lines.lose(f'lines left out, {error}', place, line)
            continue
        if found.class_id not in classes:
            lines.lose(f'objects left out, of class {found.class_id} that has no name', place, line)
            continue
        x1, y1, x2, y2 = found.box
        box = (x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height)
        add_object(image, found.class_id, box, lines, place, line)
        if overhangs(found.box):
            lines.doubt('boxes that reach out of their image, if they are `cx cy w h`', place, line)


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
    folders = find_splits(folder)
    classes, joints = (distinct_names(dict(enumerate(args.classes))), None) if args.classes else find_names(folder)
    findings = Findings(args.yolo)
    lines, files = Tally('lines', findings), Tally('label files', findings)
    by_split = {split: read_split(*paths, classes, joints, lines, files) for split, paths in folders.items()}
    findings.report()
    files.require_used('labels/NAME.txt, or NAME.txt beside the image NAME.jpg')
    lines.require_used(EXPECTED)
    if set(by_split) != set(SPLIT_NAMES):
        (images,) = by_split.values()
        divided = split_randomly(list(images), args.val_fraction, args.seed)
        by_split = {split: {path: images[path] for path in paths} for split, paths in divided.items()}
    splits = {split: list(images.values()) for split, images in by_split.items()}
    write_own_data(args.output, splits, classes, args.link, TOOL)
    files.require_most_used('an image of the same name for each')
    lines.require_most_used(EXPECTED)


if __name__ == '__main__':
    run_cli(main)
