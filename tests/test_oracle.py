"""Ground truth maps against the queue they are defined by."""

from collections import deque

import numpy as np
import pytest
import torch

from lib.utils.oracle_utils import gen_oracle_map


def queued(feat, ind, w, h):
    """The definition: one queue an image, cell by cell."""
    maps = np.zeros((len(feat), feat.shape[2], h, w), np.float32)
    for image, (values, cells) in enumerate(zip(feat, ind, strict=True)):
        queue, taken = deque(), set()
        for value, cell in zip(values, cells, strict=True):
            if cell > 0:
                y, x = divmod(int(cell), w)
                maps[image, :, y, x] = value
                taken.add((x, y))
                queue.append((x, y, value))
        while queue:
            x, y, value = queue.popleft()
            for near in ((x, y + 1), (x, y - 1), (x + 1, y), (x - 1, y)):
                if 0 <= near[0] < w and 0 <= near[1] < h and near not in taken:
                    taken.add(near)
                    maps[image, :, near[1], near[0]] = value
                    queue.append((*near, value))
    return maps


@pytest.mark.parametrize('w, h, objects', [(16, 12, 6), (9, 20, 12), (5, 4, 15), (1, 6, 2), (8, 8, 1)])
def test_maps_follow_the_queue(w, h, objects):
    """Every cell's owner is the queue's, crowded maps, shared cells and empty slots included."""
    rng = np.random.default_rng(w)
    feat = rng.normal(size=(4, objects + 2, 3)).astype(np.float32)
    ind = rng.integers(0, w * h, (4, objects + 2))
    ind[:, objects] = 0
    ind[:, -1] = ind[:, 0]
    expected = queued(feat, ind, w, h)
    maps = gen_oracle_map(feat, ind, w, h)
    assert maps.dtype == np.float32 and maps.shape == expected.shape
    assert np.array_equal(maps, expected)


def test_tensors_come_back_as_tensors():
    """Trainers pass tensors and put the maps in the place of outputs."""
    feat, ind = torch.randn(2, 5, 2), torch.tensor([[3, 20, 0, 41, 7], [0, 0, 0, 0, 0]])
    maps = gen_oracle_map(feat, ind, 8, 6)
    assert torch.is_tensor(maps) and maps.dtype == torch.float32
    assert np.array_equal(maps.numpy(), queued(feat.numpy(), ind.numpy(), 8, 6))
    assert torch.equal(maps[0, :, 2, 4], feat[0, 1]) and not maps[1].any()
