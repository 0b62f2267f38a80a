"""Training of 3D detection: centres as in ctdet, and depth, 3D size and orientation of each (paper, section 4.1)."""

from argparse import Namespace
from collections.abc import Mapping

import numpy as np
import torch

from ..detectors.ddd import add_flat_views, decode_boxes, over_threshold
from ..models.losses import BinRotLoss, FocalLossWithLogits, L1Loss, SigmoidMSELoss
from ..models.utils import Output, depth_logits, depth_of, heatmap_logits
from ..utils.debugger import Debugger
from ..utils.detections import describe_box_3d, detections_from_results
from ..utils.image import get_affine_transform
from ..utils.post_process import ddd_post_process
from .base_trainer import BaseTrainer, Spread, TaskLoss


class DddLoss(TaskLoss):
    """hm_weight * focal + dep_weight * depth + dim_weight * 3D size + rot_weight * orientation + wh_weight * 2D size
    + off_weight * offset.
    """

    def __init__(self, opt: Namespace):
        super().__init__(opt)
        self.heatmap_loss = SigmoidMSELoss() if opt.mse_loss else FocalLossWithLogits()
        self.regression_loss = L1Loss()
        self.rotation_loss = BinRotLoss()

    def part_weights(self, opt: Namespace) -> dict[str, float]:
        return {
            'hm_loss': opt.hm_weight,
            'dep_loss': opt.dep_weight,
            'dim_loss': opt.dim_weight,
            'rot_loss': opt.rot_weight,
            'wh_loss': opt.wh_weight,
            'off_loss': opt.off_weight,
        }

    def parts(self, output: Output, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        opt, ind = self.opt, batch['ind']
        # Depth and 3D size are learnt from pictures at their true scale alone, the rest from all.
        true_scale, objects = batch['reg_mask'], batch['rot_mask']
        parts = {'hm_loss': self.heatmap_loss(output['hm'], batch['hm'])}
        if opt.dep_weight > 0:
            parts['dep_loss'] = self.regression_loss(depth_of(output['dep']), true_scale, ind, batch['dep'])
        if opt.dim_weight > 0:
            parts['dim_loss'] = self.regression_loss(output['dim'], true_scale, ind, batch['dim'])
        if opt.rot_weight > 0:
            parts['rot_loss'] = self.rotation_loss(output['rot'], objects, ind, batch['rotbin'], batch['rotres'])
        if opt.reg_bbox and opt.wh_weight > 0:
            parts['wh_loss'] = self.regression_loss(output['wh'], objects, ind, batch['wh'])
        if opt.reg_offset and opt.off_weight > 0:
            parts['off_loss'] = self.regression_loss(output['reg'], objects, ind, batch['reg'])
        return parts

    def true_heads(self, batch: Mapping[str, torch.Tensor], spread: Spread) -> Output:
        opt, ind, heads = self.opt, batch['ind'], {}
        if opt.eval_oracle_hm:
            # The objects' cells alone: those of ignored kinds (0.9999) are no objects.
            heads['hm'] = heatmap_logits((batch['hm'] == 1).float(), mse_loss=False)
        if opt.eval_oracle_dep:
            heads['dep'] = depth_logits(spread(batch['dep'], ind))
        if opt.eval_oracle_dim:
            heads['dim'] = spread(batch['dim'], ind)
        if opt.eval_oracle_rot:
            bins, residuals = batch['rotbin'], batch['rotres']  # [B, M, 2]
            rot = torch.stack([-bins, bins, residuals.sin(), residuals.cos()], 3)  # [B, M, 2, 4]
            heads['rot'] = spread(rot.flatten(2), ind)
        if opt.eval_oracle_wh:
            heads['wh'] = spread(batch['wh'], ind)
        if opt.eval_oracle_offset:
            heads['reg'] = spread(batch['reg'], ind)
        return heads


class DddTrainer(BaseTrainer):
    """Trains 3D detection."""

    def create_loss(self, opt: Namespace) -> DddLoss:
        return DddLoss(opt)

    def detections(self, output: Output, batch: dict) -> dict:
        c, s, calib = (batch['meta'][name].numpy() for name in ('c', 's', 'calib'))
        dets = decode_boxes(output, self.opt).cpu().numpy()
        return over_threshold(ddd_post_process(dets, c, s, calib, self.opt)[0], self.opt.peak_thresh)

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, batch: dict) -> None:
        opt, meta = self.opt, batch['meta']
        pred, truth = decode_boxes(output, opt)[0].cpu().numpy(), meta['gt_det'][0].numpy()
        truth = truth[truth[:, 2] > 0]
        add_flat_views(debugger, picture, output['hm'][0].sigmoid(), pred, opt, 'pred')
        add_flat_views(debugger, picture, batch['hm'][0], truth, opt, 'gt')

        # As if the network's input were the image: the camera that sees it is the image's, then the warp.
        size = (opt.input_w, opt.input_h)
        warp = get_affine_transform(meta['c'][0].numpy(), meta['s'][0].numpy(), 0, size)
        calib = np.vstack([warp, [0, 0, 1]]) @ meta['calib'][0].numpy()  # [3, 4]
        found = {}
        for name, rows in (('pred', pred), ('gt', truth)):
            results = ddd_post_process(rows[None], [np.divide(size, 2)], [size], [calib], opt)[0]
            found[name] = detections_from_results(results, describe_box_3d, opt.class_names)
            debugger.add_img(picture, f'{name}_3d')
            debugger.add_detections(found[name], f'{name}_3d', opt.vis_thresh, calib)
        debugger.add_bird_view(found['pred'], found['gt'], thresh=opt.vis_thresh)
