"""Detection of people and their joints (paper, section 4.2)."""

from argparse import Namespace
from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms_39
from ..models.decode import multi_pose_decode
from ..models.utils import Output, flip_lr, flip_lr_off, flip_tensor, heatmap_probability
from ..utils.debugger import Debugger
from ..utils.post_process import Detections, multi_pose_post_process
from .base_detector import BaseDetector
from .merge import merge_scales, unscaled


class MultiPoseDetector(BaseDetector):
    """Results are {1: [n, 5 + 2J] x1 y1 x2 y2 score, x and y of each joint}, all scales' without a limit.

    `run` also returns `keypoint_scores` {1: [n, J]}, of the same rows. Until the end they are the last columns of
    the rows, so that they stay beside them through soft-NMS.
    """

    @torch.inference_mode()
    def process(self, output: Output) -> np.ndarray:
        maps = activated(output, self.opt)
        if self.opt.flip_test:
            maps = averaged(maps, self.opt.flip_idx)
        return np.concatenate(decode_poses(maps, self.opt.K), 2)  # [B, K, 6 + 3J]

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        rows, joint_scores = self.split(rows)
        height, width = meta['out_height'], meta['out_width']
        found = multi_pose_post_process(rows[None], [meta['c']], [meta['s']], height, width)[0]
        return {1: np.concatenate([unscaled(found, scale)[1], joint_scores], 1)}  # [K, 5 + 3J]

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        thin = len(detections) > 1 or self.opt.nms
        return merge_scales(detections, 1, soft_nms_39 if thin else None)

    def answer(self, merged: Detections) -> dict:
        rows, joint_scores = self.split(merged[1])
        return {'results': {1: rows}, 'keypoint_scores': {1: joint_scores}}

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows [n, columns + J] as rows [n, columns] and joint scores [n, J]."""
        rows, joint_scores = np.split(rows, [-self.opt.num_joints], 1)
        return rows.copy(), joint_scores.copy()

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, rows: np.ndarray) -> None:
        add_views(debugger, picture, activated(output, self.opt), *self.split(rows), self.opt, 'pred')


def activated(output: Output, opt: Namespace) -> Output:
    """A raw output with probabilities for heatmaps; of `--mse_loss` training are the joints' alone."""
    maps = {**output, 'hm': heatmap_probability(output['hm'], mse_loss=False)}
    if 'hm_hp' in output:
        maps['hm_hp'] = heatmap_probability(output['hm_hp'], opt.mse_loss)
    return maps


def averaged(maps: Output, flip_idx: list) -> Output:
    """The maps [B, c, h, w] of pictures, from [2B, c, h, w] of them and then of their mirror images.

    Offsets within cells are the plain pass's alone, as published.
    """
    put_back = {
        'hm': flip_tensor,
        'wh': flip_tensor,
        'hps': lambda maps: flip_lr_off(maps, flip_idx),
        'hm_hp': lambda maps: flip_lr(maps, flip_idx),
    }
    halves = {head: both.chunk(2) for head, both in maps.items()}
    return {
        head: (plain + put_back[head](mirrored)) / 2 if head in put_back else plain
        for head, (plain, mirrored) in halves.items()
    }


def decode_poses(maps: Output, K: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [B, K, 6 + 2J] (box, score, joints, class; output-map coordinates) and joint scores [B, K, J]."""
    heads = (maps.get(head) for head in ('hm', 'wh', 'hps', 'reg', 'hm_hp', 'hp_offset'))
    dets, joint_scores = multi_pose_decode(*heads, K=K, return_keypoint_scores=True)
    return dets.cpu().numpy(), joint_scores.cpu().numpy()


def add_views(
    debugger: Debugger,
    picture: np.ndarray,
    maps: Mapping[str, torch.Tensor],
    rows: np.ndarray,
    joint_scores: np.ndarray,
    opt: Namespace,
    name: str,
) -> None:
    """Views NAME_hm, NAME_hmhp and NAME_poses over the network's input `picture`.

    Args:
        maps: heatmaps `hm` and, if there are any, `hm_hp`, [B, c, h, w], of which the first image's are shown.
        rows: [n, 6 + 2J] on the output map, of which those with a score of `--vis_thresh` or more are drawn.
        joint_scores: [n, J]; joints with 0 are left out.
    """
    debugger.add_heatmap(picture, maps['hm'][0].cpu().numpy(), f'{name}_hm')
    if 'hm_hp' in maps:
        debugger.add_heatmap(picture, maps['hm_hp'][0].cpu().numpy(), f'{name}_hmhp', of_joints=True)
    rows = np.array(rows[:, :-1])  # [n, 5 + 2J]
    rows[:, :4] *= opt.down_ratio
    rows[:, 5:] = np.where(np.repeat(joint_scores > 0, 2, axis=1), rows[:, 5:] * opt.down_ratio, np.nan)
    debugger.add_poses(picture, rows, f'{name}_poses', opt.vis_thresh, joint_scores)
