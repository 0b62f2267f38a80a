"""The network that is exported: from pixels to detections in steps that `torch.export` can trace."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..detectors.base_detector import BaseDetector
from ..models.fuse import fast_copy
from ..models.networks.common import is_heatmap
from ..models.networks.dcn import DCN
from ..models.utils import Output

MOST_IMAGES = 4096  # of a batch: a bound is needed, since sizes are proved to be in range
EXAMPLES = 2  # images of the batch that is traced: sizes of 1 would be taken to be fixed


class ExportedNetwork(nn.Module):
    """Normalisation, network and decoder of a detector, as one module of plain operators.

    Batch norms are folded, deformable convolutions are torchvision's. Maps with fewer cells than `--K` get rows
    below, so that there are always as many detections.

    Args:
        detector: of a checkpoint, on the CPU.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, detector: BaseDetector):
        super().__init__()
        opt = detector.opt
        self.detector = detector
        self.network = fast_copy(detector.model, folds_all=True)
        for module in self.network.modules():
            if isinstance(module, DCN):
                module.backend = 'torchvision'
        self.dtype = torch.float16 if opt.half else torch.float32
        self.network.to(self.dtype)
        mean, std = np.ravel(opt.mean).astype(np.float64), np.ravel(opt.std).astype(np.float64)
        self.register_buffer('scale', torch.tensor(1 / 255 / std, dtype=torch.float32))  # [3]
        self.register_buffer('shift', torch.tensor(-mean / std, dtype=torch.float32))  # [3]
        self.least_cells = self.count_least_cells()

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Detect in images.

        Args:
            images: uint8 or float32 BGR [B, H, W, 3] of 0 to 255.

        Returns:
            As `BaseDetector.name_rows`, or with `--raw` {head: float32 [B, c, h, w]}.
        """
        output = self.maps(images)
        if self.detector.opt.raw:
            return output
        return self.detector.name_rows(self.detector.decode(self.pad(output)))

    def maps(self, images: torch.Tensor) -> Output:
        """Return the raw output {head: float32 [B, c, h, w]} for images as `forward` takes them.

        With `--flip_test` it is [2B, c, h, w], of the images and then of their mirror images.
        """
        x = (images.float() * self.scale + self.shift).permute(0, 3, 1, 2)  # [B, 3, H, W]
        if self.detector.opt.flip_test:
            x = torch.cat([x, x.flip(3)])
        return {head: maps.float() for head, maps in self.network(x.to(self.dtype)).items()}

    def count_least_cells(self) -> tuple[int, int]:
        """Return the least height and width of the output's maps."""
        opt = self.detector.opt
        if opt.dynamic_size:
            least = (opt.pad + 1) // opt.down_ratio
            return least, least
        return opt.output_h, opt.output_w

    def pad(self, output: Output) -> Output:
        """Add rows below maps [B, c, h, w] with too few cells: zeros, in heatmaps logits of probability 0."""
        opt = self.detector.opt
        height, width = self.least_cells
        classes = min(channels for head, channels in opt.heads.items() if is_heatmap(head))
        missing = math.ceil(opt.K / (classes if opt.dynamic_size else classes * width)) - height
        if missing <= 0:
            return output
        return {
            head: F.pad(maps, (0, 0, 0, missing), value=-math.inf if is_heatmap(head) else 0.0)
            for head, maps in output.items()
        }


def trace(network: ExportedNetwork) -> torch.export.ExportedProgram:
    """Trace a network; the batch is dynamic, with `--dynamic_size` height and width are, too."""
    opt = network.detector.opt
    dtype = torch.float32 if opt.float_input else torch.uint8
    images = torch.zeros(EXAMPLES, opt.input_h, opt.input_w, 3, dtype=dtype)
    sizes: dict[int, Any] = {0: torch.export.Dim('batch', min=1, max=MOST_IMAGES)}
    if opt.dynamic_size:
        multiple = opt.pad + 1
        # The names are those of the sides in network strides; a multiple of them is what the network takes.
        sizes |= {axis: multiple * torch.export.Dim(f'axis_{axis}', min=1, max=8192 // multiple) for axis in (1, 2)}
    with torch.no_grad():
        return torch.export.export(network.eval(), (images,), dynamic_shapes={'images': sizes}, strict=False)
