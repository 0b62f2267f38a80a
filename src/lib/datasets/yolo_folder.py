"""YOLO folders: where their images and labels lie, what data.yaml says, and the objects of the images."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..utils.errors import UserError
from ..utils.files import read_text
from ..utils.media import is_image
from .conversion import AnnotatedImage, Tally, add_object, headers_of, measure_image
from .findings import Findings
from .yolo_files import BadLine, listed_class_names, overhangs, read_line, read_yaml, yaml_class_names

SPLIT_NAMES = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
NAME_FILES = ('classes.txt', 'obj.names')
# Text files beside labels that are none, by their names without suffix.
NO_LABELS = re.compile(r'classes|train|val|valid|test|readme\b.*', re.IGNORECASE)
EXPECTED_LINE = '`class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`, in parts of the image'
EXPECTED_FILE = 'labels/NAME.txt, or NAME.txt beside the image NAME.jpg'


@dataclass
class YoloNames:
    """The classes and joints of a YOLO folder.

    Attributes:
        classes: names by number.
        joints: number of the joints that follow each box, and of the values of each (2 or 3); None without joints.
        facts: `keypoints` and `flip_pairs` of COCO's categories, where there are joints.
        file: the file that says it; None where the classes were given.
        content: of data.yaml, {} without one.
        remarks: lines about what it leaves unsaid.
    """

    classes: dict[int, str]
    joints: tuple[int, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    content: dict = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


# --------------------------------------------------------------------------------------------- classes and joints


def name_files(folder: Path) -> list[Path]:
    """Return the YAML files that may name classes: data.yaml alone where it is there."""
    main_file = folder / 'data.yaml'
    others = (path for pattern in ('*.yaml', '*.yml') for path in sorted(folder.glob(pattern)))
    return [main_file] if main_file.is_file() else list(others)


def find_names(folder: Path, hint: str = '') -> YoloNames:
    """Find the names of the classes, and what joints follow the boxes.

    They stand in data.yaml (or another YAML file that has `names`), in classes.txt or in obj.names.

    Args:
        folder: the YOLO folder.
        hint: ends the message where there is none, such as '; or give --classes'.

    Raises:
        UserError: there is no such file, it cannot be understood, or two YAML files differ.
    """
    found = {}
    for path in name_files(folder):
        content = read_yaml(path)
        if 'names' in content:
            found[path] = read_names(content, path)
    if found:
        names = next(iter(found.values()))
        if any((other.classes, other.joints) != (names.classes, names.joints) for other in found.values()):
            raise UserError(f'{", ".join(map(str, found))} name other classes: keep one{hint}')
        return names
    for place in (folder, folder / 'labels', folder / 'images', *sorted(folder.glob('*/'))):
        for name in NAME_FILES:
            if (place / name).is_file():
                return YoloNames(listed_class_names(place / name), file=place / name)
    raise UserError(f"no class names in '{folder}': expected data.yaml with `names` or classes.txt{hint}")


def read_names(content: dict, path: Path) -> YoloNames:
    """Read the classes and joints that a YAML file of this content names."""
    names = YoloNames(yaml_class_names(content['names'], path), file=path, content=content)
    names.joints = joint_shape(content.get('kpt_shape'))
    if names.joints is not None:
        names.facts = joint_facts_of_yaml(names, path)
    return names


def joint_shape(value: Any) -> tuple[int, int] | None:
    """Read `kpt_shape` as two integers; None where there is none."""
    try:
        joints, values = map(int, value)
    except (TypeError, ValueError):
        return None
    return (joints, values) if joints > 0 and values in (2, 3) else None


def joint_facts_of_yaml(names: YoloNames, path: Path) -> dict[str, Any]:
    """Return `keypoints` and `flip_pairs` of `kpt_names` and `flip_idx`; a remark says what the lack of one means.

    Raises:
        UserError: one of them is of another form.
    """
    assert names.joints is not None
    count, content = names.joints[0], names.content
    listed = content.get('kpt_names')
    if isinstance(listed, dict):  # a list for each class; joints are those of the first
        listed = next(iter(listed.values()), None)
    if listed is None:
        listed = [f'joint {number}' for number in range(1, count + 1)]
    if not isinstance(listed, list) or len(listed) != count or not all(isinstance(name, str) for name in listed):
        raise UserError(f"'{path}': expected 'kpt_names' to list the {count} joints of kpt_shape, found {listed}")
    facts: dict[str, Any] = {'keypoints': listed}
    order = content.get('flip_idx')
    if order is None:
        if not any(name.startswith('left_') for name in listed):
            names.remarks.append(
                f"note: '{path}' has no flip_idx, so joints of mirrored images do not change places; where some are "
                'left and right, add it, or train with --flip 0'
            )
        return facts
    try:
        order = [int(joint) for joint in order]
    except (TypeError, ValueError):
        order = []
    if sorted(order) != list(range(count)) or any(order[order[joint]] != joint for joint in order):
        found = content['flip_idx']
        raise UserError(f"'{path}': expected 'flip_idx' to swap pairs of the joints 0 to {count - 1}, found {found}")
    return facts | {'flip_pairs': [[joint, other] for joint, other in enumerate(order) if joint < other]}


# -------------------------------------------------------------------------------------------------------- splits


@dataclass
class YoloSplits:
    """Where the images of each split lie.

    Attributes:
        places: folders of images, or text files that list them, by split ('' where nothing divides the images).
        remarks: lines about entries of data.yaml that lead nowhere.
    """

    places: dict[str, list[Path]]
    remarks: list[str] = field(default_factory=list)


def find_splits(folder: Path, names: YoloNames) -> YoloSplits:
    """Find the images of the splits: by data.yaml's `train`, `val`, `test`, where these are silent by folders' names.

    Raises:
        UserError: there are none.
    """
    by_yaml = splits_of_yaml(folder, names)
    named = [place for places in by_yaml.places.values() for place in places]
    by_name = {
        split: places
        for split, places in splits_by_name(folder).items()
        if not (split == '' and named)
        and not any(place == other or other in place.parents for place in places for other in named)
    }
    if not (by_name or named):
        said = ''.join(f'; {remark}' for remark in by_yaml.remarks)
        raise UserError(f"expected images/train, train/images or images in '{folder}': found none of them{said}")
    return YoloSplits(by_name | by_yaml.places, by_yaml.remarks)


def splits_of_yaml(folder: Path, names: YoloNames) -> YoloSplits:
    """Find what data.yaml's `train`, `val` and `test` name, each a place or a list of places, if they are there."""
    splits = YoloSplits({})
    for split, keys in SPLIT_NAMES.items():
        entries: Any = next((names.content[key] for key in keys if names.content.get(key)), [])
        entries = entries if isinstance(entries, list) else [entries]
        for entry in entries:
            place = resolve(entry, folder, names.content.get('path')) if isinstance(entry, str) else None
            if place is not None:
                splits.places.setdefault(split, []).append(place)
            else:
                splits.remarks.append(f"'{names.file}' names {split} images in '{entry}', which is not there")
    return splits


