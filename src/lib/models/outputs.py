"""From a network's raw output to decoded rows, one task after another: where validation and detectors meet.

An output is `{head: [B, channels, h, w]}` of the network's last stack. Rows are in output-map coordinates; their
columns have names in `utils/rows.py`.
"""

from collections.abc import Callable

import numpy as np
import torch

from ..utils.rows import Box
from .decode import agnex_ct_decode, ctdet_decode, ddd_decode, exct_decode, multi_pose_decode
from .utils import Output, depth_of, heatmap_probability

SIDES = 'tlbr'  # of exdet's heads: top, left, bottom, right


def activate_boxes(output: Output, mse_loss: bool) -> Output:
    """ctdet: turn the heatmap of an output `{head: [B, c, h, w]}` into probabilities."""
    return {**output, 'hm': heatmap_probability(output['hm'], mse_loss)}


def decode_boxes(maps: Output, cat_spec_wh: bool, K: int) -> np.ndarray:
    """ctdet: decode activated maps; arguments and return are those of `box_rows`, [B, K, 6], as an array."""
    return box_rows(maps, cat_spec_wh, K).cpu().numpy()


def box_rows(maps: Output, cat_spec_wh: bool, K: int, logits: bool = False) -> torch.Tensor:
    """ctdet: decode activated maps.

    Args:
        maps: `hm` [B, C, h, w], `wh` [B, 2 or 2C, h, w] and, if there is one, `reg` [B, 2, h, w].
        cat_spec_wh: there is a size for each class.
        K: rows an image.
        logits: `hm` are logits yet.

    Returns:
        float32 [B, K, 6] of box, score, class.
    """
    return ctdet_decode(maps['hm'], maps['wh'], maps.get('reg'), cat_spec_wh, K, logits)


def raw_box_rows(output: Output, mse_loss: bool, cat_spec_wh: bool, K: int) -> torch.Tensor:
    """ctdet: decode a raw output; other arguments and return are those of `box_rows`, [B, K, 6].

    Of logits only the peaks are activated, which gives the same rows sooner.
    """
    if mse_loss:
        return box_rows(activate_boxes(output, mse_loss), cat_spec_wh, K)
    return box_rows(output, cat_spec_wh, K, logits=True)


def activate_poses(output: Output, mse_loss: bool) -> Output:
    """multi_pose: turn the heatmaps of an output `{head: [B, c, h, w]}` into probabilities.

    `mse_loss` is of the joints' heatmaps alone.
    """
    maps = {**output, 'hm': heatmap_probability(output['hm'], mse_loss=False)}
    if 'hm_hp' in output:
        maps['hm_hp'] = heatmap_probability(output['hm_hp'], mse_loss)
    return maps


def decode_poses(maps: Output, K: int) -> tuple[np.ndarray, np.ndarray]:
    """multi_pose: decode activated maps; as `pose_rows`, [B, K, 6 + 2J] and [B, K, J], as arrays."""
    rows, joint_scores = pose_rows(maps, K)
    return rows.cpu().numpy(), joint_scores.cpu().numpy()


def pose_rows(maps: Output, K: int) -> tuple[torch.Tensor, torch.Tensor]:
    """multi_pose: decode activated maps.

    Args:
        maps: `hm` [B, 1, h, w], `wh` [B, 2, h, w], `hps` [B, 2J, h, w] and, if there are any, `reg`, `hm_hp`
            [B, J, h, w] and `hp_offset`.
        K: rows an image.

    Returns:
        Rows float32 [B, K, 6 + 2J] of box, score, joints, class, and scores of the joints [B, K, J].
    """
    reg, hm_hp, hp_offset = maps.get('reg'), maps.get('hm_hp'), maps.get('hp_offset')
    found = multi_pose_decode(
        maps['hm'], maps['wh'], maps['hps'], reg, hm_hp, hp_offset, K, return_keypoint_scores=True
    )
    assert isinstance(found, tuple)  # with the joints' scores
    return found


def extreme_heatmaps(output: Output) -> Output:
    """exdet: turn the five heatmaps `hm_*` [B, C, h, w] into probabilities: sigmoids, with `--mse_loss` too."""
    return {head: raw.sigmoid() for head, raw in output.items() if head.startswith('hm_')}


def decode_extremes(
    output: Output, K: int, agnostic: bool, scores_thresh: float, center_thresh: float, aggr_weight: float
) -> np.ndarray:
    """exdet: decode a raw output; arguments and return are those of `extreme_rows`, [B, 1000, 14], as an array."""
    return extreme_rows(output, K, agnostic, scores_thresh, center_thresh, aggr_weight).cpu().numpy()


def extreme_rows(
    output: Output, K: int, agnostic: bool, scores_thresh: float, center_thresh: float, aggr_weight: float
) -> torch.Tensor:
    """exdet: decode a raw output.

    Args:
        output: `hm_X` [B, C, h, w] ([B, 1, h, w] with `agnostic`) and, if there are any, `reg_X` [B, 2, h, w] of
            each side X, and `hm_c` [B, C, h, w].
        K: points a side and image.
        agnostic, scores_thresh, center_thresh, aggr_weight: as `exct_decode` takes them.

    Returns:
        float32 [B, 1000, 14] of box, score, points, class; rows with a score of 0 are no detections.
    """
    decode: Callable[..., torch.Tensor] = agnex_ct_decode if agnostic else exct_decode
    heats = [extreme_heatmaps(output)[f'hm_{part}'] for part in (*SIDES, 'c')]
    offsets = [output.get(f'reg_{side}') for side in SIDES]
    thresholds = {'scores_thresh': scores_thresh, 'center_thresh': center_thresh, 'aggr_weight': aggr_weight}
    return decode(*heats, *offsets, K=K, **thresholds)


def keep_detected(rows: np.ndarray) -> np.ndarray:
    """Keep the rows [n, 6 or more] of one image that are detections: the rest have a score of 0."""
    return rows[rows[:, Box.SCORE] > 0]


def decode_boxes_3d(output: Output, K: int) -> np.ndarray:
    """ddd: decode a raw output; arguments and return are those of `box_3d_rows`, [B, K, 18 or 16], as an array."""
    return box_3d_rows(output, K).cpu().numpy()


def box_3d_rows(output: Output, K: int) -> torch.Tensor:
    """ddd: decode a raw output; heatmaps are sigmoids also with `--mse_loss`.

    Args:
        output: `hm` [B, C, h, w], `dep` [B, 1, h, w], `rot` [B, 8, h, w], `dim` [B, 3, h, w] and, if there are any,
            `wh` and `reg` [B, 2, h, w].
        K: rows an image.

    Returns:
        float32 [B, K, 18], or [B, K, 16] without a `wh` head (`rows.DecodedBox3d`).
    """
    heat, depth = output['hm'].sigmoid(), depth_of(output['dep'])
    return ddd_decode(heat, output['rot'], depth, output['dim'], output.get('wh'), output.get('reg'), K)
