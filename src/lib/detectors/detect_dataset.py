"""Detects in the images of a dataset, for scoring."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..datasets.evaluation.packed import PackedResults
from ..datasets.test_images import iterate_test_images
from ..utils.cli import Progress
from .base_detector import TIMES, BaseDetector

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)


def detect_share(
    opt: 'Options', dataset: Any, detector: BaseDetector, share: Sequence[int], shown: bool, label: str = ''
) -> tuple[PackedResults, list[str]]:
    """Detect in the images at some positions of the dataset.

    Args:
        share: the positions, in order.
        shown: show the progress, and name the images that cannot be read.
        label: of the progress; '' is the run's name.

    Returns:
        `{image_id: results}`, and a line for each image that cannot be read.
    """
    results = PackedResults()
    problems: list[str] = []
    seconds = dict.fromkeys(TIMES, 0.0)
    workers = 0 if opt.not_prefetch_test else opt.num_workers
    batches = iterate_test_images(dataset, share, detector.pre_process.prefetch, workers, opt.test_batch_size)
    with Progress(len(share), label or f'{opt.task}/{opt.exp_id} test', shown=shown) as progress:
        for batch in batches:
            readable = {image.image_id: image.input for image in batch if image.input is not None}
            for image in batch:
                if image.input is None:
                    problems.append(image.problem)
                    if shown:
                        logger.info('skipped: %s', image.problem)
                    progress.step()
            found = detector.run_batch(list(readable.values()))
            for image_id, done in zip(readable, found, strict=True):
                results[image_id] = done['results']
                for stage in TIMES:
                    seconds[stage] += done[stage]
                means = {stage: seconds[stage] / len(results) for stage in TIMES}
                progress.step(' '.join(f'{stage} {mean:.3f}s' for stage, mean in means.items()))
    return results, problems
