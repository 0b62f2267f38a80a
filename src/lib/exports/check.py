"""Compares an exported file with the detector that it was made of, on the same images."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ..datasets.toy import KINDS, SMALLEST
from ..detectors.base_detector import POINTS, BaseDetector
from ..models.exported import ExportedFile
from ..utils.errors import UserError
from ..utils.image import read_image

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

LIMITS = {'boxes': 1e-3, 'scores': 1e-4, 'others': 1e-3}  # pixels of the input; of 1; relative
HALF_LIMITS = {'boxes': 1.0, 'scores': 2e-2, 'others': 0.1}  # of float16, which has 11 bits
COORDINATES = ('boxes', 'centers', 'sizes', *POINTS)  # outputs in cells, in the order of their importance
OTHERS = ('rotations', 'depths', 'dimensions')
NOISE = 12  # standard deviation of the noise over the toy image: flat areas give plateaus, whose peaks are chance

Found = Mapping[str, np.ndarray]


def check_file(detector: BaseDetector, file: ExportedFile) -> dict[str, float]:
    """Compare a file with the detector that it was made of, on an image and its mirror image.

    With `--dynamic_size` an input of another size is compared, too.

    Returns:
        The largest difference of `boxes` (coordinates of boxes and points, in pixels of the input), of `scores` and of
        `others` (relative), as far as there are any; with `--raw` of `maps`, relative to their largest value.

    Raises:
        UserError: there was nothing to compare, or a difference is too large; the file is not to be used.
    """
    opt = detector.opt
    limits = HALF_LIMITS if opt.half else LIMITS
    sizes = [(opt.input_h, opt.input_w)]
    if opt.dynamic_size:
        sizes.append((opt.input_h + opt.pad + 1, opt.input_w))
    worst: dict[str, float] = {}
    for height, width in sizes:
        image = check_image(opt, height, width)
        images = np.stack([image, image[:, ::-1]])
        theirs, ours = file.run(images), run_detector(detector, images)
        if opt.raw:
            found = [compare_maps(ours, theirs)]
        else:
            scale = float(opt.down_ratio)
            found = [compare_detections(pick(ours, i), pick(theirs, i), scale, limits) for i in range(len(images))]
        for name in {name for differences in found for name in differences}:
            worst[name] = max([worst.get(name, 0.0), *(differences.get(name, 0.0) for differences in found)])
    if not worst:
        raise UserError(
            'nothing was found in the toy image, so that the file could not be compared with the checkpoint: name an '
            'image in which there is something with --demo'
        )
    for name, difference in worst.items():
        if not difference <= limits.get(name, limits['others']):
            raise UserError(
                f'the file differs from the checkpoint by {difference:.2g} in {name}, more than '
                f'{limits.get(name, limits["others"]):g}: it was not kept'
            )
    return worst


def check_image(opt: 'Options', height: int, width: int) -> np.ndarray:
    """Return the image to compare on, uint8 BGR [height, width, 3]: that of `--demo`, or a toy image of the task."""
    if opt.demo:
        return cv2.resize(read_image(opt.demo, max_pixels=opt.max_pixels), (width, height))
    rng = np.random.default_rng(0)
    scene = KINDS[opt.task][0]().draw(rng, max(width, SMALLEST), max(height, SMALLEST))
    image = cv2.resize(scene.image, (width, height))
    return np.clip(image + rng.normal(0, NOISE, image.shape), 0, 255).astype(np.uint8)


def run_detector(detector: BaseDetector, images: np.ndarray) -> Found:
    """Run our network and decoder on images uint8 [B, H, W, 3] of the input's size; returns outputs as a file does."""
    inputs = [detector.pre_process.normalized(image)[None] for image in images]
    output = detector.forward(detector.to_network(inputs))
    if detector.opt.raw:
        return {name: maps.cpu().numpy() for name, maps in output.items()}
    with torch.inference_mode():
        named = detector.name_rows(detector.decode(output))
    return {name: values.cpu().numpy() for name, values in named.items()}


def pick(found: Found, image: int) -> Found:
    """Return the outputs [n, ...] of one image of a batch [B, n, ...]."""
    return {name: values[image] for name, values in found.items()}


def compare_maps(ours: Found, theirs: Found) -> dict[str, float]:
    """Return the largest difference of maps [B, c, h, w], relative to the largest value of each."""
    return {
        'maps': max(float(np.abs(ours[head] - theirs[head]).max() / max(1, np.abs(ours[head]).max())) for head in ours)
    }


def compare_detections(ours: Found, theirs: Found, scale: float, limits: Mapping[str, float]) -> dict[str, float]:
    """Return the largest differences of an image's detections, `{}` without detections.

    Each detection is compared with the most similar one on the other side, since those of nearly equal scores may come
    in another order. Those whose score is within the limit of the list's lowest, or of 0, may be missing.

    Args:
        ours, theirs: named outputs [n, ...].
        scale: pixels of the input a cell.
        limits: as `LIMITS`.
    """
    found: dict[str, float] = {}
    lowest = max(float(ours['scores'].min()), float(theirs['scores'].min()), 0.0) + limits['scores']
    for one, other in ((ours, theirs), (theirs, ours)):
        kept = one['scores'] > lowest
        if not kept.any():
            continue
        coords, scores, classes = coordinates(one)[kept] * scale, one['scores'][kept], one['classes'][kept]
        boxes = farthest(coords, coordinates(other) * scale)  # [n, m]
        marks = np.abs(scores[:, None] - other['scores'])  # [n, m]
        cost = np.maximum(boxes / limits['boxes'], marks / limits['scores'])
        cost[classes[:, None] != other['classes']] = np.inf
        nearest, rows = cost.argmin(1), np.arange(len(cost))
        boxes[np.isinf(cost)] = np.inf
        differences = {'boxes': boxes[rows, nearest].max(), 'scores': marks[rows, nearest].max()}
        for name in OTHERS:
            if name in one:
                a, b = one[name][kept], other[name][nearest]
                differences['others'] = max(differences.get('others', 0), (np.abs(a - b) / (1 + np.abs(a))).max())
        for name, value in differences.items():
            found[name] = max(found.get(name, 0.0), float(value))
    return found


def coordinates(found: Found) -> np.ndarray:
    """Return all coordinates [n, c] of an image's detections, in cells."""
    there = [found[name].reshape(len(found['scores']), -1) for name in COORDINATES if name in found]
    return np.concatenate(there, 1)


def farthest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the largest difference of a coordinate between each of a [n, c] and each of b [m, c], as [n, m]."""
    largest = np.zeros((len(a), len(b)), np.float32)
    for column in range(a.shape[1]):
        np.maximum(largest, np.abs(a[:, column, None] - b[:, column]), out=largest)
    return largest
