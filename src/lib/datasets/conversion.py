"""The converters' common part: measuring and splitting images, checking boxes, writing an own-data folder."""

import filecmp
import logging
import math
import os
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..utils.cli import track
from ..utils.errors import UserError
from ..utils.files import atomic_path, read_json, read_text, refuse_replacing, write_json
from .findings import Findings, printable
from .image_headers import OK, TOO_LARGE, limit_pixels, read_header

logger = logging.getLogger(__name__)

T = TypeVar('T', str, Path)

MOST_LOST = 0.1  # a conversion that leaves out a larger part of what it reads has failed
MARK = 'made_by'  # key of annotation files under which their maker is kept


@dataclass
class AnnotatedImage:
    """An image file with its objects.

    Attributes:
        path: the file.
        width, height: in pixels.
        objects: `(class, [x1, y1, x2, y2] in 0-based pixels, difficult)`, inside the image and not empty; the class is
            the key under which `write_own_data` has its name.
    """

    path: Path
    width: int
    height: int
    objects: list[tuple[Any, list[float], bool]] = field(default_factory=list)


class Tally:
    """Counts the entries (lines, objects, files) of annotation files that are used and those that are left out."""

    def __init__(self, what: str, findings: Findings):
        self.what, self.findings = what, findings
        self.used = self.lost = self.doubtful = 0
        self.examples: list[str] = []

    def use(self) -> None:
        """Count an entry that is used."""
        self.used += 1

    def lose(self, kind: str, name: Any, text: str = '') -> None:
        """Count an entry that is left out: a finding of `kind`, about `name`, whose content is `text`."""
        self.lost += 1
        self.findings.add(kind, name)
        self._show(text)

    def doubt(self, kind: str, name: Any, text: str = '') -> None:
        """Count one of the used entries as one that may have been misunderstood."""
        self.doubtful += 1
        self.findings.add(kind, name)
        self._show(text)

    def _show(self, text: str) -> None:
        if text and len(self.examples) < 3:
            self.examples.append(printable(text))

    def require_used(self, expected: str) -> None:
        """Raise a UserError, with what the entries look like, if none is used.

        Args:
            expected: what an entry looks like that can be used.
        """
        if not self.used:
            raise UserError(
                f"nothing to convert in '{self.findings.source}': none of its {self.lost} {self.what} can be used; "
                + self._looks(expected)
            )

    def require_most_used(self, expected: str) -> None:
        """Raise a UserError, with what the others look like, if more than `MOST_LOST` are left out or doubtful."""
        total = self.used + self.lost
        for number, fate in (
            (self.lost, 'were left out of what was written'),
            (self.doubtful, 'may have been misunderstood'),
        ):
            if number > MOST_LOST * total:
                raise UserError(f'{number} of {total} {self.what} {fate}; {self._looks(expected)}')

    def _looks(self, expected: str) -> str:
        shown = ', '.join(f"'{text}'" for text in self.examples) or 'nothing'
        return f'expected {expected}, found {shown}'


def clip_box(box: Sequence[float], width: int, height: int) -> list[float] | None:
    """Clip a box x1 y1 x2 y2 to the image, to 2 decimals; None if nothing (or no number) is left."""
    if not all(map(math.isfinite, box)):
        return None
    x1, x2 = (round(min(max(x, 0), width), 2) for x in (box[0], box[2]))
    y1, y2 = (round(min(max(y, 0), height), 2) for y in (box[1], box[3]))
    return [x1, y1, x2, y2] if x2 > x1 and y2 > y1 else None


def split_randomly(names: Sequence[T], val_fraction: float, seed: int) -> dict[str, list[T]]:
    """Draw a random part for validation, the same for the same names and seed.

    Returns:
        `{'train': [...], 'val': [...]}`.

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
    """Read a list of images (one of ImageSets): its lines, stripped, without the empty ones.

    Raises:
        UserError: the file is missing or names nothing.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise UserError(f"the list '{path}' names no image")
    return names


