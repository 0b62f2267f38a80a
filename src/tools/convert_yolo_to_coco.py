"""Make an own-data folder (annotations/train.json, annotations/val.json, images/) from YOLO text labels.

Images lie in images/{train,val} with labels in labels/{train,val}, or in {train,valid}/images with
{train,valid}/labels, or unsplit in images and labels. A label line is `class cx cy w h`, in parts of the image; an
image without a label file is background. Class names come from --classes, data.yaml or classes.txt.
"""

import argparse
import re
from pathlib import Path

from centernet.datasets.conversion import (
    Picture,
    add_object,
    split_randomly,
    usable_picture,
    write_own_data,
)
from centernet.datasets.index import Findings
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError
from centernet.utils.media import is_image

SPLIT_NAMES = {'train': ('train',), 'val': ('val', 'valid', 'validation')}


def read_class_names(folder: Path) -> list[str]:
    """Class names from `data.yaml` (its `names`, a list or a mapping from numbers) or `classes.txt` (one a line).

    Raises:
        UserError: there is neither, or no name in it.
    """
    for path in [*sorted(folder.glob('*.yaml')), *sorted(folder.glob('*.yml'))]:
        names = parse_yaml_names(path.read_text(encoding='utf-8', errors='replace'))
        if names:
            return names
    for path in (folder / 'classes.txt', folder / 'obj.names'):
        if path.is_file():
            lines = path.read_text(encoding='utf-8', errors='replace').splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if names:
                return names
    raise UserError(f"no class names in '{folder}': expected data.yaml with `names` or classes.txt; or give --classes")


def parse_yaml_names(text: str) -> list[str]:
    """The value of the top-level key `names` of a YAML text, in any of the forms that YOLO tools write."""
    start = re.search(r'^names[ \t]*:[ \t]*', text, re.MULTILINE)
    if start is None:
        return []
    value = text[start.end() :]
    if value[:1] in ('[', '{'):
        inside = re.split(r'[\]}]', value[1:])[0]
        items = re.findall(r'"[^"]*"|\'[^\']*\'|[^,\n]+', re.sub(r'\d+\s*:\s*', '', inside))
    else:
        items = []
        for line in value.splitlines():
            if line.strip() and line[0] not in ' \t-#':
                break  # the next key
            item = re.match(r'\s*(?:-|\d+\s*:)\s*(.*?)\s*(?:\s#.*)?$', line)
            if item:
                items.append(item.group(1))
    names = [item.strip().strip('\'"') for item in items]
    return [name for name in names if name]


def find_splits(folder: Path) -> dict[str, tuple[Path, Path]]:
    """`{split: (images folder, labels folder)}`; the split is '' where the images are not divided."""
    splits = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            for images, labels in (
                (Path('images', name), Path('labels', name)),
                (Path(name, 'images'), Path(name, 'labels')),
            ):
                if split not in splits and (folder / images).is_dir():
                    splits[split] = (folder / images, folder / labels)
    if not splits and (folder / 'images').is_dir():
        splits[''] = (folder / 'images', folder / 'labels')
    if not splits:
        raise UserError(f"expected images/train, train/images or images in '{folder}': found none of them")
    return splits


def read_split(images: Path, labels: Path, classes: list[str], findings: Findings) -> dict[Path, Picture]:
    """The usable pictures of an images folder, by path."""
    pictures = {}
    for path in track(sorted(filter(is_image, images.rglob('*'))), str(images)):
        picture = usable_picture(path, findings, upright=True)  # YOLO's parts are of the image as shown
        if picture is not None:
            read_labels(labels / path.relative_to(images).with_suffix('.txt'), picture, classes, findings)
            pictures[path] = picture
    return pictures


def read_labels(path: Path, picture: Picture, classes: list[str], findings: Findings) -> None:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding='utf-8', errors='replace').splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            class_id, (x, y, width, height) = int(fields[0]), map(float, fields[1:])
        except ValueError:
            findings.add('lines left out, not `class cx cy w h`', f'{path.name}:{number}')
            continue
        if not 0 <= class_id < len(classes):
            findings.add(f'objects left out, of class {class_id} that has no name', f'{path.name}:{number}')
            continue
        box = (
            (x - width / 2) * picture.width,
            (y - height / 2) * picture.height,
            (x + width / 2) * picture.width,
            (y + height / 2) * picture.height,
        )
        add_object(picture, classes[class_id], box, findings)


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
    folders = find_splits(folder)
    classes = args.classes or read_class_names(folder)
    findings = Findings(args.yolo)
    by_split = {split: read_split(*paths, classes, findings) for split, paths in folders.items()}
    findings.report()
    if set(by_split) != set(SPLIT_NAMES):
        (pictures,) = by_split.values()
        divided = split_randomly(list(pictures), args.val_fraction, args.seed)
        by_split = {split: {path: pictures[path] for path in paths} for split, paths in divided.items()}
    splits = {split: list(pictures.values()) for split, pictures in by_split.items()}
    write_own_data(args.output, splits, classes, args.link)


if __name__ == '__main__':
    run_cli(main)
