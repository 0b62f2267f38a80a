# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Loops over the cells of images and maps: the colours of a network input, the Gaussian of an object.

The loops run in C without the GIL and make no arrays but the results.
"""

from operator import index

import numpy as np

from .checks import check_array

from libc.math cimport exp
from libc.stdint cimport uint8_t


cdef enum:
    BLOCK = 1024  # pixels that are taken apart together: their channels stay in the nearest cache


def affine_planes(image, matrix):
    """Map the three channels of each pixel by an affine map; the results' channels come first.

    Args:
        image (uint8 [H, W, 3], contiguous): the pixels.
        matrix (float32 [3, 4], contiguous): result k is `matrix[k, :3] @ pixel + matrix[k, 3]`.

    Returns:
        float32 [3, H, W], contiguous.

    Raises:
        TypeError: arrays of another type.
        ValueError: another shape or layout.
    """
    check_array('an image', image, 'uint8', ('H', 'W', 3))
    check_array('a matrix', matrix, 'float32', (3, 4))
    planes = np.empty((3, image.shape[0], image.shape[1]), np.float32)
    if planes.size == 0:
        return planes
    cdef float[:, :, ::1] out = planes
    cdef const uint8_t[:, :, ::1] pixels = image
    cdef const float[:, ::1] weights = matrix
    cdef const uint8_t *pixel = &pixels[0, 0, 0]
    cdef float channels[3][BLOCK]
    cdef Py_ssize_t count = pixels.shape[0] * pixels.shape[1], start = 0, size, i, k
    with nogil:
        while start < count:
            size = min(<Py_ssize_t> BLOCK, count - start)
            for i in range(size):
                channels[0][i], channels[1][i], channels[2][i] = pixel[3 * i], pixel[3 * i + 1], pixel[3 * i + 2]
            for k in range(3):
                _weighted_sum(&out[k, 0, 0] + start, channels[0], channels[1], channels[2], &weights[k, 0], size)
            pixel += 3 * size
            start += size
    return planes


cdef void _weighted_sum(
    float *out, const float *a, const float *b, const float *c, const float *weights, Py_ssize_t count
) noexcept nogil:
    """out = weights . (a, b, c, 1); a function of its own, so that compilers use vectors."""
    cdef float wa = weights[0], wb = weights[1], wc = weights[2], constant = weights[3]
    cdef Py_ssize_t i
    for i in range(count):
        out[i] = wa * a[i] + wb * b[i] + wc * c[i] + constant


def raise_to_gaussian(heatmap, x, y, reach, double sigma, double k=1):
    """Raise a map to a Gaussian bump, element-wise maximum, in place.

    Args:
        heatmap (float32 [h, w], any strides): the map. Changed.
        x, y: the bump's cell, which may be outside.
        reach: cells further than this from it along an axis are left alone.
        sigma: of the Gaussian, cells; over 0.
        k: its height.

    Raises:
        TypeError: not a float32 array, not whole numbers.
        ValueError: another shape, a read-only map, a negative reach, no positive sigma.
    """
    check_array('heatmap', heatmap, 'float32', ('h', 'w'), contiguous=False, writable=True)
    x, y, reach = index(x), index(y), index(reach)  # Python's numbers, which do not overflow
    if reach < 0 or not sigma > 0:
        raise ValueError(f'expected a reach of 0 or more and a sigma over 0, found {reach} and {sigma}')
    cdef Py_ssize_t top = min(max(y - reach, 0), heatmap.shape[0]), bottom = max(min(y + reach + 1, heatmap.shape[0]), 0)
    cdef Py_ssize_t left = min(max(x - reach, 0), heatmap.shape[1]), right = max(min(x + reach + 1, heatmap.shape[1]), 0)
    if top >= bottom or left >= right:
        return
    cdef float[:, :] cells = heatmap
    cdef double[::1] across = np.empty(right - left)  # the bump along a row
    cdef double scale = -1 / (2 * sigma * sigma), centre_x = x, centre_y = y, along
    cdef Py_ssize_t row, column
    cdef float value
    with nogil:
        for column in range(left, right):
            across[column - left] = exp(scale * (column - centre_x) * (column - centre_x))
        for row in range(top, bottom):
            along = k * exp(scale * (row - centre_y) * (row - centre_y))
            for column in range(left, right):
                value = <float> (along * across[column - left])
                if value > cells[row, column]:
                    cells[row, column] = value
