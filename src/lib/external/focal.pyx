# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""The penalty-reduced focal loss of heatmaps from logits ("Objects as Points", equation 1; alpha 2, beta 4).

One pass gives the loss, another one its gradient, which is computed anew from the logits: nothing of a map's size is
kept between them. Threads share tiles of `TILE` cells; the tiles' sums are added in their order, so that the loss is
the same for any number of threads.
"""

import numpy as np

from cython.parallel import prange

from .checks import check_apart, check_array, check_threads

cdef extern from "per_cpu.h":
    """
    #include <math.h>
    #include <stdint.h>
    #include <string.h>

    enum { LANES = 16 };

    /* e^-a for a of 0 or more, as 2^k * e^r; a over 87 counts as 87, and what is not a number stays so */
    static inline float exp_minus(float a) {
        const float x = a > 87.0f ? -87.0f : -a;
        const float shifted = x * 1.44269504f + 12582912.0f;  /* its last bits are the whole number k */
        const float k = shifted - 12582912.0f;
        const float r = x - k * 0.693359375f + k * 2.12194440e-4f;
        uint32_t bits;
        float power;
        float y = 1.9875691500e-4f;
        y = y * r + 1.3981999507e-3f;
        y = y * r + 8.3334519073e-3f;
        y = y * r + 4.1665795894e-2f;
        y = y * r + 1.6666665459e-1f;
        y = y * r + 5.0000001201e-1f;
        y = y * r * r + r + 1.0f;
        memcpy(&bits, &shifted, sizeof bits);
        bits = (bits << 23) + 0x3f800000u;
        memcpy(&power, &bits, sizeof power);
        return y * power;
    }

    /* log(1 + e) for e from 0 to 1 */
    static inline float log_one_plus(float e) {
        const int big = e > 0.41421356f;
        const float f = big ? 0.5f * e - 0.5f : e;
        const float square = f * f;
        float y = 7.0376836292e-2f;
        y = y * f - 1.1514610310e-1f;
        y = y * f + 1.1676998740e-1f;
        y = y * f - 1.2420140846e-1f;
        y = y * f + 1.4249322787e-1f;
        y = y * f - 1.6668057665e-1f;
        y = y * f + 2.0000714765e-1f;
        y = y * f - 2.4999993993e-1f;
        y = y * f + 3.3333331174e-1f;
        y = y * f * square - 0.5f * square;
        return f + y + (big ? 0.693147181f : 0.0f);
    }

    /* of the logit z of the wrong answer: its probability, that of the right answer, and -log of the latter */
    typedef struct { float wrong, right, log_loss; } answer;

    static inline answer answer_of(float z) {
        const float e = exp_minus(fabsf(z)), share = 1.0f / (1.0f + e), rest = e * share;
        answer a;
        a.wrong = z < 0 ? rest : share;
        a.right = z < 0 ? share : rest;
        a.log_loss = (z < 0 ? 0.0f : z) + log_one_plus(e);
        return a;
    }

    static inline float weight_of(float target) {
        const float far = 1.0f - target, square = far * far;
        return target == 1.0f ? 1.0f : square * square;
    }

    /* the losses of n cells; a target of NULL is 0 everywhere */
    PER_CPU static void focal_losses(float *__restrict loss, const float *__restrict logit,
                                     const float *__restrict target, Py_ssize_t n) {
        Py_ssize_t i;
        if (target) {
            for (i = 0; i < n; i++) {
                const answer a = answer_of(target[i] == 1.0f ? -logit[i] : logit[i]);
                loss[i] = weight_of(target[i]) * a.wrong * a.wrong * a.log_loss;
            }
        } else {
            for (i = 0; i < n; i++) {
                const answer a = answer_of(logit[i]);
                loss[i] = a.wrong * a.wrong * a.log_loss;
            }
        }
    }

    /* the gradients of n cells' losses, times a factor */
    PER_CPU static void focal_gradients(float *__restrict grad, const float *__restrict logit,
                                        const float *__restrict target, float factor, Py_ssize_t n) {
        Py_ssize_t i;
        if (target) {
            for (i = 0; i < n; i++) {
                const answer a = answer_of(target[i] == 1.0f ? -logit[i] : logit[i]);
                const float slope = a.wrong * a.wrong * (2.0f * a.right * a.log_loss + a.wrong);
                grad[i] = (target[i] == 1.0f ? -factor : factor) * weight_of(target[i]) * slope;
            }
        } else {
            for (i = 0; i < n; i++) {
                const answer a = answer_of(logit[i]);
                grad[i] = factor * a.wrong * a.wrong * (2.0f * a.right * a.log_loss + a.wrong);
            }
        }
    }

    /* the sum of n numbers, and how many of n are 1 */
    PER_CPU static double lane_sum(const float *__restrict values, Py_ssize_t n) {
        float lanes[LANES] = {0};
        double sum = 0;
        Py_ssize_t i = 0, k;
        for (; i + LANES <= n; i += LANES)
            for (k = 0; k < LANES; k++) lanes[k] += values[i + k];
        for (; i < n; i++) sum += values[i];
        for (k = 0; k < LANES; k++) sum += lanes[k];
        return sum;
    }

    PER_CPU static int count_ones(const float *__restrict values, Py_ssize_t n) {
        int count = 0;
        for (Py_ssize_t i = 0; i < n; i++) count += values[i] == 1.0f;
        return count;
    }
    """
    void focal_losses(float *loss, const float *logit, const float *target, Py_ssize_t n) noexcept nogil
    void focal_gradients(float *grad, const float *logit, const float *target, float factor, Py_ssize_t n) noexcept nogil
    double lane_sum(const float *values, Py_ssize_t n) noexcept nogil
    int count_ones(const float *values, Py_ssize_t n) noexcept nogil

cdef enum:
    PLACES = 32  # of a tile of maps whose channels come last
    CHANNELS = 64
    TILE = PLACES * CHANNELS

cdef struct Tiling:
    Py_ssize_t images, channels, places  # places are the cells of a map
    bint crossed  # the logits' channels come last, the target's do not
    Py_ssize_t across, down, count  # tiles of an image's channels and places, and of all; uncrossed ones are in a row


cdef Tiling _tiling(Py_ssize_t images, Py_ssize_t channels, Py_ssize_t places, bint crossed) noexcept:
    cdef Tiling tiling
    tiling.images, tiling.channels, tiling.places, tiling.crossed = images, channels, places, crossed
    tiling.across, tiling.down = (channels + CHANNELS - 1) // CHANNELS, (places + PLACES - 1) // PLACES
    tiling.count = images * tiling.across * tiling.down
    if not crossed:
        tiling.count = (images * channels * places + TILE - 1) // TILE
    return tiling


cdef struct Tile:
    Py_ssize_t logits, targets  # where it begins in either
    Py_ssize_t channels, places  # that it has


cdef Tile _tile(const Tiling *tiling, Py_ssize_t number) noexcept nogil:
    """The tile of that number, of crossed maps."""
    cdef Tile tile
    cdef Py_ssize_t image = number // (tiling.across * tiling.down), rest = number % (tiling.across * tiling.down)
    cdef Py_ssize_t place = rest // tiling.across * PLACES, channel = rest % tiling.across * CHANNELS
    tile.logits = (image * tiling.places + place) * tiling.channels + channel
    tile.targets = (image * tiling.channels + channel) * tiling.places + place
    tile.channels = min(<Py_ssize_t> CHANNELS, tiling.channels - channel)
    tile.places = min(<Py_ssize_t> PLACES, tiling.places - place)
    return tile


cdef void _turn(float *turned, const float *targets, const Tile *tile, Py_ssize_t places) noexcept nogil:
    """Copy a tile's targets with the channels last."""
    cdef Py_ssize_t channel, place
    cdef const float *row
    for channel in range(tile.channels):
        row = targets + tile.targets + channel * places
        for place in range(tile.places):
            turned[place * tile.channels + channel] = row[place]


