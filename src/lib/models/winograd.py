"""3 x 3 convolutions for inference on the CPU by Winograd's algorithm: a quarter of the multiplications.

F(4 x 4, 3 x 3) of Lavin and Gray (2016): input tiles and weights are transformed, multiplied, and transformed back.
"""

from typing import TypeGuard

import torch
from torch import nn

from ..external import is_compiled, winograd
from .panels import to_panels

LEAST_IN, LEAST_OUT = 64, 16  # fewer channels do not pay for the transforms
MOST_WEIGHTS = 128 * 256  # in * out of a layer: transformed weights take four times the memory

# Weights g [3, 3] become G g G^T [6, 6].
G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)


class WinogradConv2d(nn.Module):
    """Convolves as a 3 x 3 convolution does, float32 on the CPU, without gradients.

    Args:
        conv: an `nn.Conv2d` with stride 1, padding 1, no dilation, one group.
        relu: negative values become 0.

    Raises:
        ValueError: another convolution.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: nn.Conv2d, relu: bool = False):
        if not is_plain(conv):
            raise ValueError(f'expected a 3 x 3 convolution, stride 1, padding 1 of zeros, one group; found {conv}')
        super().__init__()
        self.in_channels, self.out_channels, self.relu = conv.in_channels, conv.out_channels, relu
        self.register_buffer('weight', to_panels(transform_weight(conv.weight.detach())))  # [36, panels, in, 16]
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().float()
        self.register_buffer('bias', bias.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32 [B, in, H, W] -> [B, out, H, W], channels-last in memory.

        Raises:
            TypeError: another type or device.
            ValueError: another shape, or maps without cells.
        """
        if x.device.type != 'cpu' or x.dtype != torch.float32:
            raise TypeError(f'expected x in float32 on the cpu, found {x.dtype} on {x.device}')
        if x.dim() != 4 or x.shape[1] != self.in_channels or not (x.shape[2] and x.shape[3]):
            raise ValueError(f'expected x [B, {self.in_channels}, H, W] with cells, found {list(x.shape)}')
        x = x.permute(0, 2, 3, 1).contiguous()  # [B, H, W, in]
        out = x.new_empty(*x.shape[:3], self.out_channels)
        arrays = [t.numpy() for t in (x, self.weight, self.bias, out)]
        winograd.convolve(*arrays, self.relu, torch.get_num_threads())
        return out.permute(0, 3, 1, 2)


def transform_weight(weight: torch.Tensor) -> torch.Tensor:
    """Transform weights by G g G^T, in double, an input channel at a time.

    Args:
        weight: g [out, in, 3, 3].

    Returns:
        float32 [36, in, out].
    """
    transformed = torch.empty(36, weight.shape[1], weight.shape[0])
    for channel in range(weight.shape[1]):
        tiles = G @ weight[:, channel].double() @ G.t()  # [out, 6, 6]
        transformed[:, channel] = tiles.flatten(1).t()
    return transformed


def is_plain(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether Winograd's algorithm can do this convolution: 3 x 3, stride 1, padding 1 of zeros, one group."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == 'zeros'
    )


def suits(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether Winograd's algorithm can do this convolution, and pays: its kernel must be compiled."""
    return (
        is_compiled('winograd')
        and is_plain(conv)
        and conv.in_channels >= LEAST_IN
        and conv.out_channels >= LEAST_OUT
        and conv.in_channels * conv.out_channels <= MOST_WEIGHTS
    )
