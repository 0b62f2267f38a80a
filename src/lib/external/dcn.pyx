# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Modulated deformable convolution on the CPU: forward as a whole (`convolve`, `convolve_int8`), else its sampling.

Maps lie channels-last, so that all channels of a tap are one stretch of memory; the loops over channels are
vectorised and the rows shared by OpenMP threads. The matrix products of bfloat16 and of gradients are left to torch:
see `models/networks/native_dcn.py`, which also says what the arguments are. In int8 it is an operator of OpenVINO's:
`models/openvino_operators.py`.

A position is one cell of the output map; a tap is one of its k * k looks at the input (G * k * k with groups of
channels). Each reads the four cells around its place with bilinear weights; cells outside the map are zeros.
"""

from .checks import LARGEST, check_apart, check_array, check_threads, check_whole

from cython.parallel cimport prange, threadid
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cdef extern from "per_cpu.h":
    """
    #include <stdint.h>
    #include <string.h>

    /* out = the sum over four cells of weight * cell */
    PER_CPU static void blend(float *__restrict out, const float *a, const float *b, const float *c, const float *d,
                              const float *weight, Py_ssize_t n) {
        const float wa = weight[0], wb = weight[1], wc = weight[2], wd = weight[3];
        for (Py_ssize_t i = 0; i < n; i++) out[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
    }

    /* A bfloat16 is the upper half of a float; to narrow is to round to the nearest, to even in the middle. */
    static inline float widen(uint16_t value) {
        const uint32_t bits = (uint32_t) value << 16;
        float wide;
        memcpy(&wide, &bits, sizeof wide);
        return wide;
    }
    static inline uint16_t narrow(float value) {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }

    /* As blend, of bfloat16; it adds up in float. */
    PER_CPU static void blend_half(uint16_t *__restrict out, const uint16_t *a, const uint16_t *b, const uint16_t *c,
                                   const uint16_t *d, const float *weight, Py_ssize_t n) {
        const float wa = weight[0], wb = weight[1], wc = weight[2], wd = weight[3];
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = narrow(wa * widen(a[i]) + wb * widen(b[i]) + wc * widen(c[i]) + wd * widen(d[i]));
    }

    /* dot[k] = the inner product of grad and cell k */
    PER_CPU static void dots(float *dot, const float *grad, const float *a, const float *b, const float *c,
                             const float *d, Py_ssize_t n) {
        float da = 0, db = 0, dc = 0, dd = 0;
        for (Py_ssize_t i = 0; i < n; i++) {
            da += grad[i] * a[i];
            db += grad[i] * b[i];
            dc += grad[i] * c[i];
            dd += grad[i] * d[i];
        }
        dot[0] = da; dot[1] = db; dot[2] = dc; dot[3] = dd;
    }

    /* sum += weight * grad */
    PER_CPU static void accumulate(float *__restrict sum, const float *__restrict grad, float weight, Py_ssize_t n) {
        for (Py_ssize_t i = 0; i < n; i++) sum[i] += weight * grad[i];
    }
    """
    void blend(float *out, const float *a, const float *b, const float *c, const float *d,
               const float *weight, Py_ssize_t n) noexcept nogil
    void blend_half(uint16_t *out, const uint16_t *a, const uint16_t *b, const uint16_t *c, const uint16_t *d,
                    const float *weight, Py_ssize_t n) noexcept nogil
    void dots(float *dot, const float *grad, const float *a, const float *b, const float *c, const float *d,
              Py_ssize_t n) noexcept nogil
    void accumulate(float *sum, const float *grad, float weight, Py_ssize_t n) noexcept nogil


ctypedef fused Value:
    float
    uint16_t  # bfloat16, which C has no type for


cdef extern from "deformable.h":
    int BLOCK
    ctypedef struct Layer:
        const float *offset
        const float *mask
        Py_ssize_t offset_strides[4]
        Py_ssize_t mask_strides[4]
        Py_ssize_t height, width, channels, groups
        Py_ssize_t kernel, stride, padding, dilation
        Py_ssize_t out_height, out_width
        Py_ssize_t taps, part
    ctypedef struct Product:
        const float *weight
        const float *bias
        Py_ssize_t panels, out_channels
        bint sigmoid, relu
    ctypedef struct Int8Product:
        const int8_t *weight
        const float *scale
        const float *bias
        Py_ssize_t panels, steps, out_channels
        int32_t zero
        bint relu
    ctypedef void (*MultiplyInt8)(const uint8_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const int8_t *, Py_ssize_t,
                                  Py_ssize_t, int32_t *, bint) noexcept nogil
    ctypedef void (*Multiply)(const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const float *, Py_ssize_t, Py_ssize_t,
                              float *, bint) noexcept nogil
    int LANES, MOST_ROWS
    Multiply best_multiply() noexcept nogil
    Py_ssize_t block_room(const Layer *layer, const Product *product) noexcept nogil
    void convolve_block(const Layer *layer, const Product *product, const float *x, float *out, Py_ssize_t first,
                        Py_ssize_t count, float *room, Multiply multiply) noexcept nogil
    int FOURS
    MultiplyInt8 best_multiply_int8() noexcept nogil
    Py_ssize_t int8_room(const Layer *layer, const Int8Product *product) noexcept nogil
    void convolve_block_int8(const Layer *layer, const Int8Product *product, const uint8_t *x, float *out,
                             uint8_t *bytes, Py_ssize_t first, Py_ssize_t count, char *room,
                             MultiplyInt8 multiply) noexcept nogil


MOST_INT8_SUM = (2**31 - 1) // (255 * 128)  # products of a byte and a weight that 32 bits add up


cdef struct Tap:
    bint inside         # whether any cell lies in the map; if not, the rest is not set
    Py_ssize_t cell[4]  # where the cells begin in x, at the first channel of the group
    float weight[4]     # of the cells; 0 outside the map
    float dy[4]         # derivatives of the weights by y and by x
    float dx[4]
    float modulation


cdef Layer _layer(
    shape, const float[:, :, :, :] offset, const float[:, :, :, :] mask,
    Py_ssize_t kernel, Py_ssize_t stride, Py_ssize_t padding, Py_ssize_t dilation,
):
    """The sizes and strides that the loops need, of checked arguments."""
    cdef Layer layer
    cdef int i
    layer.offset, layer.mask = &offset[0, 0, 0, 0], &mask[0, 0, 0, 0]
    for i in range(4):
        layer.offset_strides[i] = offset.strides[i] // <Py_ssize_t> sizeof(float)
        layer.mask_strides[i] = mask.strides[i] // <Py_ssize_t> sizeof(float)
    _, layer.height, layer.width, layer.channels = shape
    layer.kernel, layer.stride, layer.padding, layer.dilation = kernel, stride, padding, dilation
    layer.out_height, layer.out_width, layer.taps = mask.shape[2], mask.shape[3], mask.shape[1]
    layer.groups = layer.taps // (kernel * kernel)
    layer.part = layer.channels // layer.groups
    return layer


cdef inline void _place(Tap *tap, const Layer *layer, float y, float x, Py_ssize_t first) noexcept nogil:
    """Set the cells and weights of a tap that looks at y, x; `first` is the first channel of its group and image."""
    cdef Py_ssize_t i, j, k, cell_y, cell_x, low_y, low_x
    cdef float part_y, part_x, weight_y, weight_x
    tap.inside = -1 <= y <= layer.height and -1 <= x <= layer.width  # NaN is outside, too
    if not tap.inside:
        return
    low_y, low_x = <Py_ssize_t> (y + 1) - 1, <Py_ssize_t> (x + 1) - 1  # the floor, of numbers from -1 on
    part_y, part_x = y - low_y, x - low_x
    for i in range(2):
        cell_y, weight_y = low_y + i, part_y if i else 1 - part_y
        for j in range(2):
            cell_x, weight_x = low_x + j, part_x if j else 1 - part_x
            k = 2 * i + j
            if 0 <= cell_y < layer.height and 0 <= cell_x < layer.width:
                tap.cell[k] = first + (cell_y * layer.width + cell_x) * layer.channels
                tap.weight[k] = weight_y * weight_x
                tap.dy[k] = weight_x if i else -weight_x
                tap.dx[k] = weight_y if j else -weight_y
            else:
                tap.cell[k] = first
                tap.weight[k] = tap.dy[k] = tap.dx[k] = 0


cdef inline void _look(Tap *tap, const Layer *layer, Py_ssize_t b, Py_ssize_t row, Py_ssize_t column) noexcept nogil:
    """Set all taps of the position `row`, `column` of image b."""
    cdef const float *offset = (
        layer.offset + b * layer.offset_strides[0] + row * layer.offset_strides[2] + column * layer.offset_strides[3]
    )
    cdef const float *mask = (
        layer.mask + b * layer.mask_strides[0] + row * layer.mask_strides[2] + column * layer.mask_strides[3]
    )
    cdef Py_ssize_t image = b * layer.height * layer.width * layer.channels, i, j, g, channel
    cdef Py_ssize_t y = row * layer.stride - layer.padding, x = column * layer.stride - layer.padding
    for i in range(layer.kernel):
        for j in range(layer.kernel):
            for g in range(layer.groups):
                channel = (g * layer.kernel + i) * layer.kernel + j
                tap.modulation = mask[channel * layer.mask_strides[1]]
                _place(
                    tap,
                    layer,
                    y + i * layer.dilation + offset[2 * channel * layer.offset_strides[1]],
                    x + j * layer.dilation + offset[(2 * channel + 1) * layer.offset_strides[1]],
                    image + g * layer.part,
                )
                tap += 1


cdef inline void _sample_tap(Value *column, const Value *x, const Tap *tap, const Layer *layer) noexcept nogil:
    """What a tap sees, times its modulation."""
    cdef const Value *cell[4]
    cdef float weight[4]
    cdef Py_ssize_t k
    if not tap.inside:
        memset(column, 0, layer.part * sizeof(Value))
        return
    for k in range(4):
        cell[k], weight[k] = x + tap.cell[k], tap.weight[k] * tap.modulation
    if Value is float:
        blend(column, cell[0], cell[1], cell[2], cell[3], weight, layer.part)
    else:
        blend_half(column, cell[0], cell[1], cell[2], cell[3], weight, layer.part)


cdef inline void _differentiate_tap(const float *grad_column, const float *x, const Tap *tap, const Layer *layer,
                                    float *by_y, float *by_x, float *by_mask) noexcept nogil:
    """Gradients of a tap's place and of its modulation."""
    cdef float dot[4]
    cdef Py_ssize_t k
    by_y[0] = by_x[0] = by_mask[0] = 0
    if not tap.inside:
        return
    dots(dot, grad_column, x + tap.cell[0], x + tap.cell[1], x + tap.cell[2], x + tap.cell[3], layer.part)
    for k in range(4):
        by_y[0] += tap.dy[k] * dot[k] * tap.modulation
        by_x[0] += tap.dx[k] * dot[k] * tap.modulation
        by_mask[0] += tap.weight[k] * dot[k]


cdef inline void _scatter_tap(float *grad_x, const float *grad_column, const Tap *tap, Py_ssize_t first,
                              Py_ssize_t last) noexcept nogil:
    """Add a tap's gradient to those of its cells, in the channels of its group from `first` up to `last`."""
    cdef Py_ssize_t k
    if not tap.inside:
        return
    for k in range(4):
        if tap.weight[k] != 0:
            accumulate(grad_x + tap.cell[k] + first, grad_column + first, tap.weight[k] * tap.modulation, last - first)


cdef void _sample_row(const Layer *layer, const Value *cells, Py_ssize_t row, Value *column,
                      Tap *taps) noexcept nogil:
    """Fill the columns [out_width, k, k, C] of a row; `taps` is room for those of a position."""
    cdef Py_ssize_t x, t
    for x in range(layer.out_width):
        _look(taps, layer, row // layer.out_height, row % layer.out_height, x)
        for t in range(layer.taps):
            _sample_tap(column, cells, &taps[t], layer)
            column += layer.part


cdef void _differentiate_row(const Layer *layer, const float *cells, Py_ssize_t row, const float *grad_column,
                             float *column, float *grad_offset, float *grad_mask, Tap *taps) noexcept nogil:
    """As `_sample_row`, and the gradients [out_width, groups, k, k, 2 or 1] of the row's offsets and modulations."""
    cdef Py_ssize_t x, t, channel
    for x in range(layer.out_width):
        _look(taps, layer, row // layer.out_height, row % layer.out_height, x)
        for t in range(layer.taps):
            channel = t % layer.groups * (layer.taps // layer.groups) + t // layer.groups
            _sample_tap(column, cells, &taps[t], layer)
            _differentiate_tap(grad_column, cells, &taps[t], layer, grad_offset + 2 * channel,
                               grad_offset + 2 * channel + 1, grad_mask + channel)
            column += layer.part
            grad_column += layer.part
        grad_offset += 2 * layer.taps
        grad_mask += layer.taps


cdef void _scatter_row(const Layer *layer, Py_ssize_t row, const float *grad_column, float *grad_x, Py_ssize_t first,
                       Py_ssize_t last, Tap *taps) noexcept nogil:
    """Add a row's gradients to those of the cells that it read, in the channels from `first` up to `last`."""
    cdef Py_ssize_t x, t, low, high
    for x in range(layer.out_width):
        _look(taps, layer, row // layer.out_height, row % layer.out_height, x)
        for t in range(layer.taps):
            low = max(first - t % layer.groups * layer.part, 0)
            high = min(last - t % layer.groups * layer.part, layer.part)
            if low < high:
                _scatter_tap(grad_x, grad_column, &taps[t], low, high)
            grad_column += layer.part


cdef void _scatter_share(const Layer *layer, Py_ssize_t first_row, Py_ssize_t rows, const float *grad_columns,
                         float *grad_x, Py_ssize_t b, Py_ssize_t share, Py_ssize_t shares, Tap *taps) noexcept nogil:
    """`_scatter_row` of those rows that belong to image b, in one of equal shares of the channels."""
    cdef Py_ssize_t first = layer.channels * share // shares, last = layer.channels * (share + 1) // shares
    cdef Py_ssize_t size = layer.out_width * layer.taps * layer.part, row
    for row in range(max(first_row, b * layer.out_height), min(first_row + rows, (b + 1) * layer.out_height)):
        _scatter_row(layer, row, grad_columns + (row - first_row) * size, grad_x, first, last, taps)


def _check_looks(dtype, x, offset, mask, kernel, stride, padding, dilation):
    """Refuse maps, offsets and masks that would lead the loops out of their arrays; returns the columns of a position."""
    kernel = check_whole('kernel', kernel, 1)
    check_whole('stride', stride, 1)
    check_whole('padding', padding, 0)
    check_whole('dilation', dilation, 1)
    check_array('x', x, dtype, ('B', 'H', 'W', 'C'))
    batch, height, width, channels = x.shape
    area = kernel * kernel
    check_array('mask', mask, 'float32', (batch, 'G * k * k', 'h', 'w'), contiguous=False)
    groups, rest = divmod(mask.shape[1], area)
    if rest or not groups or channels % groups:
        raise ValueError(
            f'expected mask with G * k * k channels, where G divides the {channels} channels of x and k = {kernel}, '
            f'found {mask.shape[1]}'
        )
    check_array('offset', offset, 'float32', (batch, 2 * groups * area, *mask.shape[2:]), contiguous=False)
    out_height, out_width = mask.shape[2:]
    if not (height and width and channels and out_height and out_width):
        raise ValueError(f'expected x and mask with cells and channels, found {list(x.shape)} and {list(mask.shape)}')
    if height * width > LARGEST:
        raise ValueError(f'expected x with {LARGEST} cells an image at most, found {height} x {width}')
    return area * channels


def _check(dtype, x, offset, mask, columns, first_row, kernel, stride, padding, dilation):
    """As `_check_looks`, and columns of some rows."""
    size = _check_looks(dtype, x, offset, mask, kernel, stride, padding, dilation)
    check_array('columns', columns, dtype, ('rows * w', size), writable=True)
    batch, (out_height, out_width) = len(x), mask.shape[2:]
    rows, rest = divmod(len(columns), out_width)
    if rest or rows > batch * out_height:
        raise ValueError(
            f'expected columns of whole rows of {out_width} positions, of {batch * out_height} rows at most, '
            f'found {len(columns)} positions'
        )
    check_whole('first_row', first_row, 0, batch * out_height - rows)


def convolve(x, offset, mask, weight, bias, out, kernel, stride, padding, dilation, sigmoid, relu, threads):
    """Fill `out` with the whole deformable convolution, in float32.

    The values do not depend on how many threads there are. A look at a cell outside the map counts 0 times a cell
    inside, so that infinite values and NaN of the map may reach looks that do not see them.

    Args:
        x (float32 [B, H, W, C], contiguous), offset, mask, kernel, stride, padding, dilation: as in `sample`.
        weight (float32 [panels, k * k * C, 16], contiguous): of 16 outputs a panel, zeros beyond the last one.
        bias (float32 [O], contiguous): added to each cell; 16 * (panels - 1) < O <= 16 * panels.
        out (float32 [B, h, w, O], contiguous): filled.
        sigmoid: whether the mask is given before its sigmoid.
        relu: whether the output's negative values become 0.
        threads: how many share the positions.

    Raises:
        TypeError, ValueError: as `sample`.
    """
    size = _check_looks('float32', x, offset, mask, kernel, stride, padding, dilation)
    check_array('bias', bias, 'float32', ('O',))
    check_array('weight', weight, 'float32', ((len(bias) + LANES - 1) // LANES, size, LANES))
    check_array('out', out, 'float32', (len(x), *mask.shape[2:], len(bias)), writable=True)
    check_apart({'out': out}, {'x': x, 'offset': offset, 'mask': mask, 'weight': weight, 'bias': bias})
    threads = check_threads(threads)
    if not out.size:
        return
    cdef Layer layer = _layer(x.shape, offset, mask, kernel, stride, padding, dilation)
    _convolve(&layer, x, weight, bias, out, bool(sigmoid), bool(relu), threads)


cdef inline Py_ssize_t _positions_at_a_time(Py_ssize_t positions, Py_ssize_t threads):
    """Positions of a block: on small maps few enough that all threads have some."""
    return min(BLOCK, (positions + threads * MOST_ROWS - 1) // (threads * MOST_ROWS) * MOST_ROWS)


cdef _convolve(
    const Layer *layer, const float[:, :, :, ::1] x, const float[:, :, ::1] weight, const float[::1] bias,
    float[:, :, :, ::1] out, bint sigmoid, bint relu, int threads,
):
    """The loop of `convolve`, of checked arguments."""
    cdef Product product
    product.weight, product.bias = &weight[0, 0, 0], &bias[0]
    product.panels, product.out_channels = weight.shape[0], bias.shape[0]
    product.sigmoid, product.relu = sigmoid, relu
    cdef Py_ssize_t positions = out.shape[0] * out.shape[1] * out.shape[2], size = block_room(layer, &product)
    cdef Py_ssize_t step = _positions_at_a_time(positions, threads), block
    cdef float *rooms = <float *> malloc(threads * size * sizeof(float))  # each thread touches its own first
    if rooms == NULL:
        raise MemoryError(f'no room for the blocks of {threads} threads')
    cdef const float *cells = &x[0, 0, 0, 0]
    cdef float *filled = &out[0, 0, 0, 0]
    cdef Multiply multiply = best_multiply()
    for block in prange((positions + step - 1) // step, nogil=True, num_threads=threads, schedule='dynamic'):
        convolve_block(layer, &product, cells, filled, block * step, min(step, positions - block * step),
                       rooms + threadid() * size, multiply)
    free(rooms)


def convolve_int8(
    x, offset, mask, weight, scale, bias, out, kernel, stride, padding, dilation, zero, relu, threads, share=0, shares=1,
):
    """Fill `out` with the whole deformable convolution of a map of bytes, whose product is one of whole numbers.

    A sum of samples times weights stands for `scale * sum + bias`; the samples are rounded to bytes as those of the map
    are, and their weights in the map to 256ths. The values do not depend on how many threads there are, nor the sums
    on the processor.

    Args:
        x (uint8 [B, H, W, C], contiguous): the maps.
        offset, kernel, stride, padding, dilation: as in `sample`.
        mask (float32 [B, G * k * k, h, w], any strides): before its sigmoid; NaN counts as no look at all.
        weight (int8 [panels, S, 16, 4], contiguous): of 16 outputs a panel and 4 S columns, zeros beyond the last ones.
        scale, bias (float32 [O], contiguous): 16 * (panels - 1) < O <= 16 * panels.
        out (float32 or uint8 [B, h, w, O], contiguous): filled; bytes are the nearest to the values.
        zero: the byte that cells outside the maps have, 0 to 255.
        relu: whether negative values in float32 become 0; idle where `out` is one of bytes.
        threads: how many share the positions.
        share, shares: which of so many parts of the output to fill, from 0 on; for callers with threads of their own.

    Raises:
        TypeError, ValueError: as `sample`; and more columns than whole numbers of 32 bits can add up.
    """
    size = _check_looks('uint8', x, offset, mask, kernel, stride, padding, dilation)
    if size > MOST_INT8_SUM:
        raise ValueError(f'expected k * k * C of {MOST_INT8_SUM} at most, found {size}')
    check_array('bias', bias, 'float32', ('O',))
    check_array('scale', scale, 'float32', (len(bias),))
    shape = (len(bias) + LANES - 1) // LANES, (size + FOURS - 1) // FOURS, LANES, FOURS
    check_array('weight', weight, 'int8', shape)
    to_bytes = getattr(out, 'dtype', None) == 'uint8'
    check_array('out', out, 'uint8' if to_bytes else 'float32', (len(x), *mask.shape[2:], len(bias)), writable=True)
    check_apart({'out': out}, {'x': x, 'offset': offset, 'mask': mask, 'weight': weight, 'scale': scale, 'bias': bias})
    zero = check_whole('zero', zero, 0, 255)
    threads, shares = check_threads(threads), check_whole('shares', shares, 1)
    share = check_whole('share', share, 0, shares - 1)
    if not out.size:
        return
    cdef Layer layer = _layer(x.shape, offset, mask, kernel, stride, padding, dilation)
    cdef Int8Product product
    cdef const int8_t[:, :, :, ::1] panels = weight
    cdef const float[::1] scales = scale, biases = bias
    cdef const uint8_t[:, :, :, ::1] cells = x
    cdef float[:, :, :, ::1] floats
    cdef uint8_t[:, :, :, ::1] bytes_
    cdef float *as_floats = NULL
    cdef uint8_t *as_bytes = NULL
    product.weight, product.scale, product.bias = &panels[0, 0, 0, 0], &scales[0], &biases[0]
    product.panels, product.steps, product.out_channels = panels.shape[0], panels.shape[1], biases.shape[0]
    product.zero, product.relu = zero, bool(relu)
    if to_bytes:
        bytes_ = out
        as_bytes = &bytes_[0, 0, 0, 0]
    else:
        floats = out
        as_floats = &floats[0, 0, 0, 0]
    positions = out.shape[0] * out.shape[1] * out.shape[2]
    _convolve_int8(&layer, &product, &cells[0, 0, 0, 0], as_floats, as_bytes, positions, threads, share, shares)


cdef _convolve_int8(
    const Layer *layer, const Int8Product *product, const uint8_t *x, float *floats, uint8_t *bytes_,
    Py_ssize_t positions, int threads, Py_ssize_t share, Py_ssize_t shares,
):
    """The loop of `convolve_int8`, as that of `convolve`; the output is `bytes_`, or `floats` where that is NULL."""
    cdef Py_ssize_t size = int8_room(layer, product), block
    cdef Py_ssize_t step = _positions_at_a_time(positions, threads * shares)
    cdef char *rooms = <char *> calloc(threads, size)  # bytes beyond the columns are multiplied by zeros
    if rooms == NULL:
        raise MemoryError(f'no room for the blocks of {threads} threads')
    cdef MultiplyInt8 multiply = best_multiply_int8()
    for block in prange(share, (positions + step - 1) // step, shares, nogil=True, num_threads=threads,
                        schedule='dynamic'):
        convolve_block_int8(layer, product, x, floats, bytes_, block * step, min(step, positions - block * step),
                            rooms + threadid() * size, multiply)
    free(rooms)


def sample(x, offset, mask, columns, first_row, kernel, stride, padding, dilation, threads):
    """Fill `columns` with the samples of the taps of the rows from `first_row` on.

    Args:
        x (float32 [B, H, W, C], contiguous): the maps; or uint16, the bits of bfloat16.
        offset (float32 [B, 2 * G * k * k, h, w], any strides): in cells, (dy, dx) tap by tap.
        mask (float32 [B, G * k * k, h, w], any strides): what each tap is multiplied by.
        columns ([rows * w, k * k * C], contiguous): filled, of the type of x. Rows are counted through all images:
            row b * h + y.
        first_row: the first of the rows.
        kernel, stride, padding, dilation: of the convolution.
        threads: how many share the rows.

    Raises:
        TypeError: arrays of other types, not whole numbers.
        ValueError: shapes, rows or numbers that do not go together, another layout, maps without cells, `columns`
            read-only or overlapping another array.
    """
    dtype = 'uint16' if getattr(x, 'dtype', None) == 'uint16' else 'float32'
    _check(dtype, x, offset, mask, columns, first_row, kernel, stride, padding, dilation)
    check_apart({'columns': columns}, {'x': x, 'offset': offset, 'mask': mask})
    threads = check_threads(threads)
    if not columns.size:
        return
    cdef Layer layer = _layer(x.shape, offset, mask, kernel, stride, padding, dilation)
    if dtype == 'uint16':
        _sample[uint16_t](&layer, x, columns, first_row, threads)
    else:
        _sample[float](&layer, x, columns, first_row, threads)


cdef _sample(
    const Layer *layer, const Value[:, :, :, ::1] x, Value[:, ::1] columns, Py_ssize_t first_row, int threads
):
    """The loop of `sample`, of checked arguments."""
    cdef Py_ssize_t rows = columns.shape[0] // layer.out_width, size = layer.out_width * columns.shape[1], row
    cdef char[::1] room = bytearray(rows * layer.taps * sizeof(Tap))
    cdef Tap *taps = <Tap *> &room[0]
    cdef const Value *cells = &x[0, 0, 0, 0]
    cdef Value *out = &columns[0, 0]
    for row in prange(rows, nogil=True, num_threads=threads, schedule='static'):
        _sample_row(layer, cells, first_row + row, out + row * size, taps + row * layer.taps)


def differentiate(
    x, offset, mask, grad_columns, columns, grad_x, grad_offset, grad_mask,
    first_row, kernel, stride, padding, dilation, threads,
):
    """The backward pass of `sample`, for the same rows.

    The sums do not depend on how many threads there are: one thread adds up a channel's gradients, row by row.

    Args:
        x, offset, mask, first_row, kernel, stride, padding, dilation, threads: as in `sample`; all float32.
        grad_columns (float32 [rows * w, k * k * C], contiguous): the gradient that reaches the columns.
        columns (float32 [rows * w, k * k * C], contiguous): filled, as by `sample`.
        grad_x (float32 [B, H, W, C], contiguous): added to.
        grad_offset, grad_mask (float32 [rows * w, channels of `offset` or `mask`], contiguous): filled.

    Raises:
        TypeError, ValueError: as `sample`.
    """
    _check('float32', x, offset, mask, columns, first_row, kernel, stride, padding, dilation)
    check_array('grad_columns', grad_columns, 'float32', columns.shape)
    check_array('grad_x', grad_x, 'float32', x.shape, writable=True)
    check_array('grad_offset', grad_offset, 'float32', (len(columns), offset.shape[1]), writable=True)
    check_array('grad_mask', grad_mask, 'float32', (len(columns), mask.shape[1]), writable=True)
    check_apart(
        {'columns': columns, 'grad_x': grad_x, 'grad_offset': grad_offset, 'grad_mask': grad_mask},
        {'x': x, 'offset': offset, 'mask': mask, 'grad_columns': grad_columns},
    )
    threads = check_threads(threads)
    if not columns.size:
        return
    cdef Layer layer = _layer(x.shape, offset, mask, kernel, stride, padding, dilation)
    _differentiate(&layer, x, grad_columns, columns, grad_x, grad_offset, grad_mask, first_row, threads)


cdef _differentiate(
    const Layer *layer, const float[:, :, :, ::1] x, const float[:, ::1] grad_columns, float[:, ::1] columns,
    float[:, :, :, ::1] grad_x, float[:, ::1] grad_offset, float[:, ::1] grad_mask, Py_ssize_t first_row, int threads,
):
    """The loops of `differentiate`, of checked arguments."""
    cdef Py_ssize_t rows = columns.shape[0] // layer.out_width, size = layer.out_width * columns.shape[1]
    cdef Py_ssize_t first_image = first_row // layer.out_height
    cdef Py_ssize_t images = (first_row + rows - 1) // layer.out_height + 1 - first_image
    cdef Py_ssize_t shares = max(1, min(threads, layer.channels // 16))  # at least a cache line of a cell to each
    cdef char[::1] room = bytearray(max(rows, images * shares) * layer.taps * sizeof(Tap))
    cdef Tap *taps = <Tap *> &room[0]
    cdef Py_ssize_t row, part, width = layer.out_width
    cdef const float *cells = &x[0, 0, 0, 0]
    cdef const float *grad = &grad_columns[0, 0]
    cdef float *out = &columns[0, 0]
    cdef float *by_x = &grad_x[0, 0, 0, 0]
    cdef float *by_offset = &grad_offset[0, 0]
    cdef float *by_mask = &grad_mask[0, 0]
    for row in prange(rows, nogil=True, num_threads=threads, schedule='static'):
        _differentiate_row(
            layer, cells, first_row + row, grad + row * size, out + row * size,
            by_offset + 2 * row * width * layer.taps, by_mask + row * width * layer.taps, taps + row * layer.taps,
        )
    for part in prange(images * shares, nogil=True, num_threads=threads, schedule='static'):
        _scatter_share(layer, first_row, rows, grad, by_x, first_image + part // shares, part % shares, shares,
                       taps + part * layer.taps)
