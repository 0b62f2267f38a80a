"""Compares an exported file with the detector that it was made of, on the same images."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ..datasets.toy import KINDS, SMALLEST
from ..detectors.base_detector import POINTS, BaseDetector
from ..models.exported import ExportedFile
from ..models.utils import Output
from ..utils.errors import UserError
from ..utils.image import read_image

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

LIMITS = {'boxes': 1e-3, 'scores': 1e-4, 'others': 1e-3}  # pixels of the input; of 1; relative
HALF_LIMITS = {'boxes': 1.0, 'scores': 2e-2, 'others': 0.1}  # of float16, which has 11 bits
INT8_LIMITS = {'boxes': 4.0, 'scores': 0.1, 'others': 0.2}  # by which detections are paired; AP is the judge
COORDINATES = ('boxes', 'centers', 'sizes', *POINTS)  # outputs in cells, in the order of their importance
OTHERS = ('rotations', 'depths', 'dimensions')
SHAKES = 2e-4  # width of the noise over our maps by which we see what hangs on rounding
SHAKEN = 6  # times that it is drawn
JUMP = 0.05  # pixels of the input: coordinates that move by more have jumped to another cell
NOISE = 12  # standard deviation of the noise over the toy image: flat areas give plateaus, whose peaks are chance

Found = Mapping[str, np.ndarray]


def check_file(detector: BaseDetector, file: ExportedFile) -> dict[str, float]:
    """Compare a file with the detector that it was made of, and refuse it where they differ too much.

    Returns:
        As `compare_file`.

    Raises:
        UserError: there was nothing to compare, or a difference is too large; the file is not to be used.
    """
    limits = HALF_LIMITS if detector.opt.half else LIMITS
    worst = compare_file(detector, file, limits)
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


def compare_file(detector: BaseDetector, file: ExportedFile, limits: Mapping[str, float]) -> dict[str, float]:
    """Compare a file with the detector that it was made of, on an image and its mirror image.

    With `--dynamic_size` an input of another size is compared, too.

    Args:
        limits: as `LIMITS`: by these, the most similar detections are found.

    Returns:
        The largest difference of `boxes` (coordinates of boxes and points, in pixels of the input), of `scores` and of
        `others` (relative), as far as there are any; with `--raw` of `maps`, relative to their largest value.
    """
    opt = detector.opt
    sizes = [(opt.input_h, opt.input_w)]
    if opt.dynamic_size:
        sizes.append((opt.input_h + opt.pad + 1, opt.input_w))
    worst: dict[str, float] = {}
    for height, width in sizes:
        image = check_image(opt, height, width)
        images = np.stack([image, image[:, ::-1]])
        theirs, output = file.run(images), run_network(detector, images)
        if opt.raw:
            found = [compare_maps({name: maps.cpu().numpy() for name, maps in output.items()}, theirs)]
        else:
            scale = float(opt.down_ratio)
            ours = decode_output(detector, output)
            shaken = [decode_output(detector, output, shake=seed + 1) for seed in range(SHAKEN)]
            found = [
                compare_detections(pick(ours, i), pick(theirs, i), scale, limits, [pick(each, i) for each in shaken])
                for i in range(len(images))
            ]
        for name in {name for differences in found for name in differences}:
            worst[name] = max([worst.get(name, 0.0), *(differences.get(name, 0.0) for differences in found)])
    return worst


def check_image(opt: 'Options', height: int, width: int) -> np.ndarray:
    """Return the image to compare on, uint8 BGR [height, width, 3]: that of `--demo`, or a toy image of the task."""
    if opt.demo:
        return cv2.resize(read_image(opt.demo, max_pixels=opt.max_pixels), (width, height))
    rng = np.random.default_rng(0)
    scene = KINDS[opt.task][0]().draw(rng, max(width, SMALLEST), max(height, SMALLEST))
    image = cv2.resize(scene.image, (width, height))
    return np.clip(image + rng.normal(0, NOISE, image.shape), 0, 255).astype(np.uint8)


def run_network(detector: BaseDetector, images: np.ndarray) -> Output:
    """Run our network on images uint8 [B, H, W, 3] of the input's size; returns its output, {head: [B, c, h, w]}."""
    inputs = [detector.pre_process.normalized(image)[None] for image in images]
    return detector.forward(detector.to_network(inputs))


