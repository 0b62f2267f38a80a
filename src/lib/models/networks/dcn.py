"""Modulated deformable convolution (DCN v2: Zhu et al. 2019, "Deformable ConvNets v2", section 3.2)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torchvision.ops import deform_conv2d

from ...external import is_compiled
from ...utils.errors import UserError
from .common import bias_of
from .native_dcn import native_deform_conv2d

IS_COMPILED = is_compiled('dcn')  # asked once: a look at the disk is none of a forward pass


def in_float32(operator: Callable[..., torch.Tensor], x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """Call an operator on float32 copies of its tensors.

    Args:
        operator: of maps [B, in, H, W] and other arguments.
        x: [B, in, H, W].
        arguments: the others.

    Returns:
        [B, out, h, w] in the type of `x`.
    """
    wide = [a.float() if isinstance(a, torch.Tensor) else a for a in arguments]
    return operator(x.float(), *wide).to(x.dtype)


def torchvision_deform_conv2d(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """Call torchvision's operator; it lacks bfloat16, and float16 on the CPU, and computes in float32 then.

    Args:
        x: [B, in, H, W].
        arguments: offset, weight, bias, stride, padding, dilation and mask of `torchvision.ops.deform_conv2d`.

    Returns:
        [B, out, h, w] in the type of `x`.
    """
    if x.dtype == torch.bfloat16 or (x.dtype == torch.float16 and x.device.type == 'cpu'):
        return in_float32(deform_conv2d, x, *arguments)
    return deform_conv2d(x, *arguments)


def has_native(x: torch.Tensor) -> bool:
    """Return whether our operator takes tensors of the device and the type of `x` [B, in, H, W]."""
    return x.device.type == 'cpu' and x.dtype in (torch.float32, torch.bfloat16, torch.float16)


def own_deform_conv2d(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """Call `native_deform_conv2d`, which lacks float16 and computes in float32 then.

    Args:
        x (float32, bfloat16 or float16 [B, in, H, W]): on the CPU.
        arguments: the others of `native_deform_conv2d`.

    Returns:
        [B, out, h, w].

    Raises:
        UserError: another device or type.
    """
    if not has_native(x):
        raise UserError(
            f"DCN backend 'native' is for float32, bfloat16 and float16 on the cpu; found {x.dtype} on {x.device}; "
            "use 'auto'"
        )
    if x.dtype == torch.float16:
        return in_float32(native_deform_conv2d, x, *arguments)
    return native_deform_conv2d(x, *arguments)


def best_deform_conv2d(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """Call our operator where it takes `x` and its kernel is compiled, else torchvision's.

    Args:
        x: [B, in, H, W].
        arguments: the others of `native_deform_conv2d`.

    Returns:
        [B, out, h, w].
    """
    return (own_deform_conv2d if has_native(x) and IS_COMPILED else torchvision_deform_conv2d)(x, *arguments)


def autocast(*tensors: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield tensors [...] in the type that a convolution computes in: autocast's, or their own without it."""
    device = tensors[0].device.type
    has_autocast = torch.amp.is_autocast_available(device)  # `meta` has none
    dtype = torch.get_autocast_dtype(device) if has_autocast and torch.is_autocast_enabled(device) else None
    for tensor in tensors:
        yield tensor if dtype is None else tensor.to(dtype)


# name -> function(x, offset, weight, bias, stride, padding, dilation, mask), as torchvision's deform_conv2d.
BACKENDS: dict[str, Callable[..., torch.Tensor]] = {
    'auto': best_deform_conv2d,
    'native': own_deform_conv2d,
    'torchvision': torchvision_deform_conv2d,
}


class DCN(nn.Module):
    """A convolution that predicts, from its own input, where each tap looks and how much it counts.

    `conv_offset_mask` gives 3 * G * k * k channels (G deformable groups): first 2 * G * k * k offsets in
    cells, (dy, dx) interleaved tap by tap, then G * k * k modulations before their sigmoid. It starts at zero:
    a plain convolution at half weight. Outside the map are zeros.

    Args:
        in_channels, out_channels: channels of the input and of the output.
        kernel_size, stride, padding, dilation: as in `nn.Conv2d`, one number each.
        deformable_groups: groups of input channels with offsets of their own.
        backend: a key of `BACKENDS`; may be set later, too.

    Raises:
        UserError: there is no such backend.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        deformable_groups: int = 1,
        backend: str = 'auto',
    ):
        super().__init__()
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.backend = backend
        taps = kernel_size * kernel_size
        self.split = [2 * deformable_groups * taps, deformable_groups * taps]
        bound = 1 / math.sqrt(in_channels * taps)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.uniform_(self.weight, -bound, bound)
        self.conv_offset_mask = nn.Conv2d(in_channels, sum(self.split), kernel_size, stride, padding, dilation)
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(bias_of(self.conv_offset_mask))

    @property
    def backend(self) -> str:
        """Name of the implementation that `forward` calls."""
        return self._backend

    @backend.setter
    def backend(self, name: str) -> None:
        if name not in BACKENDS:
            raise UserError(f"DCN backends are {', '.join(BACKENDS)}; found '{name}'")
        self._backend = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, in, H, W] -> [B, out, h, w], sizes (and under autocast the type) as `nn.Conv2d` gives them."""
        x, weight, bias = autocast(x, self.weight, self.bias)
        offset, mask = self.conv_offset_mask(x).split(self.split, dim=1)  # [B, 2Gkk, h, w], [B, Gkk, h, w]
        return BACKENDS[self.backend](x, offset, weight, bias, self.stride, self.padding, self.dilation, mask.sigmoid())

    def extra_repr(self) -> str:
        """Return the line that `print(model)` shows of the layer."""
        out_channels, in_channels, kernel, _ = self.weight.shape
        return f'{in_channels}, {out_channels}, kernel_size={kernel}, stride={self.stride}, backend={self.backend}'
