"""Deformable convolution as in dcn.pyx, in NumPy. Arguments are checked no further than it does.

The networks call torchvision's operator where the kernel is not compiled: it is faster than this.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Cell(NamedTuple):
    """One of the four cells round the places that the taps of a row look at, each array [G, k * k, w].

    Attributes:
        there: whether the cell is inside the map, and looked at.
        at: y and x in the map, 0 where the cell is not there.
        weight: of the cell, 0 where it is not there.
        by_y, by_x: derivatives of the weight.
    """

    there: np.ndarray
    at: tuple[np.ndarray, np.ndarray]
    weight: np.ndarray
    by_y: np.ndarray
    by_x: np.ndarray


class Row:
    """The taps of one row of the output.

    Args:
        x: maps [B, H, W, C].
        offset, mask: [B, 2 * G * k * k, h, w] and [B, G * k * k, h, w].
        row: counted through all images.
        kernel, stride, padding, dilation: of the convolution.
    """

    def __init__(
        self,
        x: np.ndarray,
        offset: np.ndarray,
        mask: np.ndarray,
        row: int,
        kernel: int,
        stride: int,
        padding: int,
        dilation: int,
    ):
        _, self.height, self.width, channels = x.shape
        self.image, y = divmod(row, mask.shape[2])
        taps = kernel * kernel
        self.groups, positions = mask.shape[1] // taps, mask.shape[3]
        self.shape = (self.height, self.width, self.groups, channels // self.groups)
        shift = offset[self.image, :, y].reshape(self.groups, taps, 2, positions)
        self.modulation = mask[self.image, :, y].reshape(self.groups, taps, positions)
        steps = np.arange(kernel) * dilation - padding
        self.y = (y * stride + np.repeat(steps, kernel)[:, None] + shift[:, :, 0]).astype(np.float32)  # [G, k * k, w]
        self.x = (np.arange(positions) * stride + np.tile(steps, kernel)[:, None] + shift[:, :, 1]).astype(np.float32)

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return whether each tap looks at the map, and where, y and x: [G, k * k, w] each, 0 where it does not."""
        looks = (self.y >= -1) & (self.y <= self.height) & (self.x >= -1) & (self.x <= self.width)  # not at NaN
        return looks, np.where(looks, self.y, 0), np.where(looks, self.x, 0)

    def cells(self) -> Iterator[Cell]:
        """Iterate over the four cells of each tap."""
        looks, y, x = self.places()
        low_y, low_x = np.floor(y), np.floor(x)
        for i in range(2):
            for j in range(2):
                cell_y, cell_x = (low_y + i).astype(int), (low_x + j).astype(int)
                there = looks & (cell_y >= 0) & (cell_y < self.height) & (cell_x >= 0) & (cell_x < self.width)
                weight_y, weight_x = (there * (1 - abs(place - cell)) for place, cell in ((y, cell_y), (x, cell_x)))
                yield Cell(
                    there,
                    (np.where(there, cell_y, 0), np.where(there, cell_x, 0)),
                    (weight_y * weight_x).astype(np.float32),
                    (weight_x if i else -weight_x).astype(np.float32),
                    (weight_y if j else -weight_y).astype(np.float32),
                )

    def whole_weights(self) -> Iterator[np.ndarray]:
        """Iterate over the weights [G, k * k, w] of the four cells, inside or not: whole numbers that add up to the
        modulation, which is one itself."""
        _, y, x = self.places()
        below = np.floor(self.modulation * (y - np.floor(y)) + np.float32(0.5))
        for line in (self.modulation - below, below):
            after = np.floor(line * (x - np.floor(x)) + np.float32(0.5))
            yield from (line - after, after)

    def look(self, image: np.ndarray, cell: Cell) -> np.ndarray:
        """Return what a cell of an image [H, W, C] holds, [G, k * k, w, C / G]."""
        return image.reshape(self.shape)[(*cell.at, np.arange(self.groups)[:, None, None])]


