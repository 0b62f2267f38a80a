"""Base of the samples: reading, geometric augmentation, the network input, drawing objects."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...external.raster import raise_to_gaussian
from ...models.heatmaps import CLASS, EMPTY, GAUSSIANS
from ...utils.errors import UserError
from ...utils.image import (
    READ_FLAGS,
    Gaussian,
    affine_transform,
    gaussian_radius,
    get_affine_transform,
    msra_gaussian,
    normalize,
    read_image,
    reduced_size,
    umich_gaussian,
    warp_image,
)
from ...utils.log import OWN
from ...utils.windows import Scale, Window, fixed_window
from ..index import Objects
from ..task_dataset import TaskDataset
from .pixels import augment_pixels

if TYPE_CHECKING:
    from ...opts import Options

logger = logging.getLogger(__name__)

# The most classes whose heatmaps the loader's processes draw. Of 300 and 512 x 512 pixels a sample has 19 MiB of them,
# nearly all zeros; of more classes the objects' Gaussians travel, and the maps of the classes at hand are drawn later.
MOST_DRAWN = 300

Place = tuple[np.ndarray, Scale]  # centre [2] and scale of a window
Targets = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # what a task learns of an image, and what is true of it


@dataclass
class View:
    """How an image is seen: the window that is cut out of it, mirrored or not, and the maps into it.

    Attributes:
        c, s: centre [2] and scale (a number, or [2]) of the window in image pixels, after mirroring.
        input_size, output_size: (width, height) of the network input and of the output map.
        width: the image's width.
        flipped: the image is mirrored. x -> width - x - 1 is its pixels' mirror, and the published one of boxes, joints
            and the window's centre too, though these are no pixels [keep].
        rot: rotation in degrees.
        jittered: the window was shifted and scaled (ddd alone says so).
        to_input, to_output: 2x3 maps of (mirrored) image pixels; `to_output` leaves the rotation out.
        to_output_rotated: the same with it.
    """

    c: np.ndarray
    s: Scale
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    width: int
    flipped: bool = False
    rot: float = 0.0
    jittered: bool = False
    to_input: np.ndarray = field(init=False)
    to_output: np.ndarray = field(init=False)
    to_output_rotated: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.to_input = get_affine_transform(self.c, self.s, self.rot, self.input_size)
        self.to_output = get_affine_transform(self.c, self.s, 0, self.output_size)
        self.to_output_rotated = get_affine_transform(self.c, self.s, self.rot, self.output_size)

    def reduction(self) -> int:
        """Return the largest of 1, 2, 4, 8 by which the image can be read smaller and still be shrunk, not enlarged."""
        shrinking = np.ravel(self.s)[0] / self.input_size[0]
        return max(factor for factor in READ_FLAGS if factor <= max(shrinking, 1))

    def cut(self, image: np.ndarray, reduction: int) -> np.ndarray:
        """Cut the window, uint8 [H, W, 3] of the input's size, out of an image [h, w, 3] read with that reduction."""
        middle = (reduction - 1) / 2
        place = np.array([[reduction, 0, middle], [0, reduction, middle], [0, 0, 1]])  # of its pixels in the whole
        if self.flipped:  # in the map as well: no pass of its own
            place[0] = [-reduction, 0, self.width - 1 - middle]
        return warp_image(image, self.to_input @ place, self.input_size)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes [n, 4] of the image to the output map, clipped to [0, side - 1]; [n, 4] float32."""
        boxes = boxes.astype(np.float32)
        if self.flipped:
            boxes[:, [0, 2]] = self.width - boxes[:, [2, 0]] - 1
        corners = affine_transform(boxes.reshape(-1, 2), self.to_output)  # [2n, 2]
        return self.clip(corners).reshape(-1, 4).astype(np.float32)

    def clip(self, points: np.ndarray) -> np.ndarray:
        """Move points [n, 2] to the nearest place on the output map."""
        return np.clip(points, 0, np.array(self.output_size) - 1)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Map points [n, 2] of the image to the output map, rotated with it, not clipped; [n, 2] float32."""
        points = points.astype(np.float32)
        if self.flipped:
            points[:, 0] = self.width - points[:, 0] - 1
        return affine_transform(points, self.to_output_rotated).astype(np.float32)