def resolve(entry: str, folder: Path, path: Any = None) -> Path | None:
    """Find the folder of images, or the list of them, that an entry of data.yaml means; None where it is not there.

    Roboflow writes `../train/images` for a folder beside data.yaml, and paths from the root are often of another
    machine: such an entry is looked for by its last parts, too. Places in the dataset's own folder come first.

    Args:
        entry: the entry, with either kind of slash.
        folder: where data.yaml lies.
        path: its key `path`, the root of the entries.
    """
    text = PurePosixPath(entry.strip().replace('\\', '/'))
    parts = [part for part in text.parts if part not in ('.', '..', '/') and not part.endswith(':')]
    root = PurePosixPath(path.strip().replace('\\', '/')) if isinstance(path, str) and path.strip() else None
    candidates = []
    if root is not None:
        candidates.append(folder / root / text)
    if '..' not in text.parts:
        candidates.append(folder / text)  # of a path from the root this is the path itself
    candidates += [folder.joinpath(*parts[start:]) for start in range(len(parts))]
    candidates += [folder / text]
    return next((place for place in candidates if place.is_dir() or place.is_file()), None)


def splits_by_name(folder: Path) -> dict[str, list[Path]]:
    """Find the folders of images that have the names of splits, or else the one of all images, under ''."""
    splits: dict[str, list[Path]] = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            for images in (Path('images', name), Path(name, 'images'), Path(name)):
                if split not in splits and (folder / images).is_dir():
                    splits[split] = [folder / images]
    if 'train' in splits or 'val' in splits:
        return splits
    for place in ('images', 'obj_train_data', '.'):
        if (folder / place).is_dir() and (place != '.' or any(map(is_image, folder.iterdir()))):
            return {'': [folder / place]}
    return {}


