# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Winograd's convolution F(4 x 4, 3 x 3) (Lavin and Gray 2016, section 4.3), on channels-last maps.

A tile is 4 x 4 cells of the output; it takes 6 x 6 cells of the input, one more on each side. In the transformed
space the convolution is a product of matrices for each of the 36 places. It is done some tiles at a time, so that
these stay in the cache; `models/winograd.py` transforms the weights.
"""

from .checks import check_apart, check_array, check_threads, check_whole

from cython.parallel cimport prange, threadid
from libc.stdlib cimport free, malloc

cdef extern from "per_cpu.h":
    """
    #include "product.h"

    #define MOST_TILES 48  /* of a block; a multiple of MOST_ROWS */
    #define MOST_CHANNELS 256  /* that are multiplied at a time: a panel of weights stays in the first cache */

    /* The six rows of B^T d for one column d of six, each of m channels. */
    #define INPUT_COLUMN(READ, WRITE)                                     \\
        for (Py_ssize_t l = 0; l < m; l++) {                              \\
            const float d0 = READ(0), d1 = READ(1), d2 = READ(2);         \\
            const float d3 = READ(3), d4 = READ(4), d5 = READ(5);         \\
            const float even = d4 - 4 * d2, odd = d3 - 4 * d1;            \\
            const float half_even = d4 - d2, half_odd = 2 * (d3 - d1);    \\
            WRITE(0) = 4 * d0 - 5 * d2 + d4;                              \\
            WRITE(1) = even + odd;                                        \\
            WRITE(2) = even - odd;                                        \\
            WRITE(3) = half_even + half_odd;                              \\
            WRITE(4) = half_even - half_odd;                              \\
            WRITE(5) = 4 * d1 - 5 * d3 + d5;                              \\
        }

    /* B^T d B of one tile: cell[6 * row + column] points to the n channels of an input cell; the 36 results lie
       `step` floats apart. */
    PER_CPU static void transform_tile(const float *const *cell, float *out, Py_ssize_t step, Py_ssize_t n) {
        float half[6][6][LANES];
        for (Py_ssize_t c = 0; c < n; c += LANES) {
            const Py_ssize_t m = n - c < LANES ? n - c : LANES;
            for (int j = 0; j < 6; j++) {
                const float *a0 = cell[j] + c, *a1 = cell[6 + j] + c, *a2 = cell[12 + j] + c;
                const float *a3 = cell[18 + j] + c, *a4 = cell[24 + j] + c, *a5 = cell[30 + j] + c;
                #define READ(k) a##k[l]
                #define WRITE(k) half[k][j][l]
                INPUT_COLUMN(READ, WRITE)
                #undef READ
                #undef WRITE
            }
            for (int i = 0; i < 6; i++) {
                float *row = out + 6 * i * step + c;
                #define READ(k) half[i][k][l]
                #define WRITE(k) row[k * step + l]
                INPUT_COLUMN(READ, WRITE)
                #undef READ
                #undef WRITE
            }
        }
    }

    /* The four rows of A^T p for one column p of six, each of m channels. */
    #define OUTPUT_COLUMN(READ, WRITE)                                            \\
        for (Py_ssize_t l = 0; l < m; l++) {                                      \\
            const float inner = READ(1) + READ(2), inner_odd = READ(1) - READ(2); \\
            const float outer = READ(3) + READ(4), outer_odd = READ(3) - READ(4); \\
            WRITE(0) = READ(0) + inner + outer;                                   \\
            WRITE(1) = inner_odd + 2 * outer_odd;                                 \\
            WRITE(2) = inner + 4 * outer;                                         \\
            WRITE(3) = inner_odd + 8 * outer_odd + READ(5);                       \\
        }

    /* A^T p A + bias of one tile, with `relu` not below zero. The 36 products lie `step` floats apart;
       out[4 * row + column] points to the n channels of an output cell, or is NULL where there is none. */
    PER_CPU static void finish_tile(const float *product, float *const *out, const float *bias, Py_ssize_t step,
                                    Py_ssize_t n, int relu) {
        float half[4][6][LANES], whole[4][LANES];
        for (Py_ssize_t c = 0; c < n; c += LANES) {
            const Py_ssize_t m = n - c < LANES ? n - c : LANES;
            for (int j = 0; j < 6; j++) {
                const float *column = product + j * step + c;
                #define READ(k) column[6 * k * step + l]
                #define WRITE(k) half[k][j][l]
                OUTPUT_COLUMN(READ, WRITE)
                #undef READ
                #undef WRITE
            }
            for (int i = 0; i < 4; i++) {
                #define READ(k) half[i][k][l]
                #define WRITE(k) whole[k][l]
                OUTPUT_COLUMN(READ, WRITE)
                #undef READ
                #undef WRITE
                for (int j = 0; j < 4; j++)
                    if (out[4 * i + j]) finish_sums(out[4 * i + j] + c, whole[j], bias + c, m, relu);
            }
        }
    }
    """
    void transform_tile(const float **cell, float *out, Py_ssize_t step, Py_ssize_t n) noexcept nogil
    void finish_tile(const float *product, float **out, const float *bias, Py_ssize_t step, Py_ssize_t n,
                     bint relu) noexcept nogil
    ctypedef void (*Multiply)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float *, Py_ssize_t, Py_ssize_t,
                              float *, bint) noexcept nogil
    int LANES, MOST_ROWS, MOST_TILES, MOST_CHANNELS
    Multiply best_multiply() noexcept nogil


cdef struct Layer:
    # What the loops need to know beside where the maps lie.
    const float *weight  # [36, panels, channels, LANES]
    const float *bias    # [out_channels]
    const float *zeros   # [channels]
    Py_ssize_t height, width, channels, out_channels, panels
    Py_ssize_t down, across  # tiles of an image
    Py_ssize_t step          # tiles of a block
    bint relu
    Multiply multiply


cdef void _transform(const Layer *layer, const float *images, Py_ssize_t first, Py_ssize_t count,
                     float *tiles) noexcept nogil:
    """B^T d B of `count` tiles from `first` on, counted through all images, to tiles [36, step, channels]."""
    cdef const float *cell[36]
    cdef const float *image
    cdef Py_ssize_t tile, row, i, j, y, x
    for tile in range(first, first + count):
        row = tile // layer.across
        image = images + row // layer.down * layer.height * layer.width * layer.channels
        for i in range(6):
            for j in range(6):
                y, x = 4 * (row % layer.down) + i - 1, 4 * (tile % layer.across) + j - 1
                if 0 <= y < layer.height and 0 <= x < layer.width:
                    cell[6 * i + j] = image + (y * layer.width + x) * layer.channels
                else:
                    cell[6 * i + j] = layer.zeros
        transform_tile(cell, tiles + (tile - first) * layer.channels, layer.step * layer.channels, layer.channels)


cdef void _multiply(const Layer *layer, const float *tiles, float *products, Py_ssize_t count) noexcept nogil:
    """The products [36, step, panels * LANES] of `count` tiles with the weights."""
    cdef Py_ssize_t place, part, channel, size = layer.channels
    for place in range(36):
        for part in range((size + MOST_CHANNELS - 1) // MOST_CHANNELS):
            channel = part * MOST_CHANNELS
            layer.multiply(
                tiles + place * layer.step * size + channel, size, count, min(MOST_CHANNELS, size - channel),
                layer.weight + (place * layer.panels * size + channel) * LANES, layer.panels, size * LANES,
                products + place * layer.step * layer.panels * LANES, part == 0,
            )


cdef void _finish(const Layer *layer, const float *products, float *images, Py_ssize_t first,
                  Py_ssize_t count) noexcept nogil:
    """The cells of `count` tiles from `first` on, of their products."""
    cdef float *cell[16]
    cdef float *image
    cdef Py_ssize_t tile, row, i, j, y, x
    for tile in range(first, first + count):
        row = tile // layer.across
        image = images + row // layer.down * layer.height * layer.width * layer.out_channels
        for i in range(4):
            for j in range(4):
                y, x = 4 * (row % layer.down) + i, 4 * (tile % layer.across) + j
                if y < layer.height and x < layer.width:
                    cell[4 * i + j] = image + (y * layer.width + x) * layer.out_channels
                else:
                    cell[4 * i + j] = NULL
        finish_tile(products + (tile - first) * layer.panels * LANES, cell, layer.bias,
                    layer.step * layer.panels * LANES, layer.out_channels, layer.relu)


cdef void _convolve_block(const Layer *layer, const float *x, float *out, Py_ssize_t first, Py_ssize_t count,
                          float *room) noexcept nogil:
    """Fill the cells of `count` tiles from `first` on."""
    cdef float *products = room + 36 * layer.step * layer.channels
    _transform(layer, x, first, count, room)
    _multiply(layer, room, products, count)
    _finish(layer, products, out, first, count)


def convolve(x, weight, bias, out, relu, threads):
    """Fill `out` with the convolution of x, 3 x 3, stride 1, with a border of zeros.

    The values do not depend on how many threads there are.

    Args:
        x (float32 [B, H, W, C], contiguous): the maps.
        weight (float32 [36, panels, C, 16], contiguous): transformed (G g G^T), 16 outputs a panel, zeros beyond the
            last one.
        bias (float32 [O], contiguous): added to each cell; 16 * (panels - 1) < O <= 16 * panels.
        out (float32 [B, H, W, O], contiguous): filled.
        relu: whether negative values become 0.
        threads: how many share the tiles.

    Raises:
        TypeError: not float32 arrays, not whole numbers.
        ValueError: shapes that do not go together, another layout, `out` read-only or overlapping another, maps without
            cells.
    """
    check_array('x', x, 'float32', ('B', 'H', 'W', 'C'))
    check_array('bias', bias, 'float32', ('O',))
    if not (all(x.shape[1:]) and len(bias)):
        raise ValueError(f'expected x and bias with cells and channels, found {list(x.shape)} and {list(bias.shape)}')
    check_array('weight', weight, 'float32', (36, (len(bias) + LANES - 1) // LANES, x.shape[3], LANES))
    check_array('out', out, 'float32', (*x.shape[:3], len(bias)), writable=True)
    check_apart({'out': out}, {'x': x, 'weight': weight, 'bias': bias})
    threads = check_threads(threads)
    if out.size:
        _convolve(x, weight, bias, out, bool(relu), threads)


cdef _convolve(const float[:, :, :, ::1] x, const float[:, :, :, ::1] weight, const float[::1] bias,
               float[:, :, :, ::1] out, bint relu, int threads):
    """The loop of `convolve`, of checked arguments; on small maps the blocks are small enough for all threads."""
    cdef Layer layer
    cdef char[::1] zeros = bytearray(x.shape[3] * sizeof(float))
    layer.weight, layer.bias, layer.zeros = &weight[0, 0, 0, 0], &bias[0], <const float *> &zeros[0]
    layer.height, layer.width, layer.channels, layer.out_channels = x.shape[1], x.shape[2], x.shape[3], out.shape[3]
    layer.panels, layer.relu, layer.multiply = weight.shape[1], relu, best_multiply()
    layer.down, layer.across = (x.shape[1] + 3) // 4, (x.shape[2] + 3) // 4
    cdef Py_ssize_t tiles = x.shape[0] * layer.down * layer.across, block, step
    step = layer.step = min(MOST_TILES, (tiles + threads * MOST_ROWS - 1) // (threads * MOST_ROWS) * MOST_ROWS)
    cdef Py_ssize_t size = 36 * step * (layer.channels + layer.panels * LANES)
    cdef float *rooms = <float *> malloc(threads * size * sizeof(float))  # each thread touches its own first
    if rooms == NULL:
        raise MemoryError(f'no room for the tiles of {threads} threads')
    cdef const float *maps = &x[0, 0, 0, 0]
    cdef float *filled = &out[0, 0, 0, 0]
    for block in prange((tiles + step - 1) // step, nogil=True, num_threads=threads, schedule='dynamic'):
        _convolve_block(&layer, maps, filled, block * step, min(step, tiles - block * step), rooms + threadid() * size)
    free(rooms)
