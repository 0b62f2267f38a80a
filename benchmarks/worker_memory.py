"""How much memory each worker of a data loader holds of its own, on an annotation file of COCO's size.

Workers are forked: they share the annotations with the main process as long as nobody writes into their pages.
Python objects are written into whenever they are looked at (they count their references); packed arrays are not.
"""

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from centernet.datasets.dataset_factory import get_dataset
from centernet.datasets.index import AnnotationIndex
from centernet.datasets.loaders import init_worker
from centernet.opts import opts
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError

SMAPS = Path('/proc/self/smaps_rollup')
LIMIT = 50


def made_up_index(images: int, objects: int, seed: int = 0) -> AnnotationIndex:
    """Make random annotations: so many objects on 640 x 480 images, each image's number drawn."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(rng.integers(0, images, objects), minlength=images)
    corners = rng.uniform(0, (600, 440), (objects, 2))
    return AnnotationIndex(
        image_ids=np.arange(images),
        names=np.array([b'%012d.jpg' % i for i in range(images)]),
        sizes=np.tile(np.array([640, 480], np.int32), (images, 1)),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        rows=np.arange(objects),
        boxes=np.hstack([corners, corners + rng.uniform(4, 40, (objects, 2))]).astype(np.float32),
        classes=rng.integers(0, 80, objects, np.int32),
        valid=np.ones(objects, bool),
        fields={},
        image_fields={},
    )


class Annotations(get_dataset('coco', 'ctdet')):
    """COCO's dataset for ctdet on made-up annotations; an item is what its image's annotations add up to."""

    def __init__(self, opt: argparse.Namespace, index: AnnotationIndex):
        self.made_up = index
        super().__init__(opt, 'train')

    def read(self, annotations: object) -> AnnotationIndex:
        return self.made_up

    def __getitem__(self, index: int) -> float:
        objects = self.index.objects(index)
        path, (width, height) = self.image_path(index), self.image_size(index)
        return float(objects.boxes.sum() + objects.classes.sum() + objects.valid.sum()) + len(path) + width + height


def private_memory(_items: Sequence[float]) -> float:
    """Return the MiB that this process alone has written to, once it has looked for garbage."""
    gc.collect()
    fields = dict(line.split(':') for line in SMAPS.read_text().splitlines()[1:])
    return int(fields['Private_Dirty'].split()[0]) / 1024


def worker_memory(images: int, objects: int, workers: int) -> list[float]:
    """Measure the MiB of its own that each worker holds after it has looked at the annotations of all images."""
    dataset = Annotations(opts().parse(['ctdet', '--gpus', '-1']), made_up_index(images, objects))
    batches = [range(images)] * workers  # each worker gets one batch, of all images
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=private_memory,
        worker_init_fn=init_worker,
        multiprocessing_context='fork',
    )
    return list(loader)


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=118_287, help='as many as train2017 has (%(default)s)')
    parser.add_argument('--objects', type=int, default=860_001, help='likewise (%(default)s)')
    parser.add_argument('--workers', type=int, default=2, help='%(default)s')
    options = parser.parse_args(args)
    if not SMAPS.exists():
        raise UserError(f'{SMAPS} is missing: this is measured on Linux alone')
    for number, size in enumerate(worker_memory(options.images, options.objects, options.workers)):
        print(f'worker {number}: {size:.1f} MiB of its own (asked: under {LIMIT})')


if __name__ == '__main__':
    run_cli(main)
