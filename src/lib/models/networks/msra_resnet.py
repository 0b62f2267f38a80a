"""ResNet with three transposed convolutions (Xiao et al. 2018, "Simple Baselines"; CenterNet figure 6 b)."""

from torch import nn

from .common import small_normal, upsampling_conv
from .resnet import ResNetCenterNet

DECONV_CHANNELS = (256, 256, 256)


class PoseResNet(ResNetCenterNet):
    """The `res` family."""

    def __init__(self, num_layers: int, heads: dict[str, int], head_conv: int):
        super().__init__(num_layers)
        layers, channels = [], self.backbone_channels
        for out_channels in DECONV_CHANNELS:
            up = upsampling_conv(channels, out_channels)
            nn.init.normal_(up.weight, std=0.001)
            layers += [up, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
            channels = out_channels
        self.deconv_layers = nn.Sequential(*layers)
        # Published models of this family register their heads alphabetically; optimizer states go by that order.
        self.add_heads(dict(sorted(heads.items())), channels, head_conv, start_last_conv)


def start_last_conv(convs: list[nn.Conv2d]) -> None:
    """Start a head's last convolution near zero; a hidden one keeps PyTorch's default."""
    small_normal(convs[-1:])


def get_pose_net(num_layers: int, heads: dict[str, int], head_conv: int) -> PoseResNet:
    """Build `res_{num_layers}` (18, 34, 50, 101, 152), `heads` `{name: channels}` behind `head_conv` channels."""
    return PoseResNet(num_layers, heads, head_conv)
