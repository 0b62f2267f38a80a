"""Images of a dataset as a detector takes them, read by loader processes or by this one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ..utils.errors import UserError
from ..utils.image import read_image
from .loaders import Batches

Prefetch = Callable[[np.ndarray, Mapping], Mapping]


class TestImage(NamedTuple):
    """An image to test on: its id, and what the detector takes, or the reason why it cannot be read."""

    image_id: int
    input: Mapping | None
    problem: str = ''


class TestImages(Dataset):
    """The images of a dataset, `TestImage` each.

    Args:
        dataset: the images' paths, sizes, ids and what is known beside their pixels.
        share: indices of those images that are tested on here.
        prefetch: makes the network's inputs of an image and its meta; None leaves that to the detector.
    """

    def __init__(self, dataset: Any, share: Sequence[int], prefetch: Prefetch | None):
        self.dataset, self.share, self.prefetch = dataset, share, prefetch

    def __len__(self) -> int:
        return len(self.share)

    def image_path(self, position: int) -> str:
        """Return the file of the image at that position of the share, for messages."""
        return self.dataset.image_path(self.share[position])

    def __getitem__(self, position: int) -> TestImage:
        i = self.share[position]
        image_id = int(self.dataset.index.image_ids[i])
        try:
            image = read_image(
                self.dataset.image_path(i), self.dataset.image_size(i), max_pixels=self.dataset.opt.max_pixels
            )
        except UserError as error:
            return TestImage(image_id, None, str(error))
        meta = self.dataset.image_meta(i)
        return TestImage(image_id, self.prefetch(image, meta) if self.prefetch else {'image': image, 'meta': meta})


def iterate_test_images(
    dataset: Any, share: Sequence[int], prefetch: Prefetch, num_workers: int, batch_size: int
) -> Iterator[list[TestImage]]:
    """Iterate over a dataset's images in lists of `batch_size`; the last one may be shorter.

    Args:
        dataset, share: see `TestImages`.
        prefetch: makes the network's inputs in the loader processes.
        num_workers: loader processes; with 0 this process reads, and leaves the inputs to the detector.
        batch_size: images a list.
    """
    items: Iterator[TestImage]
    if num_workers == 0:
        images = TestImages(dataset, share, None)
        items = (images[i] for i in range(len(images)))
    else:
        items = iter(Batches(TestImages(dataset, share, prefetch), num_workers, as_it_is, batch_size=None))
    while batch := list(islice(items, batch_size)):
        yield batch


def as_it_is(item: Any) -> Any:
    """Return a loader's item without collation or conversion to tensors."""
    return item
