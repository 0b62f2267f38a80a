"""The transforms of Winograd's convolution as in winograd.pyx, in NumPy. Arguments are checked no further than it does.

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


def transform(x: np.ndarray, zeros: np.ndarray, out: np.ndarray, first_row: int, threads: int) -> None:
    """Fill `out` [36, tiles, C] with B^T d B of some rows of tiles of maps x [B, H, W, C], as winograd.pyx says."""
    _, height, width, channels = x.shape
    down, across = -(-height // 4), -(-width // 4)
    for row in range(out.shape[1] // across):
        image, tile_row = divmod(first_row + row, down)
        cells = np.zeros((6, 4 * across + 2, channels), np.float32)
        top, bottom = max(4 * tile_row - 1, 0), min(4 * tile_row + 5, height)
        cells[top - 4 * tile_row + 1 : bottom - 4 * tile_row + 1, 1 : width + 1] = x[image, top:bottom]
        places = 4 * np.arange(across)[:, None] + np.arange(6)  # [across, 6]
        tiles = np.einsum('ij,jtkc,lk->iltc', INPUT, cells[:, places], INPUT, optimize=True)
        out[:, row * across : (row + 1) * across] = tiles.reshape(36, across, channels)


def finish(products: np.ndarray, bias: np.ndarray, out: np.ndarray, first_row: int, threads: int) -> None:
    """Fill some rows of tiles of `out` [B, H, W, O] with A^T p A + bias [O] of products [36, tiles, O]."""
    _, height, width, channels = out.shape
    down, across = -(-height // 4), -(-width // 4)
    for row in range(products.shape[1] // across):
        image, tile_row = divmod(first_row + row, down)
        tiles = products[:, row * across : (row + 1) * across].reshape(6, 6, across, channels)
        cells = np.einsum('ij,jktc,lk->itlc', OUTPUT, tiles, OUTPUT, optimize=True) + bias
        bottom = min(4 * tile_row + 4, height)
        out[image, 4 * tile_row : bottom] = cells.reshape(4, 4 * across, channels)[: bottom - 4 * tile_row, :width]
