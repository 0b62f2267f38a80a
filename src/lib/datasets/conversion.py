"""The common part of readers of other formats and converters: measuring images, checking boxes, writing COCO's form."""

import filecmp
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..utils.cli import track
from ..utils.errors import UserError
from ..utils.files import atomic_path, read_json, read_text, refuse_replacing, write_json
from .findings import Findings, printable
from .image_headers import OK, TOO_LARGE, Header, limit_pixels, read_header, read_headers
from .splitting import choose_at_random

logger = logging.getLogger(__name__)

T = TypeVar('T', str, Path)

MOST_LOST = 0.1  # a conversion that leaves out a larger part of what it reads has failed
MARK = 'made_by'  # key of annotation files under which their maker is kept


class AnnotatedObject(NamedTuple):
    """An object of an image.

    Attributes:
        key: its class, the key under which `to_coco` has the name.
        box: x1 y1 x2 y2 in 0-based pixels, inside the image and not empty.
        difficult: VOC's flag: a detection of it is neither right nor wrong.
        keypoints: x, y and v of each joint in a flat list, as COCO has them; None without joints.
    """

    key: Any
    box: list[float]
    difficult: bool = False
    keypoints: list[float] | None = None


@dataclass
class AnnotatedImage:
    """An image file with its objects.

    Attributes:
        path: the file.
        width, height: in pixels.
        objects: in the order of their file.
    """

    path: Path
    width: int
    height: int
    objects: list[AnnotatedObject] = field(default_factory=list)


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
                f"nothing to learn in '{self.findings.source}': none of its {self.lost} {self.what} can be used; "
                + self._looks(expected)
            )

    def require_most_used(self, expected: str) -> None:
        """Raise a UserError, with what the others look like, if more than `MOST_LOST` are left out or doubtful."""
        for line in self.losses(expected, 'were left out of what was written'):
            raise UserError(line)

    def remark_losses(self, expected: str) -> None:
        """Refuse entries of which none is used, and add a remark if more than `MOST_LOST` are left out or doubtful.

        Raises:
            UserError: there are entries, and none can be used.
        """
        if self.lost:
            self.require_used(expected)
        for line in self.losses(expected, 'are left out'):
            self.findings.remark(f"'{self.findings.source}': {line}")

    def losses(self, expected: str, fate: str) -> list[str]:
        """Return a line each if more than `MOST_LOST` of the entries are left out (`fate` says so) or doubtful."""
        total = self.used + self.lost
        return [
            f'{number} of {total} {self.what} {what}; {self._looks(expected)}'
            for number, what in ((self.lost, fate), (self.doubtful, 'may have been misunderstood'))
            if number > MOST_LOST * total
        ]

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
    """Divide images as `choose_at_random` does, by their places below the folder that holds them all.

    Returns:
        `{'train': [...], 'val': [...]}`.

    Raises:
        UserError: the fraction is not between 0 and 1, or there are not two names to divide.
    """
    places = {name: Path(os.path.abspath(name)) for name in names}
    root = os.path.commonpath([place.parent for place in places.values()]) if places else ''
    below = {name: place.relative_to(root).as_posix() for name, place in places.items()}
    chosen = choose_at_random(list(below.values()), val_fraction, '--val_fraction', seed)
    return {
        'train': [name for name in names if below[name] not in chosen],
        'val': [name for name in names if below[name] in chosen],
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
    facts: Mapping[str, Any] | None = None,
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
        facts: what each category has beside its id and name, such as `keypoints`.

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
    contents = {split: to_coco(images, classes, file_names, facts) for split, images in splits.items()}
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


def to_coco(
    images: Sequence[AnnotatedImage],
    classes: Mapping[Any, str],
    file_names: Mapping[Path, str],
    facts: Mapping[str, Any] | None = None,
) -> dict:
    """Convert images to a COCO object.

    Args:
        images: the images.
        classes: names of the classes by the keys that the objects have; category ids are 1, 2, ... in that order.
            Objects of other classes are left out.
        file_names: the names of the image files, by their paths. Ids of images count through it, so they differ between
            splits that share it.
        facts: what each category has beside its id and name, such as `keypoints`.
    """
    image_ids = {path: i for i, path in enumerate(file_names, start=1)}
    category_ids = {key: i for i, key in enumerate(classes, start=1)}
    rows: list[dict] = []
    annotations: list[dict] = []
    for image in images:
        image_id = image_ids[image.path]
        rows.append({'id': image_id, 'file_name': file_names[image.path], 'width': image.width, 'height': image.height})
        for found in image.objects:
            if found.key in category_ids:
                ids = {'id': len(annotations) + 1, 'image_id': image_id, 'category_id': category_ids[found.key]}
                row = ids | coco_box(found.box) | {'ignore': int(found.difficult)}
                if found.keypoints is not None:
                    row['keypoints'] = found.keypoints
                    row['num_keypoints'] = sum(v > 0 for v in found.keypoints[2::3])
                annotations.append(row)
    categories = [{'id': i, 'name': classes[key], **(facts or {})} for key, i in category_ids.items()]
    return {'images': rows, 'annotations': annotations, 'categories': categories}


def names_below(folder: Path, paths: Iterable[Path]) -> dict[Path, str]:
    """Return the names of files as seen from a folder: with slashes, and from the root where they lie elsewhere."""
    inside = os.path.abspath(folder)
    names = {path: os.path.abspath(path) for path in paths}
    return {
        path: Path(name).relative_to(inside).as_posix() if Path(inside) in Path(name).parents else name
        for path, name in names.items()
    }


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


def headers_of(folder: Path, paths: Sequence[Path]) -> dict[Path, Header]:
    """Read the headers of image files in a folder (or elsewhere), which are remembered between starts."""
    names = names_below(folder, paths)
    return dict(zip(paths, read_headers(os.path.abspath(folder), [names[path] for path in paths]), strict=True))


def measure_image(
    path: Path,
    findings: Findings,
    stated: tuple[int, int] | None = None,
    upright: bool = False,
    header: Header | None = None,
) -> AnnotatedImage | None:
    """Read an image's size from its header.

    Where EXIF turns the image by a quarter, the size is that as stored, unless the annotations were made on the turned
    image: because the size that they state is that one, or because they always are (`upright`).

    Args:
        path: the image file.
        findings: receives a damaged file, and one whose size is not the `stated` one.
        stated: (width, height) in the annotations, if they have it.
        upright: the annotations are of the image as it is shown.
        header: the file's, where it has been read.

    Returns:
        The image without objects yet; None if the file is damaged.
    """
    header = header or limit_pixels(read_header(str(path)))
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
    keypoints: list[float] | None = None,
) -> None:
    """Give an image an object, or count it as left out if its box cannot be used.

    Args:
        image: the image.
        key: the object's class.
        box: x1 y1 x2 y2 in 0-based pixels.
        tally: counts the object.
        name: what messages call the object.
        text: what its file says, for messages.
        difficult, keypoints: as `AnnotatedObject` has them.
    """
    inside = clip_box(box, image.width, image.height)
    if inside is None:
        tally.lose('boxes left out, empty, inverted, outside the image or not finite', name, text)
    else:
        tally.use()
        image.objects.append(AnnotatedObject(key, inside, difficult, keypoints))
