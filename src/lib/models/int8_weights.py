"""Weights in int8, as the kernels' product of whole numbers takes them (external/product_int8.h). NumPy alone."""

from typing import NamedTuple

import numpy as np

LANES, FOURS = 16, 4  # outputs of a panel, weights that are multiplied together
LARGEST = 127  # of a weight in int8, on each side of 0


class Int8Weight(NamedTuple):
    """A weight [out, K] in int8, with a scale for each output.

    Attributes:
        panels: int8 [ceil(out / 16), ceil(K / 4), 16, 4], zeros beyond the last output and column.
        scale: float32 [out], what 1 of an output's weights stands for.
        total: float32 [out], `scale` times the sum of an output's weights.
    """

    panels: np.ndarray
    scale: np.ndarray
    total: np.ndarray


def quantize_weight(weight: np.ndarray) -> Int8Weight:
    """Round a weight, float32 [out, K], to 8 bits, the largest of each output to 127."""
    outputs, columns = weight.shape
    scale = np.maximum(np.abs(weight).max(1), np.finfo(np.float32).tiny).astype(np.float32) / np.float32(LARGEST)
    whole = np.round(weight / scale[:, None]).astype(np.int8)  # [out, K]
    total = (scale * whole.sum(1, dtype=np.int64)).astype(np.float32)
    padded = np.pad(whole, ((0, -outputs % LANES), (0, -columns % FOURS)))
    fours = padded.reshape(-1, LANES, padded.shape[1] // FOURS, FOURS)  # [panels, 16, steps, 4]
    return Int8Weight(np.ascontiguousarray(fours.transpose(0, 2, 1, 3)), scale, total)