def decode_output(detector: BaseDetector, output: Output, shake: int = 0) -> Found:
    """Decode an output of our network, {head: [B, c, h, w]}.

    Args:
        detector, output: as said.
        shake: a seed of noise, of `SHAKES`, over the maps; 0 for none.

    Returns:
        Outputs [B, n, ...] as a file gives them.
    """
    if shake:
        noise = torch.Generator().manual_seed(shake)
        output = {
            name: maps + SHAKES * torch.rand(maps.shape, generator=noise).sub(0.5) for name, maps in output.items()
        }
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


def compare_detections(
    ours: Found, theirs: Found, scale: float, limits: Mapping[str, float], shaken: Sequence[Found] = ()
) -> dict[str, float]:
    """Return the largest differences of an image's detections, `{}` without detections.

    Each detection is compared with the most similar one on the other side, since those of nearly equal scores may come
    in another order. Those whose score is within the limit of the list's lowest, or of 0, may be missing. Coordinates
    that hang on rounding (of two neighbouring cells, either or both may be the peak) are left out.

    Args:
        ours, theirs: named outputs [n, ...].
        scale: pixels of the input a cell.
        limits: as `LIMITS`.
        shaken: our outputs on maps that differ by `SHAKES`; what jumps there hangs on rounding.
    """
    lowest = max(float(ours['scores'].min()), float(theirs['scores'].min()), 0.0) + limits['scores']
    kept, others = ours['scores'] > lowest, theirs['scores'] > lowest  # [n], [m]
    coords, their_coords = coordinates(ours) * scale, coordinates(theirs) * scale
    steady = np.ones(coords.shape, bool)  # [n, c]
    at_times = np.zeros(others.shape, bool)  # [m], what we find on some of the shaken maps
    for found in shaken:
        again = coordinates(found) * scale
        alike = distances(theirs, found, their_coords[:, :4], again[:, :4]) < limits['boxes']
        at_times |= (alike & (np.abs(theirs['scores'][:, None] - found['scores']) < limits['scores'])).any(1)
        nearest = distances(ours, found, coords[:, :4], again[:, :4]).argmin(1)
        steady &= np.abs(coords - again[nearest]) < JUMP
    kept &= steady[:, :4].all(1)
    boxes = distances(ours, theirs, coords, their_coords, steady)  # [n, m]
    marks = np.abs(ours['scores'][:, None] - theirs['scores'])  # [n, m]
    cost = np.maximum(boxes / limits['boxes'], marks / limits['scores'])
    pairs = [(row, column) for row, column in enumerate(cost.argmin(1)) if kept[row]]
    others &= ~at_times | (cost.min(0) <= 1)
    of_theirs = enumerate(cost.argmin(0))
    pairs += [(row, column) for column, row in of_theirs if others[column] and steady[row, :4].all()]
    if not pairs:
        return {}
    i, j = map(np.array, zip(*pairs, strict=True))
    differences = {'boxes': float(boxes[i, j].max()), 'scores': float(marks[i, j].max())}
    relative = [
        np.abs(ours[name][i] - theirs[name][j]) / (1 + np.abs(ours[name][i])) for name in OTHERS if name in ours
    ]
    return differences | ({'others': float(max(each.max() for each in relative))} if relative else {})


def distances(ours: Found, theirs: Found, a: np.ndarray, b: np.ndarray, steady: np.ndarray | None = None) -> np.ndarray:
    """Return [n, m], the largest difference of a coordinate of a [n, c] and b [m, c]; infinite for other classes.

    Args:
        ours, theirs: the outputs that they are of.
        steady: [n, c] which coordinates count; all without it.
    """
    largest = np.zeros((len(a), len(b)), np.float32)
    for column in range(a.shape[1]):
        difference = np.abs(a[:, column, None] - b[:, column])
        np.maximum(largest, difference if steady is None else difference * steady[:, column, None], out=largest)
    largest[ours['classes'][:, None] != theirs['classes']] = np.inf
    return largest


def coordinates(found: Found) -> np.ndarray:
    """Return all coordinates [n, c] of an image's detections, in cells, those of boxes (or centres) first."""
    there = [found[name].reshape(len(found['scores']), -1) for name in COORDINATES if name in found]
    return np.concatenate(there, 1)
