# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Peaks of heatmaps: the 3 x 3 maximum that replaces non-maximum suppression ("Objects as Points", section 4).

One thread goes once over the maps, which is faster than waking others for it.
"""

import numpy as np

from .checks import check_apart, check_array, check_whole

from libc.math cimport exp, log
from libc.stdint cimport int64_t

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

    PER_CPU static int any_reaches(const float *values, Py_ssize_t n, float limit) {
        int any = 0;
        for (Py_ssize_t i = 0; i < n; i++) any |= values[i] >= limit;
        return any;
    }
    """
    void widen_row(float *out, const float *row, Py_ssize_t n) noexcept nogil
    void keep_row(float *out, const float *row, const float *above, const float *own, const float *below,
                  Py_ssize_t n) noexcept nogil
    int any_reaches(const float *values, Py_ssize_t n, float limit) noexcept nogil


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


cdef enum:
    BLOCK = 128  # cells that are looked at together, and passed over where all are too low

cdef double EQUAL = 2e-6  # probabilities in float32 that differ by this share of theirs differ, however they are computed
cdef float LEAST_LOGIT = -87  # the probability of a lower one is no normal number in float32
cdef float LEAST_PROBABILITY = 1.1754944e-38


cdef struct Search:
    const float *heat
    Py_ssize_t channels, height, width
    Py_ssize_t channel_step, row_step, column_step  # in memory
    bint channels_last, logits
    float limit  # what is lower is not among the best
    float *best  # a heap of the highest peaks' values, the lowest of which comes first
    Py_ssize_t peaks, wanted  # how many are in it, and how many are to be
    int64_t *cells  # found so far
    Py_ssize_t count, room


cdef float _level(float value, bint logits) noexcept nogil:
    """The lowest value whose probability may equal that of `value`, computed in float32."""
    cdef double share
    if not logits:
        return value
    share = (1 - EQUAL) / (1 + exp(-<double> value))
    return <float> log(share / (1 - share))


