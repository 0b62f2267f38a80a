"""Everything about an image's detections drawn on it."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..ddd_utils import compute_box_3d, project_to_image
from ..detections import Detection
from ..thresholds import Thresholds, reaches
from .colors import Color, class_color
from .labels import draw_labels
from .shapes import HIDDEN, VISIBLE, draw_box_3d, draw_extreme_points, draw_keypoints, draw_outline
from .sizes import enlarge_small

NEAR_PLANE = 0.1  # metres: a corner nearer than this, or behind the camera, has no place in the image
JOINT_SCORE = 0.1  # the decoder's own threshold of joint peaks: a joint under it is drawn hollow


def draw_detections(
    image: np.ndarray,
    detections: Iterable[Detection],
    thresh: Thresholds = 0.0,
    skeleton: Sequence[tuple[int, int]] = (),
    calib: np.ndarray | None = None,
    least_side: int = 0,
) -> np.ndarray:
    """Draw every detection of score >= `thresh` (of all classes, or of each) on a copy of the image.

    Args:
        image: BGR uint8 [H, W, 3].
        detections: see utils/detections.py; a missing `score` (an annotation) counts as 1 and is not written.
        skeleton: limbs as pairs of 0-based joints.
        calib: [3, 4] projection matrix; with it `location` and `dim` are drawn as 3D boxes.
        least_side: an image whose longer side is shorter is enlarged by a whole factor first, since no label
            is legible on it. 0 keeps the size.

    Returns:
        BGR uint8 [H, W, 3], or a multiple of that size.
    """
    canvas, factor = enlarge_small(image, least_side)
    canvas = np.array(canvas, order='C')
    if canvas.size == 0:
        return canvas
    kept = [detection for detection in detections if reaches(thresh, detection)]
    kept.sort(key=lambda detection: -detection.get('score', 1.0))
    for detection in reversed(kept):
        _draw_shape(canvas, detection, factor, skeleton, calib)
    named = [each for each in kept if 'box' in each]
    return draw_labels(
        canvas, [(np.multiply(each['box'], factor), _label(each), detection_color(each)) for each in named]
    )


def detection_color(detection: Detection) -> Color:
    """Return the colour of a detection's class."""
    return class_color(max(detection.get('class_id', 1) - 1, 0))


def _label(detection: Detection) -> str:
    name = str(detection.get('class', ''))
    return f'{name} {detection["score"]:.2f}' if 'score' in detection else name


def _draw_shape(
    canvas: np.ndarray,
    detection: Detection,
    factor: int,
    skeleton: Sequence[tuple[int, int]],
    calib: np.ndarray | None,
) -> None:
    """Draw everything of one detection but its label, in place."""
    color = detection_color(detection)
    corners = None if calib is None else projected_box(detection, calib)
    if corners is not None:
        draw_box_3d(canvas, corners * factor, color)
    elif 'box' in detection:
        draw_outline(canvas, np.multiply(detection['box'], factor), color)
    if 'extreme_points' in detection:
        draw_extreme_points(canvas, np.multiply(detection['extreme_points'], factor), color)
    if 'keypoints' in detection:
        visibility = detection.get('visibility')
        if visibility is None and 'keypoint_scores' in detection:
            seen = np.array(detection['keypoint_scores']) >= JOINT_SCORE  # [J]
            visibility = np.where(seen, VISIBLE, HIDDEN)
        draw_keypoints(canvas, np.multiply(detection['keypoints'], factor), skeleton, visibility)


def projected_box(detection: Detection, calib: np.ndarray) -> np.ndarray | None:
    """Project a detection's 3D box to the image.

    Args:
        detection: with `dim`, `location` and `rotation_y`, else None is returned.
        calib: camera matrix [3, 4].

    Returns:
        Corners [8, 2] in pixels, ordered as by `compute_box_3d`, or None for a box that reaches behind the camera.
    """
    corners = box_corners(detection)
    if corners is None or corners[:, 2].min() < NEAR_PLANE:
        return None
    return project_to_image(corners, np.asarray(calib))  # [8, 2]


def box_corners(detection: Detection) -> np.ndarray | None:
    """Return the corners [8, 3] in metres of a detection's 3D box; None without one, or when it isn't finite."""
    if not {'dim', 'location', 'rotation_y'} <= detection.keys():
        return None
    corners = compute_box_3d(detection['dim'], detection['location'], detection['rotation_y'])  # [8, 3]
    return corners if np.isfinite(corners).all() else None
