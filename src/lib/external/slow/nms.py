"""Non-maximum suppression as in nms.pyx, in NumPy. Arguments are checked no further than NumPy does."""

import numpy as np


def overlaps(boxes: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Return the intersections over union [N] of boxes [N, 4] and one box [4]; whole pixels, which belong to them."""
    width = np.minimum(boxes[:, 2], top[2]) - np.maximum(boxes[:, 0], top[0]) + 1
    height = np.minimum(boxes[:, 3], top[3]) - np.maximum(boxes[:, 1], top[1]) + 1
    both = width * height
    with np.errstate(invalid='ignore', divide='ignore'):
        iou = both / (area(top) + area(boxes) - both)
    return np.where((width > 0) & (height > 0), iou, 0)


def area(boxes: np.ndarray) -> np.ndarray:
    """Return the areas [...] of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1)


def decay(iou: np.ndarray, sigma: float, Nt: float, method: int) -> np.ndarray:
    """Return what scores are multiplied by where a better box overlaps by `iou` [N]; shape [N]."""
    if method == 2:
        return np.exp(-iou * iou / np.float32(sigma)).astype(np.float64)
    weaker = 1 - iou if method == 1 else np.zeros_like(iou)
    return np.where(iou <= Nt, 1, weaker).astype(np.float64)


def soft_nms(
    boxes: np.ndarray, sigma: float = 0.5, Nt: float = 0.3, threshold: float = 0.001, method: int = 0
) -> list[int]:
    """Soft-NMS in place of boxes float32 [N, 5 or more], as nms.pyx says."""
    return run_soft_nms(boxes, sigma, Nt, threshold, method)


soft_nms_39 = soft_nms


def soft_nms_merge(
    boxes: np.ndarray,
    sigma: float = 0.5,
    Nt: float = 0.3,
    threshold: float = 0.001,
    method: int = 0,
    weight_exp: float = 6,
) -> list[int]:
    """Soft-NMS in place of boxes float32 [N, 7 or more], whose corners become averages, as nms.pyx says."""
    return run_soft_nms(boxes, sigma, Nt, threshold, method, weight_exp)


def run_soft_nms(
    boxes: np.ndarray, sigma: float, Nt: float, threshold: float, method: int, weight_exp: float | None = None
) -> list[int]:
    """Soft-NMS of boxes float32 [N, 5 or more], in place; with `weight_exp` corners become weighted averages.

    Returns:
        the rows that are left.
    """
    if method not in (0, 1, 2):
        raise ValueError(f'method must be 0 (hard), 1 (linear) or 2 (Gaussian), found {method}')
    merge = weight_exp is not None
    rows = boxes.copy()
    travels = np.r_[0:5, 7 : rows.shape[1]] if merge else np.arange(rows.shape[1])  # columns that move with their box
    n, i = len(rows), 0
    while i < n:
        scores = rows[i:n, 4]
        best = i + int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))
        exchange(rows, i, best, travels)
        others = rows[i + 1 : n]
        iou = overlaps(others[:, :4], rows[i, :4])
        factor = np.where(iou > 0, decay(iou, sigma, Nt, method), 1)
        if merge:
            average = mean_corners(rows[i], others, (1 - factor) ** weight_exp * (iou > 0))
        others[:, 4] = others[:, 4] * factor
        if merge:
            rows[i, :4] = average
        dropped = (iou > 0) & (others[:, 4] < threshold)
        place = 0
        while place < n - i - 1:  # what is dropped changes places with the last
            if dropped[place]:
                n -= 1
                last = n - i - 1
                exchange(others, place, last, travels)
                dropped[[place, last]] = dropped[[last, place]]
            else:
                place += 1
        i += 1
    boxes[:n] = rows[:n]
    return list(range(n))


def exchange(rows: np.ndarray, a: int, b: int, columns: np.ndarray) -> None:
    """Let two of the rows [N, C] change places, in some of their columns."""
    rows[a, columns], rows[b, columns] = rows[b, columns], rows[a, columns]


def mean_corners(row: np.ndarray, others: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Average the corners of boxes.

    Args:
        row: the box [7 or more] itself, whose columns 5 and 6 weigh its two corners.
        others: [N, 7 or more], the same of the others.
        shares: of the others [N].

    Returns:
        [4]; a corner without weight stays.
    """
    corners = row[:4].astype(np.float64)
    for corner, column in ((slice(0, 2), 5), (slice(2, 4), 6)):
        weights = shares * others[:, column]
        total = row[column] + weights.sum()
        if total != 0:
            corners[corner] = (row[corner].astype(np.float64) * row[column] + weights @ others[:, corner]) / total
    return corners


def nms(dets: np.ndarray, thresh: float) -> list[int]:
    """Greedy hard NMS of rows float32 [N, 5 or more], as nms.pyx says."""
    order = np.argsort(-dets[:, 4], kind='stable')
    boxes, kept = dets[order, :4], []
    left = np.ones(len(dets), bool)
    for place in range(len(dets)):
        if left[place]:
            kept.append(int(order[place]))
            left[place + 1 :] &= overlaps(boxes[place + 1 :], boxes[place]) < np.float32(thresh)
    return kept
