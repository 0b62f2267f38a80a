"""Base of the formats of own data."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ....utils.errors import UserError
from ...annotations import Annotations

UNDIVIDED = 'not divided: --val_share of the images validates'


class FolderFormat:
    """A folder of own data in one format.

    Class attributes:
        name: of the format, for messages.
        layout: what lies in such a folder, for messages.

    Attributes:
        folder: the folder, absolute.
        needs: what the task needs of the annotations (`BOXES`, ... of source.py), where a folder offers a choice.
    """

    name: ClassVar[str]
    layout: ClassVar[str]

    def __init__(self, folder: Path, needs: Sequence[str] = ()):
        self.folder, self.needs = Path(os.path.abspath(folder)), tuple(needs)

    @classmethod
    def signs(cls, folder: Path) -> list[str]:
        """Return the files in a folder by which the format is known, as seen from it; [] if it is another one."""
        raise NotImplementedError

    def parts(self) -> dict[str, Annotations]:
        """Return the annotations of 'train', 'val' and 'test', as far as there are such, or of `WHOLE`.

        Raises:
            UserError: the folder contradicts itself, or lacks something.
        """
        raise NotImplementedError

    @functools.cached_property
    def found(self) -> dict[str, Annotations]:
        """The parts, listed once."""
        return self.parts()

    def __getstate__(self) -> dict:
        """Return what another process needs; it lists the files itself."""
        return {name: value for name, value in vars(self).items() if name != 'found'}

    @property
    def image_dir(self) -> str:
        """Return the folder from which the file names of images are seen."""
        return str(self.folder)

    def first_part(self) -> Annotations:
        """Return the annotations from which classes are read: those that train, or else the first."""
        parts = self.found
        if not parts:
            raise UserError(f"'{self.folder}' ({self.name}) has no images for train, val or test")
        return parts.get('train') or next(iter(parts.values()))

    def categories(self) -> list[dict]:
        """Return the categories, as a COCO-format file has them.

        Raises:
            UserError: as `parts`.
        """
        return self.first_part().categories()

    def divides(self) -> bool:
        """Return whether the folder says which images validate."""
        return 'val' in self.found

    def description(self) -> str:
        """Return the line that says what was found."""
        return f"'{self.folder}' is read as {self.name} ({self.contents()})"

    def contents(self) -> str:
        """Return what was found, a word or two a part."""
        return said_of({split: self.below(part.place) for split, part in self.found.items()})

    def below(self, path: str | os.PathLike) -> str:
        """Return a path as seen from the folder, where it lies in it."""
        path = Path(os.path.abspath(path))
        if path == self.folder:
            return 'this folder'
        return path.relative_to(self.folder).as_posix() if self.folder in path.parents else str(path)


def said_of(places: Mapping[str, str]) -> str:
    """Return the places of the parts as text, and where none of them validates, how these images are chosen."""
    said = [f'{split} {place}'.strip() for split, place in places.items()]
    return '; '.join(said if 'val' in places else [*said, UNDIVIDED])
