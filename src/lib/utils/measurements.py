"""Measurements of this machine, remembered in the user's cache folder."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError
from .files import read_json, write_json

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the user's cache folder: `$XDG_CACHE_HOME/centernet`, by default `~/.cache/centernet`."""
    root = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return Path(root) / 'centernet'


def measurement_path(kind: str, conditions: Mapping[str, Any]) -> Path:
    """Return the cache file of a measurement.

    Args:
        kind: what is measured, such as 'seconds'.
        conditions: all that it depends on, as JSON holds it.
    """
    digest = hashlib.sha1(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / f'{kind}-{digest}.json'


def load_measurement(
    kind: str, conditions: Mapping[str, Any], names: set[str] | None = None
) -> dict[str, float] | None:
    """Load what `save_measurement` wrote.

    Args:
        kind, conditions: as `measurement_path` takes them.
        names: of the values; None where they may be any.

    Returns:
        The values by name, all finite. None where there is no such file, or one that is damaged or not ours.
    """
    path = measurement_path(kind, conditions)
    if not path.is_file():
        return None
    try:
        saved = read_json(path)
    except (UserError, OSError):
        return None
    if not isinstance(saved, dict) or saved.get('conditions') != conditions:
        return None
    values = saved.get('values')
    if not isinstance(values, dict) or (names is not None and values.keys() != names):
        return None
    sound = all(type(value) in (int, float) and math.isfinite(value) for value in values.values())
    return values if sound else None


def save_measurement(kind: str, conditions: Mapping[str, Any], values: Mapping[str, float]) -> None:
    """Remember measured values, all finite; where that cannot be done, a note says so.

    Args:
        kind, conditions: as `measurement_path` takes them.
        values: by name.
    """
    try:
        write_json(measurement_path(kind, conditions), {'conditions': conditions, 'values': values}, indent=1)
    except (OSError, UserError) as error:
        logger.info('note: it will be measured again next time (%s)', error)