def entry_paths(entry: str) -> list[Path]:
    """Return the paths that a line of such a list may mean, the likeliest first.

    The whole line, which may hold spaces, or what precedes the `1`, `0` or `-1` that VOC's lists of a class add.
    """
    entry = entry.replace('\\', '/')
    words = entry.rsplit(maxsplit=1)
    paths = [entry]
    if len(words) == 2 and words[1] in ('1', '0', '-1'):
        paths.append(words[0])
    return [Path(path) for path in paths]


# ------------------------------------------------------------------------------------------------------ outputs


def is_own(path: Path, mark: Mapping[str, Any]) -> bool:
    """Return whether an annotation file carries the mark of the program that made it."""
    try:
        content = read_json(path)
    except (UserError, OSError):
        return False
    return isinstance(content, dict) and content.get(MARK) == mark


def refuse_foreign(path: Path, tool: str) -> None:
    """Raise a UserError if there is a file at `path` that is no earlier output of the program `tool`."""
    refuse_replacing(path, lambda existing: is_own(existing, {'tool': tool}), 'OUTPUT')


def same_content(source: Path, target: Path) -> bool:
    """Return whether `target` is the file `source` or a copy of it."""
    return target.is_file() and (target.samefile(source) or filecmp.cmp(source, target, shallow=False))


def place_file(source: Path, target: Path, link: bool) -> None:
    """Copy `source` to `target`, whole or not at all, or with `link` make a symbolic link.

    Raises:
        UserError: there is another file at `target`.
    """
    if target.exists():
        if not same_content(source, target):
            raise UserError(f"'{target}' exists and is no copy of '{source}': move it away, or name another OUTPUT")
        if link or not target.is_symlink():
            return
    if link:
        # not by atomic_path: it sets the mode of what it wrote, which through a link is the user's own file
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f'.{os.getpid()}-link{target.suffix}')
        beside.symlink_to(Path(os.path.realpath(source)))
        os.replace(beside, target)
    else:
        with atomic_path(target) as beside:
            shutil.copyfile(source, beside)


def write_own_data(
    output: str | os.PathLike,
    splits: Mapping[str, Sequence[AnnotatedImage]],
    classes: Mapping[Any, str],
    link: bool,
    tool: str,
) -> None:
    """Write `annotations/SPLIT.json` for each split, and `images/`.

    Objects of classes that are not in `classes` are left out. Images of one name from several folders get a number, and
    so does an image whose place is taken by another file: no file is replaced but annotation files of the same program.

    Args:
        output: the folder.
        splits: the images of each split.
        classes: names of the classes by the keys that the objects have; category ids are 1, 2, ... in that order.
        link: make symbolic links to the images instead of copies.
        tool: name of the program, which is kept in the annotation files.

    Raises:
        UserError: a split has no image, no object is left, an image lies where the output goes, or an annotation file
            of another program is in the way.
    """
    output = Path(output)
    paths = list({image.path: None for images in splits.values() for image in images})
    for split, images in splits.items():
        if not images:
            raise UserError(f"nothing to convert: no usable image for '{split}'")
        refuse_foreign(output / 'annotations' / f'{split}.json', tool)
    place = Path(os.path.realpath(output / 'images'))
    for path in paths:
        if place in Path(os.path.realpath(path)).parents:
            raise UserError(f"OUTPUT: '{output}' holds the image '{path}', which is read; name another folder")
    file_names = _free_names(paths, place)
    contents = {split: _to_coco(images, classes, file_names) for split, images in splits.items()}
    if not any(content['annotations'] for content in contents.values()):
        raise UserError(
            f'nothing to convert: no object of the classes {", ".join(classes.values()) or "(none)"} was found'
        )
    for path, name in track(file_names.items(), 'images', len(file_names)):
        place_file(path, output / 'images' / name, link)
    for split, content in contents.items():
        path = output / 'annotations' / f'{split}.json'
        write_json(path, content | {MARK: {'tool': tool}})
        numbers = f'{len(content["images"])} images, {len(content["annotations"])} objects, {len(classes)} classes'
        logger.info('%s: %s', path, numbers)


