"""Target heatmaps of many classes, of which an image shows few: only the maps of those are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..external.raster import raise_to_gaussian

GAUSSIANS = '_gaussians'  # a batch has `hm_gaussians` in place of `hm` where the heatmap is not drawn yet
CLASS, X, Y, REACH, SIGMA = range(5)  # the columns of Gaussians
EMPTY = -1  # the class of a slot without an object


@dataclass(frozen=True)
class SparseHeatmap:
    """A heatmap [B, C, h, w] that is 0 but for the maps of some classes of some images.

    It moves and splits as a tensor of a batch does.

    Attributes:
        maps: float32 [n, h, w], the maps that are stored.
        images, classes: int64 [n], whose they are, in ascending order.
        size: images and classes of the whole, B and C.
    """

    maps: torch.Tensor
    images: torch.Tensor
    classes: torch.Tensor
    size: tuple[int, int]

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole, [B, C, h, w]."""
        return torch.Size((*self.size, *self.maps.shape[1:]))

    def to(self, device: torch.device, **how: Any) -> 'SparseHeatmap':
        """Return it on a device, moved as `Tensor.to` moves."""
        maps, images, classes = (part.to(device, **how) for part in (self.maps, self.images, self.classes))
        return replace(self, maps=maps, images=images, classes=classes)

    def tensor_split(self, ends: Sequence[int]) -> tuple['SparseHeatmap', ...]:
        """Return its parts with the images up to each of `ends`, and with the rest, as `Tensor.tensor_split` does."""
        bounds = [0, *(min(end, self.size[0]) for end in ends), self.size[0]]
        parts = []
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            here = (self.images >= start) & (self.images < end)
            maps, images, classes = self.maps[here], self.images[here] - start, self.classes[here]
            parts.append(SparseHeatmap(maps, images, classes, (max(end - start, 0), self.size[1])))
        return tuple(parts)

    def dense(self) -> torch.Tensor:
        """Return the whole, float32 [B, C, h, w]."""
        whole = self.maps.new_zeros(self.shape)
        whole[self.images, self.classes] = self.maps
        return whole


def dense(heatmap: torch.Tensor | SparseHeatmap) -> torch.Tensor:
    """Return a heatmap as a tensor [B, C, h, w]."""
    return heatmap.dense() if isinstance(heatmap, SparseHeatmap) else heatmap


def draw_heatmap(gaussians: torch.Tensor, num_classes: int, size: tuple[int, int]) -> SparseHeatmap:
    """Draw the Gaussians of a batch's objects, each on the map of its class, by element-wise maximum.

    Args:
        gaussians: float64 [B, M, 5] on the CPU: class (-1 in an empty slot), cell x, y, reach in cells, sigma.
        num_classes: classes of the heatmap.
        size: (height, width) of the maps.
    """
    rows = gaussians.numpy()
    image, slot = np.nonzero(rows[..., CLASS] != EMPTY)  # [k] each, objects in the order of images
    objects = rows[image, slot]  # [k, 5]
    stored, place = np.unique(image * num_classes + objects[:, CLASS].astype(np.int64), return_inverse=True)
    maps = np.zeros((len(stored), *size), np.float32)
    for at, (x, y, reach, sigma) in zip(place.ravel().tolist(), objects[:, X:].tolist(), strict=True):
        raise_to_gaussian(maps[at], int(x), int(y), int(reach), sigma)
    images, classes = (torch.from_numpy(part) for part in np.divmod(stored, num_classes))
    return SparseHeatmap(torch.from_numpy(maps), images, classes, (len(rows), num_classes))


def draw_heatmaps(batch: dict, num_classes: int, stride: int) -> dict:
    """Return a batch with `SparseHeatmap`s, such as `hm`, in place of Gaussians, such as `hm_gaussians`.

    Args:
        batch: `input` [B, 3, H, W] and the targets, [B, ...] each, on the CPU.
        num_classes: classes of the heatmaps.
        stride: pixels of the input a cell of the maps.
    """
    height, width = batch['input'].shape[2:]
    size = height // stride, width // stride
    return {
        name.removesuffix(GAUSSIANS): draw_heatmap(item, num_classes, size) if name.endswith(GAUSSIANS) else item
        for name, item in batch.items()
    }


def drawn_targets(targets: Mapping[str, np.ndarray], num_classes: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return one sample's targets with heatmaps float32 [C, h, w] in place of Gaussians [M, 5].

    Args:
        targets: as a dataset gives them.
        num_classes, size: as `draw_heatmap` takes them.
    """
    drawn = {}
    for name, values in targets.items():
        if name.endswith(GAUSSIANS):
            heatmap = draw_heatmap(torch.from_numpy(values).unsqueeze(0), num_classes, size)
            drawn[name.removesuffix(GAUSSIANS)] = heatmap.dense()[0].numpy()
        else:
            drawn[name] = values
    return drawn


def with_dense_heatmaps(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch with its heatmaps as tensors [B, C, h, w]."""
    return {name: dense(item) for name, item in batch.items()}
