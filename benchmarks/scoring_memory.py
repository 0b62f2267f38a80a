"""How long it takes to score a validation of COCO's kind, and how much memory the process holds at its peak.

Random results are gathered as validation gathers them, written as results.json, and scored.
"""

import argparse
import logging
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from centernet.datasets.dataset.coco import COCO
from centernet.datasets.evaluation.coco_boxes import CocoBoxes
from centernet.datasets.evaluation.packed import PackedResults
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.log import configure_logging
from centernet.utils.rows import Box
from index_start import made_up_annotations

LIMIT = 2000  # MiB


def made_up_results(rng: np.random.Generator, truth: dict, images: int, detections: int, classes: int) -> PackedResults:
    """Make random results `{image id: {1-based class: rows [n, 5]}}` of so many detections an image.

    Half of them lie near an object of the truth, so that something is found.
    """
    boxes_of: dict[int, list] = {}
    for row in truth['annotations']:
        boxes_of.setdefault(row['image_id'], []).append((*row['bbox'], COCO.cat_ids[row['category_id']] % classes))
    results = PackedResults()
    for image_id in range(images):
        corners, sizes = rng.uniform(0, (560, 400), (detections, 2)), rng.uniform(4, 80, (detections, 2))
        of_class = rng.integers(0, classes, detections)
        near = np.array(boxes_of.get(image_id, []), np.float64).reshape(-1, 5)[: detections // 2]
        corners[: len(near)], sizes[: len(near)] = near[:, :2] + rng.normal(0, 2, (len(near), 2)), near[:, 2:4]
        of_class[: len(near)] = near[:, 4]
        rows = np.hstack([corners, corners + sizes, rng.uniform(0, 1, (detections, 1))]).astype(np.float32)
        results[image_id] = {cls + 1: rows[of_class == cls] for cls in range(classes)}
    return results


def peak_memory() -> float:
    """Return the most MiB that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def score(options: argparse.Namespace, folder: Path) -> None:
    """Make results, write and score them; print seconds and memory."""
    rng = np.random.default_rng(0)
    truth = made_up_annotations(rng, options.images, 7 * options.images)
    categories = truth['categories'][: options.classes]
    for row in truth['annotations']:
        row['category_id'] = categories[COCO.cat_ids[row['category_id']] % options.classes]['id']
    truth['categories'] = categories
    results = made_up_results(rng, truth, options.images, options.detections, options.classes)
    metric = CocoBoxes(
        class_names=COCO.class_names[: options.classes],
        cat_ids={row['id']: cls for cls, row in enumerate(categories)},
        columns={'box': Box.BOX, 'score': Box.SCORE},
    )
    print(f'{options.images} x {options.detections} made up: {peak_memory():.0f} MiB at the peak', flush=True)
    began, processor_began = time.perf_counter(), time.process_time()
    saved = metric.save(results, folder)
    written, processor_written = time.perf_counter(), time.process_time()
    metrics = metric.score(truth, saved)
    print(
        f'written in {written - began:.1f} s ({processor_written - processor_began:.1f} s of a processor), scored in '
        f'{time.perf_counter() - written:.1f} s ({time.process_time() - processor_written:.1f} s of a processor); '
        f'{peak_memory():.0f} MiB at the peak (asked: under {LIMIT}); AP {metrics["AP"]!r}'
    )


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=16_000, help='%(default)s')
    parser.add_argument('--detections', type=int, default=100, help='of each image (%(default)s)')
    parser.add_argument('--classes', type=int, default=80, help='of 80 (%(default)s)')
    options = parser.parse_args(args)
    configure_logging()
    logging.getLogger('centernet').setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        score(options, Path(folder))


if __name__ == '__main__':
    run_cli(main)
