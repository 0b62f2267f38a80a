"""Detection of 3D boxes in one image (paper, section 4.1)."""

import os
from argparse import Namespace
from collections.abc import Mapping

import numpy as np
import torch

from ..models.decode import ddd_decode
from ..models.utils import Output, depth_of
from ..utils.ddd_utils import calib_of_image, common_calib
from ..utils.debugger import Debugger
from ..utils.detections import Detection
from ..utils.drawing import bird_view, draw_detections
from ..utils.post_process import Detections, ddd_post_process
from ..utils.windows import Window, stretched_window
from .base_detector import BaseDetector, PreProcessor

PUBLISHED_IS_USED = "KITTI's published calibration is used, depths of other cameras will be off"


class DddPreProcessor(PreProcessor):
    """The whole image's width fills the input's; there is one test scale."""

    def window(self, height: int, width: int, new_height: int, new_width: int) -> Window:
        """The window round the whole image, whose sides the scale are; with `--keep_res` those of the input."""
        opt = self.opt
        return stretched_window((width, height), (opt.input_w, opt.input_h), opt.keep_res)


class DddDetector(BaseDetector):
    """Results are {class: [n, 13] alpha, x1 y1 x2 y2, h w l, X Y Z, rotation_y, score}, those over `--peak_thresh`.

    Metres and radians, in the coordinates of the camera. Each image has the calibration that `run` is told as
    `meta['calib']`; the others have `calib` [3, 4], from `--calib` or KITTI's published one.
    """

    preprocessor = DddPreProcessor

    def __init__(self, opt: Namespace):
        super().__init__(opt)
        self.calib = common_calib(opt.calib)
        self.told_default = bool(opt.calib)
        self.told_missing: set[str] = set()  # pictures without a calibration in the folder `--calib`

    @torch.inference_mode()
    def process(self, output: Output) -> np.ndarray:
        return decode_boxes(output, self.opt).cpu().numpy()

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        return ddd_post_process(rows[None], [meta['c']], [meta['s']], [self.image_calib(meta)], self.opt)[0]

    def image_calib(self, meta: Mapping) -> np.ndarray:
        """The calibration [3, 4] of the image that `meta` is of."""
        if 'calib' in meta:
            return meta['calib']
        if not self.told_default:
            self.told_default = True
            print(f'note: no --calib: {PUBLISHED_IS_USED}')
        return self.calib

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        return over_threshold(detections[0], self.opt.peak_thresh)

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, rows: np.ndarray) -> None:
        add_flat_views(debugger, picture, output['hm'][0].sigmoid(), rows, self.opt, 'pred')

    def picture_meta(self, name: str) -> dict:
        """The calibration of the picture of that file name, where `--calib` has one for it."""
        folder = self.opt.calib
        calib = calib_of_image(folder, name)
        if calib is not None:
            return {'calib': calib}
        if os.path.isdir(folder) and name not in self.told_missing:
            self.told_missing.add(name)
            print(f"note: '{folder}' has no calibration for '{name}': {PUBLISHED_IS_USED}")
        return {}

    def drawings(
        self, image: np.ndarray, detections: list[Detection], meta: Mapping, least_side: int = 0
    ) -> dict[str, np.ndarray]:
        """3D boxes on the image, and seen from above, `bird`."""
        opt, calib = self.opt, self.image_calib(meta)
        return {
            opt.task: draw_detections(image, detections, opt.vis_thresh, calib=calib, least_side=least_side),
            'bird': bird_view(detections, thresh=opt.vis_thresh, theme=opt.debugger_theme),
        }


def decode_boxes(output: Output, opt: Namespace) -> torch.Tensor:
    """Rows [B, K, 18] (16 without a `wh` head) of a raw output; heatmaps are sigmoids also with `--mse_loss`."""
    heat, depth = output['hm'].sigmoid(), depth_of(output['dep'])
    return ddd_decode(heat, output['rot'], depth, output['dim'], output.get('wh'), output.get('reg'), opt.K)


def over_threshold(results: Detections, threshold: float) -> Detections:
    """The rows with a score over the threshold."""
    return {cls: rows[rows[:, -1] > threshold] for cls, rows in results.items()}


def add_flat_views(
    debugger: Debugger, picture: np.ndarray, heat: torch.Tensor, rows: np.ndarray, opt: Namespace, name: str
) -> None:
    """Views of heatmaps [C, h, w] and, with a `wh` head, of the 2D boxes of decoded rows [n, 18]."""
    debugger.add_heatmap(picture, heat.cpu().numpy(), f'{name}_hm')
    if opt.reg_bbox:
        middle, half = rows[:, :2], rows[:, 15:17] / 2
        boxes = np.hstack([middle - half, middle + half]) * opt.down_ratio  # [n, 4]
        debugger.add_boxes(picture, np.column_stack([boxes, rows[:, [2, 17]]]), f'{name}_boxes', opt.vis_thresh)
