"""Detection of 2D boxes."""

from argparse import Namespace
from collections.abc import Mapping

import numpy as np
import torch

from ..external.nms import soft_nms
from ..models.decode import ctdet_decode
from ..models.utils import Output, flip_tensor, heatmap_probability
from ..utils.debugger import Debugger
from ..utils.post_process import Detections, ctdet_post_process
from .base_detector import BaseDetector
from .merge import keep_best, merge_scales, unscaled


class CtdetDetector(BaseDetector):
    """Results are {class: [n, 5] x1 y1 x2 y2 score}, the best 100 (K if that is more) of all classes."""

    @torch.inference_mode()
    def process(self, output: Output) -> np.ndarray:
        maps = activated(output, self.opt)
        return decode_boxes(averaged(maps) if self.opt.flip_test else maps, self.opt)

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        results = ctdet_post_process(
            rows[None], [meta['c']], [meta['s']], meta['out_height'], meta['out_width'], self.opt.num_classes
        )[0]
        return unscaled(results, scale)

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        thin = len(detections) > 1 or self.opt.nms
        results = merge_scales(detections, self.opt.num_classes, soft_nms if thin else None)
        return keep_best(results, max(100, self.opt.K))

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, rows: np.ndarray) -> None:
        add_views(debugger, picture, activated(output, self.opt), rows, self.opt, 'pred')


def activated(output: Output, opt: Namespace) -> Output:
    """A raw output with probabilities for a heatmap."""
    return {**output, 'hm': heatmap_probability(output['hm'], opt.mse_loss)}


def averaged(maps: Output) -> Output:
    """The maps [B, c, h, w] of pictures, from [2B, c, h, w] of them and then of their mirror images.

    Offsets within cells are the plain pass's alone, as published.
    """
    halves = {head: both.chunk(2) for head, both in maps.items()}
    return {
        head: plain if head == 'reg' else (plain + flip_tensor(mirrored)) / 2
        for head, (plain, mirrored) in halves.items()
    }


def decode_boxes(maps: Output, opt: Namespace) -> np.ndarray:
    """Rows [B, K, 6] (box, score, class; output-map coordinates) of activated maps."""
    return ctdet_decode(maps['hm'], maps['wh'], maps.get('reg'), opt.cat_spec_wh, opt.K).cpu().numpy()


def add_views(
    debugger: Debugger,
    picture: np.ndarray,
    maps: Mapping[str, torch.Tensor],
    rows: np.ndarray,
    opt: Namespace,
    name: str,
) -> None:
    """Views NAME_hm and NAME_boxes over the network's input `picture`.

    Args:
        maps: heatmaps `hm` [B, C, h, w], of which the first image's are shown.
        rows: [n, 6] on the output map, of which those with a score of `--vis_thresh` or more are drawn.
    """
    debugger.add_heatmap(picture, maps['hm'][0].cpu().numpy(), f'{name}_hm')
    to_picture = np.array([opt.down_ratio] * 4 + [1, 1])
    debugger.add_boxes(picture, rows * to_picture, f'{name}_boxes', opt.vis_thresh)
