"""Detection of people and their joints (paper, section 4.2)."""

from argparse import Namespace
from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms_39
from ..models.decode import multi_pose_decode
from ..models.utils import flip_lr, flip_lr_off, flip_tensor, heatmap_probability
from ..utils.debugger import Debugger
from ..utils.post_process import multi_pose_post_process
from .base_detector import BaseDetector, Detections, Output
from .merge import merge_scales


class MultiPoseDetector(BaseDetector):
    """Results are {1: [n, 5 + 2J] x1 y1 x2 y2 score, x and y of each joint}, all scales' without a limit.

    `run` also returns `keypoint_scores` {1: [n, J]}, of the same rows. Until the end they are the last columns of
    the rows, so that they stay beside them through soft-NMS.
    """

    def __init__(self, opt: Namespace):
        super().__init__(opt)
        self.keypoint_scores: Detections = {}

    @torch.inference_mode()
    def process(self, output: Output) -> np.ndarray:
        maps = activated(output, self.opt)
        if self.opt.flip_test:
            maps = averaged(maps, self.opt.flip_idx)
        return np.concatenate(decode_poses(maps, self.opt.K), 2)  # [1, K, 6 + 3J]

    def post_process(self, dets: np.ndarray, meta: dict, scale: float) -> Detections:
        dets, joint_scores = self.split(dets)
        height, width = meta['out_height'], meta['out_width']
        rows = multi_pose_post_process(dets, [meta['c']], [meta['s']], height, width)[0][1]  # [K, 5 + 2J]
        rows[:, :4] /= scale
        rows[:, 5:] /= scale
        return {1: np.concatenate([rows, joint_scores[0]], 1)}

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        thin = len(detections) > 1 or self.opt.nms
        rows, joint_scores = self.split(merge_scales(detections, 1, soft_nms_39 if thin else None)[1])
        self.keypoint_scores = {1: joint_scores}
        return {1: rows}

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows [..., columns + J] as rows [..., columns] and joint scores [..., J]."""
        rows, joint_scores = np.split(rows, [-self.opt.num_joints], -1)
        return rows.copy(), joint_scores.copy()

    def extra_results(self) -> dict:
        return {'keypoint_scores': self.keypoint_scores}

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, dets: np.ndarray) -> None:
        dets, joint_scores = self.split(dets)
        add_views(debugger, picture, activated(output, self.opt), dets[0], joint_scores[0], self.opt, 'pred')


def activated(output: Output, opt: Namespace) -> Output:
    """A raw output with probabilities for heatmaps; of `--mse_loss` training are the joints' alone."""
    maps = {**output, 'hm': heatmap_probability(output['hm'], mse_loss=False)}
    if 'hm_hp' in output:
        maps['hm_hp'] = heatmap_probability(output['hm_hp'], opt.mse_loss)
    return maps


def averaged(maps: Output, flip_idx: list) -> Output:
    """The maps [1, c, h, w] of a picture, from [2, c, h, w] of it and of its mirror image.

    Offsets within cells are the plain pass's alone, as published.
    """
    put_back = {
        'hm': flip_tensor,
        'wh': flip_tensor,
        'hps': lambda maps: flip_lr_off(maps, flip_idx),
        'hm_hp': lambda maps: flip_lr(maps, flip_idx),
    }
    return {
        head: (both[:1] + put_back[head](both[1:])) / 2 if head in put_back else both[:1] for head, both in maps.items()
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
        rows: [n, 6 + 2J] on the output map, of which those over vis_thresh are drawn.
        joint_scores: [n, J]; joints with 0 are left out.
    """
    debugger.add_heatmap(picture, maps['hm'][0].cpu().numpy(), f'{name}_hm')
    if 'hm_hp' in maps:
        debugger.add_heatmap(picture, maps['hm_hp'][0].cpu().numpy(), f'{name}_hmhp', of_joints=True)
    rows = np.array(rows[:, :-1])  # [n, 5 + 2J]
    rows[:, :4] *= opt.down_ratio
    rows[:, 5:] = np.where(np.repeat(joint_scores > 0, 2, axis=1), rows[:, 5:] * opt.down_ratio, np.nan)
    debugger.add_poses(picture, rows, f'{name}_poses', opt.vis_thresh, joint_scores)
