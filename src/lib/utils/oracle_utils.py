"""Ground truth laid out as network output, so that a perfect head can stand in for a learnt one."""

from typing import TypeVar

import numpy as np
import torch

Array = TypeVar('Array', np.ndarray, torch.Tensor)


def gen_oracle_map(feat: Array, ind: Array, w: int, h: int) -> Array:
    """Spread each object's value over a map: at its cell, and elsewhere the value of an object near by.

    Values spread from the objects' cells over the whole map, breadth first and in object order, to the cells
    below, above, right and left of each.

    Args:
        feat: [B, M, d] a value for each object.
        ind: int [B, M] its cell y * w + x; slots with 0 are empty.
        w, h: the map's sides.

    Returns:
        float32 [B, d, h, w], of the kind (numpy array or tensor) and on the device of `feat`; zero for
        an image without objects.
    """
    if not torch.is_tensor(feat):
        return gen_oracle_map(torch.from_numpy(feat), torch.from_numpy(ind), w, h).numpy()
    cells = ind.to(feat.device, torch.int64)
    return torch.stack([_spread(*image, w, h) for image in zip(feat.float(), cells, strict=True)])


def _spread(values: torch.Tensor, cells: torch.Tensor, w: int, h: int) -> torch.Tensor:
    """Spread one image's values [M, d] at its cells [M] over a map [d, h, w].

    A breadth-first queue gives a cell to the nearest object by city-block distance, and to the first of
    several: each level of the queue stays sorted by object. Of two objects in one cell the later writes that
    cell itself and the first all others. So the queue need not be walked.
    """
    values, cells = values[cells > 0], cells[cells > 0]
    n = len(values)
    if n == 0:
        return values.new_zeros(values.shape[1], h, w)
    slot, x, y = (torch.arange(length, device=cells.device) for length in (n, w, h))
    far_x, far_y = (x - cells[:, None] % w).abs(), (y - cells[:, None] // w).abs()  # [n, w], [n, h]
    distance = far_y[:, :, None] + far_x[:, None, :]  # [n, h, w]
    slot = slot[:, None, None]
    rank = torch.where(distance == 0, n - 1 - slot, distance * n + slot).amin(0)  # [h, w]
    owner = torch.where(rank < n, n - 1 - rank, rank % n)  # [h, w]
    return values[owner].permute(2, 0, 1)
