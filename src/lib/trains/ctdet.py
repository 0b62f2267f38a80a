"""Training of 2D detection: focal loss on centres, L1 on sizes and offsets (paper, section 3 and 4)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models.heatmaps import dense
from ..models.losses import (
    REGRESSION_LOSSES,
    DenseL1Loss,
    FocalLossWithLogits,
    HeatmapMSELoss,
    NormRegL1Loss,
    RegWeightedL1Loss,
)
from ..models.outputs import activate_boxes, decode_boxes, keep_detected, raw_box_rows
from ..models.utils import Output, heatmap_logits
from ..utils.debugger import Debugger
from ..utils.post_process import ctdet_post_process
from ..utils.views import add_box_views
from .base_trainer import BaseTrainer, Spread, TaskLoss

if TYPE_CHECKING:
    from ..opts import Options


class CtdetLoss(TaskLoss):
    """hm_weight * focal + wh_weight * size + off_weight * offset."""

    def __init__(self, opt: 'Options'):
        super().__init__(opt)
        self.heatmap_loss = HeatmapMSELoss() if opt.mse_loss else FocalLossWithLogits()
        self.offset_loss = REGRESSION_LOSSES[opt.reg_loss]()
        self.size_loss = NormRegL1Loss() if opt.norm_wh else REGRESSION_LOSSES[opt.reg_loss]()
        self.dense_size_loss = DenseL1Loss()
        self.class_size_loss = RegWeightedL1Loss()

    def part_weights(self, opt: 'Options') -> dict[str, float]:
        return {'hm_loss': opt.hm_weight, 'wh_loss': opt.wh_weight, 'off_loss': opt.off_weight if opt.reg_offset else 0}

    def parts(self, output: Output, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        opt, mask, ind = self.opt, batch['reg_mask'], batch['ind']
        parts = {'hm_loss': self.heatmap_loss(output['hm'], batch['hm'])}
        if opt.wh_weight > 0:
            if opt.dense_wh:
                size = self.dense_size_loss(output['wh'], batch['dense_wh_mask'], batch['dense_wh'])
            elif opt.cat_spec_wh:
                size = self.class_size_loss(output['wh'], batch['cat_spec_mask'], ind, batch['cat_spec_wh'])
            else:
                size = self.size_loss(output['wh'], mask, ind, batch['wh'])
            parts['wh_loss'] = size
        if opt.reg_offset and opt.off_weight > 0:
            parts['off_loss'] = self.offset_loss(output['reg'], mask, ind, batch['reg'])
        return parts

    def true_heads(self, batch: Mapping[str, torch.Tensor], spread: Spread) -> Output:
        opt, heads = self.opt, {}
        if opt.eval_oracle_hm:
            heads['hm'] = heatmap_logits(dense(batch['hm']), opt.mse_loss)
        if opt.eval_oracle_wh and opt.dense_wh:
            heads['wh'] = batch['dense_wh']
        elif opt.eval_oracle_wh:
            heads['wh'] = spread(batch['cat_spec_wh' if opt.cat_spec_wh else 'wh'], batch['ind'])
        if opt.eval_oracle_offset:
            heads['reg'] = spread(batch['reg'], batch['ind'])
        return heads


class CtdetTrainer(BaseTrainer):
    """Trains 2D detection."""

    def create_loss(self, opt: 'Options') -> CtdetLoss:
        return CtdetLoss(opt)

    def detect(self, output: Output, batch: dict) -> dict:
        opt, meta = self.opt, batch['meta']
        height, width = output['hm'].shape[2:]
        rows = raw_box_rows(output, opt.mse_loss, opt.cat_spec_wh, opt.K).cpu().numpy()
        return ctdet_post_process(rows, meta['c'].numpy(), meta['s'].numpy(), height, width, opt.num_classes)[0]

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, batch: dict) -> None:
        opt, truth = self.opt, batch['meta']['gt_det'][0].numpy()
        maps = activate_boxes(output, opt.mse_loss)
        rows = decode_boxes(maps, opt.cat_spec_wh, opt.K)[0]
        add_box_views(debugger, image, maps, rows, opt.down_ratio, opt.vis_thresh, 'pred')
        add_box_views(debugger, image, batch, keep_detected(truth), opt.down_ratio, opt.vis_thresh, 'gt')
