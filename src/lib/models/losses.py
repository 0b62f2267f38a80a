"""Losses of the four tasks ("Objects as Points", section 3 and 4; the ddd ones in the appendix).

All compute in float32 whatever the outputs' type, return a scalar, never wait for the device, and give 0 with
a gradient of 0 when nothing is masked in. Shapes: output [B, d, h, w] map, ind int64 [B, M] cells y * w + x,
target [B, M, d], mask [B, M] (1 where the slot holds an object; any type). The small terms in denominators
are the published ones: published metrics rest on them [keep].
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..external import focal
from .heatmaps import SparseHeatmap, dense
from .utils import transpose_and_gather_feat

SMALL = 1e-4


class FocalLoss(nn.Module):
    """Penalty-reduced pixel-wise focal loss (equation 1; alpha 2, beta 4) on probabilities.

    Probabilities of exactly 0 or 1 stay finite, but pass no gradient on: training uses the logits form.
    """

    def forward(self, out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a scalar.

        Args:
            out: [B, C, h, w] probabilities.
            target: [B, C, h, w] Gaussian heatmap, 1 at centres.
        """
        out = out.float()
        right = torch.where(target == 1, out, 1 - out)  # probability given to the right answer
        return _focal(1 - right, -right.clamp(min=1e-12).log(), target)


class FocalLossWithLogits(nn.Module):
    """`FocalLoss` of sigmoid(out), from the logits: finite, and with a gradient however saturated they are.

    Equals the published form, which clamps the probabilities to [1e-4, 1 - 1e-4], where that clamp rests.
    """

    def forward(self, out: torch.Tensor, target: torch.Tensor | SparseHeatmap) -> torch.Tensor:
        """Compute the loss, a scalar.

        Args:
            out: [B, C, h, w] logits.
            target: [B, C, h, w] Gaussian heatmap, 1 at centres.
        """
        out = out.float()
        if isinstance(target, SparseHeatmap):
            return _SparseFocal.apply(out, target)
        if _has_kernel(out) and _has_kernel(target):
            return _FusedFocal.apply(out, target)
        return focal_of_logits(out, target)


