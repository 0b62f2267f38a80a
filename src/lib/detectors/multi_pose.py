"""Detection of people and their joints (paper, section 4.2)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..external.nms import soft_nms_39
from ..models.outputs import activate_poses, pose_rows
from ..models.utils import Output, flip_lr, flip_lr_off, flip_tensor, halve
from ..tasks import num_joints
from ..utils.debugger import Debugger
from ..utils.merging import merge_scales, undo_scale
from ..utils.post_process import Detections, multi_pose_post_process
from ..utils.views import add_pose_views
from .base_detector import BaseDetector


class MultiPoseDetector(BaseDetector):
    """Results are {1: [n, 5 + 2J] x1 y1 x2 y2 score, x and y of each joint}, all scales' without a limit.

    `run` also returns `keypoint_scores` {1: [n, J]}, of the same rows. Until the end they are the last columns of
    the rows, so that they stay beside them through soft-NMS.
    """

    def decode(self, output: Output) -> torch.Tensor:
        """Decode to rows [B, K, 6 + 3J] of box, score, joints, class, scores of the joints."""
        maps = activate_poses(output, self.opt.mse_loss)
        if self.opt.flip_test:
            assert self.opt.flip_idx is not None  # checkpoints of poses record it
            maps = average_mirrored(maps, self.opt.flip_idx)
        return torch.cat(pose_rows(maps, self.opt.K), 2)  # [B, K, 6 + 3J]

    def columns(self) -> dict[str, int]:
        joints = num_joints(self.opt)
        return {'boxes': 4, 'scores': 1, 'keypoints': 2 * joints, 'classes': 1, 'keypoint_scores': joints}

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        rows, joint_scores = self.split(rows)
        height, width = meta['out_height'], meta['out_width']
        found = multi_pose_post_process(rows[None], [meta['c']], [meta['s']], height, width)[0]
        return {1: np.concatenate([undo_scale(found, scale)[1], joint_scores], 1)}  # [K, 5 + 3J]

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        thin = len(detections) > 1 or self.opt.nms
        return merge_scales(detections, 1, soft_nms_39 if thin else None)

    def to_results(self, merged: Detections) -> dict:
        """Return `results` {1: [n, 5 + 2J]}, and `keypoint_scores` {1: [n, J]} of the same rows."""
        rows, joint_scores = self.split(merged[1])
        return {'results': {1: rows}, 'keypoint_scores': {1: joint_scores}}

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split rows [n, columns + J] into rows [n, columns] and scores of the joints [n, J]."""
        rows, joint_scores = np.split(rows, [-num_joints(self.opt)], 1)
        return rows.copy(), joint_scores.copy()

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, rows: np.ndarray) -> None:
        opt, maps = self.opt, activate_poses(output, self.opt.mse_loss)
        add_pose_views(debugger, image, maps, *self.split(rows), opt.down_ratio, opt.vis_thresh, 'pred')


def average_mirrored(maps: Output, flip_idx: Sequence[Sequence[int]]) -> Output:
    """Average the maps of images and of their mirror images, joints and offsets put back.

    Offsets within cells are the plain pass's alone [keep: as published].

    Args:
        maps: [2B, c, h, w] each, B of the images, then B of their mirror images.
        flip_idx: pairs of 0-based joints that change places in a mirror image.

    Returns:
        Maps [B, c, h, w] of the images.
    """
    put_back = {
        'hm': flip_tensor,
        'wh': flip_tensor,
        'hps': lambda maps: flip_lr_off(maps, flip_idx),
        'hm_hp': lambda maps: flip_lr(maps, flip_idx),
    }
    halves = {head: halve(both) for head, both in maps.items()}
    return {
        head: (plain + put_back[head](mirrored)) / 2 if head in put_back else plain
        for head, (plain, mirrored) in halves.items()
    }
