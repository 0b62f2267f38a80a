"""Detection of 2D boxes."""

from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms
from ..models.outputs import activate_boxes, box_rows, raw_box_rows
from ..models.utils import Output, flip_tensor, halve
from ..utils.debugger import Debugger
from ..utils.merging import keep_best, merge_scales, undo_scale
from ..utils.post_process import Detections, ctdet_post_process
from ..utils.views import add_box_views
from .base_detector import BaseDetector


class CtdetDetector(BaseDetector):
    """Results are {class: [n, 5] x1 y1 x2 y2 score}, the best 100 (K if that is more) of all classes."""

    def decode(self, output: Output) -> torch.Tensor:
        """Decode to rows [B, K, 6] of box, score, class."""
        opt = self.opt
        if opt.flip_test:  # which averages probabilities
            return box_rows(average_mirrored(activate_boxes(output, opt.mse_loss)), opt.cat_spec_wh, opt.K)
        return raw_box_rows(output, opt.mse_loss, opt.cat_spec_wh, opt.K)

    def columns(self) -> dict[str, int]:
        return {'boxes': 4, 'scores': 1, 'classes': 1}

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        results = ctdet_post_process(
            rows[None], [meta['c']], [meta['s']], meta['out_height'], meta['out_width'], self.opt.num_classes
        )[0]
        return undo_scale(results, scale)

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        thin = len(detections) > 1 or self.opt.nms
        results = merge_scales(detections, self.opt.num_classes, soft_nms if thin else None)
        return keep_best(results, max(100, self.opt.K))

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, rows: np.ndarray) -> None:
        maps = activate_boxes(output, self.opt.mse_loss)
        add_box_views(debugger, image, maps, rows, self.opt.down_ratio, self.opt.vis_thresh, 'pred')


def average_mirrored(maps: Output) -> Output:
    """Average the maps of images and of their mirror images.

    Offsets within cells are the plain pass's alone [keep: as published].

    Args:
        maps: [2B, c, h, w] each, B of the images, then B of their mirror images.

    Returns:
        Maps [B, c, h, w] of the images.
    """
    halves = {head: halve(both) for head, both in maps.items()}
    return {
        head: plain if head == 'reg' else (plain + flip_tensor(mirrored)) / 2
        for head, (plain, mirrored) in halves.items()
    }
