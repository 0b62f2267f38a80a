"""Exports in int8: calibrates on images of a dataset, judges by its AP, leaves in float what costs too much of it."""

import copy
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets import evaluation
from ..datasets.dataset_factory import get_dataset
from ..datasets.test_images import TestImages
from ..detectors.base_detector import BaseDetector
from ..detectors.detect_dataset import detect_share
from ..detectors.detector_factory import detector_factory
from ..utils.errors import UserError
from .graph import ExportedNetwork
from .layers import digest
from .quantizers import QUANTIZERS, WEIGHTS
from .sensitivity import layers_of, rank_layers

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

MOST_LOSS = 0.005  # of an AP of 1: what costs more is tried with more layers in float
RANKED_IMAGES = 4  # on which the layers are ranked
MOST_FLOAT = 0.5  # of the layers: with more in float there is little to gain
ROUNDS = 7  # of timing
PAUSE = 0.02  # seconds between two measurements, in which the threads of the one before come to rest


@dataclass(frozen=True)
class Int8Report:
    """The price and the gain of int8.

    Attributes:
        images: that it was calibrated with.
        metric: name of the AP.
        before, after: the AP of the checkpoint and of the file, on the val split.
        full: the AP when everything is found.
        ours, theirs: milliseconds an image of the checkpoint at its fastest in float32 and of the file: medians, on as
            many threads.
        float_layers: names of the convolutions that were left in float for the sake of AP.
    """

    images: int
    metric: str
    before: float
    after: float
    full: float
    ours: float
    theirs: float
    float_layers: tuple[str, ...]

    @property
    def loss(self) -> float:
        """The AP that int8 costs."""
        return self.before - self.after

    @property
    def is_dear(self) -> bool:
        """Whether it costs more than is allowed."""
        return self.loss > self.allowed

    @property
    def allowed(self) -> float:
        """The AP that int8 may cost."""
        return MOST_LOSS * self.full


