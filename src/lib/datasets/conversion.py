"""What the converters share: measuring and splitting pictures, checking boxes, writing an own-data folder."""

import math
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..utils.cli import track
from ..utils.errors import UserError
from ..utils.files import atomic_path, write_json
from .image_headers import DAMAGED, read_header
from .index import Findings

T = TypeVar('T', str, Path)


@dataclass
class Picture:
    """An image file with its objects.

    `objects`: `(class name, [x1, y1, x2, y2] in 0-based pixels, difficult)`, inside the image and not empty.
    """

    path: Path
    width: int
    height: int
    objects: list[tuple[str, list[float], bool]] = field(default_factory=list)


def clip_box(box: Sequence[float], width: int, height: int) -> list[float] | None:
    """The part of a box x1 y1 x2 y2 inside the image, to 2 decimals; None if nothing (or no number) is left."""
    if not all(map(math.isfinite, box)):
        return None
    x1, x2 = (round(min(max(x, 0), width), 2) for x in (box[0], box[2]))
    y1, y2 = (round(min(max(y, 0), height), 2) for y in (box[1], box[3]))
    return [x1, y1, x2, y2] if x2 > x1 and y2 > y1 else None


def split_randomly(names: Sequence[T], val_fraction: float, seed: int) -> dict[str, list[T]]:
    """`{'train': [...], 'val': [...]}`: a random part for validation, the same for the same names and seed.

    Raises:
        UserError: the fraction is not between 0 and 1, or there are not two names to divide.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f'--val_fraction is over 0 and under 1, found {val_fraction}')
    if len(names) < 2:
        raise UserError(f'a split needs 2 or more usable images, found {len(names)}')
    num_val = max(math.ceil(len(names) * val_fraction - 0.5), 1)  # a half goes to train
    num_val = min(num_val, len(names) - 1)
    chosen = set(random.Random(seed).sample(sorted(names), num_val))
    return {
        'train': [name for name in names if name not in chosen],
        'val': [name for name in names if name in chosen],
    }


def read_names(path: str | os.PathLike) -> list[str]:
    """The first word of each line of a text file: an ImageSets list.

    Raises:
        UserError: the file is missing or names nothing.
    """
    try:
        text = Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of names '{path}' ({error})") from None
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not names:
        raise UserError(f"the list '{path}' names no image")
    return names


def place_file(source: Path, target: Path, link: bool) -> None:
    """Copy `source` to `target`, or with `link` make a symbolic link; replaces what is there, whole."""
    if target.exists() and not target.is_symlink() and target.samefile(source):
        return
    if link:
        # not by atomic_path: it sets the mode of what it wrote, which through a link is the user's own file
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f'.{target.name}.{os.getpid()}')
        beside.symlink_to(source.resolve())
        os.replace(beside, target)
    else:
        with atomic_path(target) as beside:
            shutil.copyfile(source, beside)


def write_own_data(
    output: str | os.PathLike, splits: dict[str, list[Picture]], classes: Sequence[str], link: bool
) -> None:
    """Write `annotations/SPLIT.json` for each split, and `images/`.

    Objects of classes that are not in `classes` are left out; category ids are 1, 2, ... in that order.
    Pictures of the same name from several folders get a number.

    Raises:
        UserError: no picture, or no class.
    """
    output = Path(output)
    if not classes or not any(splits.values()):
        raise UserError('nothing to convert: no usable image with objects was found')
    file_names = _unique_names(list({p.path: None for pictures in splits.values() for p in pictures}))
    for path, name in track(file_names.items(), 'images', len(file_names)):
        place_file(path, output / 'images' / name, link)
    for split, pictures in splits.items():
        path, coco = output / 'annotations' / f'{split}.json', _to_coco(pictures, classes, file_names)
        write_json(path, coco)
        print(f'{path}: {len(pictures)} images, {len(coco["annotations"])} objects, {len(classes)} classes')


def _to_coco(pictures: list[Picture], classes: Sequence[str], file_names: dict[Path, str]) -> dict:
    """The COCO object of some pictures; image ids count through `file_names`, so they differ between splits."""
    image_ids = {path: i for i, path in enumerate(file_names, start=1)}
    category_ids = {name: i for i, name in enumerate(classes, start=1)}
    images, annotations = [], []
    for picture in pictures:
        image_id = image_ids[picture.path]
        file_name = file_names[picture.path]
        images.append({'id': image_id, 'file_name': file_name, 'width': picture.width, 'height': picture.height})
        for name, box, difficult in picture.objects:
            if name in category_ids:
                ids = {'id': len(annotations) + 1, 'image_id': image_id, 'category_id': category_ids[name]}
                annotations.append(ids | coco_box(box) | {'ignore': int(difficult)})
    categories = [{'id': i, 'name': name} for name, i in category_ids.items()]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def coco_box(box: Sequence[float]) -> dict:
    """`bbox`, `area` and `iscrowd` of a box x1 y1 x2 y2, to 2 decimals."""
    x1, y1, x2, y2 = box
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {'bbox': [x1, y1, width, height], 'area': round(width * height, 2), 'iscrowd': 0}


def _unique_names(paths: list[Path]) -> dict[Path, str]:
    names, taken = {}, set()
    for path in paths:
        name, number = path.name, 2
        while name in taken:
            name, number = f'{path.stem}_{number}{path.suffix}', number + 1
        taken.add(name)
        names[path] = name
    return names


def usable_picture(
    path: Path, findings: Findings, told: tuple[int, int] | None = None, upright: bool = False
) -> Picture | None:
    """A picture without objects yet, measured by its header; None, and a finding, if the file is damaged.

    Where EXIF turns the image by a quarter, the size is that as stored, unless the annotations were made on the
    turned image: because the size that they tell, `told`, is that one, or because they always are (`upright`).
    """
    header = read_header(str(path))
    if header.state == DAMAGED:
        findings.add('images left out, unreadable or cut short', path)
        return None
    turned = header.size[::-1]
    size = turned if header.turned and (upright or told == turned) else header.size
    return Picture(path, *size)


def add_object(picture: Picture, name: str, box: Sequence[float], findings: Findings, difficult: bool = False) -> None:
    """Give a picture an object, or report its box (x1 y1 x2 y2) as one that cannot be used."""
    inside = clip_box(box, picture.width, picture.height)
    if inside is None:
        findings.add('boxes left out, empty, inverted, outside the image or not finite', picture.path.name)
    else:
        picture.objects.append((name, inside, difficult))