cdef void _sum_tile(const float *logits, const float *targets, const Tiling *tiling, Py_ssize_t number, double *loss,
                    Py_ssize_t *positives) noexcept nogil:
    """The sum of a tile's losses, and how many of its targets are 1."""
    cdef float losses[TILE]
    cdef float turned[TILE]
    cdef Tile tile
    cdef Py_ssize_t size, start, place
    if tiling.crossed:
        tile = _tile(tiling, number)
        size = tile.places * tile.channels
        _turn(turned, targets, &tile, tiling.places)
        for place in range(tile.places):
            focal_losses(losses + place * tile.channels, logits + tile.logits + place * tiling.channels,
                         turned + place * tile.channels, tile.channels)
        positives[0] = count_ones(turned, size)
    else:
        start = number * TILE
        size = min(<Py_ssize_t> TILE, tiling.images * tiling.channels * tiling.places - start)
        focal_losses(losses, logits + start, targets + start if targets != NULL else NULL, size)
        positives[0] = count_ones(targets + start, size) if targets != NULL else 0
    loss[0] = lane_sum(losses, size)


cdef void _differentiate_tile(const float *logits, const float *targets, float *grad, const Tiling *tiling,
                              Py_ssize_t number, float factor) noexcept nogil:
    """The gradient of a tile's losses, times a factor."""
    cdef float turned[TILE]
    cdef Tile tile
    cdef Py_ssize_t size, start, place, at
    if tiling.crossed:
        tile = _tile(tiling, number)
        _turn(turned, targets, &tile, tiling.places)
        for place in range(tile.places):
            at = tile.logits + place * tiling.channels
            focal_gradients(grad + at, logits + at, turned + place * tile.channels, factor, tile.channels)
    else:
        start = number * TILE
        size = min(<Py_ssize_t> TILE, tiling.images * tiling.channels * tiling.places - start)
        focal_gradients(grad + start, logits + start, targets + start if targets != NULL else NULL, factor, size)


