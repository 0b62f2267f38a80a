# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Maps of bytes that are made larger and added to others: the upsampling of DLA (Yu et al. 2018) in int8.

Maps lie channels-last; OpenMP threads share the rows. It is an operator of OpenVINO's: `models/openvino_operators.py`.
"""

from .checks import check_apart, check_array, check_number, check_threads, check_whole

from cython.parallel cimport prange
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free

cdef extern from "vectors.h":
    """
    typedef struct {
        Py_ssize_t height, width;         /* of the large map */
        Py_ssize_t low_height, low_width; /* of the small one */
        Py_ssize_t channels, kernel, stride, padding;
        float scale, bias, zero; /* zero: the byte of the small map that stands for 0 */
    } Upsampling;

    /* What of a small map a place of the large one sees along an axis: two cells, and their weights' places. */
    typedef struct {
        Py_ssize_t cell[2], weight[2]; /* weight -1 where there is no such cell; the cell is then any */
    } Sight;

    static inline Sight see(Py_ssize_t place, Py_ssize_t size, Py_ssize_t kernel, Py_ssize_t stride,
                            Py_ssize_t padding) {
        Sight sight;
        for (int i = 0; i < 2; i++) {
            const Py_ssize_t cell = (place + padding) / stride - i, weight = (place + padding) % stride + i * stride;
            const int is_there = cell >= 0 && cell < size && weight < kernel;
            sight.cell[i] = is_there ? cell : 0;
            sight.weight[i] = is_there ? weight : -1;
        }
        return sight;
    }

    /* out = the sum over four cells of weight * (cell - zero), + scale * added + bias, of n channels. The cells come one
       by one: an array of them, just written, would have to be waited for. */
    #define FOUR                                                                                                       \
        const uint8_t *a, const uint8_t *b, const uint8_t *c, const uint8_t *d, const float *wa, const float *wb,      \
            const float *wc, const float *wd
    typedef void (*AddFour)(uint8_t *out, FOUR, const uint8_t *added, Py_ssize_t n, const Upsampling *up);
    PER_CPU static void add_four_plain(uint8_t *__restrict out, FOUR, const uint8_t *added, Py_ssize_t n,
                                       const Upsampling *up) {
        const float zero = up->zero, scale = up->scale, bias = up->bias;
        for (Py_ssize_t i = 0; i < n; i++) {
            const float seen = wa[i] * (a[i] - zero) + wb[i] * (b[i] - zero) + wc[i] * (c[i] - zero) +
                               wd[i] * (d[i] - zero);
            out[i] = nearest_byte(seen + scale * added[i] + bias);
        }
    }
    #ifdef HAS_AVX512
    AVX512 static void add_four_avx512(uint8_t *out, FOUR, const uint8_t *added, Py_ssize_t n, const Upsampling *up) {
        const __m512 zero = _mm512_set1_ps(up->zero), scale = _mm512_set1_ps(up->scale);
        const __m512 bias = _mm512_set1_ps(up->bias);
        Py_ssize_t i = 0;
        for (; i + 16 <= n; i += 16) {
            __m512 sum = _mm512_fmadd_ps(scale, floats_of(added + i), bias);
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(wa + i), _mm512_sub_ps(floats_of(a + i), zero), sum);
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(wb + i), _mm512_sub_ps(floats_of(b + i), zero), sum);
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(wc + i), _mm512_sub_ps(floats_of(c + i), zero), sum);
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(wd + i), _mm512_sub_ps(floats_of(d + i), zero), sum);
            put_nearest_bytes(out + i, sum);
        }
        if (i < n)
            add_four_plain(out + i, a + i, b + i, c + i, d + i, wa + i, wb + i, wc + i, wd + i, added + i, n - i, up);
    }
    #endif
    static AddFour best_add_four(void) {
    #ifdef HAS_AVX512
        if (has_avx512()) return add_four_avx512;
    #endif
        return add_four_plain;
    }

    /* Fill a row of the large map; `zeros` are weights of what is not there. */
    static void add_row(const Upsampling *up, const uint8_t *low, const uint8_t *added, const float *weight,
                        const float *zeros, Py_ssize_t y, uint8_t *out, AddFour add_four) {
        const Sight down = see(y, up->low_height, up->kernel, up->stride, up->padding);
        for (Py_ssize_t x = 0; x < up->width; x++) {
            const Sight across = see(x, up->low_width, up->kernel, up->stride, up->padding);
            const Py_ssize_t channels = up->channels, wide = up->low_width, *i = down.weight, *j = across.weight;
            const uint8_t *top = low + down.cell[0] * wide * channels, *bottom = low + down.cell[1] * wide * channels;
            const Py_ssize_t left = across.cell[0] * channels, right = across.cell[1] * channels;
    #define WEIGHT(i, j) ((i) < 0 || (j) < 0 ? zeros : weight + ((i) * up->kernel + (j)) * channels)
            add_four(out + x * channels, top + left, top + right, bottom + left, bottom + right, WEIGHT(i[0], j[0]),
                     WEIGHT(i[0], j[1]), WEIGHT(i[1], j[0]), WEIGHT(i[1], j[1]), added + x * channels, channels, up);
        }
    }
    """
    ctypedef struct Upsampling:
        Py_ssize_t height, width, low_height, low_width, channels, kernel, stride, padding
        float scale, bias, zero
    ctypedef struct AddFour:
        pass
    AddFour best_add_four() noexcept nogil
    void add_row(const Upsampling *up, const uint8_t *low, const uint8_t *added, const float *weight,
                 const float *zeros, Py_ssize_t y, uint8_t *out, AddFour add_four) noexcept nogil


def add_upsampled(low, added, weight, out, stride, padding, zero, scale, bias, threads, share=0, shares=1):
    """Fill `out` with the nearest bytes of a depthwise transposed convolution of a map, plus another map.

    These are `sum of weight * (low - zero), + scale * added + bias`. The values do not depend on how many threads there
    are.

    Args:
        low (uint8 [B, h, w, C], contiguous): the small maps.
        added (uint8 [B, H, W, C], contiguous): H = (h - 1) * stride - 2 * padding + k, and W alike.
        weight (float32 [k, k, C], contiguous): k is from `stride` to 2 * `stride`.
        out (uint8 [B, H, W, C], contiguous): filled.
        stride, padding: of the convolution.
        zero: the byte of `low` that stands for 0, 0 to 255.
        scale, bias: numbers.
        threads: how many share the rows.
        share, shares: which of so many parts of the output to fill, from 0 on; for callers with threads of their own.

    Raises:
        TypeError: arrays of other types, not numbers.
        ValueError: shapes or numbers that do not go together, another layout, maps without cells, `out` read-only or
            overlapping another array.
    """
    stride, padding = check_whole('stride', stride, 1), check_whole('padding', padding, 0)
    check_array('low', low, 'uint8', ('B', 'h', 'w', 'C'))
    batch, height, width, channels = low.shape
    check_array('weight', weight, 'float32', ('k', 'k', channels))
    kernel = weight.shape[0]
    if weight.shape[1] != kernel or not stride <= kernel <= 2 * stride:
        raise ValueError(f'expected weight [k, k, C] with k from {stride} to {2 * stride}, found {list(weight.shape)}')
    if not (height and width):
        raise ValueError(f'expected low with cells, found {list(low.shape)}')
    shape = batch, *((side - 1) * stride - 2 * padding + kernel for side in (height, width)), channels
    if min(shape[1:3]) < 1:
        raise ValueError(f'expected a padding that leaves cells of {list(low.shape)}, found {padding}')
    check_array('added', added, 'uint8', shape)
    check_array('out', out, 'uint8', shape, writable=True)
    check_apart({'out': out}, {'low': low, 'added': added, 'weight': weight})
    threads, shares = check_threads(threads), check_whole('shares', shares, 1)
    share = check_whole('share', share, 0, shares - 1)
    cdef Upsampling up
    up.zero = check_whole('zero', zero, 0, 255)
    up.scale, up.bias = check_number('scale', scale), check_number('bias', bias)
    up.low_height, up.low_width, up.channels = height, width, channels
    up.height, up.width, up.kernel, up.stride, up.padding = shape[1], shape[2], kernel, stride, padding
    if out.size:
        _add_upsampled(&up, low, added, weight, out, threads, share, shares)


cdef _add_upsampled(
    const Upsampling *up, const uint8_t[:, :, :, ::1] low, const uint8_t[:, :, :, ::1] added,
    const float[:, :, ::1] weight, uint8_t[:, :, :, ::1] out, int threads, Py_ssize_t share, Py_ssize_t shares,
):
    """The loop of `add_upsampled`, of checked arguments."""
    cdef Py_ssize_t rows = out.shape[0] * out.shape[1], row, size = up.width * up.channels
    cdef const uint8_t *small = &low[0, 0, 0, 0]
    cdef const uint8_t *large = &added[0, 0, 0, 0]
    cdef const float *weights = &weight[0, 0, 0]
    cdef uint8_t *filled = &out[0, 0, 0, 0]
    cdef AddFour add_four = best_add_four()
    cdef float *zeros = <float *> calloc(up.channels, sizeof(float))
    if zeros == NULL:
        raise MemoryError(f'no room for {up.channels} weights')
    for row in prange(share, rows, shares, nogil=True, num_threads=threads, schedule='static'):
        add_row(up, small + row // up.height * up.low_height * up.low_width * up.channels, large + row * size, weights,
                zeros, row % up.height, filled + row * size, add_four)
    free(zeros)