# -------------------------------------------------------------------------------------------------------- labels


def images_of(places: Sequence[Path], folder: Path, findings: Findings) -> list[Path]:
    """List the images of a split, each once, sorted.

    Args:
        places: folders, and text files that list images.
        folder: the YOLO folder.
        findings: receives images that are listed but not there.
    """
    images: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            images |= dict.fromkeys(path for path in place.rglob('*') if is_image(path))
            continue
        for line in filter(None, map(str.strip, read_text(place).splitlines())):
            path = resolve(line, place.parent) or resolve(line, folder)
            if path is None or not is_image(path):
                findings.add(f'images left out, listed in {place.name} but not there', line)
            else:
                images[path] = None
    return sorted(images, key=os.fspath)


def label_places(path: str) -> Iterator[str]:
    """Yield the places where the label file of an image may lie: in `labels` for `images`, in `labels`, beside it."""
    folder, name = os.path.split(path)
    name = os.path.splitext(name)[0] + '.txt'
    before, found, after = f'/{folder}/'.rpartition('/images/')
    if found:
        yield os.path.join(f'{before}/labels/{after}'[1:], name)
    yield os.path.join(folder, 'labels', name)
    yield os.path.join(folder, name)


def label_of(path: Path) -> Path:
    """Return the label file of an image; where there is none, the place beside it."""
    places = list(label_places(os.fspath(path)))
    return Path(next(filter(os.path.isfile, places), places[-1]))


def label_files(places: Sequence[Path]) -> list[Path]:
    """List the label files of a split's folders, sorted, with those that have no image."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            folders = [Path(label).parent for label in label_places(os.fspath(place / 'image'))]
            for folder in [each for each in folders if each.is_dir()]:
                files = (path for path in folder.rglob('*.txt') if not NO_LABELS.fullmatch(path.stem))
                found |= dict.fromkeys(files)
    return sorted(found, key=os.fspath)


def read_split(
    images: Sequence[Path], labels: Sequence[Path], names: YoloNames, folder: Path, lines: Tally, files: Tally
) -> dict[Path, AnnotatedImage]:
    """Read the usable images of a split, with their objects.

    Args:
        images: paths of the images.
        labels: all label files of the split.
        names: classes and joints.
        folder: the YOLO folder.
        lines, files: count lines, and label files.

    Returns:
        The images by path.
    """
    usable, read = {}, set()
    class_ids = {name: number for number, name in names.classes.items()}
    for path, header in headers_of(folder, images).items():
        label_file = label_of(path)
        read.add(label_file)
        image = measure_image(path, files.findings, upright=True, header=header)  # parts are of the image as shown
        if image is None:
            if label_file.is_file():
                files.lose('label files left out, of an image that cannot be used', label_file.name)
            continue
        if label_file.is_file():
            files.use()
            read_labels(label_file, image, names, class_ids, lines)
        usable[path] = image
    for label_file in labels:
        if label_file not in read:
            files.lose('label files left out, without an image', label_file.name, str(label_file))
    return usable


def read_labels(
    path: Path, image: AnnotatedImage, names: YoloNames, class_ids: Mapping[str, int], lines: Tally
) -> None:
    """Give an image the objects of its label file."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        place = f'{path.name}:{number}'
        if not line.strip():
            continue
        try:
            found = read_line(line, class_ids, names.joints)
        except BadLine as error:
            lines.lose(f'lines left out, {error}', place, line)
            continue
        if found.class_id not in names.classes:
            lines.lose(f'objects left out, of class {found.class_id} that has no name', place, line)
            continue
        x1, y1, x2, y2 = found.box
        box = (x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height)
        add_object(image, found.class_id, box, lines, place, line, keypoints=keypoints_of(found.joints, image, names))
        if overhangs(found.box):
            lines.doubt('boxes that reach out of their image, if they are `cx cy w h`', place, line)


def keypoints_of(
    joints: Sequence[tuple[float, float, int]] | None, image: AnnotatedImage, names: YoloNames
) -> list[float] | None:
    """Return joints in pixels, a flat list as COCO has them; none annotated where the line has none."""
    if names.joints is None:
        return None
    found = joints or [(0.0, 0.0, 0)] * names.joints[0]
    return [number for x, y, v in found for number in (round(x * image.width, 2), round(y * image.height, 2), v)]
