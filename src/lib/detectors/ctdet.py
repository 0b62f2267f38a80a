"""Detection of 2D boxes."""

from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms
from ..models.decode import ctdet_decode
from ..models.utils import flip_tensor, heatmap_probability
from ..utils.debugger import Debugger
from ..utils.post_process import ctdet_post_process
from .base_detector import BaseDetector, Detections, Output
from .merge import keep_best, merge_scales


class CtdetDetector(BaseDetector):
    """Results are {class: [n, 5] x1 y1 x2 y2 score}, the best 100 (K if that is more) of all classes."""

    @torch.inference_mode()
    def process(self, output: Output) -> np.ndarray:
        heat, wh, reg = heatmap_probability(output['hm'], self.opt.mse_loss), output['wh'], output.get('reg')
        if self.opt.flip_test:
            (heat, mirrored_heat), (wh, mirrored_wh) = heat.chunk(2), wh.chunk(2)
            heat, wh = (heat + flip_tensor(mirrored_heat)) / 2, (wh + flip_tensor(mirrored_wh)) / 2
            reg = None if reg is None else reg[: len(heat)]  # the offset is the plain pass's, as published
        return ctdet_decode(heat, wh, reg, self.opt.cat_spec_wh, self.opt.K).cpu().numpy()

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        results = ctdet_post_process(
            rows[None], [meta['c']], [meta['s']], meta['out_height'], meta['out_width'], self.opt.num_classes
        )[0]
        for found in results.values():
            found[:, :4] /= scale
        return results

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        thin = len(detections) > 1 or self.opt.nms
        results = merge_scales(detections, self.opt.num_classes, soft_nms if thin else None)
        return keep_best(results, max(100, self.opt.K))

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, rows: np.ndarray) -> None:
        heat = heatmap_probability(output['hm'][0], self.opt.mse_loss)
        debugger.add_heatmap(picture, heat.cpu().numpy(), 'pred_hm')
        to_picture = np.array([self.opt.down_ratio] * 4 + [1, 1])
        debugger.add_boxes(picture, rows * to_picture, 'pred_boxes', self.opt.vis_thresh)