def focal_of_logits(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute the focal loss of logits and a target, both [B, C, h, w], operator by operator."""
    wrong = torch.where(target == 1, -out, out)  # logit of the other answer
    return _focal(wrong.sigmoid(), F.softplus(wrong), target)


def _focal(wrong: torch.Tensor, log_loss: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute the focal loss from the wrong answer's probability and the right one's -log, both [B, C, h, w]."""
    return _cell_losses(wrong, log_loss, target).sum() / (target == 1).sum().clamp(min=1)


def _cell_losses(wrong: torch.Tensor, log_loss: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the weighted loss of each cell, [B, C, h, w]; arguments are those of `_focal`."""
    return torch.where(target == 1, 1, (1 - target) ** 4) * wrong**2 * log_loss


def _has_kernel(maps: torch.Tensor) -> bool:
    """Return whether the kernel takes such maps [...]; what is compiled or traced goes without."""
    return maps.device.type == 'cpu' and maps.dtype == torch.float32 and not torch.compiler.is_compiling()


class _FusedFocal(torch.autograd.Function):
    """The focal loss of logits and a target, both float32 [B, C, h, w] on the CPU, in one pass each way."""

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        total, positives = _focal_sum(out, target)
        ctx.save_for_backward(out, target)
        ctx.positives = positives.clamp(min=1)
        return (total / ctx.positives).float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        out, target = ctx.saved_tensors
        return _focal_gradient(out, target, grad / ctx.positives), None


class _SparseFocal(torch.autograd.Function):
    """The focal loss of logits [B, C, h, w] and a sparse target.

    All cells count as if the target was 0; for the maps that are stored that is taken back and the true loss put in
    its place. The gradient of those maps is written over the others'.
    """

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, target: SparseHeatmap) -> torch.Tensor:
        stored = out[target.images, target.classes].unsqueeze(0)  # [1, n, h, w]
        background, _ = _focal_sum(out, None)
        taken_back, _ = _focal_sum(stored, None)
        total, positives = _focal_sum(stored, target.maps.unsqueeze(0))
        ctx.save_for_backward(out)
        ctx.target, ctx.positives = target, positives.clamp(min=1)
        return ((background - taken_back + total) / ctx.positives).float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (out,), target, factor = ctx.saved_tensors, ctx.target, grad / ctx.positives
        whole = _focal_gradient(out, None, factor)
        stored = out[target.images, target.classes].unsqueeze(0)  # [1, n, h, w]
        of_stored = _focal_gradient(stored, target.maps.unsqueeze(0), factor)
        whole[target.images, target.classes] = of_stored.squeeze(0)
        return whole, None


def _focal_sum(out: torch.Tensor, target: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed losses of logits [B, C, h, w], a scalar in float64, and the number of centres, a scalar.

    A target [B, C, h, w] of None is 0 everywhere.
    """
    if _has_kernel(out):
        cells = _as_cells(out).numpy()
        total, positives = focal.loss(cells, _numpy_cells(target), torch.get_num_threads())
        return torch.tensor(total, dtype=torch.float64), torch.tensor(positives)
    if target is None:  # image by image, for the sake of memory
        sums = [(image.sigmoid() ** 2 * F.softplus(image)).sum(dtype=torch.float64) for image in out]
        return torch.stack(sums).sum(), torch.zeros_like(sums[0], dtype=torch.int64)
    positive = target == 1
    wrong = torch.where(positive, -out, out)
    losses = _cell_losses(wrong.sigmoid(), F.softplus(wrong), target)
    return losses.sum(dtype=torch.float64), positive.sum()


def _focal_gradient(out: torch.Tensor, target: torch.Tensor | None, factor: torch.Tensor) -> torch.Tensor:
    """Return the gradient of `_focal_sum` with respect to `out`, [B, C, h, w], times a factor, a scalar."""
    if _has_kernel(out):
        cells = _as_cells(out)
        grad = torch.empty_like(cells)
        focal.differentiate(cells.numpy(), _numpy_cells(target), grad.numpy(), float(factor), torch.get_num_threads())
        return grad.unflatten(2, out.shape[2:])
    if target is None:
        grad = torch.empty_like(out)
        for image, filled in zip(out, grad, strict=True):
            torch.mul(_focal_slope(image), factor, out=filled)
        return grad
    positive = target == 1
    slope = _focal_slope(torch.where(positive, -out, out))
    return torch.where(positive, -factor, factor * (1 - target) ** 4) * slope


def _focal_slope(wrong: torch.Tensor) -> torch.Tensor:
    """Return the derivative of a cell's unweighted loss with respect to the logit [...] of the wrong answer."""
    probability = wrong.sigmoid()
    return probability**2 * (2 * (-wrong).sigmoid() * F.softplus(wrong) + probability)


def _as_cells(maps: torch.Tensor) -> torch.Tensor:
    """Return maps [B, C, h, w] as [B, C, h * w], contiguous or with the channels last in memory; copied if need be."""
    cells = maps.detach().flatten(2)
    return cells if cells.is_contiguous() or cells.mT.is_contiguous() else cells.contiguous()


def _numpy_cells(target: torch.Tensor | None) -> np.ndarray | None:
    """Return a target [B, C, h, w] as the kernel takes it, [B, C, h * w]."""
    return None if target is None else target.flatten(2).contiguous().numpy()


class HeatmapMSELoss(nn.Module):
    """Mean squared error of raw heatmaps: the loss of ctdet's and the joints' heatmaps under `--mse_loss`."""

    def forward(self, out: torch.Tensor, target: torch.Tensor | SparseHeatmap) -> torch.Tensor:
        """Compute the loss of out and target, both [B, C, h, w]."""
        return F.mse_loss(out, dense(target))


class SigmoidMSELoss(nn.Module):
    """Mean squared error of sigmoids: exdet's and ddd's heatmap loss under `--mse_loss`."""

    def forward(self, out: torch.Tensor, target: torch.Tensor | SparseHeatmap) -> torch.Tensor:
        """Compute the loss of out, logits, and target, both [B, C, h, w]."""
        return F.mse_loss(out.float().sigmoid(), dense(target))


class RegLoss(nn.Module):
    """Smooth L1 at the objects' cells.

    It is divided by the number of *objects*, not of elements, as the published `--reg_loss sl1` was trained [keep].
    """

    def forward(
        self, output: torch.Tensor, mask: torch.Tensor, ind: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Compute the loss of output [B, d, h, w], mask [B, M], ind [B, M] and target [B, M, d]."""
        pred = transpose_and_gather_feat(output, ind).float()  # [B, M, d]
        weight = _elements(mask, target)
        loss = F.smooth_l1_loss(pred * weight, target * weight, reduction='sum')
        return loss / (mask.float().sum() + SMALL)


class RegL1Loss(nn.Module):
    """L1 at the objects' cells, divided by the number of masked elements (equations 2 and 3).

    mask is [B, M], or [B, M, d] where single elements count.
    """

    def forward(
        self, output: torch.Tensor, mask: torch.Tensor, ind: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Compute the loss of output [B, d, h, w], mask, ind [B, M] and target [B, M, d]."""
        pred = transpose_and_gather_feat(output, ind).float()  # [B, M, d]
        weight = _elements(mask, target)
        return (self.distance(pred, target) * weight).sum() / (weight.sum() + SMALL)

    def distance(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Measure the distance element by element: pred and target [B, M, d] -> [B, M, d]."""
        return (pred - target).abs()


class RegWeightedL1Loss(RegL1Loss):
    """`RegL1Loss` under its published name for masks [B, M, d]: joints, of which some are hidden."""


class RegL2Loss(RegL1Loss):
    """The squared counterpart of `RegL1Loss` (`--reg_loss l2`)."""

    def distance(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Measure the distance element by element: pred and target [B, M, d] -> [B, M, d]."""
        return (pred - target) ** 2


# The choices of `--reg_loss`.
REGRESSION_LOSSES = {'l1': RegL1Loss, 'sl1': RegLoss, 'l2': RegL2Loss}


class NormRegL1Loss(RegL1Loss):
    """`RegL1Loss` of the prediction's ratio to the target, against 1 (`--norm_wh`)."""

    def distance(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Measure the distance element by element: pred and target [B, M, d] -> [B, M, d]."""
        return (pred / (target + SMALL) - 1).abs()


class L1Loss(nn.Module):
    """L1 at the objects' cells as a mean over all B * M * d elements (ddd).

    Masked zeros are included, as published: the weights of ddd's parts are set for it [keep].
    """

    def forward(
        self, output: torch.Tensor, mask: torch.Tensor, ind: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Compute the loss of output [B, d, h, w], mask [B, M], ind [B, M] and target [B, M, d]."""
        pred = transpose_and_gather_feat(output, ind).float()  # [B, M, d]
        return ((pred - target).abs() * _elements(mask, target)).mean()


class DenseL1Loss(nn.Module):
    """L1 over whole maps under a mask (`--dense_wh`, `--dense_hp`)."""

    def forward(self, output: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss of output, mask (values 0 to 1) and target, all [B, d, h, w]; divided by the mask's sum."""
        mask = mask.float()
        return ((output.float() - target).abs() * mask).sum() / (mask.sum() + SMALL)


class BinRotLoss(nn.Module):
    """Orientation in two overlapping bins (section 4.1 and appendix).

    Cross-entropy of each bin, averaged over all slots, plus smooth L1 of sin and cos of the residual, averaged over
    the slots whose bin is set. Masked slots are included in the former as zero logits, as published: `--rot_weight`
    is set for it [keep].
    """

    def forward(
        self,
        output: torch.Tensor,
        mask: torch.Tensor,
        ind: torch.Tensor,
        rotbin: torch.Tensor,
        rotres: torch.Tensor,
    ) -> torch.Tensor:
        """Compute the loss of output [B, 8, h, w], mask [B, M], rotbin int64 [B, M, 2] (0, 1), rotres [B, M, 2] (rad).

        The 8 channels are, of bin 1 and then of bin 2: logit 0, logit 1, sin, cos.
        """
        pred = transpose_and_gather_feat(output, ind).float().unflatten(2, (2, 4))  # [B, M, 2, 4]
        logits = pred[..., :2] * mask.float()[:, :, None, None]  # [B, M, 2, 2]
        # The mean is over both bins' slots: twice that is the sum of the two bins' means.
        bins = 2 * F.cross_entropy(logits.flatten(0, 2), rotbin.flatten())
        direction = torch.stack([rotres.sin(), rotres.cos()], 3)  # [B, M, 2, 2]
        residual = F.smooth_l1_loss(pred[..., 2:], direction, reduction='none').sum(3)  # [B, M, 2]
        is_set = rotbin.ne(0)
        of_bin = (residual * is_set).sum((0, 1)) / is_set.sum((0, 1)).clamp(min=1)  # [2]
        return bins + of_bin.sum()


def _elements(mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mask, [B, M] or [B, M, d], as float32 [B, M, d]."""
    mask = mask.float()
    return mask if mask.dim() == 3 else mask.unsqueeze(2).expand_as(target)
