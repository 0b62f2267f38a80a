"""Deformable convolution on the CPU as a torch operator: our kernel samples, torch multiplies matrices.

The k * k * C samples of each output position ("columns") are made for a strip of rows at a time, so that they
stay in the cache, and each strip goes through one matrix product with the weights.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from ...external import dcn
from ...utils.device import cpu_has_bfloat16

STRIP_BYTES = 4 << 20  # columns held at a time: they stay in the last-level cache
LEAST_POSITIONS = 1024  # of a strip all the same: products of fewer are slow
# One set of operators for each name the package is imported under (`lib` beside the programs, `centernet` installed).
NAMESPACE = __name__.partition('.')[0]


@torch.library.custom_op(f'{NAMESPACE}::deform_conv2d', mutates_args=(), device_types='cpu')
def native_deform_conv2d(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    stride: int,
    padding: int,
    dilation: int,
    mask: torch.Tensor,
) -> torch.Tensor:
    """`torchvision.ops.deform_conv2d` on the CPU, for square kernels without weight groups.

    Args:
        x: [B, in, H, W], float32 or bfloat16; fastest when channels-last.
        offset: [B, 2 * G * k * k, h, w] in cells, (dy, dx) tap by tap.
        weight: [out, in, k, k].
        bias: [out].
        stride, padding, dilation: as in `nn.Conv2d`.
        mask: [B, G * k * k, h, w], what each tap is multiplied by.

    Returns:
        [B, out, h, w], channels-last in memory.

    Raises:
        ValueError: shapes that do not go together.
    """
    check_shapes(x, offset, weight, mask)
    dtype = computing_dtype(x.dtype)
    kernel = as_matrix(weight).to(dtype).view(weight.shape[0], -1, 1, 1)  # [out, k * k * in, 1, 1]
    bias, x, offset, mask = bias.to(dtype), channels_last(x, dtype), offset.float(), mask.float()
    geometry = (weight.shape[2], stride, padding, dilation, torch.get_num_threads())
    arrays = [as_array(t) for t in (x, offset, mask)]
    products = []
    for first_row, _, columns in strips(mask, weight, dtype):
        dcn.sample(*arrays, as_array(columns), first_row, *geometry)
        # The matrix product as a 1 x 1 convolution: oneDNN's is faster than that behind addmm.
        pixels = columns.view(1, -1, 1, columns.shape[1]).permute(0, 3, 1, 2)  # [1, k * k * in, positions, 1]
        products.append(torch.conv2d(pixels, kernel, bias)[0, :, :, 0].t())  # [positions, out]
    out = products[0] if len(products) == 1 else torch.cat([x.new_empty(0, weight.shape[0]), *products])
    return out.reshape(mask.shape[0], *mask.shape[2:], weight.shape[0]).permute(0, 3, 1, 2).to(weight.dtype)


@native_deform_conv2d.register_fake
def _(x, offset, weight, bias, stride, padding, dilation, mask):
    return x.new_empty(x.shape[0], *mask.shape[2:], weight.shape[0]).permute(0, 3, 1, 2)


@torch.library.custom_op(f'{NAMESPACE}::deform_conv2d_backward', mutates_args=(), device_types='cpu')
def native_deform_conv2d_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor,
    stride: int,
    padding: int,
    dilation: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, offset, weight, bias and mask, from that of the output, `grad` [B, out, h, w]."""
    matrix = as_matrix(weight).float()  # [out, k * k * in]
    pixels, offsets, masks = channels_last(x, torch.float32), offset.float(), mask.float()
    grad = channels_last(grad, torch.float32).view(-1, weight.shape[0])  # [B * h * w, out]
    grad_x, grad_matrix = torch.zeros_like(pixels), torch.zeros_like(matrix)
    grad_offset, grad_mask = (torch.empty(t.permute(0, 2, 3, 1).shape) for t in (offsets, masks))  # [B, h, w, ...]
    geometry = (weight.shape[2], stride, padding, dilation, torch.get_num_threads())
    arrays = [t.numpy() for t in (pixels, offsets, masks)]
    for first_row, positions, columns in strips(mask, weight, torch.float32):
        grad_columns = grad[positions] @ matrix
        gradients = (grad_x, grad_offset.flatten(0, 2)[positions], grad_mask.flatten(0, 2)[positions])
        buffers = [t.numpy() for t in (grad_columns, columns, *gradients)]
        dcn.differentiate(*arrays, *buffers, first_row, *geometry)
        grad_matrix.addmm_(grad[positions].t(), columns)
    out_channels, in_channels, kernel, _ = weight.shape
    grad_weight = grad_matrix.view(out_channels, kernel, kernel, in_channels).permute(0, 3, 1, 2)
    return (
        grad_x.permute(0, 3, 1, 2).to(x.dtype),
        grad_offset.permute(0, 3, 1, 2).to(offset.dtype),
        grad_weight.to(weight.dtype),
        grad.sum(0).to(weight.dtype),
        grad_mask.permute(0, 3, 1, 2).to(mask.dtype),
    )


