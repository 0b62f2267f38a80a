"""Annotations of a dataset, in whatever files they lie, read into the content of a COCO-format file.

What packs, counts or scores annotations takes an `Annotations`; it need not know of which files they are made.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import coco_file
from .coco_file import collections_paused, file_stamp, report_once
from .findings import Findings
from .remembered import load_packed, remembered_path, save_packed
from .splitting import choose_at_random

SETTLED = 2_000_000_000  # ns; the coarsest file times (FAT) are that far apart


_kept: dict[str, tuple[dict, Findings]] = {}  # at most one content, see `Annotations.parse`


class Annotations:
    """Annotations of a split, or of a whole dataset that is not divided.

    Attributes:
        place: the file or folder that messages name.
        is_coco: `place` is a COCO-format file, which programs that take one can read.
    """

    is_coco = False

    def __init__(self, place: str | os.PathLike):
        self.place = os.fspath(place)

    def key(self) -> list:
        """Return what distinguishes these annotations from others, as values that JSON holds."""
        return [type(self).__name__, os.path.realpath(self.place)]

    def files(self) -> Iterable[str]:
        """Return the paths of all files that decide the content."""
        return [self.place]

    def load(self) -> tuple[dict, Findings]:
        """Read the content, as `read_coco` returns it, and its faults, which are not logged yet.

        Raises:
            UserError: there is nothing that can be used.
        """
        raise NotImplementedError

    def parse(self) -> tuple[dict, Findings]:
        """Read the content and its faults as `load` does.

        A large file takes many seconds and gigabytes: what was read for the categories is taken over, once, and given
        up when it is the turn of other annotations.
        """
        kept = _kept.get(self.identity()) if _kept else None
        forget_kept()
        return kept or self.load()

    def identity(self) -> str:
        """Return the key and the version as text."""
        return json.dumps([self.key(), self.version()])

    def stamp(self) -> tuple[str, int]:
        """Return a digest of the files' names, sizes and times, and the time of the youngest in ns (0 without one)."""
        digest, youngest = hashlib.blake2b(digest_size=16), 0
        for path in self.files():
            size, modified = file_stamp(path)
            youngest = max(youngest, modified)
            digest.update(f'{os.path.abspath(path)}\0{size}\0{modified}\0'.encode('utf-8', 'surrogateescape'))
        return digest.hexdigest(), youngest

    def version(self) -> list | None:
        """Return what decides whether the files are still the ones that were read, the reader's code included.

        None without a file, and where one was written a moment ago: it could change once more at what its file system
        takes for the same time.
        """
        digest, youngest = self.stamp()
        settled = youngest > 0 and time.time_ns() - youngest > SETTLED
        return [digest, coco_file.reader_version()] if settled else None

    def report(self, findings: Findings) -> None:
        """Log what was found, once for each version of the files in this process."""
        if findings.lines():
            report_once(self.stamp()[0], findings)

    def read(self) -> dict:
        """Return the content, and log its faults; see `parse`."""
        content, findings = self.parse()
        self.report(findings)
        return content

    def categories(self) -> list[dict]:
        """Return the categories, as `read_coco` does.

        They are remembered between starts, with the faults of the file, which are logged once for each version of it.

        Raises:
            UserError: as `parse`.
        """
        return _recall('categories', self, self.parse_categories)

    def used_categories(self) -> set[int]:
        """Return the ids of the categories that have objects, remembered as `categories` are."""
        return set(_recall('used', self, self.parse_used_categories))

    def parse_used_categories(self) -> tuple[list[int], Findings]:
        """Read the ids of the categories that have objects, and the faults of the file."""
        content, findings = self.parse()
        return sorted({row['category_id'] for row in content['annotations'] if 'category_id' in row}), findings

    def parse_categories(self) -> tuple[list[dict], Findings]:
        """Read the categories alone, as far as that is quicker, and the faults of the file."""
        content, findings = self.parse()
        if self.version():
            _kept[self.identity()] = content, findings
        return content['categories'], findings


class CocoFile(Annotations):
    """A COCO-format file."""

    is_coco = True

    def load(self) -> tuple[dict, Findings]:
        """Read the file; see `Annotations.load`."""
        return coco_file.parse_coco(self.place)


