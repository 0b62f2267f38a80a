# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Peaks of heatmaps: the 3 x 3 maximum that replaces non-maximum suppression ("Objects as Points", section 4).

One thread goes once over the maps, which is faster than waking others for it.
"""

import numpy as np

from .checks import check_apart, check_array

cdef extern from "per_cpu.h":
    """
    static inline float greater(float a, float b) { return a > b ? a : b; }

    /* out = each cell's maximum with its neighbours to the left and to the right */
    PER_CPU static void widen_row(float *__restrict out, const float *__restrict row, Py_ssize_t n) {
        if (n < 2) {
            if (n) out[0] = row[0];
            return;
        }
        out[0] = greater(row[0], row[1]);
        for (Py_ssize_t i = 1; i < n - 1; i++) out[i] = greater(greater(row[i - 1], row[i]), row[i + 1]);
        out[n - 1] = greater(row[n - 2], row[n - 1]);
    }

    /* out = the cells of a row that no widened row beside or of it exceeds, else 0 */
    PER_CPU static void keep_row(float *__restrict out, const float *__restrict row, const float *above,
                                 const float *own, const float *below, Py_ssize_t n) {
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


def keep(heat, out):
    """Fill `out` with the cells of `heat` that are the maximum of their 3 x 3 neighbourhood, and zeros.

    Args:
        heat (float32 [n, h, w], contiguous): the maps. A cell that is not a number is no peak.
        out (float32 [n, h, w], contiguous): another array, filled.

    Raises:
        TypeError: not float32 arrays.
        ValueError: another shape or layout, `out` read-only or overlapping `heat`.
    """
    check_array('heat', heat, 'float32', ('n', 'h', 'w'))
    check_array('out', out, 'float32', heat.shape, writable=True)
    check_apart({'out': out}, {'heat': heat})
    if not heat.size:
        return
    cdef const float[:, :, ::1] maps = heat
    cdef float[:, :, ::1] kept = out
    cdef float[::1] widened = np.empty(3 * maps.shape[2], np.float32)
    cdef Py_ssize_t i
    with nogil:
        for i in range(maps.shape[0]):
            _keep_map(&maps[i, 0, 0], &kept[i, 0, 0], &widened[0], maps.shape[1], maps.shape[2])
