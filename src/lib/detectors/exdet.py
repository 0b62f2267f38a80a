"""Detection of boxes by their extreme points (ExtremeNet, Zhou et al. 2019)."""

from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms
from ..models.outputs import decode_extremes, extreme_heatmaps, keep_detected
from ..models.utils import Output
from ..utils.debugger import Debugger
from ..utils.merging import merge_extremes, undo_scale
from ..utils.post_process import Detections, exdet_post_process
from ..utils.rows import Extremes
from ..utils.views import add_extreme_heatmaps, add_extreme_view
from .base_detector import BaseDetector


class ExdetDetector(BaseDetector):
    """Results are {class: [n, 13] x1 y1 x2 y2 score, x and y of the top, left, bottom and right point}.

    They are the best 100 of all classes.
    """

    @torch.inference_mode()
    def process(self, output: Output) -> list[np.ndarray]:
        """Decode to the rows [n, 14] of each image that are detections."""
        opt = self.opt
        rows = decode_extremes(
            output, opt.K, opt.agnostic_ex, opt.scores_thresh, opt.center_thresh, opt.aggr_weight
        )  # [B, n, 14], [2B, n, 14] with --flip_test
        if opt.flip_test:
            plain, flipped = np.split(rows, 2)
            rows = np.concatenate([plain, mirror_rows(flipped, output['hm_c'].shape[3])], 1)  # [B, 2n, 14]
        return [keep_detected(of_image) for of_image in rows]

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        results = exdet_post_process(
            rows[None], [meta['c']], [meta['s']], meta['out_height'], meta['out_width'], self.opt.num_classes
        )[0]
        return undo_scale(results, scale)

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        return merge_extremes(detections, self.opt.num_classes, soft_nms)

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, rows: np.ndarray) -> None:
        opt = self.opt
        add_extreme_heatmaps(debugger, image, extreme_heatmaps(output), opt.debug >= 3, 'pred')
        add_extreme_view(debugger, image, rows, opt.down_ratio, opt.vis_thresh, 'pred_boxes')


def mirror_rows(rows: np.ndarray, width: int) -> np.ndarray:
    """Mirror rows [..., 14] found in the mirrored image onto the output map, `width` cells wide, of the plain one."""
    rows = rows[..., list(Extremes.MIRROR)]
    xs = list(Extremes.XS)
    rows[..., xs] = width - rows[..., xs]
    return rows
