# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Non-maximum suppression, hard (`nms`) and soft (Bodla et al. 2017), on rows `x1, y1, x2, y2, score, ...`.

Corners are whole pixels that belong to the box: widths, heights and areas count one more than the
difference [keep: the published thresholds rest on it]. The loops run in C without the GIL.
"""

import numpy as np

from libc.math cimport expf, pow

cdef extern from "per_cpu.h":
    """
    #include <math.h>
    #define LANES 32  /* values looked at together */

    /* iou[k] = intersection over union of `top` and box k, from i on, of n, a column each for corners and area; 0 where
       they do not meet. The places of those that do go to `meets`; returns how many. */
    PER_CPU static Py_ssize_t overlaps(float *__restrict iou, Py_ssize_t *__restrict meets, const float *x1,
                                       const float *y1, const float *x2, const float *y2, const float *area,
                                       const float *top, Py_ssize_t i, Py_ssize_t n) {
        const float left = top[0], up = top[1], right = top[2], down = top[3], own = top[4];
        Py_ssize_t count = 0;
        for (Py_ssize_t k = i; k < n; k++) {
            const float width = (x2[k] < right ? x2[k] : right) - (x1[k] > left ? x1[k] : left) + 1;
            const float height = (y2[k] < down ? y2[k] : down) - (y1[k] > up ? y1[k] : up) + 1;
            const float both = width * height, ratio = both / (own + area[k] - both);
            iou[k] = (width > 0) & (height > 0) ? ratio : 0;
        }
        for (Py_ssize_t k = i; k < n; k++) {  /* without a branch, which would often be foreseen wrongly */
            meets[count] = k;
            count += iou[k] > 0;
        }
        return count;
    }

    /* The first place from i on, of n, with the greatest value; one that is no number is less than all others. */
    PER_CPU static Py_ssize_t greatest(const float *value, Py_ssize_t i, Py_ssize_t n) {
        float top[LANES], most = value[i] == value[i] ? value[i] : -INFINITY;
        Py_ssize_t k = i + 1;
        for (int lane = 0; lane < LANES; lane++) top[lane] = most;
        for (; k + LANES <= n; k += LANES)
            for (int lane = 0; lane < LANES; lane++)
                top[lane] = value[k + lane] > top[lane] ? value[k + lane] : top[lane];
        for (; k < n; k++) most = value[k] > most ? value[k] : most;
        for (int lane = 0; lane < LANES; lane++) most = top[lane] > most ? top[lane] : most;
        while (i < n - 1 && value[i] != most) i++;
        return i;
    }
    """
    Py_ssize_t overlaps(float *iou, Py_ssize_t *meets, const float *x1, const float *y1, const float *x2,
                        const float *y2, const float *area, const float *top, Py_ssize_t i, Py_ssize_t n) noexcept nogil
    Py_ssize_t greatest(const float *value, Py_ssize_t i, Py_ssize_t n) noexcept nogil


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
        return expf(-iou * iou / sigma)
    if iou <= Nt:
        return 1
    return 1 - iou if method == 1 else 0


cdef enum:
    # The rows of the matrix that soft-NMS works on, a column for each box: loops over boxes are vectorised.
    X1, Y1, X2, Y2, AREA, SCORE, IOU, FIELDS


cdef Py_ssize_t _soft_nms(
    float[:, ::1] fields, Py_ssize_t[::1] order, Py_ssize_t *meets, float[:, :] weights, float sigma, float Nt,
    float threshold, int method, double weight_exp,
) noexcept nogil:
    """The loop of all the soft variants.

    The best of the boxes left comes to place i and decays those that overlap it; one that falls under the threshold
    is replaced by the last. With `weights`, a row for each place, the corners of box i become averages.

    Args:
        fields: [FIELDS, N], all but IOU filled. Changed.
        order: [N], travels with the boxes.
        meets: room for N places.
        weights: [N, 2], or no rows: no averages.

    Returns:
        how many boxes are left, in the first places.
    """
    cdef Py_ssize_t n = fields.shape[1], i, k, pos, count
    cdef bint merge = weights.shape[0] > 0
    cdef float top[5]
    cdef float *score = &fields[SCORE, 0]
    cdef float *iou = &fields[IOU, 0]
    cdef double decay, share, weight1, weight2, x1, y1, x2, y2

    i = 0
    while i < n:
        _swap(fields, order, i, greatest(score, i, n))
        top = [fields[X1, i], fields[Y1, i], fields[X2, i], fields[Y2, i], fields[AREA, i]]
        if merge:
            weight1, weight2 = weights[i, 0], weights[i, 1]
            x1, y1, x2, y2 = top[0] * weight1, top[1] * weight1, top[2] * weight2, top[3] * weight2
        count = overlaps(iou, meets, &fields[X1, 0], &fields[Y1, 0], &fields[X2, 0], &fields[Y2, 0], &fields[AREA, 0],
                         top, i + 1, n)
        k = 0
        while k < count:
            pos = meets[k]
            if pos >= n or not iou[pos] > 0:
                k += 1
                continue
            decay = _decay(iou[pos], sigma, Nt, method)
            if merge:
                share = pow(1 - decay, weight_exp)
                weight1 += share * weights[pos, 0]
                weight2 += share * weights[pos, 1]
                x1 += share * weights[pos, 0] * fields[X1, pos]
                y1 += share * weights[pos, 0] * fields[Y1, pos]
                x2 += share * weights[pos, 1] * fields[X2, pos]
                y2 += share * weights[pos, 1] * fields[Y2, pos]
            score[pos] = <float> (score[pos] * decay)
            if score[pos] < threshold:
                n -= 1
                _swap(fields, order, pos, n)  # what comes to this place has not been looked at
            else:
                k += 1
        if merge and weight1 != 0:
            fields[X1, i], fields[Y1, i] = <float> (x1 / weight1), <float> (y1 / weight1)
        if merge and weight2 != 0:
            fields[X2, i], fields[Y2, i] = <float> (x2 / weight2), <float> (y2 / weight2)
        i += 1
    return n


cdef inline void _swap(float[:, ::1] fields, Py_ssize_t[::1] order, Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    cdef Py_ssize_t k
    if a != b:
        order[a], order[b] = order[b], order[a]
        for k in range(FIELDS):
            fields[k, a], fields[k, b] = fields[k, b], fields[k, a]


def _check(name, boxes, columns, writable):
    """Refuse what is not a float32 array of at least so many columns.

    Returns:
        the same memory as a plain array.
    """
    if not isinstance(boxes, np.ndarray) or boxes.dtype != np.float32:
        found = getattr(boxes, 'dtype', type(boxes).__name__)
        raise TypeError(f'{name} must be a float32 numpy array, found {found}')
    if boxes.ndim != 2 or boxes.shape[1] < columns:
        raise ValueError(f'{name} must have the shape [N, {columns} or more], found {list(boxes.shape)}')
    if writable and not boxes.flags.writeable:
        raise ValueError(f'{name} must be writable, found a read-only array')
    return np.asarray(boxes)


def _run_soft_nms(boxes, columns, float sigma, float Nt, float threshold, method, weight_exp=None):
    """Check the arguments, run the loop, write the rows that are left to the beginning of `boxes`."""
    boxes = _check('boxes', boxes, columns, writable=True)
    if method not in (0, 1, 2):
        raise ValueError(f'method must be 0 (hard), 1 (linear) or 2 (Gaussian), found {method}')
    if method == 2 and not sigma > 0:
        raise ValueError(f'sigma must be over 0 for method 2 (Gaussian), found {sigma}')
    if not len(boxes):
        return []
    merge = weight_exp is not None
    columns_first = np.empty((FIELDS, len(boxes)), np.float32)
    columns_first[:AREA] = boxes[:, :4].T
    columns_first[AREA] = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    columns_first[SCORE] = boxes[:, 4]
    places = np.arange(len(boxes), dtype=np.intp)
    cdef float[:, ::1] fields = columns_first
    cdef Py_ssize_t[::1] order = places
    cdef float[:, :] weights = boxes[:, 5:7].copy() if merge else np.empty((0, 2), np.float32)
    cdef double exponent = weight_exp if merge else 0
    cdef Py_ssize_t[::1] meets = np.empty_like(places)
    cdef Py_ssize_t kept
    cdef int kind = method
    with nogil:
        kept = _soft_nms(fields, order, &meets[0], weights, sigma, Nt, threshold, kind, exponent)
    if not merge:
        boxes[:kept, 5:] = boxes[places[:kept], 5:]
    boxes[:kept, :4] = columns_first[:AREA, :kept].T
    boxes[:kept, 4] = columns_first[SCORE, :kept]
    return list(range(kept))


def soft_nms(boxes, sigma=0.5, Nt=0.3, threshold=0.001, method=0):
    """Soft-NMS in place: a box loses score to every better one that overlaps it.

    Args:
        boxes (float32 [N, 5 or more]): rows `x1, y1, x2, y2, score, ...` in pixels, of any strides. Changed: sorted
            by decayed score, further columns travelling with their row. A score that is no number comes last.
        sigma: width of the Gaussian decay exp(-iou^2 / sigma).
        Nt: overlap over which the hard and linear kinds act.
        threshold: boxes whose score falls under it are dropped.
        method: 0 hard (score to 0), 1 linear (times 1 - iou), 2 Gaussian.

    Returns:
        list of the rows of `boxes` that are left, [0 .. n-1]; the values in the rows after them have no meaning.

    Raises:
        TypeError: not a float32 array.
        ValueError: another shape or method, a read-only array, a sigma that is not over 0.
    """
    return _run_soft_nms(boxes, 5, sigma, Nt, threshold, method)


def soft_nms_39(boxes, sigma=0.5, Nt=0.3, threshold=0.001, method=0):
    """`soft_nms` under the name that multi_pose calls: rows of 5 + 2J columns, 39 for COCO's 17 joints.

    Args:
        boxes (float32 [N, 5 or more]): for this and the rest see `soft_nms`.

    Returns:
        list of the rows that are left.
    """
    return _run_soft_nms(boxes, 5, sigma, Nt, threshold, method)


def soft_nms_merge(boxes, sigma=0.5, Nt=0.3, threshold=0.001, method=0, double weight_exp=6):
    """`soft_nms` that also moves the corners of each kept box to a weighted average.

    The average runs over the box itself and every lower one that overlaps it. Corner 1 is weighed by
    column 5, corner 2 by column 6, the other boxes' shares times (1 - decay)^weight_exp. Columns 5 and 6
    stay in their rows when boxes move [keep: published behaviour]. A corner with no weight stays.

    Args:
        boxes (float32 [N, 7 or more]): for this and the rest see `soft_nms`.
        weight_exp: how fast the share of a box falls as it overlaps less.

    Returns:
        list of the rows that are left.
    """
    return _run_soft_nms(boxes, 7, sigma, Nt, threshold, method, weight_exp=weight_exp)


def nms(dets, float thresh):
    """Greedy hard NMS: keep the best box, drop those with IoU >= thresh, go on with the next.

    Args:
        dets (float32 [N, 5 or more]): rows `x1, y1, x2, y2, score, ...` in pixels; not changed. A score that is no
            number comes last.
        thresh: overlap at which the lower of two boxes is dropped.

    Returns:
        list of the rows kept, best first (equal scores in their order).

    Raises:
        TypeError: not a float32 array.
        ValueError: another shape.
    """
    dets = _check('dets', dets, 5, writable=False)
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
