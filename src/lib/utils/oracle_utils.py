"""Ground truth laid out as network output, so that a perfect head can stand in for a learnt one."""

from typing import TypeVar

import numpy as np
import torch

Array = TypeVar('Array', np.ndarray, torch.Tensor)


def gen_oracle_map(feat: Array, ind: Array, w: int, h: int) -> Array:
    """Maps that hold each object's value at its cell and, elsewhere, that of an object near by.

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
    if torch.is_tensor(feat):
        return torch.from_numpy(gen_oracle_map(_to_numpy(feat), _to_numpy(ind), w, h)).to(feat.device)
    owner = _nearest_slot(_to_numpy(ind), w, h)  # [B, h*w]
    maps = np.take_along_axis(np.float32(feat), owner[..., None].clip(0), axis=1)  # [B, h*w, d]
    maps[owner < 0] = 0
    return np.ascontiguousarray(maps.transpose(0, 2, 1)).reshape(len(maps), -1, h, w)


def _to_numpy(x: np.ndarray | torch.Tensor) -> np.ndarray:
    return x.detach().cpu().numpy() if torch.is_tensor(x) else np.asarray(x)


def _nearest_slot(ind: np.ndarray, w: int, h: int) -> np.ndarray:
    """[B, h*w]: the slot whose value reaches each cell, -1 in images without objects.

    One queue serves all images: they cannot meet, and each one's own cells keep their order. A whole level of
    it moves at once; of several cells that reach the same one the first takes it.
    """
    row = w + 2  # maps have a taken border, so that nothing walks off them
    owner = np.zeros((len(ind), h + 2, row), int)
    owner[:, 1:-1, 1:-1] = -1
    flat = owner.reshape(-1)
    image, slot = np.nonzero(ind > 0)
    y, x = np.divmod(ind[image, slot], w)
    cell = (image * (h + 2) + y + 1) * row + x + 1
    flat[cell] = slot  # of two objects in one cell the later owns it, though both spread
    below_above_right_left = np.array([row, -row, 1, -1])
    while len(cell):
        cell, slot = (cell[:, None] + below_above_right_left).ravel(), slot.repeat(4)
        free = flat[cell] < 0
        cell, slot = cell[free], slot[free]
        first = np.sort(np.unique(cell, return_index=True)[1])
        cell, slot = cell[first], slot[first]
        flat[cell] = slot
    return owner[:, 1:-1, 1:-1].reshape(len(ind), h * w)
