"""The images with the most errors, drawn with the truth beside."""

import cv2
import numpy as np

from ..datasets.evaluation.metric import Results
from ..tasks import TASKS
from ..utils.detections import detections_from_results
from ..utils.drawing import READABLE_SIDE, draw_detections
from ..utils.errors import UserError
from ..utils.image import read_image
from .judged import Judged
from .page import Page
from .truth import true_detections

MOST_IMAGES = 12
PANEL_SIDE = 560  # pixels, at most, of each of the two drawings of an image
GAP = 6  # pixels between them


def add_worst(page: Page, judged: Judged, results: Results) -> None:
    """Add the images with the most errors: the truth on the left, what is found on the right.

    Args:
        page: grows.
        judged: the results, judged.
        results: `{image id: {1-based class: rows [n, columns]}}`.
    """
    page.section(
        'Worst images',
        'Those with the most objects missed and detections wrong, at the best thresholds: on the left the truth, on '
        'the right what is found at these thresholds.',
    )
    images, missed, wrong = errors_of_images(judged)
    order = np.lexsort((images, -(missed + wrong)))[:MOST_IMAGES]
    drawings = []
    for k in order[(missed + wrong)[order] > 0]:
        place = np.flatnonzero(judged.dataset.index.image_ids == images[k])[0]
        name = judged.dataset.index.name(place)
        try:
            drawing = draw_beside(judged, results, int(place))
        except UserError as error:
            page.text(f'{name} is left out: {error}')
            continue
        drawings.append((drawing, f'{name}: {missed[k]} missed, {wrong[k]} wrong'))
    if not drawings:
        page.text('No image has an error.')
    page.images(drawings, side=2 * PANEL_SIDE + GAP, wide=True)


def errors_of_images(judged: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the errors of each image at the thresholds.

    Returns:
        The image ids [N], sorted, and the numbers of missed objects and of wrong detections of each, [N].
    """
    matched = judged.matched
    seen = np.zeros(len(matched.truth), bool)
    seen[matched.taken[matched.right & judged.shown]] = True
    images = np.unique(judged.dataset.index.image_ids)
    missed, wrong = np.zeros(len(images), np.int64), np.zeros(len(images), np.int64)
    np.add.at(missed, np.searchsorted(images, matched.truth.images[matched.wanted & ~seen]), 1)
    np.add.at(wrong, np.searchsorted(images, matched.found.images[matched.wrong & judged.shown]), 1)
    return images, missed, wrong


def draw_beside(judged: Judged, results: Results, i: int) -> np.ndarray:
    """Draw the truth of image i, and beside it what is found there.

    Returns:
        BGR uint8 [H, W, 3].

    Raises:
        UserError: the image cannot be read.
    """
    dataset = judged.dataset
    image = read_image(dataset.image_path(i), dataset.image_size(i), max_pixels=dataset.opt.max_pixels)
    names = judged.class_names
    of_image = results.get(int(dataset.index.image_ids[i]), {})
    found = detections_from_results(of_image, TASKS[dataset.task].describe_row, names)
    true = true_detections(dataset.index.objects(i), names)
    calib = dataset.image_meta(i).get('calib')
    panels = [
        draw_detections(image, detections, judged.thresholds, dataset.skeleton or (), calib, READABLE_SIDE)
        for detections in (true, found)
    ]
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([shrunk(panels[0]), shrunk(gap, like=panels[0]), shrunk(panels[1])])


def shrunk(panel: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Shrink a panel [H, W, 3] to sides of `PANEL_SIDE` at most, or only its height as that of `like` would be."""
    height, width = panel.shape[:2]
    factor = min(1.0, PANEL_SIDE / max((panel if like is None else like).shape[:2]))
    size = (max(1, round(width * factor)) if like is None else width, max(1, round(height * factor)))
    return panel if factor == 1 else cv2.resize(panel, size, interpolation=cv2.INTER_AREA)
