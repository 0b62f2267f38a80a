"""Peaks of heatmaps as in peaks.pyx, in NumPy. Arguments are checked no further than NumPy does."""

import numpy as np


def keep(heat: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` [n, h, w] with the cells of `heat` [n, h, w] that no neighbour exceeds, and zeros."""
    if not heat.size:
        return
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    along = np.maximum(np.maximum(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])  # [n, h + 2, w]
    highest = np.maximum(np.maximum(along[:, :-2], along[:, 1:-1]), along[:, 2:])  # [n, h, w]
    out[...] = np.where(heat >= highest, heat, 0)
