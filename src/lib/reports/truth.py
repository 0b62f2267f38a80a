"""Annotated objects as detections, for drawings."""

from typing import Any

import numpy as np

from ..datasets.index import Objects
from ..utils.detections import Detection

SOLID = ('dim', 'location', 'rotation_y')  # of an annotation, that a detection has too


def true_detections(objects: Objects, class_names: list[str]) -> list[Detection]:
    """Return the usable objects of an image as detections without a score (see utils/detections.py)."""
    detections = []
    for k in np.flatnonzero(objects.valid & (objects.classes >= 0)).tolist():
        cls = int(objects.classes[k])
        detection: dict[str, Any] = {'class': class_names[cls], 'class_id': cls + 1, 'box': objects.boxes[k].tolist()}
        if 'keypoints' in objects.fields:
            joints = np.nan_to_num(objects.fields['keypoints'][k])  # [J, 3]
            detection |= {'keypoints': joints[:, :2], 'visibility': joints[:, 2]}
        if 'extreme_points' in objects.fields:
            detection['extreme_points'] = objects.fields['extreme_points'][k]
        if all(name in objects.fields for name in SOLID):
            detection |= {name: objects.fields[name][k] for name in SOLID}
        detections.append(detection)
    return detections
