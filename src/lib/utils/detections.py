"""A detector's results as detections: dicts that drawings and the demo's JSON share.

A *detection* has `class` (name), `class_id` (1-based), `score` and `box` [x1, y1, x2, y2] in pixels. By task it has
`keypoints` [J][x, y] with `keypoint_scores` [J], or `extreme_points` [4][x, y] (top, left, bottom, right), or
`alpha` in radians, `dim` [h, w, l] and `location` [X, Y, Z] in metres and `rotation_y` in radians.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .rows import Box, Box3d

Detection = dict[str, Any]


def detections_from_results(
    results: Mapping[int, np.ndarray],
    describe: Callable[[np.ndarray], Detection],
    class_names: Sequence[str] = (),
    keypoint_scores: Mapping[int, np.ndarray] | None = None,
) -> list[Detection]:
    """Turn a detector's results into detections, the best first.

    Args:
        results: {1-based class: rows [n, 5 and more]} as `detector.run` gives them.
        describe: names the numbers of one row, such as `describe_box`.
        class_names: of class 1, 2, ...; a class without a name is called by its number.
        keypoint_scores: {1-based class: [n, J]} of the same rows (multi_pose).

    Returns:
        Coordinates are rounded to 2 decimals (metres and radians to 4), scores are in full.
    """
    detections = []
    for class_id, rows in results.items():
        name = class_name(class_names, class_id)
        joint_scores = (keypoint_scores or {}).get(class_id)
        for index, row in enumerate(np.asarray(rows)):
            detection = {'class': name, 'class_id': int(class_id), **describe(row)}
            if joint_scores is not None:
                detection['keypoint_scores'] = [float(score) for score in joint_scores[index]]
            detections.append(detection)
    return sorted(detections, key=lambda detection: -detection['score'])


def class_name(class_names: Sequence[str], class_id: int) -> str:
    """Return the name of a 1-based class; its number where there is no name."""
    return str(class_names[class_id - 1]) if 1 <= class_id <= len(class_names) else str(int(class_id))


def _rounded(values: np.ndarray, decimals: int = 2) -> list:
    return np.round(np.asarray(values, np.float64), decimals).tolist()


def describe_box(row: np.ndarray) -> Detection:
    """Name the numbers of a row [5 or more] of box and score (`rows.Box`)."""
    return {'score': float(row[Box.SCORE]), 'box': _rounded(row[Box.BOX])}


def describe_pose(row: np.ndarray) -> Detection:
    """Name the numbers of a row [5 + 2J] of box, score and joints (`rows.Box`)."""
    return {**describe_box(row), 'keypoints': _rounded(row[Box.POINTS].reshape(-1, 2))}


def describe_extreme_points(row: np.ndarray) -> Detection:
    """Name the numbers of a row [13] of box, score and extreme points (`rows.Box`)."""
    return {**describe_box(row), 'extreme_points': _rounded(row[Box.POINTS].reshape(4, 2))}


def describe_box_3d(row: np.ndarray) -> Detection:
    """Name the numbers of a row [13] of a 3D box (`rows.Box3d`)."""
    return {
        'score': float(row[Box3d.SCORE]),
        'box': _rounded(row[Box3d.BOX]),
        'alpha': _rounded(row[Box3d.ALPHA], 4),
        'dim': _rounded(row[Box3d.DIM], 4),
        'location': _rounded(row[Box3d.LOCATION], 4),
        'rotation_y': _rounded(row[Box3d.ROTATION_Y], 4),
    }
