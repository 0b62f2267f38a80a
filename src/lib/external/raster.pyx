# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, embedsignature=True
"""Loops over the cells of pictures and maps: the colours of a network input, the Gaussian of an object.

The loops run in C without the GIL and make no arrays but the results.
"""

import numpy as np

from libc.math cimport exp
from libc.stdint cimport uint8_t


cdef enum:
    BLOCK = 1024  # pixels that are taken apart together: their channels stay in the nearest cache


def affine_planes(const uint8_t[:, :, ::1] image, const float[:, ::1] matrix):
    """An affine map of the three channels of each pixel; the results' channels come first.

    Args:
        image: uint8 [H, W, 3], contiguous.
        matrix: float32 [3, 4]; result k is `matrix[k, :3] @ pixel + matrix[k, 3]`.

    Returns:
        float32 [3, H, W].

    Raises:
        ValueError: another type or shape.
    """
    if image.shape[2] != 3 or matrix.shape[0] != 3 or matrix.shape[1] != 4:
        raise ValueError(f'expected an image [H, W, 3] and a matrix [3, 4], found {np.shape(image)}, {np.shape(matrix)}')
    planes = np.empty((3, image.shape[0], image.shape[1]), np.float32)
    if planes.size == 0:
        return planes
    cdef float[:, :, ::1] out = planes
    cdef const uint8_t *pixel = &image[0, 0, 0]
    cdef float channels[3][BLOCK]
    cdef Py_ssize_t count = image.shape[0] * image.shape[1], start = 0, size, i, k
    with nogil:
        while start < count:
            size = min(<Py_ssize_t> BLOCK, count - start)
            for i in range(size):
                channels[0][i], channels[1][i], channels[2][i] = pixel[3 * i], pixel[3 * i + 1], pixel[3 * i + 2]
            for k in range(3):
                _weighted_sum(&out[k, 0, 0] + start, channels[0], channels[1], channels[2], &matrix[k, 0], size)
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


def raise_to_gaussian(
    float[:, :] heatmap, Py_ssize_t x, Py_ssize_t y, Py_ssize_t reach, double sigma, double k=1
):
    """Raise a map to a Gaussian bump, element-wise maximum, in place.

    Args:
        heatmap: float32 [h, w].
        x, y: the bump's cell, which may be outside.
        reach: cells further than this from it along an axis are left alone.
        sigma: of the Gaussian, cells; over 0.
        k: its height.
    """
    cdef Py_ssize_t top = max(y - reach, 0), bottom = min(y + reach + 1, heatmap.shape[0])
    cdef Py_ssize_t left = max(x - reach, 0), right = min(x + reach + 1, heatmap.shape[1])
    if top >= bottom or left >= right:
        return
    cdef double[::1] across = np.empty(right - left)  # the bump along a row
    cdef double scale = -1 / (2 * sigma * sigma), along
    cdef Py_ssize_t row, column
    cdef float value
    with nogil:
        for column in range(left, right):
            across[column - left] = exp(scale * (column - x) * (column - x))
        for row in range(top, bottom):
            along = k * exp(scale * (row - y) * (row - y))
            for column in range(left, right):
                value = <float> (along * across[column - left])
                if value > heatmap[row, column]:
                    heatmap[row, column] = value
