"""DLA-34 with deformable convolutions in its up-sampling: the paper's main model (figure 6 d)."""

import torch
from torch import nn

from .common import bias_of
from .dcn import DCN
from .dla import CHANNELS, DLA34, FIRST_LEVEL, DLACenterNet, DLAUp, IDAUp


class DeformConv(nn.Module):
    """3x3 deformable convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.actf = nn.Sequential(nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
        self.conv = DCN(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, in, h, w] -> [B, out, h, w]."""
        return self.actf(self.conv(x))


class SumIDAUp(IDAUp):
    """Deformable projections; deformable nodes over the sum."""

    def __init__(self, out_channels: int, channels: tuple[int, ...], factors: tuple[int, ...]):
        super().__init__(out_channels, channels, factors)
        for i in range(1, len(channels)):
            self.add_projection(i, DeformConv)
            self.add_module(f'node_{i}', DeformConv(out_channels, out_channels))

    @staticmethod
    def merge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Map two [B, c, h, w] -> [B, c, h, w]."""
        return x + y


class DLASeg(DLACenterNet):
    """The `dla` family."""

    def __init__(self, heads: dict[str, int], head_conv: int):
        super().__init__()
        self.base = DLA34()
        self.dla_up = DLAUp(SumIDAUp)
        merged = CHANNELS[FIRST_LEVEL:-1]  # strides 4, 8, 16; stride 32 is left out
        self.ida_up = SumIDAUp(merged[0], merged, tuple(2**i for i in range(len(merged))))
        self.add_heads(heads, merged[0], head_conv, zero_biases)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, 3, H, W] -> [B, 64, H/4, W/4]."""
        maps = self.dla_up(self.base(images))
        return self.ida_up(maps[:-1])[-1]


def zero_biases(convs: list[nn.Conv2d]) -> None:
    """Start a head's biases from zero; its weights keep PyTorch's default."""
    for conv in convs:
        nn.init.zeros_(bias_of(conv))


def get_pose_net(num_layers: int, heads: dict[str, int], head_conv: int) -> DLASeg:
    """Build `dla_34` (`num_layers` is 34) with `heads` `{name: channels}` behind `head_conv` channels."""
    return DLASeg(heads, head_conv)
