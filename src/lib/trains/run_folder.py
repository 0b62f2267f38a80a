"""The folder of a run: whose it is before training writes into it."""

import logging
import re
import shutil
from pathlib import Path

from ..utils.errors import UserError

logger = logging.getLogger(__name__)

CHECKPOINT = re.compile(r'model_(last|best|\d+)\.pth')
# What a run writes beside its checkpoints; a new run would append to the first two, or mix with them.
RECORDS = ('log.txt', 'logs', 'opt.txt', 'results.json', 'metrics.json')


def claim_folder(folder: str, resume: bool, overwrite: bool) -> None:
    """Make sure that training may write into the folder of its run.

    A run that goes on keeps what is there. With `overwrite` the checkpoints and records of the earlier run are
    removed; so are those of a run that did not come to its first checkpoint. Files of other names stay.

    Raises:
        UserError: an earlier run left its checkpoints in the folder, and neither is asked for.
    """
    path = Path(folder)
    if resume or not path.is_dir():
        return
    checkpoints = [file for file in path.iterdir() if CHECKPOINT.fullmatch(file.name)]
    if checkpoints and not overwrite:
        raise UserError(
            f"'{folder}' holds an earlier run ({', '.join(sorted(file.name for file in checkpoints)[:3])}): "
            'go on with it by --resume, take another --exp_id, or start over with --overwrite'
        )
    records = [path / name for name in RECORDS if (path / name).exists()]
    for file in [*checkpoints, *records]:
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink()
    if checkpoints:
        logger.info("--overwrite: the earlier run in '%s' is removed", folder)
