"""Detection of boxes by their extreme points (ExtremeNet, Zhou et al. 2019)."""

from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms
from ..models.outputs import extreme_heatmaps, extreme_rows, keep_detected
from ..models.utils import Output, halve
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

    def process(self, output: Output) -> list[np.ndarray]:
        """Turn an output into the rows [n, 14] of each image that are detections."""
        return [keep_detected(rows) for rows in super().process(output)]

    def decode(self, output: Output) -> torch.Tensor:
        """Decode to rows [B, n, 14] of box, score, extreme points, class; those with a score of 0 are no detections."""
        opt = self.opt
        rows = extreme_rows(
            output, opt.K, opt.agnostic_ex, opt.scores_thresh, opt.center_thresh, opt.aggr_weight
        )  # [B, n, 14], [2B, n, 14] with --flip_test
        if opt.flip_test:
            plain, mirrored = halve(rows)
            rows = torch.cat([plain, mirror_rows(mirrored, output['hm_c'].shape[3])], 1)  # [B, 2n, 14]
        return rows

    def columns(self) -> dict[str, int]:
        return {'boxes': 4, 'scores': 1, 'extreme_points': 8, 'classes': 1}

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


def mirror_rows(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Mirror rows [..., 14] found in the mirrored image onto the output map, `width` cells wide, of the plain one."""
    is_x = torch.tensor([column in Extremes.XS for column in range(Extremes.COLUMNS)], device=rows.device)  # [14]
    rows = rows[..., list(Extremes.MIRROR)]
    return torch.where(is_x, width - rows, rows)
