"""Upsampling of maps of bytes as in upsample.pyx, in NumPy. Arguments are checked no further than it does."""

import numpy as np


def add_upsampled(
    low: np.ndarray,
    added: np.ndarray,
    weight: np.ndarray,
    out: np.ndarray,
    stride: int,
    padding: int,
    zero: int,
    scale: float,
    bias: float,
    threads: int,
    share: int = 0,
    shares: int = 1,
) -> None:
    """Fill rows of `out` [B, H, W, C] with the bytes of `low` [B, h, w, C] made larger, plus `added`, as upsample.pyx
    says."""
    batch, height, width, channels = low.shape
    kernel = len(weight)
    room = [(side - 1) * stride + kernel for side in (height, width)]
    large = np.zeros((batch, *room, channels), np.float32)
    small = low.astype(np.float32) - zero
    for i in range(kernel):
        for j in range(kernel):
            large[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride] += (
                weight[i, j] * small
            )
    seen = large[:, padding : room[0] - padding, padding : room[1] - padding]
    values = seen + np.float32(scale) * added + np.float32(bias)
    rows = np.floor(np.nan_to_num(values, nan=0).clip(0, 255) + np.float32(0.5)).astype(np.uint8)
    flat = out.reshape(-1, *out.shape[2:])
    flat[share::shares] = rows.reshape(flat.shape)[share::shares]
