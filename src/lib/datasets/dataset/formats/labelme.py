"""labelme folders: one JSON an image."""

import functools
import os
from pathlib import Path

from ...annotations import Annotations, LabelFiles
from ...conversion import Tally, names_below, to_coco
from ...findings import Findings
from ...labelme_files import EXPECTED_FILE, EXPECTED_SHAPE, label_of, read_file, read_folder
from .base import FolderFormat, said_of
from .json_kinds import LABELME, kind_of
from .listing import first_files
from .splits import WHOLE, split_of


class Labelme(FolderFormat):
    """JSON files of labelme, each beside its image or where its `imagePath` says; images without one are left out.

    The folders `train`, `valid` and `test` divide the images, where all JSON files lie in such.
    """

    name = 'labelme'
    layout = 'labelme JSON files beside their images'

    @classmethod
    def signs(cls, folder: Path) -> list[str]:
        """Return the first file that is labelme's."""
        files = first_files(folder, '.json')
        found = next((path for path in files if kind_of(path) == LABELME), None)
        return [] if found is None else [found.relative_to(os.path.abspath(folder)).as_posix()]

    def json_files(self) -> dict[str, list[Path]]:
        """Return the JSON files of each split, sorted."""
        by_split: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob('*.json'), key=os.fspath):
            by_split.setdefault(split_of(path, self.folder), []).append(path)
        if WHOLE in by_split or not {'train', 'val'} & set(by_split):
            return {WHOLE: sorted(path for paths in by_split.values() for path in paths)}
        return by_split

    def parts(self) -> dict[str, Annotations]:
        """Return the JSON files of each split."""
        by_split = self.json_files()
        return {
            split: LabelFiles(self.folder, by_split[split], functools.partial(self.read, split), self.rows, [split])
            for split in ('train', 'val', 'test', WHOLE)
            if split in by_split
        }

    def contents(self) -> str:
        """Return the number of JSON files, of each split where they are divided."""
        return said_of({split: f'{len(files)} JSON files' for split, files in self.json_files().items()})

    def rows(self) -> list[dict]:
        """Return the categories: the labels of all files, sorted."""
        tally = Tally('JSON files', Findings(''))
        contents = (read_file(path, tally) for paths in self.json_files().values() for path in paths)
        labels = {label_of(shape) for content in contents if content for shape in content['shapes']} - {''}
        return to_coco([], {label: label for label in sorted(labels)}, {})['categories']

    def read(self, split: str, findings: Findings) -> dict:
        """Read the files of a split into COCO's form."""
        files, shapes = Tally('JSON files', findings), Tally('shapes', findings)
        images = read_folder(self.json_files()[split], self.folder, files, shapes)
        files.remark_losses(EXPECTED_FILE)
        shapes.remark_losses(EXPECTED_SHAPE)
        classes = {row['name']: row['name'] for row in self.categories()}
        return to_coco(list(images.values()), classes, names_below(self.folder, [i.path for i in images.values()]))