cdef void _insert(Search *search, float value) noexcept nogil:
    """Put a peak's value into the heap, in place of the lowest where it is full, and raise the limit then."""
    cdef float *best = search.best
    cdef Py_ssize_t at, other
    if search.peaks < search.wanted:
        at = search.peaks
        search.peaks += 1
        while at > 0 and best[(at - 1) // 2] > value:
            best[at] = best[(at - 1) // 2]
            at = (at - 1) // 2
    elif value > best[0]:
        at = 0
        while True:
            other = 2 * at + 1
            if other + 1 < search.wanted and best[other + 1] < best[other]:
                other += 1
            if other >= search.wanted or best[other] >= value:
                break
            best[at] = best[other]
            at = other
    else:
        return
    best[at] = value
    if search.peaks == search.wanted:
        search.limit = max(search.limit, _level(best[0], search.logits))


cdef Py_ssize_t _place(const Search *search, int64_t cell) noexcept nogil:
    """Where in memory a cell c * h * w + y * w + x is."""
    cdef Py_ssize_t size = search.height * search.width, rest = cell % size
    return (cell // size * search.channel_step + rest // search.width * search.row_step
            + rest % search.width * search.column_step)


cdef void _leave_low_out(Search *search) noexcept nogil:
    """Leave out the cells that were found when the limit was lower, and are too low by now."""
    cdef Py_ssize_t i, kept = 0
    for i in range(search.count):
        if search.heat[_place(search, search.cells[i])] >= search.limit:
            search.cells[kept] = search.cells[i]
            kept += 1
    search.count = kept


cdef bint _append(Search *search, int64_t cell) noexcept nogil:
    """Note a cell. Returns whether there is room, a quarter of it after low ones were left out."""
    if search.count == search.room:
        _leave_low_out(search)
        if 4 * search.count > 3 * search.room:
            return False
    search.cells[search.count] = cell
    search.count += 1
    return True


cdef bint _look(Search *search, Py_ssize_t place) noexcept nogil:
    """Note the cell at a place in memory if it may be a peak. Returns whether there was room."""
    cdef Py_ssize_t channel = place // search.channel_step, y = place // search.row_step, x = place // search.column_step
    cdef Py_ssize_t top, bottom, left, right, row, column
    cdef const float *own = search.heat + place
    cdef float value = own[0], highest = value, other
    if search.channels_last:
        channel = place % search.channels
    else:
        y -= channel * search.height
    x %= search.width
    top, bottom = -1 if y > 0 else 0, 2 if y < search.height - 1 else 1
    left, right = -1 if x > 0 else 0, 2 if x < search.width - 1 else 1
    for row in range(top, bottom):
        for column in range(left, right):
            other = own[row * search.row_step + column * search.column_step]
            if other > highest:
                highest = other
    if value >= highest:
        _insert(search, value)
    elif not search.logits or (highest < 10 and highest - value > 0.1) or value < _level(highest, True):
        return True
    return _append(search, (channel * search.height + y) * search.width + x)


cdef bint _scan(Search *search) noexcept nogil:
    """Look at all cells in the order of memory. Returns whether there was room for those found."""
    cdef Py_ssize_t total = search.channels * search.height * search.width, block, start, end, place
    for block in range((total + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        end = min(start + BLOCK, total)
        if not any_reaches(search.heat + start, end - start, search.limit):
            continue
        for place in range(start, end):
            if search.heat[place] >= search.limit and not _look(search, place):
                return False
    _leave_low_out(search)
    return True


def strongest(heat, K, logits, cells):
    """Find cells of an image's maps among which are its K best peaks, in one pass.

    They are all cells that may be a peak of a probability up to that of the K-th best. Of logits, cells are found, too,
    whose probability is a little lower than a neighbour's, since it may be the same once it is rounded: which ones are
    peaks is up to the caller. A cell that is not a number is no peak.

    Args:
        heat (float32 [C, h, w], contiguous, or with the channels last in memory): probabilities or logits.
        K: how many peaks.
        logits: whether they are logits.
        cells (int64 [n], contiguous): room; its beginning is filled with the cells c * h * w + y * w + x, in ascending
            order.

    Returns:
        how many are found, and a value: no other cell of it or more can be one of the best. -1 where there is no room for
        them, or fewer than K peaks have a probability over 0.

    Raises:
        TypeError: not a float32 and an int64 array, not a whole number.
        ValueError: another shape or layout, a K below 1, `cells` read-only or overlapping `heat`.
    """
    check_array('heat', heat, 'float32', ('C', 'h', 'w'), contiguous=False)
    check_array('cells', cells, 'int64', ('n',), writable=True)
    check_apart({'cells': cells}, {'heat': heat})
    cdef bint last = not heat.flags.c_contiguous
    if last and not heat.transpose(1, 2, 0).flags.c_contiguous:
        raise ValueError(f'expected heat contiguous in memory, maps or channels last, found strides {list(heat.strides)}')
    wanted = check_whole('K', K, 1)
    if wanted > heat.size or not cells.size:
        return -1, 0.0
    cdef const float[:, :, :] maps = heat
    cdef int64_t[::1] found = cells
    cdef float[::1] best = np.empty(wanted, np.float32)
    cdef Search search
    search.channels, search.height, search.width = maps.shape[0], maps.shape[1], maps.shape[2]
    search.channel_step = 1 if last else search.height * search.width
    search.column_step = search.channels if last else 1
    search.row_step = search.width * search.column_step
    search.heat, search.best, search.cells = &maps[0, 0, 0], &best[0], &found[0]
    search.channels_last, search.logits = last, logits
    search.limit = LEAST_LOGIT if logits else LEAST_PROBABILITY
    search.peaks, search.count, search.wanted, search.room = 0, 0, wanted, found.shape[0]
    cdef bint complete
    with nogil:
        complete = _scan(&search)
    if not complete or search.peaks < search.wanted:
        return -1, 0.0
    chosen = cells[:search.count]
    chosen.sort()
    return search.count, search.limit
