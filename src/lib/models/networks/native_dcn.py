"""Deformable convolution on the CPU as a torch operator.

In float32 our kernel does all of the forward pass. In bfloat16, and backward, it samples and torch multiplies matrices:
the k * k * C samples of each output position ("columns") are made for a strip of rows at a time, so that they stay in
the cache, and each strip goes through one matrix product with the weights.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...external import dcn
from ...utils.device import cpu_has_bfloat16
from ..panels import to_panels

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
    """Compute `torchvision.ops.deform_conv2d` on the CPU, for square kernels without weight groups.

    Args:
        x (float32 or bfloat16 [B, in, H, W]): the maps; fastest when channels-last.
        offset (any float type [B, 2 * G * k * k, h, w]): in cells, (dy, dx) tap by tap.
        weight (any float type [out, in, k, k]): of the convolution.
        bias (any float type [out]): added to each cell.
        stride, padding, dilation: as in `nn.Conv2d`, one number each; h and w are the sizes that it gives.
        mask (any float type [B, G * k * k, h, w]): what each tap is multiplied by.

    Returns:
        [B, out, h, w] in the type of `weight`, channels-last in memory.

    Raises:
        TypeError: tensors of types that the operator does not take.
        ValueError: shapes or numbers that do not go together, or maps without cells.
    """
    check_arguments(x, offset, weight, mask, (stride, padding, dilation), bias=bias)
    dtype = computing_dtype(x.dtype)
    geometry = (weight.shape[2], stride, padding, dilation)
    x, offset, mask = channels_last(x, dtype), offset.float(), mask.float()
    if dtype == torch.float32:
        panels = to_panels(as_matrix(weight).t())  # [panels, k * k * in, 16]
        out = convolve(x, offset, mask, panels, bias.float().contiguous(), geometry)
    else:
        out = multiply_strips(x, offset, mask, weight.to(dtype), bias.to(dtype), geometry)
    return out.to(weight.dtype).permute(0, 3, 1, 2)


def convolve(
    x: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    panels: torch.Tensor,
    bias: torch.Tensor,
    geometry: tuple[int, int, int, int],
    sigmoid: bool = False,
    relu: bool = False,
) -> torch.Tensor:
    """Convolve in float32 by our kernel; nothing is recorded for gradients.

    Args:
        x: [B, H, W, in], contiguous.
        offset, mask: as `native_deform_conv2d` takes them.
        panels: the weight [k * k * in, out] by `to_panels`.
        bias: [out].
        geometry: kernel, stride, padding and dilation.
        sigmoid: the mask is given before its sigmoid.
        relu: negative values of the output become 0.

    Returns:
        [B, h, w, out].
    """
    out = x.new_empty(mask.shape[0], *mask.shape[2:], len(bias))
    arrays = [t.detach().numpy() for t in (x, offset, mask, panels, bias, out)]
    dcn.convolve(*arrays, *geometry, sigmoid, relu, torch.get_num_threads())
    return out


def multiply_strips(
    x: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    geometry: tuple[int, int, int, int],
) -> torch.Tensor:
    """Sample a strip of rows at a time and let torch multiply.

    Args:
        x: [B, H, W, in], contiguous, of the type to compute in.
        offset, mask: float32, as `native_deform_conv2d` takes them.
        weight, bias: [out, in, k, k] and [out] in that type, too.
        geometry: kernel, stride, padding and dilation.

    Returns:
        [B, h, w, out].
    """
    out = x.new_empty(mask[:, 0].numel(), weight.shape[0])  # [B * h * w, out]
    kernel = as_matrix(weight).view(weight.shape[0], -1, 1, 1)  # [out, k * k * in, 1, 1]
    arrays = [as_array(t) for t in (x, offset, mask)]
    for first_row, positions, columns in strips(mask, weight, x.dtype):
        dcn.sample(*arrays, as_array(columns), first_row, *geometry, torch.get_num_threads())
        # The matrix product as a 1 x 1 convolution: oneDNN's is faster than that behind addmm.
        pixels = columns.view(1, -1, 1, columns.shape[1]).permute(0, 3, 1, 2)  # [1, k * k * in, positions, 1]
        out[positions] = torch.conv2d(pixels, kernel, bias)[0, :, :, 0].t()
    return out.view(mask.shape[0], *mask.shape[2:], weight.shape[0])


@native_deform_conv2d.register_fake
def _(x: torch.Tensor, _: torch.Tensor, weight: torch.Tensor, *others: Any) -> torch.Tensor:
    mask = others[-1]
    return weight.new_empty(x.shape[0], *mask.shape[2:], weight.shape[0]).permute(0, 3, 1, 2)


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
    """Compute the gradients of `native_deform_conv2d`.

    Args:
        grad (any float type [B, out, h, w]): the gradient of the output.
        x, offset, weight, mask, stride, padding, dilation: as given to `native_deform_conv2d`.

    Returns:
        the gradients of x, offset, weight, bias [out] and mask, each of the shape and type of its tensor (that of
        the bias in the type of `weight`), channels-last in memory.

    Raises:
        TypeError, ValueError: as `native_deform_conv2d`.
    """
    check_arguments(x, offset, weight, mask, (stride, padding, dilation), grad=grad)
    matrix = as_matrix(weight).float()  # [out, k * k * in]
    pixels, offsets, masks = channels_last(x, torch.float32), offset.float(), mask.float()
    grad = channels_last(grad, torch.float32).view(-1, weight.shape[0])  # [B * h * w, out]
    grad_x, grad_matrix = torch.zeros(pixels.shape), torch.zeros(matrix.shape)
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
    grad_weight = grad_matrix.view(out_channels, kernel, kernel, in_channels)
    # Types before axes: a conversion of permuted maps of one channel or cell changes their order in memory.
    return (
        grad_x.to(x.dtype).permute(0, 3, 1, 2),
        grad_offset.to(offset.dtype).permute(0, 3, 1, 2),
        grad_weight.to(weight.dtype).permute(0, 3, 1, 2),
        grad.sum(0).to(weight.dtype),
        grad_mask.to(mask.dtype).permute(0, 3, 1, 2),
    )


@native_deform_conv2d_backward.register_fake
def _(_: torch.Tensor, *tensors_and_numbers: Any) -> tuple[torch.Tensor, ...]:
    x, offset, weight, mask = tensors_and_numbers[:4]
    grad_x, grad_offset, grad_weight, grad_mask = map(empty_channels_last, (x, offset, weight, mask))
    return grad_x, grad_offset, grad_weight, weight.new_empty(weight.shape[0]), grad_mask


def _setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    x, offset, weight, _, *ctx.geometry, mask = inputs
    ctx.save_for_backward(x, offset, weight, mask)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, offset, weight, mask = ctx.saved_tensors
    grad_x, grad_offset, grad_weight, grad_bias, grad_mask = native_deform_conv2d_backward(
        grad, x, offset, weight, mask, *ctx.geometry
    )
    return grad_x, grad_offset, grad_weight, grad_bias, None, None, None, grad_mask


native_deform_conv2d.register_autograd(_backward, setup_context=_setup_context)


def check_arguments(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor,
    geometry: tuple[int, int, int],
    bias: torch.Tensor | None = None,
    grad: torch.Tensor | None = None,
) -> None:
    """Refuse arguments of the operators that do not go together: the kernel reads memory by their shapes.

    Args:
        x (float32 or bfloat16 [B, in, H, W]), weight [out, in, k, k]: the maps and the kernel.
        offset [B, 2 * k * k, h, w], mask [B, k * k, h, w], bias [out], grad [B, out, h, w]: of x's type.
        geometry: stride, padding and dilation of the convolution.

    Raises:
        TypeError: tensors of types that the operators do not take.
        ValueError: shapes or numbers that do not go together, or maps without cells.
    """
    stride, padding, dilation = geometry
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(f'expected x in float32 or bfloat16, found {x.dtype}')
    named = {'x': x, 'offset': offset, 'weight': weight, 'bias': bias, 'mask': mask, 'grad': grad}
    tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f'expected {name} in a float type, found {tensor.dtype}')
    if stride < 1 or padding < 0 or dilation < 1:
        raise ValueError(
            'expected stride and dilation of 1 or more and padding of 0 or more, '
            f'found stride {stride}, padding {padding}, dilation {dilation}'
        )
    expected = expected_shapes(x, weight, mask, stride, padding, dilation)
    if any(list(tensor.shape) != expected.get(name) for name, tensor in tensors.items()):
        found = ', '.join(f'{name} {list(tensor.shape)}' for name, tensor in tensors.items())
        raise ValueError(
            'expected x [B, in, H, W], offset [B, 2 * G * k * k, h, w], weight [out, in, k, k], bias [out], '
            'mask [B, G * k * k, h, w], grad [B, out, h, w], with G a divisor of in, '
            f'h and w as the convolution gives them and no size but B of 0; found {found}, '
            f'stride {stride}, padding {padding}, dilation {dilation}'
        )


def expected_shapes(
    x: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, stride: int, padding: int, dilation: int
) -> dict[str, list[int]]:
    """Return the shape that each tensor of the operators must have.

    It follows from x [B, in, H, W], weight [out, in, k, k] and the channels of mask [B, k * k, h, w]; {} where they
    do not go together.
    """
    if not x.dim() == weight.dim() == mask.dim() == 4 or not (all(x.shape[1:]) and all(weight.shape)):
        return {}
    batch, in_channels, *sides = x.shape
    out_channels, _, kernel, _ = weight.shape
    size = [(side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in sides]  # h, w
    groups = mask.shape[1] // (kernel * kernel)
    if min(size) < 1 or groups < 1 or in_channels % groups:
        return {}
    return {
        'x': [batch, in_channels, *sides],
        'offset': [batch, 2 * groups * kernel * kernel, *size],
        'weight': [out_channels, in_channels, kernel, kernel],
        'bias': [out_channels],
        'mask': [batch, groups * kernel * kernel, *size],
        'grad': [batch, out_channels, *size],
    }


def empty_channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """Return a new tensor like one of [B, C, H, W], channels-last in memory."""
    return tensor.new_empty(tensor.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


def strips(mask: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> Iterator[tuple[int, slice, torch.Tensor]]:
    """Divide all rows of the output into strips whose columns stay in the cache.

    Args:
        mask: [B, G * k * k, h, w], of which the output's size is taken.
        weight: [out, in, k, k].
        dtype: of the columns.

    Yields:
        the first row of each strip, the slice of its positions among all B * h * w, room for its columns
        [positions, k * k * in].
    """
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
    """Return the maps x [B, C, H, W] as contiguous [B, H, W, C] of that type, copied only where it must be."""
    return x.permute(0, 2, 3, 1).to(dtype).contiguous()


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return the weight [out, in, k, k] as [out, k * k * in]; no copy when it is channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a view [...] of a tensor [...]; NumPy has no bfloat16, so that becomes its bits, uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type that the operator computes in: bfloat16 only where the processor can, else float32."""
    if dtype == torch.bfloat16 and not cpu_has_bfloat16():
        return torch.float32
    return dtype
