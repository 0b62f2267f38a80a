# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Non-maximum suppression, hard (`nms`) and soft (Bodla et al. 2017), on rows `x1, y1, x2, y2, score, ...`.

Corners are whole pixels that belong to the box: widths, heights and areas count one more than the
difference [keep: the published thresholds rest on it]. The loops run in C without the GIL.
"""

import numpy as np

from libc.math cimport exp, pow
from libc.string cimport memcpy, memmove


cdef inline float _area(const float *box) noexcept nogil:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


cdef inline float _iou(const float *a, const float *b) noexcept nogil:
    """Intersection over union of two boxes; 0 when they do not meet."""
    cdef float width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    cdef float height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0
    return width * height / (_area(a) + _area(b) - width * height)


cdef inline double _decay(float iou, float sigma, float Nt, int method) noexcept nogil:
    """What the score of a box is multiplied by when a better one overlaps it."""
    if method == 2:
        return exp(-iou * iou / sigma)
    if iou <= Nt:
        return 1
    return 1 - iou if method == 1 else 0


cdef Py_ssize_t _soft_nms(
    float[:, ::1] boxes, Py_ssize_t moving, float sigma, float Nt, float threshold, int method,
    bint merge, double weight_exp,
) noexcept nogil:
    """The loop of all the soft variants; the first `moving` columns of a row are what moves.

    The best of the boxes left comes to row i and decays those that overlap it; one that falls under the
    threshold is replaced by the last. With `merge` the corners of row i become averages. Returns how many
    rows are left.
    """
    cdef Py_ssize_t n = boxes.shape[0], i, pos, best = 0
    cdef size_t row = moving * sizeof(float)
    cdef float top[5]
    cdef float *other
    cdef float iou
    cdef double decay, share, weight1, weight2, x1, y1, x2, y2

    for pos in range(1, n):
        if boxes[pos, 4] > boxes[best, 4]:
            best = pos
    i = 0
    while i < n:
        _swap(&boxes[i, 0], &boxes[best, 0], moving)
        memcpy(top, &boxes[i, 0], sizeof(top))
        if merge:
            weight1, weight2 = boxes[i, 5], boxes[i, 6]
            x1, y1, x2, y2 = top[0] * weight1, top[1] * weight1, top[2] * weight2, top[3] * weight2
        best = pos = i + 1
        while pos < n:
            other = &boxes[pos, 0]
            iou = _iou(top, other)
            if iou > 0:
                decay = _decay(iou, sigma, Nt, method)
                if merge:
                    share = pow(1 - decay, weight_exp)
                    weight1 += share * other[5]
                    weight2 += share * other[6]
                    x1 += share * other[5] * other[0]
                    y1 += share * other[5] * other[1]
                    x2 += share * other[6] * other[2]
                    y2 += share * other[6] * other[3]
                other[4] = <float> (other[4] * decay)
                if other[4] < threshold:
                    n -= 1
                    memmove(other, &boxes[n, 0], row)
                    continue  # what came to this row has not been looked at
            if other[4] > boxes[best, 4]:
                best = pos
            pos += 1
        if merge and weight1 != 0:
            boxes[i, 0], boxes[i, 1] = <float> (x1 / weight1), <float> (y1 / weight1)
        if merge and weight2 != 0:
            boxes[i, 2], boxes[i, 3] = <float> (x2 / weight2), <float> (y2 / weight2)
        i += 1
    return n


cdef inline void _swap(float *a, float *b, Py_ssize_t columns) noexcept nogil:
    cdef Py_ssize_t k
    if a != b:
        for k in range(columns):
            a[k], b[k] = b[k], a[k]


def _check(boxes, columns):
    """Refuse what is not a float32 array of at least so many columns."""
    if not isinstance(boxes, np.ndarray) or boxes.dtype != np.float32:
        found = getattr(boxes, 'dtype', type(boxes).__name__)
        raise TypeError(f'boxes must be a float32 numpy array, found {found}')
    if boxes.ndim != 2 or boxes.shape[1] < columns:
        raise ValueError(f'boxes must have the shape [N, {columns} or more], found {list(boxes.shape)}')


def _run_soft_nms(boxes, columns, sigma, Nt, threshold, method, moving=None, weight_exp=None):
    """Check the arguments, run the loop on contiguous memory, hand back the rows kept."""
    _check(boxes, columns)
    if method not in (0, 1, 2):
        raise ValueError(f'method must be 0 (hard), 1 (linear) or 2 (Gaussian), found {method}')
    contiguous = np.ascontiguousarray(boxes)
    cdef float[:, ::1] view = contiguous
    cdef Py_ssize_t kept, moved = boxes.shape[1] if moving is None else moving
    cdef float sigma_ = sigma, Nt_ = Nt, threshold_ = threshold
    cdef int method_ = method
    cdef bint merge = weight_exp is not None
    cdef double weight_exp_ = weight_exp if merge else 0
    with nogil:
        kept = _soft_nms(view, moved, sigma_, Nt_, threshold_, method_, merge, weight_exp_)
    if contiguous is not boxes:
        boxes[...] = contiguous
    return list(range(kept))


def soft_nms(boxes, sigma=0.5, Nt=0.3, threshold=0.001, method=0):
    """Soft-NMS in place: a box loses score to every better one that overlaps it.

    Args:
        boxes: float32 [N, 5 or more], `x1, y1, x2, y2, score, ...` in pixels. Changed: sorted by decayed
            score, further columns travelling with their row.
        sigma: width of the Gaussian decay exp(-iou^2 / sigma).
        Nt: overlap over which the hard and linear kinds act.
        threshold: boxes whose score falls under it are dropped.
        method: 0 hard (score to 0), 1 linear (times 1 - iou), 2 Gaussian.

    Returns:
        the rows of `boxes` that are left, [0 .. n-1]; what lies in the rows after them has no meaning.

    Raises:
        TypeError: not a float32 array. ValueError: wrong shape or method, or a read-only array.
    """
    return _run_soft_nms(boxes, 5, sigma, Nt, threshold, method)


def soft_nms_39(boxes, sigma=0.5, Nt=0.3, threshold=0.001, method=0):
    """`soft_nms` under the name that multi_pose calls: rows of 5 + 2J columns, 39 for COCO's 17 joints."""
    return _run_soft_nms(boxes, 5, sigma, Nt, threshold, method)