class Calibration:
    """Inputs of the network to calibrate with: images of the train split, or of val where there is none.

    They are evenly spread over the split and pre-processed as in testing; each iteration reads them anew.

    Attributes:
        images: positions in the split, of readable images.

    Raises:
        UserError: the dataset is none that fits, or none of the images can be read.
    """

    def __init__(self, detector: BaseDetector):
        opt = detector.opt
        self.opt = opt
        self.pre_process = copy.copy(detector.pre_process)
        self.pre_process.normalizes = False
        dataset = get_dataset(opt.dataset, opt.task)
        has_train = dataset.source.has(opt, 'train', dataset.annotation_variant)
        if not has_train:
            logger.info("note: '%s' has no train split: images of val calibrate", opt.dataset)
        self.split = dataset(opt, 'train' if has_train else 'val')
        count = min(opt.calibration_images, len(self.split))
        chosen = np.unique(np.linspace(0, len(self.split) - 1, count).round().astype(int)).tolist()
        self.images: list[int] = []
        images = TestImages(self.split, chosen, None)
        for position, i in enumerate(chosen):
            image = images[position]
            if image.input is None:
                logger.info('skipped: %s', image.problem)
            else:
                self.images.append(i)
        if not self.images:
            raise UserError(f"--int8 '{opt.int8}': none of the {count} images to calibrate with can be read")

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give inputs BGR [1, H, W, 3], as the exported file takes them."""
        for position in range(len(self)):
            yield self.input(position)

    def input(self, position: int) -> np.ndarray:
        """Return the input BGR [1, H, W, 3] at a position."""
        pixels, _ = self.pre_process(self.image(position)['image'])
        return pixels.astype(np.float32) if self.opt.float_input else pixels

    def image(self, position: int) -> Mapping[str, Any]:
        """Return the image at a position, as `BaseDetector.run` takes it.

        Raises:
            UserError: it can no longer be read.
        """
        image = TestImages(self.split, [self.images[position]], None)[0]
        if image.input is None:
            raise UserError(image.problem)
        return image.input


class Judge:
    """Scores detectors on the val split, by the code of test.py.

    Raises:
        UserError: the dataset has no usable images, or no objects to find.
    """

    def __init__(self, opt: 'Options'):
        self.opt = opt
        self.dataset = get_dataset(opt.dataset, opt.task)(opt, 'val')
        self.metric = self.dataset.metric
        if not self.dataset.index.valid.any():
            raise UserError(
                f"--int8 '{opt.int8}': '{self.dataset.annotation_file}' has no objects, so that AP cannot be measured"
            )

    def score(self, detector: BaseDetector, label: str) -> float:
        """Return the AP of a detector; `label` is that of the progress.

        Raises:
            UserError: none of the images can be read.
        """
        results, problems = detect_share(self.opt, self.dataset, detector, range(len(self.dataset)), True, label)
        if not results:
            raise UserError(f"--int8 '{self.opt.int8}': none of the images can be read: {problems[0]}")
        scorers = logging.getLogger(evaluation.__name__)
        level = scorers.level
        scorers.setLevel(logging.WARNING)  # the tables of test.py
        try:
            with tempfile.TemporaryDirectory() as folder:
                saved = self.metric.save(results, Path(folder))
                return self.metric.score(self.dataset.ground_truth(), saved)[self.metric.main]
        finally:
            scorers.setLevel(level)


@dataclass(frozen=True)
class Attempt:
    """An int8 file: where it lies, its AP, and the names of the layers that were left in float for it."""

    path: Path
    score: float
    float_layers: tuple[str, ...]


class Quantization:
    """Makes int8 files of a float file until one costs no more AP than `MOST_LOSS`.

    Args:
        detector: of the checkpoint.

    Raises:
        UserError: the dataset cannot calibrate, or cannot judge.
    """

    def __init__(self, detector: BaseDetector):
        self.detector, self.opt = detector, detector.opt
        self.judge = Judge(self.opt)
        self.calibration = Calibration(detector)

    def run(self, network: ExportedNetwork, source: Path, metadata: Mapping[str, str]) -> tuple[Path, Int8Report]:
        """Write int8 files beside the float file, each in a folder of its own.

        Args:
            network: that was exported.
            source: the float file.
            metadata: texts by name, to which those of int8 are added.

        Returns:
            The file that costs the least AP, or the first that costs little enough, and its report.
        """
        metric = self.judge.metric
        before = self.judge.score(self.detector, 'AP of the checkpoint')
        logger.info('the checkpoint: %s %.4f', metric.main, before)
        if before <= 0:
            logger.warning('warning: with that AP nothing can be judged; --eval_metric chooses another metric')
        best: Attempt | None = None
        for floats in self.plans(network, source):
            attempt = self.attempt(source, floats, metadata)
            if best is None or attempt.score > best.score:
                best = attempt
            if before - best.score <= MOST_LOSS * metric.full:
                break
        assert best is not None  # the first plan is always there
        ours, theirs = self.milliseconds(file_detector(self.opt, best.path))
        return best.path, Int8Report(
            images=len(self.calibration),
            metric=metric.main,
            before=before,
            after=best.score,
            full=metric.full,
            ours=ours,
            theirs=theirs,
            float_layers=best.float_layers,
        )

    def plans(self, network: ExportedNetwork, source: Path) -> Iterator[dict[str, str]]:
        """Give the layers to leave in float, {name: digest of the weight}: none, then ever more of the most sensitive.

        Args:
            network: that was exported.
            source: the float file.
        """
        yield {}
        logger.info('that costs more than %g: ranking the layers', MOST_LOSS * self.judge.metric.full)
        layers = layers_of(network, WEIGHTS[self.opt.format](source))
        images = [self.calibration.input(i) for i in range(min(RANKED_IMAGES, len(self.calibration)))]
        ranked = list(rank_layers(network, layers, images))
        count = 1
        while count <= MOST_FLOAT * len(ranked):
            yield {name: digest(layers[name].weight.numpy()) for name in ranked[:count]}
            count *= 2

    def attempt(self, source: Path, floats: Mapping[str, str], metadata: Mapping[str, str]) -> Attempt:
        """Write and score an int8 file with these layers in float, {name: digest of the weight}."""
        kept = f', {len(floats)} layers in float' if floats else ''
        logger.info('calibrating with %d images%s', len(self.calibration), kept)
        texts = {**metadata, **int8_metadata(len(self.calibration), list(floats))}
        target = Path(tempfile.mkdtemp(prefix='int8-', dir=source.parent)) / source.name
        options = {'own_dcn': True} if self.opt.own_dcn and self.opt.format == 'openvino' else {}
        QUANTIZERS[self.opt.format](source, target, self.calibration, set(floats.values()), texts, **options)
        score = self.judge.score(file_detector(self.opt, target), 'AP in int8')
        logger.info('in int8%s: %s %.4f', kept, self.judge.metric.main, score)
        return Attempt(target, score, tuple(floats))

    def milliseconds(self, trial: BaseDetector) -> tuple[float, float]:
        """Measure an image through our detector at its fastest in float32 and through that of the file, in turn.

        Returns:
            Both medians of milliseconds.
        """
        self.detector.compute_in('float32', self.detector.fastest_convolutions())
        image = self.calibration.image(0)
        times: dict[BaseDetector, list[float]] = {self.detector: [], trial: []}
        for round_ in range(ROUNDS + 1):
            for detector, found in times.items():
                time.sleep(PAUSE)
                start = time.perf_counter()
                detector.run(image)
                if round_ > 0:  # the first warms up
                    found.append(1000 * (time.perf_counter() - start))
        self.detector.compute_in('float32')
        ours, theirs = (statistics.median(found) for found in times.values())
        return ours, theirs


def int8_metadata(images: int, float_layers: list[str]) -> dict[str, str]:
    """Return what an int8 file records beside what a float file does, as JSON texts by name (`facts.INT8_FACTS`).

    Args:
        images: that it was calibrated with.
        float_layers: names of the layers that were left in float for the sake of AP.
    """
    facts = {'int8': True, 'calibration_images': images, 'float_layers': float_layers}
    return {name: json.dumps(value) for name, value in facts.items()}


def file_detector(opt: 'Options', path: Path) -> BaseDetector:
    """Return the detector that runs an exported file with the options of its export."""
    own = copy.copy(opt)
    own.load_model = str(path)
    return detector_factory[opt.task](own)
