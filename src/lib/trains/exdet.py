"""Training of ExtremeNet: focal loss on extreme points and centres, L1 on the points' sub-pixel offsets."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..external.nms import soft_nms
from ..models.heatmaps import dense
from ..models.losses import FocalLossWithLogits, RegL1Loss, SigmoidMSELoss
from ..models.outputs import SIDES, decode_extremes, extreme_heatmaps, keep_detected
from ..models.utils import Output, heatmap_logits
from ..utils.debugger import Debugger
from ..utils.merging import merge_extremes
from ..utils.post_process import exdet_post_process
from ..utils.views import add_extreme_heatmaps, add_extreme_view
from .base_trainer import BaseTrainer, Spread, TaskLoss

if TYPE_CHECKING:
    from ..opts import Options

HEATMAPS = tuple(f'hm_{part}' for part in (*SIDES, 'c'))


class ExdetLoss(TaskLoss):
    """hm_weight * (focal, summed over five maps) + off_weight * (offsets, summed over four sides)."""

    def __init__(self, opt: 'Options'):
        super().__init__(opt)
        self.heatmap_loss = SigmoidMSELoss() if opt.mse_loss else FocalLossWithLogits()
        self.offset_loss = RegL1Loss()

    def part_weights(self, opt: 'Options') -> dict[str, float]:
        return {'hm_loss': opt.hm_weight, 'off_loss': opt.off_weight if opt.reg_offset else 0}

    def parts(self, output: Output, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        parts = {'hm_loss': sum(self.heatmap_loss(output[head], batch[head]) for head in HEATMAPS)}
        if self.opt.reg_offset and self.opt.off_weight > 0:
            parts['off_loss'] = sum(
                self.offset_loss(output[f'reg_{side}'], batch['reg_mask'], batch[f'ind_{side}'], batch[f'reg_{side}'])
                for side in SIDES
            )
        return parts

    def true_heads(self, batch: Mapping[str, torch.Tensor], spread: Spread) -> Output:
        heads = {}
        if self.opt.eval_oracle_hm:
            heads.update({head: heatmap_logits(dense(batch[head]), mse_loss=False) for head in HEATMAPS})
        if self.opt.eval_oracle_offset:
            for side in SIDES:
                heads[f'reg_{side}'] = spread(batch[f'reg_{side}'], batch[f'ind_{side}'])
        return heads


class ExdetTrainer(BaseTrainer):
    """Trains detection by extreme points."""

    def create_loss(self, opt: 'Options') -> ExdetLoss:
        return ExdetLoss(opt)

    def detect(self, output: Output, batch: dict) -> dict:
        meta, num_classes = batch['meta'], self.opt.num_classes
        height, width = output['hm_c'].shape[2:]
        rows = self.decode_rows(output)
        results = exdet_post_process(rows[None], meta['c'].numpy(), meta['s'].numpy(), height, width, num_classes)
        return merge_extremes(results, num_classes, soft_nms)

    def decode_rows(self, output: Output) -> np.ndarray:
        """Decode a raw output [1, c, h, w] to the rows [n, 14] that are detections."""
        opt = self.opt
        rows = decode_extremes(output, opt.K, opt.agnostic_ex, opt.scores_thresh, opt.center_thresh, opt.aggr_weight)
        return keep_detected(rows[0])

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, batch: dict) -> None:
        opt, true_heats = self.opt, {head: batch[head] for head in HEATMAPS}
        add_extreme_heatmaps(debugger, image, extreme_heatmaps(output), opt.debug >= 3, 'pred')
        add_extreme_heatmaps(debugger, image, true_heats, opt.debug >= 3, 'gt')
        truth = keep_detected(batch['meta']['gt_det'][0].numpy())
        for name, rows in (('pred_boxes', self.decode_rows(output)), ('gt_boxes', truth)):
            add_extreme_view(debugger, image, rows, opt.down_ratio, opt.vis_thresh, name)
