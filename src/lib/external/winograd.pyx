# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""The transforms of Winograd's convolution F(4 x 4, 3 x 3) (Lavin and Gray 2016, section 4.3), on channels-last maps.

A tile is 4 x 4 cells of the output; it takes 6 x 6 cells of the input, one more on each side. In the transformed
space the convolution is a product of matrices for each of the 36 places, which is left to torch: see
`models/winograd.py`.
"""

from .checks import check_apart, check_array, check_threads, check_whole

from cython.parallel cimport prange

cdef extern from "per_cpu.h":
    """
    #define LANES 16  /* channels at a time: their 36 values stay in the first cache */

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

    /* A^T p A + bias of one tile, whose 36 products lie `step` floats apart; out[4 * row + column] points to the n
       channels of an output cell, or is NULL where there is none. */
    PER_CPU static void finish_tile(const float *product, float *const *out, const float *bias, Py_ssize_t step,
                                    Py_ssize_t n) {
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
                    if (out[4 * i + j])
                        for (Py_ssize_t l = 0; l < m; l++) out[4 * i + j][c + l] = whole[j][l] + bias[c + l];
            }
        }
    }
    """
    void transform_tile(const float **cell, float *out, Py_ssize_t step, Py_ssize_t n) noexcept nogil
    void finish_tile(const float *product, float **out, const float *bias, Py_ssize_t step, Py_ssize_t n) noexcept nogil


cdef void _transform_row(const float *image, const float *zeros, Py_ssize_t height, Py_ssize_t width,
                         Py_ssize_t channels, Py_ssize_t tile_row, Py_ssize_t tile_columns, float *out,
                         Py_ssize_t step) noexcept nogil:
    """One row of an image's tiles, to `tile_columns` tiles of `out`."""
    cdef const float *cell[36]
    cdef Py_ssize_t tile, i, j, y, x
    for tile in range(tile_columns):
        for i in range(6):
            for j in range(6):
                y, x = 4 * tile_row + i - 1, 4 * tile + j - 1
                if 0 <= y < height and 0 <= x < width:
                    cell[6 * i + j] = image + (y * width + x) * channels
                else:
                    cell[6 * i + j] = zeros
        transform_tile(cell, out + tile * channels, step, channels)


cdef void _finish_row(const float *product, const float *bias, Py_ssize_t height, Py_ssize_t width, Py_ssize_t channels,
                      Py_ssize_t tile_row, Py_ssize_t tile_columns, float *image, Py_ssize_t step) noexcept nogil:
    """One row of an image's tiles, from `tile_columns` tiles of products."""
    cdef float *cell[16]
    cdef Py_ssize_t tile, i, j, y, x
    for tile in range(tile_columns):
        for i in range(4):
            for j in range(4):
                y, x = 4 * tile_row + i, 4 * tile + j
                cell[4 * i + j] = image + (y * width + x) * channels if y < height and x < width else NULL
        finish_tile(product + tile * channels, cell, bias, step, channels)


def _check(maps_name, maps, tiles_name, tiles, vector_name, vector, first_row, threads, into_maps):
    """Refuse maps, tiles and a vector that do not go together, of which the maps or the tiles are written to.

    Returns:
        the first row of tiles, how many rows there are, the number of threads.
    """
    check_array(maps_name, maps, 'float32', ('B', 'H', 'W', 'C'), writable=into_maps)
    images, height, width, channels = maps.shape
    if not (height and width and channels):
        raise ValueError(f'expected {maps_name} with cells and channels, found {list(maps.shape)}')
    check_array(tiles_name, tiles, 'float32', (36, 'tiles', channels), writable=not into_maps)
    check_array(vector_name, vector, 'float32', (channels,))
    across, down = (width + 3) // 4, (height + 3) // 4
    rows, rest = divmod(tiles.shape[1], across)
    if rest or rows > images * down:
        raise ValueError(
            f'expected {tiles_name} of whole rows of {across} tiles, of {images * down} rows at most, '
            f'found {tiles.shape[1]} tiles'
        )
    if into_maps:
        check_apart({maps_name: maps}, {tiles_name: tiles, vector_name: vector})
    else:
        check_apart({tiles_name: tiles}, {maps_name: maps, vector_name: vector})
    return check_whole('first_row', first_row, 0, images * down - rows), rows, check_threads(threads)


def transform(x, zeros, out, first_row, threads):
    """Fill `out` with B^T d B of the tiles of some rows, with zeros around the map.

    Args:
        x (float32 [B, H, W, C], contiguous): the maps.
        zeros (float32 [C]): zeros.
        out (float32 [36, tiles, C], contiguous): filled; tiles are those of whole rows, counted through all images.
        first_row: the first row of tiles.
        threads: how many share the rows.

    Raises:
        TypeError: not float32 arrays, not whole numbers.
        ValueError: shapes or rows that do not go together, another layout, `out` read-only or overlapping another.
    """
    first_row, rows, threads = _check('x', x, 'out', out, 'zeros', zeros, first_row, threads, into_maps=False)
    if not rows:
        return
    cdef const float[:, :, :, ::1] maps = x
    cdef const float[::1] nothing = zeros
    cdef float[:, :, ::1] transformed = out
    cdef Py_ssize_t height = maps.shape[1], width = maps.shape[2], channels = maps.shape[3], row
    cdef Py_ssize_t down = (height + 3) // 4, across = (width + 3) // 4, step = transformed.shape[1] * channels
    cdef Py_ssize_t first = first_row, count = rows
    cdef int workers = threads
    cdef const float *images = &maps[0, 0, 0, 0]
    cdef float *tiles = &transformed[0, 0, 0]
    for row in prange(count, nogil=True, num_threads=workers, schedule='static'):
        _transform_row(images + (first + row) // down * height * width * channels, &nothing[0], height, width,
                       channels, (first + row) % down, across, tiles + row * across * channels, step)


def finish(products, bias, out, first_row, threads):
    """Fill some rows of tiles of `out` with A^T p A + bias.

    Args:
        products (float32 [36, tiles, O], contiguous): tiles as in `transform`.
        bias (float32 [O]): added to each cell.
        out (float32 [B, H, W, O], contiguous): those rows are filled.
        first_row: the first row of tiles.
        threads: how many share the rows.

    Raises:
        TypeError, ValueError: as `transform`.
    """
    first_row, rows, threads = _check('out', out, 'products', products, 'bias', bias, first_row, threads, into_maps=True)
    if not rows:
        return
    cdef const float[:, :, ::1] transformed = products
    cdef const float[::1] added = bias
    cdef float[:, :, :, ::1] maps = out
    cdef Py_ssize_t height = maps.shape[1], width = maps.shape[2], channels = maps.shape[3], row
    cdef Py_ssize_t down = (height + 3) // 4, across = (width + 3) // 4, step = transformed.shape[1] * channels
    cdef Py_ssize_t first = first_row, count = rows
    cdef int workers = threads
    cdef const float *tiles = &transformed[0, 0, 0]
    cdef float *images = &maps[0, 0, 0, 0]
    for row in prange(count, nogil=True, num_threads=workers, schedule='static'):
        _finish_row(tiles + row * across * channels, &added[0], height, width, channels, (first + row) % down,
                    across, images + (first + row) // down * height * width * channels, step)
