"""ResNet whose transposed convolutions follow a 3x3 deformable one each (CenterNet figure 6 c)."""

import torch
from torch import nn

from .common import bilinear_kernel, small_normal, upsampling_conv
from .dcn import DCN
from .resnet import ResNetCenterNet

DECONV_CHANNELS = (256, 128, 64)


class PoseResNetDCN(ResNetCenterNet):
    """The `resdcn` family."""

    def __init__(self, num_layers: int, heads: dict[str, int], head_conv: int):
        super().__init__(num_layers)
        layers, channels = [], self.backbone_channels
        for out_channels in DECONV_CHANNELS:
            up = upsampling_conv(out_channels, out_channels)
            with torch.no_grad():
                # Fidelity: the published code fills an ungrouped convolution as if it were grouped, so only the
                # first output channel starts bilinear.
                up.weight[:, 0] = bilinear_kernel(up.kernel_size[0])
            for layer in (DCN(channels, out_channels), up):
                layers += [layer, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
            channels = out_channels
        self.deconv_layers = nn.Sequential(*layers)
        self.add_heads(heads, channels, head_conv, small_normal)


def get_pose_net(num_layers: int, heads: dict[str, int], head_conv: int) -> PoseResNetDCN:
    """Build `resdcn_{num_layers}` (18, 34, 50, 101, 152), `heads` `{name: channels}` behind `head_conv` channels."""
    return PoseResNetDCN(num_layers, heads, head_conv)