class Sample(TaskDataset):
    """Base of the samples. A task's subclass gives `targets` and, where it differs, `view`.

    `self[i]` is a dict of arrays: `input` float32 [3, H, W], the targets, and `meta` for evaluation when not
    training (or when debugging). Its random numbers depend on (seed, epoch, i) alone.
    """

    recenters_flip = True  # the window's centre is mirrored with the image
    colors = True  # pixels are augmented

    def __init__(self, opt: 'Options', split: str):
        super().__init__(opt, split)
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.named_damaged: set[int] = set()

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's random numbers to draw; persistent workers see it too."""
        self.epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict:
        index, rng, view, window = self.look(index)
        sample: dict[str, Any] = {'input': self.input(rng, window)}
        targets, truth = self.targets(self.index.objects(index), view, index)
        sample.update(targets)
        if self.split != 'train' or self.opt.debug > 0:
            sample['meta'] = {'c': view.c, 's': view.s, 'img_id': int(self.index.image_ids[index]), **truth}
        return sample

    def look(self, index: int) -> tuple[int, np.random.Generator, View, np.ndarray]:
        """Look at image `index`, or the next one that can be read when it is damaged, through its window.

        Returns:
            its index, the sample's random numbers after those of the view, the view, and what is seen: uint8
            [H, W, 3] of the network's input size.
        """
        for step in range(len(self)):
            at = (index + step) % len(self)
            rng = np.random.default_rng([self.opt.seed, int(self.epoch), index])
            view = self.view(rng, self.image_size(at))
            try:
                return at, rng, view, self.window(at, view)
            except UserError as error:
                if at not in self.named_damaged:
                    self.named_damaged.add(at)
                    logger.warning('skipped: %s', error, extra=OWN)
        raise UserError(f"none of the images in '{self.image_dir}' can be read any more")

    def window(self, index: int, view: View) -> np.ndarray:
        """Cut out of image `index` what `view` shows, uint8 [H, W, 3] of the network's input size.

        In training alone, a JPEG that the window shrinks by 2 or more is decoded smaller by that power of 2: that
        takes less time, and smooths what the bilinear warp would skip.

        Raises:
            UserError: the image cannot be read, or is of another size than when the data was checked.
        """
        size = self.image_size(index)
        reduction = view.reduction() if self.split == 'train' else 1
        image = read_image(self.image_path(index), size, reduction, self.opt.max_pixels)
        for factor in {reduction, 1}:
            if image.shape[1::-1] == reduced_size(size, factor):
                return view.cut(image, factor)
        raise UserError(f"'{self.image_path(index)}' is not of {size[0]} x {size[1]} pixels any more")

    def view(self, rng: np.random.Generator, size: tuple[int, int]) -> View:
        """Return the window on an image of that width and height: augmented in training, the whole image otherwise."""
        width, height = size
        c, s, input_size = self.whole(width, height)
        flipped, rot = False, 0.0
        if self.split == 'train':
            c, s = self.move(rng, c, s, width, height)
            rot = self.rotation(rng)
            flipped = bool(rng.random() < self.opt.flip)
            if flipped and self.recenters_flip:
                c[0] = width - c[0] - 1
        ratio = self.opt.down_ratio
        return View(c, s, input_size, (input_size[0] // ratio, input_size[1] // ratio), width, flipped, rot)

    def whole(self, width: int, height: int) -> Window:
        """Return the window round the whole image."""
        return fixed_window((width, height), (self.opt.input_w, self.opt.input_h))

    def move(self, rng: np.random.Generator, c: np.ndarray, s: Scale, width: int, height: int) -> Place:
        """Move the window of centre `c` [2] and scale `s`: a random crop, or a random shift and scale."""
        if self.opt.not_rand_crop:
            return self.jitter(rng, c, s, width, height)
        c = np.array([random_center(rng, width), random_center(rng, height)], np.float32)
        return c, s * rng.choice(np.arange(0.6, 1.4, 0.1))

    def jitter(self, rng: np.random.Generator, c: np.ndarray, s: Scale, width: int, height: int) -> Place:
        """Shift and scale the window of centre `c` [2] and scale `s` at random, by `--shift` and `--scale`."""
        opt = self.opt
        shift = np.clip(rng.standard_normal(2) * opt.shift, -2 * opt.shift, 2 * opt.shift)
        c = c + (self.shift_unit(s, width, height) * shift).astype(np.float32)
        return c, s * np.clip(1 + rng.standard_normal() * opt.scale, 1 - opt.scale, 1 + opt.scale)

    def shift_unit(self, s: Scale, width: int, height: int) -> np.ndarray:
        """Return the pixels along x and y, [2], that a shift of 1 moves the window by."""
        return np.broadcast_to(np.asarray(s, np.float32), 2)

    def rotation(self, rng: np.random.Generator) -> float:
        """Return the rotation of the window in degrees."""
        return 0.0

    def input(self, rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
        """Make the network input, float32 [3, H, W], of the window [H, W, 3]: augmented and normalised."""
        color = None
        if self.split == 'train' and self.colors:
            window, color = augment_pixels(rng, window, self.opt)
        return normalize(window, self.opt.mean, self.opt.std, color)

    def targets(self, objects: Objects, view: View, index: int) -> Targets:
        """Make the task's targets of image `index`, and the entries of `meta` about its true objects.

        Args:
            objects: the image's, in its own pixels; the k-th one's slot is k.
            view: how the sample sees the image.
        """
        raise NotImplementedError

    def draw(self, heatmap: np.ndarray, center: Sequence[float] | np.ndarray, radius: int) -> None:
        """Draw an object's Gaussian onto a heatmap [h, w], of the kind that the loss wants."""
        raise_to_gaussian(heatmap, *self.gaussian(center, radius))

    def gaussian(self, center: Sequence[float] | np.ndarray, radius: int) -> Gaussian:
        """Return the Gaussian of an object at x, y [2] of the output map, of the kind that the loss wants."""
        return msra_gaussian(center, self.opt.hm_gauss) if self.opt.mse_loss else umich_gaussian(center, radius)

    def heatmap(
        self,
        name: str,
        classes: Sequence[int] | np.ndarray,
        cells: Sequence[np.ndarray] | np.ndarray,
        radii: Sequence[int],
        size: tuple[int, int],
        num_classes: int,
    ) -> dict[str, np.ndarray]:
        """Make the heatmap of objects by classes: drawn, or of more than `MOST_DRAWN` classes as its Gaussians.

        Args:
            name: the target's, such as `hm`.
            classes: [n], below `num_classes`; n is `max_objs` at most.
            cells: [n, 2], x and y.
            radii: of each.
            size: (height, width) of the output map.
            num_classes: C, of the heatmap.

        Returns:
            `{name: float32 [C, h, w]}`, or `{name_gaussians: float64 [M, 5]}` (see `models.heatmaps.draw_heatmap`).
        """
        if num_classes > MOST_DRAWN:
            rows = np.zeros((self.max_objs, 5))
            rows[:, CLASS] = EMPTY
            for row, cls, cell, radius in zip(rows, classes, cells, radii, strict=False):
                row[:] = cls, *self.gaussian(cell, radius)
            return {f'{name}{GAUSSIANS}': rows}
        heatmap = np.zeros((num_classes, *size), np.float32)
        for cls, cell, radius in zip(classes, cells, radii, strict=True):
            self.draw(heatmap[cls], cell, radius)
        return {name: heatmap}

    def slots(self, objects: Objects) -> range:
        """Return the target slots in use: the k-th is the k-th annotation's."""
        return range(min(len(objects), self.max_objs))


def radius_of(height: float, width: float) -> int:
    """Return the radius of the Gaussian of a box of that size on the output map."""
    return max(0, int(gaussian_radius((math.ceil(height), math.ceil(width)))))


def random_center(rng: np.random.Generator, size: int) -> int:
    """Draw a place along a side, at least a border away from both ends; the border is 128, halved until it fits."""
    border = 128
    while size - border <= border:
        border //= 2
    return int(rng.integers(border, size - border))
