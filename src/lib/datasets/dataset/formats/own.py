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
        """Return the files that are there; of train.json alone a share of the images validates."""
        paths = {split: self.folder / 'annotations' / f'{split}.json' for split in SPLITS}
        return {split: CocoFile(path) for split, path in paths.items() if path.exists() or path.is_symlink()}

    @property
    def image_dir(self) -> str:
        """Return the folder `images`."""
        return str(self.folder / 'images')

    def description(self) -> str:
        """Return what was found where a file is missing; else nothing, for the lines about each split name its file."""
        return '' if len(self.found) == len(SPLITS) else super().description()
