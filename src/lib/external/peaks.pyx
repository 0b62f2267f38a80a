# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Peaks of heatmaps: the 3 x 3 maximum that replaces non-maximum suppression ("Objects as Points", section 4).

One thread goes once over the maps, which is faster than waking others for it.
"""

from libc.stdlib cimport free, malloc

cdef extern from "per_cpu.h":
    """
    static inline float greater(float a, float b) { return a > b ? a : b; }

    /* out = each cell's maximum with its neighbours to the left and to the right */
    PER_CPU static void widen_row(float *restrict out, const float *restrict row, Py_ssize_t n) {
        if (n < 2) {
            if (n) out[0] = row[0];
            return;
        }
        out[0] = greater(row[0], row[1]);
        for (Py_ssize_t i = 1; i < n - 1; i++) out[i] = greater(greater(row[i - 1], row[i]), row[i + 1]);
        out[n - 1] = greater(row[n - 2], row[n - 1]);
    }

    /* out = the cells of a row that no widened row beside or of it exceeds, else 0 */
    PER_CPU static void keep_row(float *restrict out, const float *restrict row, const float *above, const float *own,
                                 const float *below, Py_ssize_t n) {
        for (Py_ssize_t i = 0; i < n; i++)
            out[i] = row[i] >= greater(greater(above[i], own[i]), below[i]) ? row[i] : 0;
    }
    """
    void widen_row(float *out, const float *row, Py_ssize_t n) noexcept nogil
    void keep_row(float *out, const float *row, const float *above, const float *own, const float *below,
                  Py_ssize_t n) noexcept nogil


cdef void _keep_map(const float *heat, float *out, float *widened, Py_ssize_t height, Py_ssize_t width) noexcept nogil:
    """One map; `widened` is room for three rows, those around the one at hand."""
    cdef Py_ssize_t y, above, below
    widen_row(widened, heat, width)
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        if below > y:
            widen_row(widened + below % 3 * width, heat + below * width, width)
        keep_row(out + y * width, heat + y * width, widened + above % 3 * width, widened + y % 3 * width,
                 widened + below % 3 * width, width)


def keep(const float[:, :, ::1] heat, float[:, :, ::1] out):
    """Fill `out` with the cells of `heat` that are the maximum of their 3 x 3 neighbourhood, and zeros.

    Args:
        heat: [n, h, w] maps. A cell that is not a number is no peak.
        out: [n, h, w], another array.

    Raises:
        MemoryError: there is no room for three rows.
        ValueError: the shapes differ.
    """
    cdef Py_ssize_t height = heat.shape[1], width = heat.shape[2], i
    if out.shape[0] != heat.shape[0] or out.shape[1] != height or out.shape[2] != width:
        raise ValueError(f'expected two arrays of one shape, found {heat.base.shape} and {out.base.shape}')
    if heat.shape[0] * height * width == 0:
        return
    cdef float *widened = <float *> malloc(3 * width * sizeof(float))
    if widened == NULL:
        raise MemoryError
    with nogil:
        for i in range(heat.shape[0]):
            _keep_map(&heat[i, 0, 0], &out[i, 0, 0], widened, height, width)
    free(widened)
