"""YOLO folders: images, text labels, and data.yaml or classes.txt."""

import functools
import os
from pathlib import Path

from ....utils.errors import UserError
from ....utils.media import is_image
from ...annotations import Annotations, LabelFiles
from ...conversion import Tally, names_below, to_coco
from ...findings import Findings
from ...yolo_files import read_yaml
from ...yolo_folder import (
    EXPECTED_FILE,
    EXPECTED_LINE,
    NO_LABELS,
    find_names,
    find_splits,
    images_of,
    label_files,
    label_of,
    name_files,
    read_split,
)
from .base import FolderFormat, said_of


class Yolo(FolderFormat):
    """A folder with data.yaml (or classes.txt): `images/train`, `labels/train`, or `train/images`, `train/labels`."""

    name = 'YOLO'
    layout = 'data.yaml, images/ and labels/ (YOLO)'

    @classmethod
    def signs(cls, folder: Path) -> list[str]:
        """Return the files that name classes, or else the first label file."""
        yaml = [path for path in name_files(folder) if path.name == 'data.yaml' or names_classes(path)]
        files = yaml or [folder / 'obj.names'] * (folder / 'obj.names').is_file() or first_label(folder)
        return [path.relative_to(folder).as_posix() for path in files]

    def parts(self) -> dict[str, Annotations]:
        """Return the images of each split, with their label files."""
        names = find_names(self.folder)
        splits = find_splits(self.folder, names)
        parts: dict[str, Annotations] = {}
        for split in ('train', 'val', 'test', ''):
            if split in splits.places:
                places = splits.places[split]
                images = images_of(places, self.folder, Findings(''))
                lists = [place for place in places if place.is_file()]
                labels = {label_of(path) for path in images} | set(label_files(places))
                files = [*images, *sorted(labels, key=os.fspath), *lists, *([names.file] if names.file else [])]
                parts[split] = LabelFiles(self.folder, files, functools.partial(self.read, split), self.rows, [split])
        return parts

    def rows(self) -> list[dict]:
        """Return the categories that data.yaml or classes.txt names."""
        names = find_names(self.folder)
        return to_coco([], names.classes, {}, names.facts)['categories']

    def read(self, split: str, findings: Findings) -> dict:
        """Read a split's images and labels into COCO's form."""
        names = find_names(self.folder)
        splits = find_splits(self.folder, names)
        findings.remarks += [*names.remarks, *splits.remarks]
        places = splits.places[split]
        lines, files = Tally('lines', findings), Tally('label files', findings)
        found = images_of(places, self.folder, findings)
        images = read_split(found, label_files(places), names, self.folder, lines, files)
        files.remark_losses(EXPECTED_FILE)
        lines.remark_losses(EXPECTED_LINE)
        return to_coco(list(images.values()), names.classes, names_below(self.folder, images), names.facts)

    def contents(self) -> str:
        """Return the file that names the classes, and the places of the splits."""
        names = find_names(self.folder)
        splits = find_splits(self.folder, names)
        said = said_of({split: ', '.join(map(self.below, places)) for split, places in splits.places.items()})
        return f'{self.below(names.file)}: {said}' if names.file else said


def names_classes(path: Path) -> bool:
    """Return whether a YAML file has the key `names`."""
    try:
        return 'names' in read_yaml(path)
    except (UserError, OSError):
        return False


def first_label(folder: Path) -> list[Path]:
    """Return the first label file in `labels`, or beside the images where classes.txt lies there, as a list of one."""
    for place in (folder / 'labels', *sorted(folder.glob('labels/*/')), *sorted(folder.glob('*/labels/'))):
        found = next((path for path in sorted(place.glob('*.txt')) if not NO_LABELS.fullmatch(path.stem)), None)
        if found:
            return [found]
    if (folder / 'classes.txt').is_file():
        for path in sorted(folder.iterdir()):
            if is_image(path) and path.with_suffix('.txt').is_file():
                return [path.with_suffix('.txt')]
    return []