def soft_nms_merge(boxes, sigma=0.5, Nt=0.3, threshold=0.001, method=0, weight_exp=6):
    """`soft_nms` that also moves the corners of each kept box to a weighted average.

    The average runs over the box itself and every lower one that overlaps it. Corner 1 is weighed by
    column 5, corner 2 by column 6, the other boxes' shares times (1 - decay)^weight_exp. Columns 5 and 6
    stay in their rows when boxes move [keep: published behaviour]. A corner with no weight stays.

    Args:
        boxes: float32 [N, 7 or more]; for the rest see `soft_nms`.
        weight_exp: how fast the share of a box falls as it overlaps less.
    """
    return _run_soft_nms(boxes, 7, sigma, Nt, threshold, method, moving=5, weight_exp=weight_exp)


def nms(dets, float thresh):
    """Greedy hard NMS: keep the best box, drop those with IoU >= thresh, go on with the next.

    Args:
        dets: float32 [N, 5 or more], `x1, y1, x2, y2, score, ...` in pixels; not changed.
        thresh: overlap at which the lower of two boxes is dropped.

    Returns:
        list of the rows kept, best first (equal scores in their order).

    Raises:
        TypeError: not a float32 array. ValueError: wrong shape.
    """
    _check(dets, 5)
    order = np.argsort(-dets[:, 4], kind='stable')
    dropped = np.zeros(len(dets), np.uint8)
    cdef const float[:, ::1] boxes = np.ascontiguousarray(dets[order, :4])
    cdef unsigned char[::1] drop = dropped
    cdef Py_ssize_t n = boxes.shape[0], i, j
    with nogil:
        for i in range(n):
            if not drop[i]:
                for j in range(i + 1, n):
                    if not drop[j] and _iou(&boxes[i, 0], &boxes[j, 0]) >= thresh:
                        drop[j] = 1
    return order[dropped == 0].tolist()
