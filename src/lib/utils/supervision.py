"""Detections for the package `supervision`, which tracks, counts and draws them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .detections import Detection
from .errors import UserError

PLAIN = ('class', 'class_id', 'score', 'box')  # of a detection; what else it has goes to `data`


def to_supervision(detections: Sequence[Detection]) -> Any:
    """Return detections (see utils/detections.py) as a `supervision.Detections`.

    Its `class_id` counts from 0, as is usual there. `data` has `class_name` and what else the task finds, an array of a
    row [...] for each detection: `keypoints` [n, J, 2], `dim` [n, 3] and so on.

    Raises:
        UserError: the package is not installed.
    """
    try:
        import supervision
    except ImportError:
        raise UserError("to_supervision needs the package 'supervision': pip install supervision") from None
    others = dict.fromkeys(key for detection in detections for key in detection if key not in PLAIN)
    data: dict[str, Any] = {key: np.array([detection[key] for detection in detections]) for key in others}
    return supervision.Detections(
        xyxy=np.array([detection['box'] for detection in detections], np.float32).reshape(-1, 4),
        confidence=np.array([detection['score'] for detection in detections], np.float32),
        class_id=np.array([detection['class_id'] - 1 for detection in detections], int),
        data=data | {'class_name': np.array([detection['class'] for detection in detections], str)},
    )
