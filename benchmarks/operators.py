"""Deformable convolution against torchvision's and against plain convolution; decoding and soft-NMS as published."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

import published
from centernet.external import dcn
from centernet.external.nms import soft_nms
from centernet.models.decode import ctdet_decode, exct_decode
from centernet.models.int8_weights import quantize_weight
from centernet.models.networks.dcn import BACKENDS
from centernet.models.networks.native_dcn import as_matrix
from timing import Row, alternate

LAYERS = ((64, 64, 128, 10), (128, 64, 64, 10), (256, 256, 32, 5))  # in, out, side of the map, times torchvision's


def rows(seconds: float) -> Iterator[Row]:
    """`seconds` go to each line."""
    for channels, out, side, goal in LAYERS:
        yield from deformable_convolution(channels, out, side, goal, seconds)
    yield decoding(seconds)
    yield extreme_decoding(seconds)
    yield soft_suppression(seconds)


def deformable_convolution(channels: int, out: int, side: int, goal: int, seconds: float) -> Iterator[Row]:
    """Forward and backward of the operator, 3 x 3, offsets given."""
    torch.manual_seed(0)
    x = torch.randn(1, channels, side, side)
    offset, mask = 2 * torch.randn(1, 18, side, side), torch.rand(1, 9, side, side)
    weight, bias = torch.randn(out, channels, 3, 3), torch.randn(out)
    tensors = [x, offset, weight, bias, mask]
    channels_last = [t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]

    def forward(backend: str, given: list[torch.Tensor]) -> torch.Tensor:
        x, offset, weight, bias, mask = given
        return BACKENDS[backend](x, offset, weight, bias, 1, 1, 1, mask)

    name = f'{channels} -> {out} at {side} x {side}'
    with torch.inference_mode():
        times = alternate(
            {
                'ours': lambda: forward('native', channels_last),
                'int8': in_int8(*channels_last),
                'torchvision': lambda: forward('torchvision', tensors),
                'conv2d': lambda: torch.conv2d(x, weight, bias, padding=1),
            },
            seconds,
        )
    yield Row(f'DCN forward, {name}', times['ours'], times['torchvision'], 'torchvision', f'>= {goal}')
    yield Row(f'DCN forward, {name}', times['ours'], times['conv2d'], 'plain conv2d (floor)', '>= 0.4')
    yield Row(f'DCN forward in int8, {name}', times['int8'], times['ours'], 'ours in float32')

    grad = torch.randn(1, out, side, side)

    def backward(backend: str, given: list[torch.Tensor]):
        leaves = [t.clone().requires_grad_() for t in given]
        result = forward(backend, leaves)
        return lambda: torch.autograd.grad(result, leaves, grad, retain_graph=True)

    times = alternate(
        {'ours': backward('native', channels_last), 'torchvision': backward('torchvision', tensors)}, seconds
    )
    yield Row(f'DCN backward, {name}', times['ours'], times['torchvision'], 'torchvision', '>= 10')


def in_int8(
    x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor
) -> Callable[[], None]:
    """Return the call of the int8 kernel, from bytes to bytes, for tensors of the operator that are channels-last in
    memory."""
    pixels = (255 * x.permute(0, 2, 3, 1).sigmoid()).byte().numpy()  # [B, H, W, C]
    panels, scale, _ = quantize_weight(as_matrix(weight).numpy())
    out = np.empty((*pixels.shape[:3], len(bias)), np.uint8)
    arrays = (pixels, offset.numpy(), mask.numpy(), panels, scale, bias.numpy(), out)
    return lambda: dcn.convolve_int8(*arrays, 3, 1, 1, 1, 0, False, torch.get_num_threads())


def heatmap(classes: int, side: int = 128) -> torch.Tensor:
    """Return a heatmap after its sigmoid, low nearly everywhere, as a trained network's."""
    return (torch.randn(1, classes, side, side) - 4).sigmoid()


def decoding(seconds: float) -> Row:
    torch.manual_seed(0)
    heat, wh, reg = heatmap(80), 20 * torch.rand(1, 2, 128, 128), torch.rand(1, 2, 128, 128)
    with torch.inference_mode():
        times = alternate(
            {
                'ours': lambda: ctdet_decode(heat, wh, reg=reg, K=100),
                'published': lambda: published.ctdet_decode(heat, wh, reg, 100),
            },
            seconds,
        )
    return Row('ctdet decode, 80 classes, K 100', times['ours'], times['published'], 'published form', '>= 3')


def extreme_decoding(seconds: float) -> Row:
    torch.manual_seed(0)
    heats = [heatmap(80) for _ in range(5)]
    regs = [torch.rand(1, 2, 128, 128) for _ in range(4)]
    with torch.inference_mode():
        times = alternate(
            {
                'ours': lambda: exct_decode(*heats, *regs, K=40),
                'published': lambda: published.exct_decode(heats, regs, K=40),
            },
            seconds,
        )
    return Row('exct decode, 80 classes, K 40', times['ours'], times['published'], 'published form', '>= 10')


def soft_suppression(seconds: float) -> Row:
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 500, (2000, 2)), rng.uniform(5, 100, (2000, 2))
    boxes = np.hstack([corners, corners + sides, rng.uniform(0, 1, (2000, 1))]).astype(np.float32)
    published_soft_nms = published.compiled_soft_nms()
    times = alternate(
        {
            'ours': lambda: soft_nms(boxes.copy(), Nt=0.5, method=2),
            'published': lambda: published_soft_nms(boxes.copy(), Nt=0.5, method=2),
        },
        seconds,
    )
    return Row('soft-NMS, Gaussian, 2000 boxes', times['ours'], times['published'], 'published form (Cython)', '>= 10')