def sample(
    x: np.ndarray,
    offset: np.ndarray,
    mask: np.ndarray,
    columns: np.ndarray,
    first_row: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    threads: int,
) -> None:
    """Fill `columns` [rows * w, k * k * C] with what the taps of rows see of x [B, H, W, C], as dcn.pyx says."""
    half, width = x.dtype == np.uint16, mask.shape[3]
    for start in range(0, len(columns), width):
        row = Row(x, offset, mask, first_row + start // width, kernel, stride, padding, dilation)
        image = widen(x[row.image]) if half else x[row.image]
        seen = sum(cell.weight[..., None] * row.look(image, cell) for cell in row.cells())  # [G, k * k, w, C / G]
        values = (seen * row.modulation[..., None]).transpose(2, 1, 0, 3).reshape(width, -1)
        columns[start : start + width] = narrow(values) if half else values


def convolve(
    x: np.ndarray,
    offset: np.ndarray,
    mask: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    sigmoid: bool,
    relu: bool,
    threads: int,
) -> None:
    """Fill `out` [B, h, w, O] with the deformable convolution of x [B, H, W, C], as dcn.pyx says."""
    if sigmoid:
        mask = 1 / (1 + np.exp(-np.clip(mask, -87, 87)))
    columns = np.empty((out.shape[2], weight.shape[1]), np.float32)
    matrix = weight.transpose(1, 0, 2).reshape(weight.shape[1], -1)[:, : len(bias)]  # [k * k * C, O]
    for row, cells in enumerate(out.reshape(-1, *out.shape[2:])):
        sample(x, offset, mask, columns, row, kernel, stride, padding, dilation, threads)
        cells[:] = columns @ matrix + bias
    if relu:
        np.maximum(out, 0, out=out)


def convolve_int8(
    x: np.ndarray,
    offset: np.ndarray,
    mask: np.ndarray,
    weight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    zero: int,
    relu: bool,
    threads: int,
    share: int = 0,
    shares: int = 1,
) -> None:
    """Fill rows of `out` [B, h, w, O] with the deformable convolution of x [B, H, W, C] in int8, as dcn.pyx says."""
    with np.errstate(invalid='ignore'):
        modulation = np.floor(256 / (1 + np.exp(-np.clip(mask, -87, 87))) + 0.5)
    modulation = np.nan_to_num(modulation, nan=0).astype(np.float32)
    size = kernel * kernel * x.shape[3]
    matrix = weight.transpose(1, 3, 0, 2).reshape(-1, weight.shape[0] * weight.shape[2])  # [4 S, outputs of the panels]
    matrix = matrix[:size, : len(bias)].astype(np.int32)
    cells = out.reshape(-1, *out.shape[2:])
    for number in range(share, len(cells), shares):
        row = Row(x, offset, modulation, number, kernel, stride, padding, dilation)
        sums = np.full((*row.modulation.shape, x.shape[3] // row.groups), 128, np.int32)  # [G, k * k, w, C / G]
        rest = np.full(row.modulation.shape, 256, np.int32)
        for cell, weights in zip(row.cells(), row.whole_weights(), strict=True):
            whole = (weights * cell.there).astype(np.int32)
            sums += whole[..., None] * row.look(x[row.image], cell)
            rest -= whole
        columns = (sums + rest[..., None] * zero) >> 8
        values = columns.transpose(2, 1, 0, 3).reshape(out.shape[2], -1) @ matrix * scale + bias  # [w, O]
        if out.dtype == np.uint8:
            cells[number] = np.floor(np.nan_to_num(values, nan=0).clip(0, 255) + np.float32(0.5))
        else:
            cells[number] = np.maximum(values, 0) if relu else values


def differentiate(
    x: np.ndarray,
    offset: np.ndarray,
    mask: np.ndarray,
    grad_columns: np.ndarray,
    columns: np.ndarray,
    grad_x: np.ndarray,
    grad_offset: np.ndarray,
    grad_mask: np.ndarray,
    first_row: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    threads: int,
) -> None:
    """Compute the gradients of `sample` for the same rows, as dcn.pyx says.

    Args:
        x, offset, mask, columns: as `sample` takes them.
        grad_columns: [rows * w, k * k * C].
        grad_x: [B, H, W, C], added to.
        grad_offset, grad_mask: [rows * w, channels of `offset` or `mask`], filled.
        first_row, kernel, stride, padding, dilation, threads: as `sample` takes them.
    """
    sample(x, offset, mask, columns, first_row, kernel, stride, padding, dilation, threads)
    width = mask.shape[3]
    for start in range(0, len(columns), width):
        row = Row(x, offset, mask, first_row + start // width, kernel, stride, padding, dilation)
        at = slice(start, start + width)
        grad = grad_columns[at].reshape(width, kernel * kernel, row.groups, -1).transpose(2, 1, 0, 3)
        by_y, by_x, by_mask = (np.zeros(row.modulation.shape, np.float32) for _ in range(3))  # [G, k * k, w]
        target = grad_x[row.image].reshape(row.shape)
        for cell in row.cells():
            dot = (grad * row.look(x[row.image], cell)).sum(3)
            by_y += cell.by_y * dot * row.modulation
            by_x += cell.by_x * dot * row.modulation
            by_mask += cell.weight * dot
            place = (*cell.at, np.arange(row.groups)[:, None, None])
            np.add.at(target, place, (cell.weight * row.modulation)[..., None] * grad)
        grad_offset[at] = np.stack([by_y, by_x], 2).reshape(-1, width).T
        grad_mask[at] = by_mask.reshape(-1, width).T


def widen(bits: np.ndarray) -> np.ndarray:
    """Return the float32 [...] of bfloat16's bits [...]."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """Return the bits [...] of float32 [...] rounded to bfloat16, to even in the middle."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
