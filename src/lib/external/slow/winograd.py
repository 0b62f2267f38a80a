"""Winograd's convolution as in winograd.pyx, in NumPy. Arguments are checked no further than it does.

The networks do without that convolution where its kernel is not compiled: NumPy makes it no faster than torch's.
"""

import numpy as np

# Of F(4 x 4, 3 x 3): input tiles d become B^T d B, products p become A^T p A (Lavin and Gray 2016, section 4.3).
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32)


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray, relu: bool, threads: int) -> None:
    """Fill `out` [B, H, W, O] with the convolution of x [B, H, W, C], as winograd.pyx says."""
    _, height, width, channels = x.shape
    down, across = -(-height // 4), -(-width // 4)
    matrices = weight.transpose(0, 2, 1, 3).reshape(36, channels, -1)[..., : len(bias)]  # [36, C, O]
    rows, columns = 4 * np.arange(down)[:, None] + np.arange(6), 4 * np.arange(across)[:, None] + np.arange(6)
    for image, filled in zip(x, out, strict=True):
        cells = np.zeros((4 * down + 2, 4 * across + 2, channels), np.float32)
        cells[1 : height + 1, 1 : width + 1] = image
        tiles = cells[rows[:, None, :, None], columns[None, :, None]]  # [down, across, 6, 6, C]
        tiles = np.einsum('ij,stjkc,lk->ilstc', INPUT, tiles, INPUT, optimize=True).reshape(36, -1, channels)
        products = (tiles @ matrices).reshape(6, 6, down, across, -1)
        blocks = np.einsum('ij,jkstc,lk->sitlc', OUTPUT, products, OUTPUT, optimize=True) + bias
        filled[:] = blocks.reshape(4 * down, 4 * across, -1)[:height, :width]
    if relu:
        np.maximum(out, 0, out=out)
