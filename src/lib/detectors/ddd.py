"""Detection of 3D boxes in one image (paper, section 4.1)."""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models.decode import centred_boxes
from ..models.outputs import box_3d_rows
from ..models.utils import Output, alpha_of
from ..utils.ddd_utils import calib_of_image, common_calib
from ..utils.debugger import Debugger
from ..utils.detections import Detection
from ..utils.drawing import bird_view, caption, draw_detections
from ..utils.merging import keep_over
from ..utils.post_process import Detections, ddd_post_process
from ..utils.rows import Box3d
from ..utils.views import add_flat_views
from .base_detector import BaseDetector
from .pre_process import StretchingPreProcessor

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

PUBLISHED_IS_USED = "KITTI's published calibration is used, depths of other cameras will be off"


class DddDetector(BaseDetector):
    """Results are {class: [n, 13] alpha, x1 y1 x2 y2, h w l, X Y Z, rotation_y, score}, those over `--peak_thresh`.

    Metres and radians, in the coordinates of the camera. Each image has the calibration that `run` is given as
    `meta['calib']`; the others have `calib` [3, 4], from `--calib` or KITTI's published one.
    """

    preprocessor = StretchingPreProcessor

    def __init__(self, opt: 'Options'):
        super().__init__(opt)
        self.calib = common_calib(opt.calib)
        self.default_noted = bool(opt.calib)
        self.missing_noted: set[str] = set()  # images without a calibration in the folder `--calib`

    def decode(self, output: Output) -> torch.Tensor:
        """Decode to rows [B, K, 18], or [B, K, 16] without a `wh` head (`rows.DecodedBox3d`)."""
        return box_3d_rows(output, self.opt.K)

    def columns(self) -> dict[str, int]:
        sizes = {'sizes': 2} if self.opt.reg_bbox else {}
        return {'centers': 2, 'scores': 1, 'rotations': 8, 'depths': 1, 'dimensions': 3, **sizes, 'classes': 1}

    def name_rows(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Split rows as all detectors do, and add `boxes` [B, n, 4], where there are sizes, and `alphas` [B, n]."""
        parts = super().name_rows(rows)
        boxes = {'boxes': centred_boxes(parts['centers'], parts['sizes'])} if self.opt.reg_bbox else {}
        return {**boxes, **parts, 'alphas': alpha_of(parts['rotations'])}

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        return ddd_post_process(rows[None], [meta['c']], [meta['s']], [self.image_calib(meta)], self.opt)[0]

    def image_calib(self, meta: Mapping) -> np.ndarray:
        """Return the calibration [3, 4] of the image that `meta` is of."""
        if 'calib' in meta:
            return meta['calib']
        if not self.default_noted:
            self.default_noted = True
            logger.warning('note: no --calib: %s', PUBLISHED_IS_USED)
        return self.calib

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        return keep_over(detections[0], self.opt.peak_thresh, Box3d.SCORE)

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, rows: np.ndarray) -> None:
        opt, heat = self.opt, output['hm'][0].sigmoid()
        add_flat_views(debugger, image, heat, rows, opt.down_ratio, opt.vis_thresh, 'pred')

    def image_meta(self, name: str) -> dict:
        """Return the calibration of the image of that file name, where `--calib` has one for it."""
        folder = self.opt.calib
        calib = calib_of_image(folder, name)
        if calib is not None:
            return {'calib': calib}
        if os.path.isdir(folder) and name not in self.missing_noted:
            self.missing_noted.add(name)
            logger.warning("note: '%s' has no calibration for '%s': %s", folder, name, PUBLISHED_IS_USED)
        return {}

    def draw(
        self, image: np.ndarray, detections: list[Detection], meta: Mapping, least_side: int = 0
    ) -> dict[str, np.ndarray]:
        """Draw 3D boxes on the image, BGR uint8 [H, W, 3], and seen from above, `bird`."""
        opt, calib = self.opt, self.image_calib(meta)
        bird = bird_view(detections, thresh=opt.vis_thresh, theme=opt.debugger_theme)
        return {
            opt.task: draw_detections(image, detections, opt.vis_thresh, calib=calib, least_side=least_side),
            'bird': caption(bird, 'from above, in metres'),
        }
