"""Our own layout: `annotations/train.json`, `annotations/val.json` (COCO format) and `images/`."""

from pathlib import Path

from ...annotations import Annotations, CocoFile
from .base import FolderFormat

SPLITS = ('train', 'val')


class Own(FolderFormat):
    """`annotations/train.json`, `annotations/val.json` (COCO format) and `images/`."""

    name = 'COCO'
    layout = 'annotations/train.json, annotations/val.json and images/'

    @classmethod
    def signs(cls, folder: Path) -> list[str]:
        """Return which of the two files are there."""
        names = (f'annotations/{split}.json' for split in SPLITS)
        return [name for name in names if (folder / name).exists()]

    def parts(self) -> dict[str, Annotations]:
        """Return both files, though one may be missing: who reads it will say so."""
        return {split: CocoFile(self.folder / 'annotations' / f'{split}.json') for split in SPLITS}

    @property
    def image_dir(self) -> str:
        """Return the folder `images`."""
        return str(self.folder / 'images')

    def first_part(self) -> Annotations:
        """Return the file from which classes are read: train.json, or else val.json."""
        return CocoFile(self.folder / self.signs(self.folder)[0])

    def description(self) -> str:
        """Return nothing: the lines about each split name its file."""
        return ''
