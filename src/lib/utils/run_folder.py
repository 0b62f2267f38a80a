"""The folder of a run: whose it is before training writes into it."""

import itertools
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError
from .files import read_json, write_json

logger = logging.getLogger(__name__)

CHECKPOINT = re.compile(r'model_(last|best|\d+)\.pth')
# The files that a run, and tests of it, write beside its checkpoints; a new run would append to some, or mix with them.
BEGUN_BY = 'processes.json'  # who started the processes of the run
RECORDS = (
    *('log.txt', 'logs', 'opt.txt', 'options.args', 'metrics.csv', BEGUN_BY),
    *('results.json', 'metrics.json', 'report.html', 'thresholds.json'),
)


def refuse_used_folder(folder: str) -> None:
    """Refuse to start a run where an earlier one left its checkpoints.

    Raises:
        UserError: there are some; names the ways to go on.
    """
    found = sorted(file.name for file in checkpoints_in(folder))
    if found:
        raise UserError(
            f"'{folder}' holds an earlier run ({', '.join(found[:3])}): go on with it by --resume, take another "
            '--exp_id, or start over with --overwrite'
        )


def free_folder(folder: str) -> str:
    """Return the first of the folders FOLDER, FOLDER_2, FOLDER_3, ... without the checkpoints of an earlier run."""
    return next(path for path in numbered_folders(folder) if not checkpoints_in(path))


def latest_folder(folder: str) -> str:
    """Return the last of FOLDER, FOLDER_2, ... with checkpoints before the first one without; or FOLDER."""
    used = list(itertools.takewhile(checkpoints_in, numbered_folders(folder)))
    return used[-1] if used else folder


def note_beginners(folder: str, agents: list[str]) -> None:
    """Keep in a run's folder by whom its processes were started, so that they find it when they are started again."""
    write_json(Path(folder, BEGUN_BY), {'agents': agents})


def folder_begun_by(agent: str, folder: str, numbered: bool) -> str | None:
    """Return the folder of the run that processes of `agent` have begun (see `note_beginners`), or None.

    Args:
        agent: who started this process.
        folder: of the run, as its options name it.
        numbered: FOLDER_2, FOLDER_3, ... may be the run's as well.
    """
    for path in numbered_folders(folder) if numbered else [folder]:
        file = Path(path, BEGUN_BY)
        if file.is_file() and agent in read_json(file)['agents']:
            return path
        if not Path(path).is_dir():
            break
    return None


def numbered_folders(folder: str) -> Iterator[str]:
    """Iterate over FOLDER, FOLDER_2, FOLDER_3 and so on."""
    yield folder
    for number in itertools.count(2):
        yield f'{folder}_{number}'


def clear_folder(folder: str) -> None:
    """Remove the checkpoints and records of an earlier run, so that a new one does not mix with it.

    Files of other names stay.
    """
    checkpoints = checkpoints_in(folder)
    records = [file for name in RECORDS if (file := Path(folder, name)).exists()]
    for file in [*checkpoints, *records]:
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink()
    if checkpoints:
        logger.info("--overwrite: the earlier run in '%s' is removed", folder)


def checkpoints_in(folder: str) -> list[Path]:
    """Return the files of a folder that have the name of a run's checkpoint."""
    path = Path(folder)
    return [file for file in path.iterdir() if CHECKPOINT.fullmatch(file.name)] if path.is_dir() else []
