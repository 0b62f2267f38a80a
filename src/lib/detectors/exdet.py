"""Detection of boxes by their extreme points (ExtremeNet, Zhou et al. 2019)."""

from argparse import Namespace
from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms
from ..models.decode import agnex_ct_decode, exct_decode
from ..models.utils import Output
from ..utils.debugger import Debugger
from ..utils.post_process import Detections, exdet_post_process
from .base_detector import BaseDetector
from .merge import keep_best, merge_scales, unscaled

MIRRORED_BOX = [2, 1, 0, 3]  # columns of x1 y1 x2 y2 whose mirror images are x1 y1 x2 y2
MIRRORED_POINTS = [5, 6, 11, 12, 9, 10, 7, 8]  # likewise of the top, left, bottom, right points


class ExdetDetector(BaseDetector):
    """Results are {class: [n, 13] x1 y1 x2 y2 score, x and y of the top, left, bottom and right point}.

    They are the best 100 of all classes.
    """

    @torch.inference_mode()
    def process(self, output: Output) -> list[np.ndarray]:
        rows = decode_extremes(output, self.opt).cpu().numpy()  # [B, n, 14], 2B with --flip_test
        if self.opt.flip_test:
            plain, flipped = np.split(rows, 2)
            rows = np.concatenate([plain, mirrored(flipped, output['hm_c'].shape[3])], 1)  # [B, 2n, 14]
        return [detected(of_image) for of_image in rows]

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        results = exdet_post_process(
            rows[None], [meta['c']], [meta['s']], meta['out_height'], meta['out_width'], self.opt.num_classes
        )[0]
        return unscaled(results, scale)

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        return merge_extremes(detections, self.opt.num_classes)

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, rows: np.ndarray) -> None:
        add_heatmaps(debugger, picture, probabilities(output), 'pred', self.opt.debug)
        add_detections(debugger, picture, rows, 'pred_boxes', self.opt)


def probabilities(output: Output) -> dict[str, torch.Tensor]:
    """The five heatmaps of a raw output; they are sigmoids also when trained with `--mse_loss`."""
    return {head: raw.sigmoid() for head, raw in output.items() if head.startswith('hm_')}


def decode_extremes(output: Output, opt: Namespace) -> torch.Tensor:
    """Rows [B, 1000, 14] of a raw output: box, score, points, class, in output-map coordinates."""
    decode = agnex_ct_decode if opt.agnostic_ex else exct_decode
    heats = probabilities(output)
    return decode(
        *(heats[f'hm_{part}'] for part in 'tlbrc'),
        *(output.get(f'reg_{part}') for part in 'tlbr'),
        K=opt.K,
        scores_thresh=opt.scores_thresh,
        center_thresh=opt.center_thresh,
        aggr_weight=opt.aggr_weight,
    )


def detected(rows: np.ndarray) -> np.ndarray:
    """Those of one image's rows [n, 14] that are detections: the decoder leaves the rest with a score of 0."""
    return rows[rows[:, 4] > 0]


def mirrored(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows [..., 14] found in the mirrored image, on the output map (of that width) of the plain one."""
    rows = rows[..., [*MIRRORED_BOX, 4, *MIRRORED_POINTS, 13]]
    xs = [0, 2, 5, 7, 9, 11]
    rows[..., xs] = width - rows[..., xs]
    return rows


def merge_extremes(detections: list[Detections], num_classes: int) -> Detections:
    """Soft-NMS a class over all scales, mirrored or not; the best 100."""
    return keep_best(merge_scales(detections, num_classes, soft_nms), 100)


def add_heatmaps(debugger: Debugger, picture: np.ndarray, heats: Output, name: str, level: int) -> None:
    """Views of heatmaps `hm_*` [B, C, h, w]: the centres, all sides in one, and from level 3 on each side's own."""
    maps = {head: heat[0].cpu().numpy() for head, heat in heats.items()}
    sides = [f'hm_{side}' for side in 'tlbr']
    debugger.add_heatmap(picture, np.max([maps[side] for side in sides], 0), f'{name}_hm_tlbr')
    for head in ['hm_c', *sides] if level >= 3 else ['hm_c']:
        debugger.add_heatmap(picture, maps[head], f'{name}_{head}')


def add_detections(debugger: Debugger, picture: np.ndarray, rows: np.ndarray, name: str, opt: Namespace) -> None:
    """A view of boxes and extreme points: rows [n, 14] on the output map, those of score `--vis_thresh` or more."""
    rows = rows[rows[:, 4] >= opt.vis_thresh]
    to_picture = np.array([opt.down_ratio] * 4 + [1] + [opt.down_ratio] * 8 + [1])
    rows = rows * to_picture
    debugger.add_boxes(picture, rows[:, [0, 1, 2, 3, 4, 13]], name)
    for row in rows:
        debugger.add_extreme_points(row[5:13], int(row[13]), name)
