"""Loops over the cells of images and maps as in raster.pyx, in NumPy. Arguments are checked no further than it does."""

import numpy as np


def affine_planes(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map the channels of each pixel of an image uint8 [H, W, 3] by a matrix [3, 4] to float32 [3, H, W]."""
    planes = matrix[:, :3] @ image.reshape(-1, 3).T.astype(np.float32) + matrix[:, 3:]  # [3, H * W]
    return np.ascontiguousarray(planes, np.float32).reshape(3, *image.shape[:2])


def raise_to_gaussian(heatmap: np.ndarray, x: int, y: int, reach: int, sigma: float, k: float = 1) -> None:
    """Raise a map float32 [h, w] to a Gaussian bump, in place, as raster.pyx says."""
    if reach < 0 or not sigma > 0:
        raise ValueError(f'expected a reach of 0 or more and a sigma over 0, found {reach} and {sigma}')
    rows = np.arange(max(y - reach, 0), min(y + reach + 1, heatmap.shape[0]))
    columns = np.arange(max(x - reach, 0), min(x + reach + 1, heatmap.shape[1]))
    if not (len(rows) and len(columns)):
        return
    along, across = (np.exp(-((cells - at) ** 2) / (2 * sigma * sigma)) for cells, at in ((rows, y), (columns, x)))
    part = heatmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.maximum(part, (k * along[:, None] * across).astype(np.float32), out=part)
