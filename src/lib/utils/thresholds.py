"""The lowest scores of detections that are shown: one for all classes, or each class's own from `thresholds.json`."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .files import read_json, write_json

logger = logging.getLogger(__name__)

Thresholds = float | Sequence[float]  # of all classes, or of the classes 0 to C - 1

FILE = 'thresholds.json'
BEST = 'best'  # which `--vis_thresh` takes for the file of the checkpoint's run


def threshold_of(thresholds: Thresholds, cls: int) -> float:
    """Return the threshold of a class (0-based)."""
    return thresholds if isinstance(thresholds, (int, float)) else thresholds[cls]


def reaches(thresholds: Thresholds, detection: Mapping[str, Any]) -> bool:
    """Return whether a detection's score is at its threshold or over it; without a score it is an annotation, and is.

    Args:
        thresholds: of all classes, or of each.
        detection: as utils/detections.py says.
    """
    return detection.get('score', 1.0) >= threshold_of(thresholds, detection.get('class_id', 1) - 1)


def over(thresholds: Thresholds, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return which scores [n] of classes [n] (0-based) are at their threshold or over it, bool [n]."""
    if isinstance(thresholds, (int, float)):
        return scores >= thresholds
    return scores >= np.asarray(thresholds, np.float64)[classes.astype(np.int64)]


def write_thresholds(
    path: str | os.PathLike, of_all: float | None, of_classes: Mapping[str, float | None], **facts: object
) -> None:
    """Write the thresholds of classes, by their names, and one for all; None where nothing was found rightly.

    Args:
        path: the file.
        of_all, of_classes: the thresholds.
        facts: what else the file says, such as the checkpoint that they belong to.
    """
    write_json(path, {'all': of_all, 'classes': of_classes, **facts}, indent=1)


def find_thresholds(folders: Iterable[str | os.PathLike]) -> Path:
    """Return the first `thresholds.json` in some folders.

    Raises:
        UserError: there is none.
    """
    places = list(dict.fromkeys(os.path.abspath(folder) for folder in folders))
    for place in places:
        if (path := Path(place, FILE)).is_file():
            return path
    where = ' or '.join(f"'{place}'" for place in places)
    raise UserError(
        f"--vis_thresh {BEST}: there is no '{FILE}' in {where}; test.py writes it beside metrics.json, or give a number"
    )


def read_thresholds(path: str | os.PathLike, class_names: Sequence[str], checkpoint: str = '') -> list[float]:
    """Read what `write_thresholds` wrote.

    Args:
        path: the file.
        class_names: of the classes 0 to C - 1.
        checkpoint: name of the one in use; a note says where the file is of another.

    Returns:
        [C]; a class without a threshold of its own takes the one for all.

    Raises:
        UserError: it is no such file, or has no threshold for one of the classes.
    """
    content: Any = read_json(path)
    if not _has_thresholds(content):
        raise UserError(
            f"--vis_thresh: '{path}' is no file of thresholds: expected 'all' and 'classes' with numbers from 0 to 1, "
            'as test.py writes them'
        )
    of_classes = content['classes']
    if not set(class_names) & of_classes.keys():
        raise UserError(
            f"--vis_thresh: '{path}' has thresholds of other classes ({', '.join(list(of_classes)[:5])}) than the "
            f"checkpoint's ({', '.join(class_names[:5])})"
        )
    chosen = [of_classes.get(name) for name in class_names]
    chosen = [content.get('all') if value is None else value for value in chosen]
    lacking = [name for name, value in zip(class_names, chosen, strict=True) if value is None]
    if lacking:
        raise UserError(
            f"--vis_thresh: '{path}' has no threshold for '{lacking[0]}', of which test.py found nothing right: "
            'give a number'
        )
    made_for = content.get('checkpoint')
    if checkpoint and isinstance(made_for, str) and made_for != checkpoint:
        logger.info("note: the thresholds of '%s' are of '%s', not of '%s'", path, made_for, checkpoint)
    return [float(value) for value in chosen]


def _has_thresholds(content: Any) -> bool:
    """Return whether the content of a file is what `write_thresholds` writes."""
    if not isinstance(content, dict) or not isinstance(content.get('classes'), dict):
        return False
    values = [content.get('all'), *content['classes'].values()]
    return all(value is None or (type(value) in (int, float) and 0 <= value <= 1) for value in values)
