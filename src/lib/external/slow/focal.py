"""The focal loss of heatmaps from logits as in focal.pyx, in NumPy. Arguments are checked no further than it does."""

import numpy as np


def loss(logits: np.ndarray, target: np.ndarray | None, threads: int) -> tuple[float, int]:
    """Return the sum of the losses of logits [B, C, cells], and how many of the target [B, C, cells] are 1."""
    wrong, _, log_loss, weight, positive = _terms(logits, target)
    return float((weight * wrong**2 * log_loss).sum(dtype=np.float64)), int(positive.sum())


def differentiate(logits: np.ndarray, target: np.ndarray | None, grad: np.ndarray, factor: float, threads: int) -> None:
    """Fill `grad` [B, C, cells] with the gradient of that sum, times a factor."""
    wrong, right, log_loss, weight, positive = _terms(logits, target)
    slope = wrong**2 * (2 * right * log_loss + wrong)
    grad[...] = np.where(positive, -factor, factor) * weight * slope


def _terms(logits: np.ndarray, target: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Return of each cell the probabilities of the wrong and the right answer, -log of the latter, its weight, and
    whether it is a centre, [B, C, cells] each."""
    target = np.zeros((), np.float32) if target is None else target
    positive = np.broadcast_to(target == 1, logits.shape)
    logit = np.where(positive, -logits, logits)
    small = np.exp(-np.abs(logit))
    share = 1 / (1 + small)
    wrong, right = np.where(logit < 0, small * share, share), np.where(logit < 0, share, small * share)
    weight = np.where(positive, 1, (1 - target) ** 4)
    return wrong, right, np.maximum(logit, 0) + np.log1p(small), weight, positive
