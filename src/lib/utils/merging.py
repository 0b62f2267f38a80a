"""Merging the detections of several test scales."""

from collections.abc import Callable

import numpy as np

from .post_process import Detections


def undo_scale(results: Detections, scale: float) -> Detections:
    """Bring rows [n, 5 or more] of an image that was resized by `scale` back to the pixels of the image itself.

    All columns but the score (4) are coordinates. The rows are changed in place.
    """
    for rows in results.values():
        rows[:, :4] /= scale
        rows[:, 5:] /= scale
    return results


def merge_scales(
    detections: list[Detections], num_classes: int, soft_nms: Callable[..., list[int]] | None
) -> Detections:
    """Put all scales' rows of each class together.

    Args:
        detections: {class: [n, 5 or more]} of each scale.
        num_classes: classes are 1 to that.
        soft_nms: when given, Gaussian soft-NMS (Nt 0.5) thins each class; only the rows that it returns are
            kept (the published code kept the others too).
    """
    merged = {}
    for cls in range(1, num_classes + 1):
        rows = np.concatenate([of_scale[cls] for of_scale in detections]).astype(np.float32)
        if soft_nms is not None and len(rows):
            rows = rows[soft_nms(rows, Nt=0.5, method=2)]
        merged[cls] = rows
    return merged


def keep_best(results: Detections, limit: int) -> Detections:
    """Keep the `limit` rows [n, 5 or more] with the best scores (column 4) over all classes."""
    scores = np.concatenate([rows[:, 4] for rows in results.values()])
    if len(scores) <= limit:
        return results
    threshold = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    return {cls: rows[rows[:, 4] >= threshold] for cls, rows in results.items()}


def merge_extremes(detections: list[Detections], num_classes: int, soft_nms: Callable[..., list[int]]) -> Detections:
    """Merge exdet's rows [n, 13] by soft-NMS of each class over all scales, mirrored or not; the best 100 stay."""
    return keep_best(merge_scales(detections, num_classes, soft_nms), 100)


def keep_over(results: Detections, threshold: float, score: int) -> Detections:
    """Keep the rows [n, columns] whose score, in that column, is over the threshold."""
    return {cls: rows[rows[:, score] > threshold] for cls, rows in results.items()}