class LabelFiles(Annotations):
    """Label files of another format, many of them: one or more an image.

    Args:
        place: the folder or file that messages name.
        files: paths of all label files, images and lists that decide the content.
        read: makes the content, in COCO's form, and receives the findings.
        read_categories: makes the categories alone, where that is quicker.
        key: what distinguishes these annotations from others of the same place, as values that JSON holds.
    """

    def __init__(
        self,
        place: str | os.PathLike,
        files: Sequence[str | os.PathLike],
        read: Callable[[Findings], dict],
        read_categories: Callable[[], list[dict]] | None = None,
        key: Sequence = (),
    ):
        super().__init__(place)
        self.paths = [os.fspath(path) for path in files]
        self.read_content, self.read_categories, self.own_key = read, read_categories, list(key)

    def key(self) -> list:
        """Return what distinguishes these annotations from others; see `Annotations.key`."""
        return [*super().key(), *self.own_key]

    def files(self) -> Iterable[str]:
        """Return the paths that decide the content."""
        return self.paths

    def report(self, findings: Findings) -> None:
        """Log what was found; what concerns the whole folder once for all its parts."""
        report_once(os.path.realpath(self.place), findings)

    def load(self) -> tuple[dict, Findings]:
        """Read all files; see `Annotations.load`."""
        findings = Findings(self.place)
        with collections_paused():
            return coco_file.normalise_coco(self.read_content(findings), findings), findings

    def parse_categories(self) -> tuple[list[dict], Findings]:
        """Read the categories alone; what else is found is left to whoever reads the content."""
        if self.read_categories is None:
            return super().parse_categories()
        return self.read_categories(), Findings(self.place)


class Share(Annotations):
    """The images of undivided annotations that validate, or those that train.

    Args:
        whole: the annotations.
        part: 'train' or 'val'.
        val_share: part of the images that validate.
    """

    def __init__(self, whole: Annotations, part: str, val_share: float):
        super().__init__(whole.place)
        self.whole, self.part, self.val_share = whole, part, val_share
        self.is_coco = whole.is_coco

    def key(self) -> list:
        """Return what distinguishes these annotations from others; see `Annotations.key`."""
        return [*self.whole.key(), self.part, self.val_share]

    def files(self) -> Iterable[str]:
        """Return the paths that decide the content."""
        return self.whole.files()

    def categories(self) -> list[dict]:
        """Return the categories of all; see `Annotations.categories`."""
        return self.whole.categories()

    def report(self, findings: Findings) -> None:
        """Log what was found; see `Annotations.report`."""
        self.whole.report(findings)

    def parse(self) -> tuple[dict, Findings]:
        """Read the content; what was kept of the whole is taken over."""
        return self.load()

    def load(self) -> tuple[dict, Findings]:
        """Read all, and keep the part.

        Raises:
            UserError: as `Annotations.parse`, or there are not two images to divide.
        """
        content, findings = self.whole.parse()
        names = [image['file_name'] for image in content['images'] if 'file_name' in image]
        held_out = choose_at_random(names, self.val_share, '--val_share')
        validating = {image['id'] for image in content['images'] if image.get('file_name') in held_out}
        validates = self.part == 'val'  # what is of no image goes to train, where it is named
        images = [image for image in content['images'] if (image['id'] in validating) == validates]
        rows = [row for row in content['annotations'] if (row.get('image_id') in validating) == validates]
        return content | {'images': images, 'annotations': rows}, findings


def forget_kept() -> None:
    """Give up what was kept for the next reader; the index is made, or will not be."""
    _kept.clear()


def _recall(kind: str, annotations: Annotations, read: Callable[[], tuple[Any, Findings]]) -> Any:
    """Return what `read` gives, or has given for this version of the files, and log the faults with it."""
    version = annotations.version()
    place = remembered_path(kind, annotations.key())
    known = load_packed(place) if version else None
    if known and known[1]['version'] == version:
        notes = known[1]
        annotations.report(Findings.from_json(annotations.place, notes['findings']))
        return notes['value']
    value, findings = read()
    annotations.report(findings)
    if version:
        save_packed(place, {}, {'version': version, 'value': value, 'findings': findings.to_json()})
    return value