def _check(logits, target):
    """Refuse logits and a target that do not go together.

    Returns:
        images, channels, cells of a map, whether the logits' channels come last and the target's do not.
    """
    check_array('logits', logits, 'float32', ('B', 'C', 'cells'), contiguous=False)
    images, channels, places = logits.shape
    turned = not logits.flags.c_contiguous
    if turned and not logits.transpose(0, 2, 1).flags.c_contiguous:
        found = f'found strides {list(logits.strides)}'
        raise ValueError(f'expected logits contiguous in memory, cells or channels last, {found}')
    if target is not None:
        check_array('target', target, 'float32', logits.shape)
    return images, channels, places, turned and target is not None


cdef const float *_address(array) except? NULL:
    """Where the numbers of a float32 array [B, C, cells] begin; NULL of None."""
    if array is None:
        return NULL
    cdef const float[:, :, :] view = array
    return &view[0, 0, 0]


def loss(logits, target, threads):
    """Add up the losses of all cells.

    Args:
        logits (float32 [B, C, cells]): contiguous, or with the channels last in memory.
        target (float32 [B, C, cells], contiguous): the Gaussian heatmap, 1 at centres; None for zeros everywhere.
        threads: how many share the work.

    Returns:
        the sum, a float, and the number of centres.

    Raises:
        TypeError: not float32 arrays, not a whole number.
        ValueError: another shape or layout, no positive number of threads.
    """
    images, channels, places, crossed = _check(logits, target)
    cdef int workers = check_threads(threads)
    cdef Tiling tiling = _tiling(images, channels, places, crossed)
    if not logits.size:
        return 0.0, 0
    cdef const float *given = _address(logits)
    cdef const float *wanted = _address(target)
    cdef double[::1] sums = np.empty(tiling.count)
    cdef Py_ssize_t[::1] counts = np.empty(tiling.count, np.intp)
    cdef Py_ssize_t number
    for number in prange(tiling.count, nogil=True, num_threads=workers, schedule='static'):
        _sum_tile(given, wanted, &tiling, number, &sums[number], &counts[number])
    return float(np.sum(sums)), int(np.sum(counts))


def differentiate(logits, target, grad, double factor, threads):
    """Fill `grad` with the gradient of the summed losses, times a factor.

    Args:
        logits, target, threads: as `loss` takes them.
        grad (float32 [B, C, cells], in memory as the logits): filled.
        factor: what each value is multiplied by.

    Raises:
        TypeError, ValueError: as `loss`; `grad` is read-only or overlaps another.
    """
    images, channels, places, crossed = _check(logits, target)
    cdef int workers = check_threads(threads)
    check_array('grad', grad, 'float32', logits.shape, contiguous=False, writable=True)
    laid_out = grad if logits.flags.c_contiguous else grad.transpose(0, 2, 1)
    if not laid_out.flags.c_contiguous:
        raise ValueError(f'expected grad in memory as the logits, {list(logits.strides)}, found {list(grad.strides)}')
    check_apart({'grad': grad}, {'logits': logits} if target is None else {'logits': logits, 'target': target})
    cdef Tiling tiling = _tiling(images, channels, places, crossed)
    if not logits.size:
        return
    cdef const float *given = _address(logits)
    cdef const float *wanted = _address(target)
    cdef float *filled = <float *> _address(grad)
    cdef float times = factor
    cdef Py_ssize_t number
    for number in prange(tiling.count, nogil=True, num_threads=workers, schedule='static'):
        _differentiate_tile(given, wanted, filled, &tiling, number, times)