def _to_coco(images: Sequence[AnnotatedImage], classes: Mapping[Any, str], file_names: Mapping[Path, str]) -> dict:
    """Convert images to a COCO object; image ids count through `file_names`, so they differ between splits."""
    image_ids = {path: i for i, path in enumerate(file_names, start=1)}
    category_ids = {key: i for i, key in enumerate(classes, start=1)}
    rows: list[dict] = []
    annotations: list[dict] = []
    for image in images:
        image_id = image_ids[image.path]
        rows.append({'id': image_id, 'file_name': file_names[image.path], 'width': image.width, 'height': image.height})
        for key, box, difficult in image.objects:
            if key in category_ids:
                ids = {'id': len(annotations) + 1, 'image_id': image_id, 'category_id': category_ids[key]}
                annotations.append(ids | coco_box(box) | {'ignore': int(difficult)})
    categories = [{'id': i, 'name': classes[key]} for key, i in category_ids.items()]
    return {'images': rows, 'annotations': annotations, 'categories': categories}


def coco_box(box: Sequence[float]) -> dict:
    """Return `bbox`, `area` and `iscrowd` of a box x1 y1 x2 y2, to 2 decimals."""
    x1, y1, x2, y2 = box
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {'bbox': [x1, y1, width, height], 'area': round(width * height, 2), 'iscrowd': 0}


def _free_names(paths: Iterable[Path], folder: Path) -> dict[Path, str]:
    """Choose a name in `folder` for each file, no two alike, where there is no other file yet."""
    names, taken = {}, set()
    for path in paths:
        name, number = path.name, 2
        while name.lower() in taken or ((folder / name).exists() and not same_content(path, folder / name)):
            name, number = _numbered(path, number), number + 1
        taken.add(name.lower())  # on some disks A.jpg is a.jpg
        names[path] = name
    return names


def _numbered(path: Path, number: int) -> str:
    """Return `a_2.jpg` for a.jpg, shortened where the file system would refuse the length."""
    end = f'_{number}{path.suffix}'
    stem = os.fsdecode(os.fsencode(path.stem)[: 250 - len(os.fsencode(end))])
    return stem + end


# --------------------------------------------------------------------------------------------- images and boxes


def measure_image(
    path: Path, findings: Findings, stated: tuple[int, int] | None = None, upright: bool = False
) -> AnnotatedImage | None:
    """Read an image's size from its header.

    Where EXIF turns the image by a quarter, the size is that as stored, unless the annotations were made on the turned
    image: because the size that they state is that one, or because they always are (`upright`).

    Args:
        path: the image file.
        findings: receives a damaged file, and one whose size is not the `stated` one.
        stated: (width, height) in the annotations, if they have it.
        upright: the annotations are of the image as it is shown.

    Returns:
        The image without objects yet; None if the file is damaged.
    """
    header = limit_pixels(read_header(str(path)))
    if header.state != OK:
        reason = 'of more pixels than can be read' if header.state == TOO_LARGE else 'unreadable or cut short'
        findings.add(f'images left out, {reason}', path)
        return None
    turned = header.size[::-1]
    size = turned if header.turned and (upright or stated == turned) else header.size
    if stated is not None and stated != size:
        findings.add("images whose size differs from the annotations' (the file's is used)", path.name)
    return AnnotatedImage(path, *size)


def add_object(
    image: AnnotatedImage,
    key: Any,
    box: Sequence[float],
    tally: Tally,
    name: str,
    text: str = '',
    difficult: bool = False,
) -> None:
    """Give an image an object, or count it as left out if its box cannot be used.

    Args:
        image: the image.
        key: the object's class.
        box: x1 y1 x2 y2 in 0-based pixels.
        tally: counts the object.
        name: what messages call the object.
        text: what its file says, for messages.
        difficult: VOC's flag.
    """
    inside = clip_box(box, image.width, image.height)
    if inside is None:
        tally.lose('boxes left out, empty, inverted, outside the image or not finite', name, text)
    else:
        tally.use()
        image.objects.append((key, inside, difficult))
