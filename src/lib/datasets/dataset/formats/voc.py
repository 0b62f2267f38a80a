"""VOC folders: XML annotations and images, perhaps with lists of the images of each split."""

import functools
import os
from pathlib import Path

from ....utils.errors import UserError
from ...annotations import Annotations, LabelFiles
from ...conversion import AnnotatedImage, Tally, names_below, to_coco
from ...findings import Findings
from ...voc_files import (
    EXPECTED_FILE,
    EXPECTED_OBJECT,
    list_files,
    name_splits,
    names_of_classes,
    parse_xml,
    read_folder,
    read_list,
    stems_of,
)
from .base import FolderFormat, said_of
from .listing import first_files
from .splits import WHOLE, split_of

LISTS = ('train', 'training', 'trainval', 'val', 'valid', 'validation', 'test')  # names of lists, without suffix


class Voc(FolderFormat):
    """`Annotations/*.xml`, `JPEGImages/*` and perhaps `ImageSets/Main/*.txt`; or XML files and images in any folders.

    Without lists the folders `train`, `valid` and `test` divide the images, where all XML files lie in such.
    """

    name = 'VOC'
    layout = 'Annotations/*.xml and JPEGImages/ (VOC)'

    @classmethod
    def signs(cls, folder: Path) -> list[str]:
        """Return the first file that is VOC's XML; none of a folder of several years, each of which has its lists."""
        if any(folder.glob('*/ImageSets')):
            return []
        tally = Tally('XML files', Findings(''))
        files = first_files(folder, '.xml')
        found = next((path for path in files if parse_xml(path, tally) is not None), None)
        return [] if found is None else [found.relative_to(os.path.abspath(folder)).as_posix()]

    def parts(self) -> dict[str, Annotations]:
        """Return the images of each list or folder of a split, with their XML files."""
        xml_files, by_stem = list_files(self.folder)
        lists = self.lists()
        files = [*xml_files, *sorted(path for paths in by_stem.values() for path in paths), *sorted(lists.values())]
        splits = list(lists) or sorted({split_of(path, self.folder) for path in xml_files})
        if WHOLE in splits or not {'train', 'val'} & set(splits):
            splits = [WHOLE]
        # files are those of all parts: what is wrong with one of them is said once
        return {
            split: LabelFiles(self.folder, files, functools.partial(self.read, split), self.rows, [split])
            for split in ('train', 'val', 'test', WHOLE)
            if split in splits
        }

    def lists(self) -> dict[str, Path]:
        """Return the list of each split; trainval.txt and test.txt serve where train.txt and val.txt are not there."""
        for place in ('ImageSets/Main', 'ImageSets'):
            found = {path.stem: path for path in sorted((self.folder / place).glob('*.txt')) if path.stem in LISTS}
            by_split = {split: found[stem] for stem, split in name_splits(list(found)).items()}
            if 'train' in by_split:
                return {split: path for split, path in by_split.items() if split in ('train', 'val', 'test')}
        return {}

    def rows(self) -> list[dict]:
        """Return the categories: the names of the objects in all XML files, sorted."""
        names = names_of_classes(list_files(self.folder)[0])
        return to_coco([], {name: name for name in names}, {})['categories']

    def read(self, split: str, findings: Findings) -> dict:
        """Read all XML files, and return the images of a split in COCO's form."""
        files, objects = Tally('XML files', findings), Tally('objects', findings)
        images = read_folder(self.folder, files, objects)
        files.remark_losses(EXPECTED_FILE)
        objects.remark_losses(EXPECTED_OBJECT)
        members = self.members(split, images, findings)
        classes = {row['name']: row['name'] for row in self.categories()}
        file_names = names_below(self.folder, [image.path for image in images.values()])
        return to_coco(list(members.values()), classes, file_names)

    def contents(self) -> str:
        """Return the number of XML files, and the lists or the folders of the splits."""
        xml_files, lists = list_files(self.folder)[0], self.lists()
        places = {split: self.below(lists[split]) if split in lists else '' for split in self.found}
        return f'{len(xml_files)} XML files: {said_of(places)}'.replace(': ; ', ': ')

    def members(self, split: str, images: dict[Path, AnnotatedImage], findings: Findings) -> dict[Path, AnnotatedImage]:
        """Return the images of a split, by the path of their XML file."""
        path = self.lists().get(split)
        if path is None:
            return {xml: image for xml, image in images.items() if split in (WHOLE, split_of(xml, self.folder))}
        members, names = read_list(path, images, stems_of(images))
        if not members:
            raise UserError(f"'{path}' names no image of '{self.folder}'")
        findings.take(names.findings, f' ({path.name})')
        return members
