"""COCO-format files beside their images, a folder a split: Roboflow's COCO export."""

from pathlib import Path

from ....utils.errors import UserError
from ...annotations import Annotations
from .base import FolderFormat
from .coco_files import PlacedCoco
from .json_kinds import COCO, kind_of
from .splits import SPLIT_WORDS, WHOLE

FILE = '_annotations.coco.json'


class SplitFolders(FolderFormat):
    """`train/_annotations.coco.json` beside the images, and the same in `valid` and `test`; or just one such folder.

    A folder may hold a COCO-format file of another name, if it is the only one.
    """

    name = "Roboflow's COCO"
    layout = 'train/_annotations.coco.json beside the images (Roboflow), valid/ and test/ alike'

    @classmethod
    def signs(cls, folder: Path) -> list[str]:
        """Return the annotation files of the folders that have the names of splits, and the folder's own."""
        files = [folder / FILE] if (folder / FILE).is_file() else []
        for place in sorted(folder.iterdir()):
            if place.name.lower() in SPLIT_WORDS and place.is_dir():
                own = place / FILE
                files += [own] if own.is_file() else [p for p in sorted(place.glob('*.json')) if is_coco(p)]
        return [path.relative_to(folder).as_posix() for path in files]

    def parts(self) -> dict[str, Annotations]:
        """Return the file of each folder."""
        parts: dict[str, Annotations] = {}
        names = self.signs(self.folder)
        for name in names:
            place = Path(name).parent.as_posix()
            part = WHOLE if place == '.' else SPLIT_WORDS[place.lower()]
            if part in parts or (WHOLE in parts) or (part == WHOLE and len(names) > 1):
                raise UserError(
                    f"'{self.folder}' has several COCO files for the same images: {', '.join(names)}; keep one a split"
                )
            parts[part] = PlacedCoco(self.folder / name, self.folder, [place, f'{place}/images'])
        return {part: parts[part] for part in ('train', 'val', 'test', WHOLE) if part in parts}

    def categories(self) -> list[dict]:
        """Return the categories without Roboflow's category 0, a root above the others that has no object."""
        rows = super().categories()
        root = next((row for row in rows if row.get('id') == 0), None)
        others = [row for row in rows if row is not root]
        if root is None or not others or any(row.get('supercategory') != root['name'] for row in others):
            return rows
        used = any(0 in part.used_categories() for part in self.found.values())
        return rows if used else others


def is_coco(path: Path) -> bool:
    """Return whether a file is of COCO's format."""
    return path.is_file() and kind_of(path) == COCO
