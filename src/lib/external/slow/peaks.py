"""Peaks of heatmaps as in peaks.pyx, in NumPy. Arguments are checked no further than NumPy does."""

import numpy as np

EQUAL = 2e-6  # as in peaks.pyx
LEAST_LOGIT = -87
LEAST_PROBABILITY = 1.1754944e-38


def keep(heat: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` [n, h, w] with the cells of `heat` [n, h, w] that no neighbour exceeds, and zeros."""
    if heat.size:
        out[...] = np.where(heat >= _highest(heat), heat, 0)


def strongest(heat: np.ndarray, K: int, logits: bool, cells: np.ndarray) -> tuple[int, float]:
    """Fill `cells` [n] with those of `heat` [C, h, w] among which are the K best peaks, as peaks.pyx says."""
    if K < 1:
        raise ValueError(f'expected K from 1 to {heat.size}, found {K}')
    maps = np.where(np.isnan(heat), -np.inf, heat)
    highest = _highest(maps)
    high = maps >= (LEAST_LOGIT if logits else LEAST_PROBABILITY)
    peaks = maps[high & (maps >= highest)]
    if len(peaks) < K:
        return -1, 0.0
    limit = _level(np.partition(peaks, -K)[-K], logits)
    chosen = np.flatnonzero(high & (maps >= limit) & (maps >= _level(highest, logits)))
    if len(chosen) > len(cells):
        return -1, 0.0
    cells[: len(chosen)] = chosen
    return len(chosen), float(limit)


def _highest(heat: np.ndarray) -> np.ndarray:
    """Return the maximum of each cell's 3 x 3 neighbourhood, [n, h, w]."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    along = np.maximum(np.maximum(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])  # [n, h + 2, w]
    return np.maximum(np.maximum(along[:, :-2], along[:, 1:-1]), along[:, 2:])  # [n, h, w]


def _level(value: np.ndarray, logits: bool) -> np.ndarray:
    """Return the lowest values [...] whose probability may equal that of `value` [...], computed in float32."""
    if not logits:
        return value
    share = (1 - EQUAL) / (1 + np.exp(-np.asarray(value, np.float64)))
    return np.log(share / (1 - share)).astype(np.float32)
