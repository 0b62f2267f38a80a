"""Debugging views of a network's maps and decoded rows over its input, one task after another (`--debug` 2 and more).

Maps are tensors [B, c, h, w] of which the first image's are shown, images BGR uint8 [H, W, 3] of the network's
input, rows those of one image on the output map.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .debugger import Debugger
from .rows import Box, DecodedBox3d, Extremes
from .thresholds import Thresholds, over

if TYPE_CHECKING:
    import torch

Maps = Mapping[str, 'torch.Tensor']


def add_box_views(
    debugger: Debugger, image: np.ndarray, maps: Maps, rows: np.ndarray, stride: int, thresh: Thresholds, name: str
) -> None:
    """Add ctdet's views NAME_hm and NAME_boxes.

    Args:
        maps: heatmaps `hm` [B, C, h, w] in [0, 1].
        rows: [n, 6] of box, score, class.
        stride: pixels of the input a cell of the output map.
        thresh: the lowest score that is drawn.
    """
    debugger.add_heatmap(image, maps['hm'][0].cpu().numpy(), f'{name}_hm')
    to_image = np.array([stride] * 4 + [1, 1])
    debugger.add_boxes(image, rows * to_image, f'{name}_boxes', thresh)


def add_pose_views(
    debugger: Debugger,
    image: np.ndarray,
    maps: Maps,
    rows: np.ndarray,
    joint_scores: np.ndarray,
    stride: int,
    thresh: Thresholds,
    name: str,
) -> None:
    """Add multi_pose's views NAME_hm, NAME_hmhp and NAME_poses.

    Args:
        maps: heatmaps `hm` [B, 1, h, w] and, if there are any, `hm_hp` [B, J, h, w] in [0, 1].
        rows: [n, 6 + 2J] of box, score, joints, class.
        joint_scores: [n, J]; joints with 0 are left out.
        stride: pixels of the input a cell of the output map.
        thresh: the lowest score that is drawn.
    """
    debugger.add_heatmap(image, maps['hm'][0].cpu().numpy(), f'{name}_hm')
    if 'hm_hp' in maps:
        debugger.add_heatmap(image, maps['hm_hp'][0].cpu().numpy(), f'{name}_hmhp', of_joints=True)
    rows = np.array(rows[:, : Box.CLASS])  # [n, 5 + 2J]
    rows[:, Box.BOX] *= stride
    seen = np.repeat(joint_scores > 0, 2, axis=1)  # [n, 2J]
    rows[:, Box.POINTS] = np.where(seen, rows[:, Box.POINTS] * stride, np.nan)
    debugger.add_poses(image, rows, f'{name}_poses', thresh, joint_scores)


def add_extreme_heatmaps(debugger: Debugger, image: np.ndarray, heats: Maps, all_sides: bool, name: str) -> None:
    """Add exdet's views NAME_hm_c of the centres, NAME_hm_tlbr of all sides in one, and perhaps of each side.

    Args:
        heats: heatmaps `hm_*` [B, C, h, w] in [0, 1].
        all_sides: each side gets a view of its own, too.
    """
    maps = {head: heat[0].cpu().numpy() for head, heat in heats.items()}
    sides = [f'hm_{side}' for side in 'tlbr']
    debugger.add_heatmap(image, np.max([maps[side] for side in sides], 0), f'{name}_hm_tlbr')
    for head in ['hm_c', *sides] if all_sides else ['hm_c']:
        debugger.add_heatmap(image, maps[head], f'{name}_{head}')


def add_extreme_view(
    debugger: Debugger, image: np.ndarray, rows: np.ndarray, stride: int, thresh: Thresholds, name: str
) -> None:
    """Add exdet's view of boxes and extreme points.

    Args:
        rows: [n, 14] of box, score, points, class.
        stride: pixels of the input a cell of the output map.
        thresh: the lowest score that is drawn.
    """
    rows = np.array(rows[over(thresh, rows[:, Extremes.SCORE], rows[:, Extremes.CLASS])])  # [m, 14]
    rows[:, Extremes.BOX] *= stride
    rows[:, Extremes.POINTS] *= stride
    debugger.add_boxes(image, np.column_stack([rows[:, :5], rows[:, Extremes.CLASS]]), name)
    for row in rows:
        debugger.add_extreme_points(row[Extremes.POINTS], int(row[Extremes.CLASS]), name)


def add_flat_views(
    debugger: Debugger,
    image: np.ndarray,
    heat: 'torch.Tensor',
    rows: np.ndarray,
    stride: int,
    thresh: Thresholds,
    name: str,
) -> None:
    """Add ddd's view NAME_hm and, where rows have the size of the 2D box, NAME_boxes.

    Args:
        heat: heatmaps [C, h, w] in [0, 1].
        rows: [n, 18] or [n, 16] (`rows.DecodedBox3d`).
        stride: pixels of the input a cell of the output map.
        thresh: the lowest score that is drawn.
    """
    debugger.add_heatmap(image, heat.cpu().numpy(), f'{name}_hm')
    if rows.shape[1] == DecodedBox3d.COLUMNS:
        middle, half = rows[:, DecodedBox3d.CENTER], rows[:, DecodedBox3d.SIZE] / 2
        boxes = np.hstack([middle - half, middle + half]) * stride  # [n, 4]
        scored = np.column_stack([boxes, rows[:, DecodedBox3d.SCORE], rows[:, DecodedBox3d.CLASS]])  # [n, 6]
        debugger.add_boxes(image, scored, f'{name}_boxes', thresh)
