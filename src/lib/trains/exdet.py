"""Training of ExtremeNet: focal loss on extreme points and centres, L1 on the points' sub-pixel offsets."""

from argparse import Namespace
from collections.abc import Mapping

import numpy as np
import torch

from ..detectors.exdet import add_detections, add_heatmaps, decode_extremes, detected, merge_extremes, probabilities
from ..models.losses import FocalLossWithLogits, RegL1Loss, SigmoidMSELoss
from ..models.utils import Output, heatmap_logits
from ..utils.debugger import Debugger
from ..utils.post_process import exdet_post_process
from .base_trainer import BaseTrainer, Spread, TaskLoss

HEATMAPS = ('hm_t', 'hm_l', 'hm_b', 'hm_r', 'hm_c')


class ExdetLoss(TaskLoss):
    """hm_weight * (focal, summed over five maps) + off_weight * (offsets, summed over four sides)."""

    def __init__(self, opt: Namespace):
        super().__init__(opt)
        self.heatmap_loss = SigmoidMSELoss() if opt.mse_loss else FocalLossWithLogits()
        self.offset_loss = RegL1Loss()

    def part_weights(self, opt: Namespace) -> dict[str, float]:
        return {'hm_loss': opt.hm_weight, 'off_loss': opt.off_weight if opt.reg_offset else 0}

    def parts(self, output: Output, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        parts = {'hm_loss': sum(self.heatmap_loss(output[head], batch[head]) for head in HEATMAPS)}
        if self.opt.reg_offset and self.opt.off_weight > 0:
            parts['off_loss'] = sum(
                self.offset_loss(output[f'reg_{side}'], batch['reg_mask'], batch[f'ind_{side}'], batch[f'reg_{side}'])
                for side in 'tlbr'
            )
        return parts

    def true_heads(self, batch: Mapping[str, torch.Tensor], spread: Spread) -> Output:
        heads = {}
        if self.opt.eval_oracle_hm:
            heads.update({head: heatmap_logits(batch[head], mse_loss=False) for head in HEATMAPS})
        if self.opt.eval_oracle_offset:
            for side in 'tlbr':
                heads[f'reg_{side}'] = spread(batch[f'reg_{side}'], batch[f'ind_{side}'])
        return heads


class ExdetTrainer(BaseTrainer):
    """Trains detection by extreme points."""

    def create_loss(self, opt: Namespace) -> ExdetLoss:
        return ExdetLoss(opt)

    def detections(self, output: Output, batch: dict) -> dict:
        meta, num_classes = batch['meta'], self.opt.num_classes
        height, width = output['hm_c'].shape[2:]
        dets = detected(decode_extremes(output, self.opt)[0].cpu().numpy())
        rows = exdet_post_process(dets[None], meta['c'].numpy(), meta['s'].numpy(), height, width, num_classes)
        return merge_extremes(rows, num_classes)

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, batch: dict) -> None:
        dets = detected(decode_extremes(output, self.opt)[0].cpu().numpy())
        add_heatmaps(debugger, picture, probabilities(output), 'pred', self.opt.debug)
        add_heatmaps(debugger, picture, {head: batch[head] for head in HEATMAPS}, 'gt', self.opt.debug)
        add_detections(debugger, picture, dets, 'pred_boxes', self.opt)
        add_detections(debugger, picture, detected(batch['meta']['gt_det'][0].numpy()), 'gt_boxes', self.opt)
