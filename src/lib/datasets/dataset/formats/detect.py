"""Which format a folder of own data is in, by the files that are there."""

import os
from collections.abc import Sequence
from pathlib import Path

from ....utils.errors import UserError
from .base import FolderFormat
from .coco_files import CocoFiles
from .labelme import Labelme
from .own import Own
from .split_folders import SplitFolders
from .voc import Voc
from .yolo import Yolo

FORMATS: tuple[type[FolderFormat], ...] = (Own, SplitFolders, CocoFiles, Yolo, Voc, Labelme)
SHOWN = 8  # entries of a folder that a message names


def open_folder(folder: str | os.PathLike, needs: Sequence[str] = ()) -> FolderFormat:
    """Find the format of a folder of own data.

    Args:
        folder: its path.
        needs: what the task needs of the annotations, of `BOXES`, `JOINTS`, ... (source.py).

    Raises:
        UserError: it has annotations of no format, or of several.
    """
    place = Path(folder)
    found = signs_in(place)
    if len(found) == 1:
        (chosen,) = found
        return chosen(place, needs)
    if found:
        said = '; '.join(f'{each.name} ({shown(signs)})' for each, signs in found.items())
        raise UserError(
            f"'{folder}' has annotations of several formats: {said}; which ones are meant is not clear: move the "
            'others to another folder'
        )
    layouts = '; '.join(each.layout for each in FORMATS)
    entries = sorted(entry.name + '/' * entry.is_dir() for entry in place.iterdir() if not entry.name.startswith('.'))
    raise UserError(
        f"own data in '{folder}': expected one of: {layouts}; found {shown(entries) or 'an empty folder'}{hint(place)}"
    )


def signs_in(folder: Path) -> dict[type[FolderFormat], list[str]]:
    """Return the formats that a folder shows signs of, with these."""
    signs = {each: each.signs(folder) for each in FORMATS}
    return {each: names for each, names in signs.items() if names}


def shown(names: Sequence[str]) -> str:
    """Return the first names for a message."""
    return ', '.join(names[:SHOWN]) + (f', ... {len(names)} in all' if len(names) > SHOWN else '')


def hint(folder: Path) -> str:
    """Return the end of a message that names folders within, as archives have them, which are in a known format."""
    within = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith('.')]
    known = [str(entry) for entry in within[:20] if signs_in(entry)]
    return f'; did you mean {" or ".join(known[:3])}?' if known else ''
