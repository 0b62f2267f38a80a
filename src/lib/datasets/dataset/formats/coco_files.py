"""COCO-format files with their images somewhere near: one file, CVAT's export, or COCO's own names of files."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ....utils.errors import UserError
from ....utils.media import is_image
from ...annotations import Annotations, CocoFile
from ...findings import Findings
from ...image_headers import file_stamps, locate_images
from ...source import EXTREME_POINTS, JOINTS
from .base import FolderFormat
from .json_kinds import COCO, kind_of
from .own import Own
from .splits import SPLIT_WORDS, WHOLE

# Kinds of files by the beginning of their names, as COCO and CVAT give them; any other name counts as BOXES.
KEYPOINTS, EXTREME, BOXES = 'person_keypoints', 'instances_extreme', 'instances'
SUBSET = re.compile(rf'(?:^|[^a-z])({"|".join(SPLIT_WORDS)})(?:\d*)(?:$|[^a-z0-9])', re.IGNORECASE)
LOOKED_FOR = 100  # images by which the folder of a file's images is chosen


class PlacedCoco(CocoFile):
    """A COCO-format file whose images lie in one of several folders: the one that has most of them.

    The file names that it gives are seen from `folder`.

    Args:
        path: the file.
        folder: the dataset's.
        candidates: folders, as seen from it, the likeliest first.
    """

    def __init__(self, path: Path, folder: Path, candidates: Sequence[str]):
        super().__init__(path)
        self.folder, self.candidates = folder, tuple(candidates)

    def key(self) -> list:
        """Return what distinguishes these annotations from others; see `Annotations.key`."""
        return [*super().key(), os.path.realpath(self.folder), list(self.candidates)]

    def load(self) -> tuple[dict, Findings]:
        """Read the file; see `Annotations.load`."""
        content, findings = super().load()
        names = [image['file_name'] for image in content['images'] if 'file_name' in image]
        place = self.image_place(names)
        located = locate_images(self.folder / place, names)
        seen = {name: os.path.normpath(os.path.join(place, other)) for name, other in zip(names, located, strict=True)}
        images = [
            image | {'file_name': seen[image['file_name']]} if 'file_name' in image else image
            for image in content['images']
        ]
        return content | {'images': images}, findings

    def image_place(self, names: Sequence[str]) -> str:
        """Return the candidate that holds most of the first images of those names, of several the first."""
        there = [place for place in self.candidates if (self.folder / place).is_dir()]
        sought = names[:: max(1, len(names) // LOOKED_FOR)]

        def hits(place: str) -> int:
            folder = self.folder / place
            return len(file_stamps(os.fspath(folder), locate_images(folder, sought)))

        return max(there, key=hits, default='.')


class CocoFiles(FolderFormat):
    """One COCO-format file, or one a split by the words in their names, in the folder or in `annotations`.

    CVAT writes `annotations/instances_default.json` and `person_keypoints_default.json`, COCO itself
    `annotations/instances_train2017.json`. Which of several kinds is read depends on what the task needs.
    """

    name = 'COCO'
    layout = 'one COCO file (or CVAT: annotations/instances_default.json) and an images folder'

    @classmethod
    def signs(cls, folder: Path) -> list[str]:
        """Return the COCO-format files in the folder and in `annotations`."""
        if Own.signs(folder):
            return []
        files = [path for place in (folder, folder / 'annotations') for path in sorted(place.glob('*.json'))]
        return [
            path.relative_to(folder).as_posix()
            for path in files
            if path.is_file() and path.name != '_annotations.coco.json' and kind_of(path) == COCO
        ]

    def parts(self) -> dict[str, Annotations]:
        """Return the file of each split, of the kind that the task needs."""
        by_part: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for name in self.signs(self.folder):
            by_part[part_of(name)][kind_of_name(name)].append(self.folder / name)
        chosen = {part: self.choose(kinds) for part, kinds in by_part.items()}
        several = [each for files in chosen.values() for each in files if len(files) > 1]
        if WHOLE in chosen and len(chosen) > 1:
            several = [each for files in chosen.values() for each in files]
        if several:
            raise UserError(
                f"'{self.folder}' has several COCO files: {', '.join(map(self.below, several))}; which one is meant is "
                'not clear: keep one, or give them the names train.json, val.json and test.json'
            )
        order = ('train', 'val', 'test', WHOLE)
        return {part: self.placed(chosen[part][0]) for part in order if part in chosen}

    def choose(self, kinds: dict[str, list[Path]]) -> list[Path]:
        """Choose the files of the kind that serves the task best."""
        order = [BOXES, KEYPOINTS]
        if JOINTS in self.needs:
            order = [KEYPOINTS, BOXES]
        elif EXTREME_POINTS in self.needs:
            order = [EXTREME, BOXES, KEYPOINTS]
        return next((kinds[kind] for kind in [*order, EXTREME] if kinds.get(kind)), [])

    def placed(self, path: Path) -> PlacedCoco:
        """Return a file with the folders where its images may lie."""
        subset = path.stem
        for kind in (KEYPOINTS, EXTREME, BOXES):
            subset = subset.removeprefix(f'{kind}_')
        likely = [f'images/{subset}', 'images', subset, self.below(path.parent) if path.parent != self.folder else '.']
        others = sorted(
            entry.name
            for entry in self.folder.iterdir()
            if entry.is_dir() and not entry.name.startswith('.') and any(map(is_image, entry.iterdir()))
        )
        return PlacedCoco(path, self.folder, list(dict.fromkeys([*likely, '.', *others])))


def part_of(name: str) -> str:
    """Return the split that a file's name means: `instances_train2017.json` is train; `WHOLE` where it means none."""
    found = SUBSET.search(Path(name).stem)
    return SPLIT_WORDS[found[1].lower()] if found else WHOLE


def kind_of_name(name: str) -> str:
    """Return the kind of a file by the beginning of its name."""
    return next((kind for kind in (KEYPOINTS, EXTREME) if Path(name).name.startswith(kind)), BOXES)
