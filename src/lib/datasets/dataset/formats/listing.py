"""The label files near the top of a folder, listed once: they show its format, and it may hold many images."""

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

from .splits import WHOLE, split_of

SUFFIXES = ('.json', '.xml')  # of the files that are listed
MOST = 20  # files of a suffix that are remembered of each folder
DEPTH = 3  # levels of folders that are looked into: the folder, those in it, and theirs
SETTLED = 0.1  # seconds after which a change of a folder surely shows in its time


@dataclass
class Listing:
    """The label files that were found in a folder.

    Attributes:
        levels: of each level, the first label files of each of its folders, by suffix; none hidden.
        times: when each folder that was listed had last changed, in nanoseconds.
        taken: the time of the listing, in seconds.
    """

    levels: list[list[dict[str, list[Path]]]]
    times: dict[Path, int]
    taken: float

    def is_current(self) -> bool:
        """Return whether no folder has changed since, nor so shortly before that its time could not show it."""
        settled = (self.taken - SETTLED) * 1e9
        return all(before < settled and time_of(folder) == before for folder, before in self.times.items())


_listings: dict[str, Listing] = {}  # the last one of each folder, by its absolute path: a program's start asks thrice


def first_files(folder: Path, suffix: str) -> list[Path]:
    """Return the first label files in a folder, in those in it, and in theirs that mean a split; `MOST` of each.

    Args:
        folder: the folder; it is listed where it has changed.
        suffix: one of `SUFFIXES`.

    Returns:
        absolute paths.
    """
    place = os.path.abspath(folder)
    listing = _listings.get(place)
    if listing is None or not listing.is_current():
        listing = _listings[place] = list_folder(Path(place))
    return [
        path
        for depth, level in enumerate(listing.levels)
        for files in level
        for path in files[suffix]
        if depth < DEPTH - 1 or split_of(path, Path(place)) != WHOLE
    ]


def list_folder(folder: Path) -> Listing:
    """List the label files of a folder, of those in it and of theirs."""
    listing = Listing([], {}, time.time())
    places = [folder]
    for _ in range(DEPTH):
        files: list[dict[str, list[Path]]] = []
        below: list[Path] = []
        for place in places:
            listing.times[place] = time_of(place)
            # Two looks at each entry, and an object for few: there may be a hundred thousand images.
            try:
                with os.scandir(place) as entries:
                    notable = [each for each in entries if each.name[-5:].lower().endswith(SUFFIXES) or is_folder(each)]
            except PermissionError:  # such as `lost+found`: a folder that cannot be read shows nothing
                notable = []
            shown = [entry for entry in notable if not entry.name.startswith('.')]
            below += [Path(entry.path) for entry in shown if is_folder(entry)]
            files.append({suffix: first_of(shown, suffix) for suffix in SUFFIXES})
        listing.levels.append(files)
        places = sorted(below)
    return listing


def time_of(folder: Path) -> int:
    """Return when a folder has last changed, in nanoseconds; -1 where it is gone."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def first_of(entries: list[os.DirEntry], suffix: str) -> list[Path]:
    """Return the paths of the first files of a suffix, by their names."""
    fitting = sorted((entry for entry in entries if entry.name.lower().endswith(suffix)), key=lambda entry: entry.name)
    files = (Path(entry.path) for entry in fitting)
    return list(itertools.islice((path for path in files if path.is_file()), MOST))
