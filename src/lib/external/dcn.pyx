# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""The sampling of modulated deformable convolution on the CPU, forward and backward.

Maps lie channels-last, so that all channels of a tap are one stretch of memory; the loops over channels are
vectorised and the rows shared by OpenMP threads. The matrix products are left to torch: see
`models/networks/native_dcn.py`, which also says what the arguments are.

A position is one cell of the output map; a tap one of its k * k looks at the input. Each tap reads the four
cells around its place y, x with bilinear weights; cells outside the map are zeros.
"""

from cython.parallel cimport prange
from libc.string cimport memset

cdef extern from *:
    """
    /* gcc builds these for several instruction sets and picks at load time, so that a build travels. */
    #if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__gnu_linux__)
    #define PER_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
    #else
    #define PER_CPU
    #endif

    /* out = the sum over four cells of weight * cell */
    PER_CPU static void blend(float *restrict out, const float *a, const float *b, const float *c, const float *d,
                              const float *weight, Py_ssize_t n) {
        const float wa = weight[0], wb = weight[1], wc = weight[2], wd = weight[3];
        for (Py_ssize_t i = 0; i < n; i++) out[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
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
    PER_CPU static void accumulate(float *restrict sum, const float *restrict grad, float weight, Py_ssize_t n) {
        for (Py_ssize_t i = 0; i < n; i++) sum[i] += weight * grad[i];
    }
    """
    void blend(float *out, const float *a, const float *b, const float *c, const float *d,
               const float *weight, Py_ssize_t n) noexcept nogil
    void dots(float *dot, const float *grad, const float *a, const float *b, const float *c, const float *d,
              Py_ssize_t n) noexcept nogil
    void accumulate(float *sum, const float *grad, float weight, Py_ssize_t n) noexcept nogil


cdef struct Taps:
    # Everything that the loops need to know, with plain pointers in place of memoryviews.
    const float *x          # [B, height, width, channels]
    const float *offset     # [B, 2 * groups * k * k, out_height, out_width], of any strides (in floats)
    const float *mask       # [B, groups * k * k, out_height, out_width], the same
    Py_ssize_t offset_strides[4]
    Py_ssize_t mask_strides[4]
    Py_ssize_t height, width, channels, groups  # groups of channels with offsets of their own
    Py_ssize_t kernel, stride, padding, dilation
    Py_ssize_t out_height, out_width


cdef struct Tap:
    Py_ssize_t cell[4]  # where the four cells begin in their image; 0 for those outside the map
    float weight[4]     # of the cells; 0 outside the map
    float dy[4]         # derivatives of the weights by y and by x
    float dx[4]
    float modulation


cdef Taps _taps(
    const float[:, :, :, ::1] x, const float[:, :, :, :] offset, const float[:, :, :, :] mask,
    int kernel, int stride, int padding, int dilation,
):
    cdef Taps taps
    cdef int i
    taps.x, taps.offset, taps.mask = &x[0, 0, 0, 0], &offset[0, 0, 0, 0], &mask[0, 0, 0, 0]
    for i in range(4):
        taps.offset_strides[i] = offset.strides[i] // <Py_ssize_t> sizeof(float)
        taps.mask_strides[i] = mask.strides[i] // <Py_ssize_t> sizeof(float)
    taps.height, taps.width, taps.channels = x.shape[1], x.shape[2], x.shape[3]
    taps.groups = mask.shape[1] // (kernel * kernel)
    taps.kernel, taps.stride, taps.padding, taps.dilation = kernel, stride, padding, dilation
    taps.out_height, taps.out_width = mask.shape[2], mask.shape[3]
    return taps


cdef inline bint _locate(Tap *tap, const Taps *taps, const float *offset, const float *mask, Py_ssize_t channel,
                         Py_ssize_t start_y, Py_ssize_t start_x) noexcept nogil:
    """Where tap `channel` (of groups * k * k) of a position looks; False: at nothing but cells outside the map.

    `offset` and `mask` point to the position's channel 0, `start_y` and `start_x` say where the tap lies unmoved.
    """
    cdef Py_ssize_t i, j, k, cell_y, cell_x, low_y, low_x
    cdef float y = start_y + offset[2 * channel * taps.offset_strides[1]]
    cdef float x = start_x + offset[(2 * channel + 1) * taps.offset_strides[1]]
    cdef float part_y, part_x, weight_y, weight_x
    if not (-1 <= y <= taps.height and -1 <= x <= taps.width):  # NaN is outside, too
        return False
    low_y, low_x = <Py_ssize_t> (y + 1) - 1, <Py_ssize_t> (x + 1) - 1  # the floor, of numbers from -1 on
    part_y, part_x = y - low_y, x - low_x
    tap.modulation = mask[channel * taps.mask_strides[1]]
    for i in range(2):
        cell_y, weight_y = low_y + i, part_y if i else 1 - part_y
        for j in range(2):
            cell_x, weight_x = low_x + j, part_x if j else 1 - part_x
            k = 2 * i + j
            if 0 <= cell_y < taps.height and 0 <= cell_x < taps.width:
                tap.cell[k] = (cell_y * taps.width + cell_x) * taps.channels
                tap.weight[k] = weight_y * weight_x
                tap.dy[k] = weight_x if i else -weight_x
                tap.dx[k] = weight_y if j else -weight_y
            else:
                tap.cell[k] = 0
                tap.weight[k] = tap.dy[k] = tap.dx[k] = 0
    return True


cdef inline void _sample_tap(float *column, const float *image, const Tap *tap, Py_ssize_t n) noexcept nogil:
    """What a tap sees of n channels, of which `image` points to the first."""
    cdef float weight[4]
    cdef Py_ssize_t k
    for k in range(4):
        weight[k] = tap.weight[k] * tap.modulation
    blend(column, image + tap.cell[0], image + tap.cell[1], image + tap.cell[2], image + tap.cell[3], weight, n)


cdef void _sample_row(const Taps *taps, Py_ssize_t row, float *column) noexcept nogil:
    """Fill the columns [out_width, k, k, C] of a row, which is counted through all images."""
    cdef Py_ssize_t b = row // taps.out_height, y = row % taps.out_height, n = taps.channels // taps.groups
    cdef Py_ssize_t area = taps.kernel * taps.kernel, x, i, j, g
    cdef const float *image = taps.x + b * taps.height * taps.width * taps.channels
    cdef const float *offset = taps.offset + b * taps.offset_strides[0] + y * taps.offset_strides[2]
    cdef const float *mask = taps.mask + b * taps.mask_strides[0] + y * taps.mask_strides[2]
    cdef Py_ssize_t top = y * taps.stride - taps.padding, left
    cdef Tap tap
    for x in range(taps.out_width):
        left = x * taps.stride - taps.padding
        for i in range(taps.kernel):
            for j in range(taps.kernel):
                for g in range(taps.groups):
                    if _locate(&tap, taps, offset, mask, g * area + i * taps.kernel + j, top + i * taps.dilation,
                               left + j * taps.dilation):
                        _sample_tap(column, image + g * n, &tap, n)
                    else:
                        memset(column, 0, n * sizeof(float))
                    column += n
        offset += taps.offset_strides[3]
        mask += taps.mask_strides[3]


cdef void _differentiate_row(const Taps *taps, Py_ssize_t row, const float *grad_column, float *column,
                             float[:, :, :, ::1] grad_offset, float[:, :, :, ::1] grad_mask) noexcept nogil:
    """As `_sample_row`, and the gradients [B, h, w, channels] of the row's offsets and modulations."""
    cdef Py_ssize_t b = row // taps.out_height, y = row % taps.out_height, n = taps.channels // taps.groups
    cdef Py_ssize_t area = taps.kernel * taps.kernel, x, i, j, k, g, channel
    cdef const float *image = taps.x + b * taps.height * taps.width * taps.channels
    cdef const float *offset = taps.offset + b * taps.offset_strides[0] + y * taps.offset_strides[2]
    cdef const float *mask = taps.mask + b * taps.mask_strides[0] + y * taps.mask_strides[2]
    cdef Py_ssize_t top = y * taps.stride - taps.padding, left
    cdef const float *pixel
    cdef float by_mask, by_y, by_x
    cdef float dot[4]
    cdef Tap tap
    for x in range(taps.out_width):
        left = x * taps.stride - taps.padding
        for i in range(taps.kernel):
            for j in range(taps.kernel):
                for g in range(taps.groups):
                    channel = g * area + i * taps.kernel + j
                    by_mask = by_y = by_x = 0
                    if _locate(&tap, taps, offset, mask, channel, top + i * taps.dilation, left + j * taps.dilation):
                        pixel = image + g * n
                        _sample_tap(column, pixel, &tap, n)
                        dots(dot, grad_column, pixel + tap.cell[0], pixel + tap.cell[1], pixel + tap.cell[2],
                             pixel + tap.cell[3], n)
                        for k in range(4):
                            by_mask += tap.weight[k] * dot[k]
                            by_y += tap.dy[k] * dot[k]
                            by_x += tap.dx[k] * dot[k]
                        by_y, by_x = by_y * tap.modulation, by_x * tap.modulation
                    else:
                        memset(column, 0, n * sizeof(float))
                    grad_mask[b, y, x, channel] = by_mask
                    grad_offset[b, y, x, 2 * channel] = by_y
                    grad_offset[b, y, x, 2 * channel + 1] = by_x
                    grad_column += n
                    column += n
        offset += taps.offset_strides[3]
        mask += taps.mask_strides[3]


cdef void _scatter_row(const Taps *taps, Py_ssize_t row, const float *grad_column, float *grad_x,
                       Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Add a row's gradients to those of the cells that it read, in the channels from `first` up to `last`."""
    cdef Py_ssize_t b = row // taps.out_height, y = row % taps.out_height, n = taps.channels // taps.groups
    cdef Py_ssize_t area = taps.kernel * taps.kernel, x, i, j, k, g, low, high
    cdef float *grad_image = grad_x + b * taps.height * taps.width * taps.channels
    cdef const float *offset = taps.offset + b * taps.offset_strides[0] + y * taps.offset_strides[2]
    cdef const float *mask = taps.mask + b * taps.mask_strides[0] + y * taps.mask_strides[2]
    cdef Py_ssize_t top = y * taps.stride - taps.padding, left
    cdef Tap tap
    for x in range(taps.out_width):
        left = x * taps.stride - taps.padding
        for i in range(taps.kernel):
            for j in range(taps.kernel):
                for g in range(taps.groups):
                    low, high = max(first, g * n), min(last, (g + 1) * n)
                    if low < high and _locate(&tap, taps, offset, mask, g * area + i * taps.kernel + j,
                                              top + i * taps.dilation, left + j * taps.dilation):
                        for k in range(4):
                            if tap.weight[k] != 0:
                                accumulate(grad_image + tap.cell[k] + low, grad_column + low,
                                           tap.weight[k] * tap.modulation, high - low)
                grad_column += taps.channels
        offset += taps.offset_strides[3]
        mask += taps.mask_strides[3]


cdef void _scatter_share(const Taps *taps, Py_ssize_t first_row, Py_ssize_t rows, const float *grad_columns,
                         float *grad_x, Py_ssize_t b, Py_ssize_t share, Py_ssize_t shares) noexcept nogil:
    """`_scatter_row` of those rows that belong to image b, in one of equal shares of the channels."""
    cdef Py_ssize_t first = taps.channels * share // shares, last = taps.channels * (share + 1) // shares
    cdef Py_ssize_t size = taps.out_width * taps.kernel * taps.kernel * taps.channels, row
    for row in range(max(first_row, b * taps.out_height), min(first_row + rows, (b + 1) * taps.out_height)):
        _scatter_row(taps, row, grad_columns + (row - first_row) * size, grad_x, first, last)


def sample(
    const float[:, :, :, ::1] x, const float[:, :, :, :] offset, const float[:, :, :, :] mask, float[:, ::1] columns,
    Py_ssize_t first_row, int kernel, int stride, int padding, int dilation, int threads,
):
    """Fill `columns` with what the taps of the rows from `first_row` on see.

    Args:
        x: [B, H, W, C].
        offset: [B, 2 * G * k * k, h, w] in cells, (dy, dx) tap by tap, of any strides.
        mask: [B, G * k * k, h, w], any strides.
        columns: [rows * w, k * k * C]. Rows are counted through all images: row b * h + y.
        threads: how many share the rows.
    """
    cdef Taps taps = _taps(x, offset, mask, kernel, stride, padding, dilation)
    cdef Py_ssize_t rows = columns.shape[0] // taps.out_width, size = taps.out_width * columns.shape[1], row
    cdef float *out = &columns[0, 0]
    for row in prange(rows, nogil=True, num_threads=threads, schedule='static'):
        _sample_row(&taps, first_row + row, out + row * size)


def differentiate(
    const float[:, :, :, ::1] x, const float[:, :, :, :] offset, const float[:, :, :, :] mask,
    const float[:, ::1] grad_columns, float[:, ::1] columns,
    float[:, :, :, ::1] grad_x, float[:, :, :, ::1] grad_offset, float[:, :, :, ::1] grad_mask,
    Py_ssize_t first_row, int kernel, int stride, int padding, int dilation, int threads,
):
    """The backward pass of `sample`, for the same rows.

    The sums do not depend on how many threads there are: one thread adds up a channel's gradients, row by row.

    Args:
        grad_columns: [rows * w, k * k * C], the gradient that reaches the columns.
        columns: as in `sample`; filled again.
        grad_x: [B, H, W, C]; added to.
        grad_offset, grad_mask: [B, h, w, channels of `offset` or `mask`]; these rows are filled.
    """
    cdef Taps taps = _taps(x, offset, mask, kernel, stride, padding, dilation)
    cdef Py_ssize_t rows = columns.shape[0] // taps.out_width, size = taps.out_width * columns.shape[1]
    cdef Py_ssize_t first_image = first_row // taps.out_height
    cdef Py_ssize_t images = (first_row + rows - 1) // taps.out_height + 1 - first_image
    cdef Py_ssize_t shares = max(1, min(threads, taps.channels // 16))  # no thread gets less than a cache line of a cell
    cdef Py_ssize_t row, part
    cdef const float *grad = &grad_columns[0, 0]
    cdef float *out = &columns[0, 0]
    cdef float *grad_images = &grad_x[0, 0, 0, 0]
    for row in prange(rows, nogil=True, num_threads=threads, schedule='static'):
        _differentiate_row(&taps, first_row + row, grad + row * size, out + row * size, grad_offset, grad_mask)
    for part in prange(images * shares, nogil=True, num_threads=threads, schedule='static'):
        _scatter_share(&taps, first_row, rows, grad, grad_images, first_image + part // shares, part % shares, shares)
