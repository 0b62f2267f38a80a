"""Detections drawn on images.

Images are BGR uint8 [H, W, 3]. Functions that add one thing (`draw_box`, `draw_keypoints`, ...) draw in place and
return the image; `draw_detections`, `blend`, `heatmap_to_color` and `bird_view` give a new one. Line widths and text
follow the image's size; what isn't finite or lies outside is left out, so that any image is safe.
"""

from .bird_view import bird_view
from .colors import class_color, class_colors, rainbow
from .detections import JOINT_SCORE, draw_detections, projected_box
from .heatmaps import blend, heatmap_to_color
from .labels import caption, draw_labels
from .shapes import draw_box, draw_box_3d, draw_extreme_points, draw_keypoints, draw_outline
from .sizes import READABLE_SIDE

__all__ = [
    'JOINT_SCORE',
    'READABLE_SIDE',
    'bird_view',
    'blend',
    'caption',
    'class_color',
    'class_colors',
    'draw_box',
    'draw_box_3d',
    'draw_detections',
    'draw_extreme_points',
    'draw_keypoints',
    'draw_labels',
    'draw_outline',
    'heatmap_to_color',
    'projected_box',
    'rainbow',
]
