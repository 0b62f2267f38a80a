"""Training of 3D detection: centres as in ctdet, and depth, 3D size and orientation of each (paper, section 4.1)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models.losses import BinRotLoss, FocalLossWithLogits, L1Loss, SigmoidMSELoss
from ..models.outputs import decode_boxes_3d
from ..models.utils import Output, depth_logits, depth_of, heatmap_logits
from ..utils.debugger import Debugger
from ..utils.detections import Detection, class_name, describe_box_3d, detections_from_results
from ..utils.image import get_affine_transform
from ..utils.merging import keep_over
from ..utils.post_process import ddd_post_process
from ..utils.rows import Box3d
from ..utils.rows import DecodedBox3d as Decoded
from ..utils.views import add_flat_views
from .base_trainer import BaseTrainer, Spread, TaskLoss

if TYPE_CHECKING:
    from ..opts import Options


class DddLoss(TaskLoss):
    """hm_weight * focal + dep_weight * depth + dim_weight * 3D size + rot_weight * orientation + wh_weight * 2D size
    + off_weight * offset.
    """

    def __init__(self, opt: 'Options'):
        super().__init__(opt)
        self.heatmap_loss = SigmoidMSELoss() if opt.mse_loss else FocalLossWithLogits()
        self.regression_loss = L1Loss()
        self.rotation_loss = BinRotLoss()

    def part_weights(self, opt: 'Options') -> dict[str, float]:
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
        # Depth and 3D size are learnt from images at their true scale alone, the rest from all.
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

    def create_loss(self, opt: 'Options') -> DddLoss:
        return DddLoss(opt)

    def detect(self, output: Output, batch: dict) -> dict:
        c, s, calib = (batch['meta'][name].numpy() for name in ('c', 's', 'calib'))
        results = ddd_post_process(decode_boxes_3d(output, self.opt.K), c, s, calib, self.opt)[0]
        return keep_over(results, self.opt.peak_thresh, Box3d.SCORE)

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, batch: dict) -> None:
        opt, meta = self.opt, batch['meta']
        pred, truth = decode_boxes_3d(output, opt.K)[0], meta['gt_det'][0].numpy()
        truth = truth[truth[:, Decoded.SCORE] > 0]
        add_flat_views(debugger, image, output['hm'][0].sigmoid(), pred, opt.down_ratio, opt.vis_thresh, 'pred')
        add_flat_views(debugger, image, batch['hm'][0], truth, opt.down_ratio, opt.vis_thresh, 'gt')

        size, calib = (opt.input_w, opt.input_h), self.input_camera(meta)
        results = ddd_post_process(pred[None], [np.divide(size, 2)], [size], [calib], opt)[0]
        found = {
            'pred': detections_from_results(results, describe_box_3d, opt.class_names),
            'gt': self.true_detections(meta),
        }
        for name, detections in found.items():
            debugger.add_img(image, f'{name}_3d')
            debugger.add_detections(detections, f'{name}_3d', opt.vis_thresh, calib)
        debugger.add_bird_view(found['pred'], found['gt'], thresh=opt.vis_thresh)

    def input_camera(self, meta: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Return the camera matrix [3, 4] that sees the network's input as its image: the image's, then the warp.

        Args:
            meta: of a batch, whose first image is meant: `c` [B, 2], `s` [B, 2], `calib` [B, 3, 4].
        """
        size = (self.opt.input_w, self.opt.input_h)
        warp = get_affine_transform(meta['c'][0].numpy(), meta['s'][0].numpy(), 0, size)
        return np.vstack([warp, [0, 0, 1]]) @ meta['calib'][0].numpy()  # [3, 4]

    def true_detections(self, meta: Mapping[str, torch.Tensor]) -> list[Detection]:
        """Return the labels of the first image of a batch, with their own 3D boxes.

        Those that the targets describe would lie off: the targets place a 3D box at the centre of its 2D box.

        Args:
            meta: of the batch: `gt_det` [B, n, 16 or 18] and `gt_box_3d` [B, n, 7].
        """
        found = []
        for row, box_3d in zip(meta['gt_det'][0].numpy(), meta['gt_box_3d'][0].tolist(), strict=True):
            if row[Decoded.SCORE] <= 0:
                continue  # an image without an object has one row of zeros
            class_id, (*dim, x, y, z, rotation_y) = int(row[Decoded.CLASS]) + 1, box_3d
            detection = {'class': class_name(self.opt.class_names, class_id), 'class_id': class_id, 'dim': dim}
            detection |= {'score': 1.0, 'location': [x, y, z], 'rotation_y': rotation_y}
            if len(row) == Decoded.COLUMNS:
                middle, half = row[Decoded.CENTER], row[Decoded.SIZE] / 2
                detection['box'] = (np.concatenate([middle - half, middle + half]) * self.opt.down_ratio).tolist()
            found.append(detection)
        return found
