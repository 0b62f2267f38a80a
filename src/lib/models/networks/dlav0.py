"""DLA-34 with plain convolutions in its up-sampling (Yu et al. 2018)."""

import torch

from .common import conv_bn_relu, kaiming_convs, small_normal
from .dla import CHANNELS, DLA34, FIRST_LEVEL, DLACenterNet, DLAUp, IDAUp


class ConcatIDAUp(IDAUp):
    """1x1 projections; 3x3 nodes over the concatenation."""

    def __init__(self, out_channels: int, channels: tuple[int, ...], factors: tuple[int, ...]):
        super().__init__(out_channels, channels, factors)
        for i in range(1, len(channels)):
            self.add_projection(i, conv_bn_relu)
        for i in range(1, len(channels)):
            self.add_module(f'node_{i}', conv_bn_relu(2 * out_channels, out_channels, kernel=3))
        kaiming_convs(self)

    @staticmethod
    def merge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Map two [B, c, h, w] -> [B, 2c, h, w]."""
        return torch.cat([x, y], dim=1)


class DLASeg(DLACenterNet):
    """The `dlav0` family."""

    def __init__(self, heads: dict[str, int], head_conv: int):
        super().__init__()
        self.base = DLA34(classifier=True)
        self.dla_up = DLAUp(ConcatIDAUp)
        self.add_heads(heads, CHANNELS[FIRST_LEVEL], head_conv, small_normal)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, 3, H, W] -> [B, 64, H/4, W/4]."""
        return self.dla_up(self.base(images))[0]


def get_pose_net(num_layers: int, heads: dict[str, int], head_conv: int) -> DLASeg:
    """Build `dlav0_34` (`num_layers` is 34) with `heads` `{name: channels}` behind `head_conv` channels."""
    return DLASeg(heads, head_conv)
