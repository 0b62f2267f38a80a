"""Detections in the lines of other programs: YOLO's labels, and tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..detections import Detection
from ..drawing import JOINT_SCORE

CORNERS = ('x1', 'y1', 'x2', 'y2')
COLUMNS = ('image', 'frame', 'class', 'class_id', 'score', *CORNERS)  # with which each row of the table begins
NAMED = {'dim': ('height', 'width', 'length'), 'location': ('location_x', 'location_y', 'location_z')}


def yolo_lines(detections: Iterable[Detection], size: tuple[int, int]) -> list[str]:
    """Return YOLO's line of each detection: class from 0, centre and size of the box in shares of the image's.

    Of people `x y visibility` of each joint follow, as YOLO's pose format has them: 2 seen, 1 hardly seen.

    Args:
        detections: see utils/detections.py; their boxes are cut at the image's border.
        size: (width, height) of the image.
    """
    lines = []
    scale = np.array([*size, *size], np.float64)
    for detection in detections:
        x1, y1, x2, y2 = np.clip(np.array(detection['box']) / scale, 0, 1).tolist()
        numbers = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        words = [str(detection['class_id'] - 1), *(f'{number:.6f}' for number in numbers)]
        if 'keypoints' in detection:
            places = np.clip(np.array(detection['keypoints']) / scale[:2], 0, 1)  # [J, 2]
            scores = detection.get('keypoint_scores') or [1.0] * len(places)
            for (x, y), score in zip(places.tolist(), scores, strict=True):
                words += [f'{x:.6f}', f'{y:.6f}', '2' if score >= JOINT_SCORE else '1']
        lines.append(' '.join(words))
    return lines


def table_row(detection: Detection, image: str, frame: int | None) -> dict[str, Any]:
    """Return a detection as one row of a table, `{column: value}`.

    Args:
        detection: see utils/detections.py.
        image: name of the image or the video.
        frame: number of the frame; None of an image.
    """
    row: dict[str, Any] = {'image': image, 'frame': '' if frame is None else frame}
    row |= {key: detection[key] for key in ('class', 'class_id', 'score')}
    row |= dict(zip(CORNERS, detection['box'], strict=True))
    for key, columns in NAMED.items():
        row |= dict(zip(columns, detection.get(key, ()), strict=False))
    row |= {key: detection[key] for key in ('alpha', 'rotation_y') if key in detection}
    for key in ('keypoints', 'extreme_points'):
        row |= points_of(key.removesuffix('s'), detection.get(key, ()))
    for number, score in enumerate(detection.get('keypoint_scores', ()), start=1):
        row[f'keypoint_{number}_score'] = score
    return row


def points_of(name: str, points: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the columns of some points [n, 2] in pixels, which are numbered from 1."""
    return {
        f'{name}_{number}_{axis}': value
        for number, point in enumerate(points, start=1)
        for axis, value in zip('xy', point, strict=True)
    }
