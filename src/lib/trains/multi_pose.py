"""Training of pose estimation: people as in ctdet, joints as offsets from the centre and as heatmaps (paper, 4.2)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models.losses import REGRESSION_LOSSES, DenseL1Loss, FocalLossWithLogits, HeatmapMSELoss, RegWeightedL1Loss
from ..models.outputs import activate_poses, decode_poses
from ..models.utils import Output, heatmap_logits
from ..utils.debugger import Debugger
from ..utils.post_process import multi_pose_post_process
from ..utils.rows import Box
from ..utils.views import add_pose_views
from .base_trainer import BaseTrainer, Spread, TaskLoss

if TYPE_CHECKING:
    from ..opts import Options


class MultiPoseLoss(TaskLoss):
    """hm_weight * focal + wh_weight * size + off_weight * (offset of centres + offset of joints)
    + hp_weight * joints + hm_hp_weight * joint heatmaps.
    """

    def __init__(self, opt: 'Options'):
        super().__init__(opt)
        self.heatmap_loss = FocalLossWithLogits()  # also with --mse_loss, which is for the joints' heatmaps
        self.joint_heatmap_loss = HeatmapMSELoss() if opt.mse_loss else FocalLossWithLogits()
        self.joint_loss = DenseL1Loss() if opt.dense_hp else RegWeightedL1Loss()
        self.box_loss = REGRESSION_LOSSES[opt.reg_loss]()

    def part_weights(self, opt: 'Options') -> dict[str, float]:
        return {
            'hm_loss': opt.hm_weight,
            'hp_loss': opt.hp_weight,
            'hm_hp_loss': opt.hm_hp_weight,
            'hp_offset_loss': opt.off_weight,
            'wh_loss': opt.wh_weight,
            'off_loss': opt.off_weight,
        }

    def parts(self, output: Output, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        opt, mask, ind = self.opt, batch['reg_mask'], batch['ind']
        parts = {'hm_loss': self.heatmap_loss(output['hm'], batch['hm'])}
        if opt.dense_hp:
            parts['hp_loss'] = self.joint_loss(output['hps'], batch['dense_hps_mask'], batch['dense_hps'])
        else:
            parts['hp_loss'] = self.joint_loss(output['hps'], batch['hps_mask'], ind, batch['hps'])
        if opt.hm_hp and opt.hm_hp_weight > 0:
            parts['hm_hp_loss'] = self.joint_heatmap_loss(output['hm_hp'], batch['hm_hp'])
        if opt.reg_hp_offset and opt.off_weight > 0:
            parts['hp_offset_loss'] = self.box_loss(
                output['hp_offset'], batch['hp_mask'], batch['hp_ind'], batch['hp_offset']
            )
        if opt.wh_weight > 0:
            parts['wh_loss'] = self.box_loss(output['wh'], mask, ind, batch['wh'])
        if opt.reg_offset and opt.off_weight > 0:
            parts['off_loss'] = self.box_loss(output['reg'], mask, ind, batch['reg'])
        return parts

    def true_heads(self, batch: Mapping[str, torch.Tensor], spread: Spread) -> Output:
        opt, ind, heads = self.opt, batch['ind'], {}
        if opt.eval_oracle_hm:
            heads['hm'] = heatmap_logits(batch['hm'], mse_loss=False)
        if opt.eval_oracle_wh:
            heads['wh'] = spread(batch['wh'], ind)
        if opt.eval_oracle_offset:
            heads['reg'] = spread(batch['reg'], ind)
        if opt.eval_oracle_kps:
            heads['hps'] = batch['dense_hps'] if opt.dense_hp else spread(batch['hps'], ind)
        if opt.eval_oracle_hmhp:
            heads['hm_hp'] = heatmap_logits(batch['hm_hp'], opt.mse_loss)
        if opt.eval_oracle_hp_offset:
            heads['hp_offset'] = spread(batch['hp_offset'], batch['hp_ind'])
        return heads


class MultiPoseTrainer(BaseTrainer):
    """Trains pose estimation."""

    def create_loss(self, opt: 'Options') -> MultiPoseLoss:
        return MultiPoseLoss(opt)

    def detect(self, output: Output, batch: dict) -> dict:
        meta = batch['meta']
        height, width = output['hm'].shape[2:]
        rows, _ = decode_poses(activate_poses(output, self.opt.mse_loss), self.opt.K)
        return multi_pose_post_process(rows, meta['c'].numpy(), meta['s'].numpy(), height, width)[0]

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, batch: dict) -> None:
        opt, meta = self.opt, batch['meta']
        maps = activate_poses(output, opt.mse_loss)
        rows, joint_scores = decode_poses(maps, opt.K)
        add_pose_views(debugger, image, maps, rows[0], joint_scores[0], opt.down_ratio, opt.vis_thresh, 'pred')
        truth, seen = meta['gt_det'][0].numpy(), meta['gt_seen'][0].numpy()
        people = truth[:, Box.SCORE] > 0
        add_pose_views(debugger, image, batch, truth[people], seen[people], opt.down_ratio, opt.vis_thresh, 'gt')