@native_deform_conv2d_backward.register_fake
def _(grad, x, offset, weight, mask, stride, padding, dilation):
    return (
        torch.empty_like(x, memory_format=torch.channels_last),
        torch.empty_like(offset, memory_format=torch.channels_last),
        torch.empty_like(weight, memory_format=torch.channels_last),
        weight.new_empty(weight.shape[0]),
        torch.empty_like(mask, memory_format=torch.channels_last),
    )


def _setup_context(ctx, inputs, output):
    x, offset, weight, _, *ctx.geometry, mask = inputs
    ctx.save_for_backward(x, offset, weight, mask)


def _backward(ctx, grad):
    x, offset, weight, mask = ctx.saved_tensors
    grad_x, grad_offset, grad_weight, grad_bias, grad_mask = native_deform_conv2d_backward(
        grad, x, offset, weight, mask, *ctx.geometry
    )
    return grad_x, grad_offset, grad_weight, grad_bias, None, None, None, grad_mask


native_deform_conv2d.register_autograd(_backward, setup_context=_setup_context)


def check_shapes(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor) -> None:
    """The kernel reads memory by these shapes: refuse what would lead it astray."""
    batch, channels = x.shape[:2]
    area = weight.shape[2] * weight.shape[3]
    groups = mask.shape[1] // area
    shapes = {'x': x, 'offset': offset, 'weight': weight, 'mask': mask}
    fits = (
        weight.shape[1:] == (channels, weight.shape[2], weight.shape[2])
        and mask.shape[:2] == (batch, groups * area)
        and offset.shape == (batch, 2 * groups * area, *mask.shape[2:])
        and groups > 0
        and channels % groups == 0
    )
    if not fits:
        found = ', '.join(f'{name} {list(tensor.shape)}' for name, tensor in shapes.items())
        raise ValueError(
            'expected x [B, in, H, W], offset [B, 2 * G * k * k, h, w], weight [out, in, k, k], '
            f'mask [B, G * k * k, h, w]; found {found}'
        )


def strips(mask: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> Iterator[tuple[int, slice, torch.Tensor]]:
    """(first row, its positions, room for their columns [positions, k * k * in]) of strips that cover all rows."""
    batch, _, height, width = mask.shape
    size, total = weight[0].numel(), batch * height
    positions = max(STRIP_BYTES // (dtype.itemsize * size), LEAST_POSITIONS)
    count = math.ceil(total * width / positions)
    rows = math.ceil(total / count) if count else 1  # strips of equal size, or nearly so
    room = torch.empty(rows * width, size, dtype=dtype)
    for first in range(0, total, rows):
        last = min(first + rows, total)
        yield first, slice(first * width, last * width), room[: (last - first) * width]


def channels_last(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, C, H, W] as [B, H, W, C] of that type, copied only where it must be."""
    return x.permute(0, 2, 3, 1).to(dtype).contiguous()


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """[out, in, k, k] -> [out, k * k * in]; no copy when the weight is channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A view of a tensor; NumPy has no bfloat16, so that becomes its bits, uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """bfloat16 is sampled and multiplied as such only where the processor can do so: elsewhere float32 is faster."""
    if dtype == torch.bfloat16 and not cpu_has_bfloat16():
        return torch.float32
    return dtype
