"""The stacked hourglass (Newell et al. 2016) in CornerNet's form (Law and Deng 2018, section 3.5)."""

import torch
from torch import nn
from torch.nn import functional as F

from .common import HEATMAP_BIAS, BasicBlock, CenterNet, bias_of, conv_bn, is_heatmap

STACKS = 2
CHANNELS = (256, 256, 384, 384, 384, 512)  # at strides 4, 8, ... 128
BLOCKS = (2, 2, 2, 2, 2, 4)  # residual blocks a layer at each of them
HEAD_CHANNELS = 256


class Convolution(nn.Module):
    """Convolution, batch norm (or a bias instead), ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, in, h, w] -> [B, out, h / stride, w / stride]."""
        return self.relu(self.bn(self.conv(x)))


class Residual(BasicBlock):
    """Residual block whose shortcut is projected where its shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(in_channels, out_channels, stride)
        same = stride == 1 and in_channels == out_channels
        self.skip = nn.Identity() if same else conv_bn(in_channels, out_channels, stride=stride)

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """Map [B, in, h, w] -> [B, out, h / stride, w / stride], round its own shortcut where none is given."""
        return super().forward(x, self.skip(x) if shortcut is None else shortcut)


def residuals(*channels: int, stride: int = 1) -> nn.Sequential:
    """Make residual blocks from each number of channels to the next; `stride` is the first one's."""
    steps = zip(channels, channels[1:], strict=False)
    return nn.Sequential(*[Residual(i, o, stride if n == 0 else 1) for n, (i, o) in enumerate(steps)])


class Hourglass(nn.Module):
    """One hourglass: down by a strided block, through a smaller hourglass, up by nearest, plus a path across.

    Args:
        channels, blocks: of this scale and of every one below it; the last is the bottom.
    """

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...]):
        super().__init__()
        (here, below), count = channels[:2], blocks[0]
        self.up1 = residuals(*[here] * (count + 1))
        self.low1 = residuals(here, *[below] * count, stride=2)
        self.low2: nn.Module
        if len(channels) > 2:
            self.low2 = Hourglass(channels[1:], blocks[1:])
        else:
            self.low2 = residuals(*[below] * (blocks[1] + 1))
        self.low3 = residuals(*[below] * count, here)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, c, h, w] -> the same shape."""
        low = self.low3(self.low2(self.low1(x)))  # [B, c, h/2, w/2]
        return self.up1(x) + F.interpolate(low, scale_factor=2.0, mode='nearest')


class HourglassNet(CenterNet):
    """The `hourglass` family: two stacks, each with heads of its own."""

    side_multiple = 4 * 2 ** (len(CHANNELS) - 1)
    backbone_prefixes = ('pre.', 'kps.', 'cnvs.', 'inters.', 'inters_.', 'cnvs_.')

    def __init__(self, heads: dict[str, int]):
        super().__init__()
        width = CHANNELS[0]
        self.pre = nn.Sequential(Convolution(3, 128, kernel=7, stride=2), Residual(128, width, stride=2))
        self.kps = nn.ModuleList(Hourglass(CHANNELS, BLOCKS) for _ in range(STACKS))
        self.cnvs = nn.ModuleList(Convolution(width, width) for _ in range(STACKS))
        between = range(STACKS - 1)
        self.inters = nn.ModuleList(Residual(width, width) for _ in between)
        self.inters_ = nn.ModuleList(conv_bn(width, width) for _ in between)
        self.cnvs_ = nn.ModuleList(conv_bn(width, width) for _ in between)
        self.heads = dict(heads)
        for name, channels in heads.items():
            self.add_module(name, nn.ModuleList(hourglass_head(name, channels) for _ in range(STACKS)))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, 3, H, W] -> the map that the last stack's heads read, [B, 256, H/4, W/4]."""
        return self.stack_features(images)[-1]

    def stack_features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map [B, 3, H, W] -> the map that each stack's heads read, [B, 256, H/4, W/4] each."""
        x = self.pre(images)  # [B, 256, h, w]
        features = []
        for stack in range(STACKS):
            features.append(self.cnvs[stack](self.kps[stack](x)))
            if stack < STACKS - 1:
                x = F.relu(self.inters_[stack](x) + self.cnvs_[stack](features[stack]))
                x = self.inters[stack](x)
        return features

    def head(self, name: str, stack: int) -> nn.Module:
        """Return the head called `name` of a stack; [B, 256, h, w] -> [B, channels, h, w]."""
        return getattr(self, name)[stack]


def hourglass_head(name: str, channels: int) -> nn.Sequential:
    """Make a 3x3 convolution to 256 channels, ReLU, 1x1 convolution; initialized as by PyTorch but a heatmap's bias."""
    last = nn.Conv2d(HEAD_CHANNELS, channels, 1)
    if is_heatmap(name):
        nn.init.constant_(bias_of(last), HEATMAP_BIAS)
    return nn.Sequential(Convolution(CHANNELS[0], HEAD_CHANNELS, norm=False), last)


def get_large_hourglass_net(num_layers: int, heads: dict[str, int], head_conv: int) -> HourglassNet:
    """Build `hourglass` with `heads` `{name: channels}`.

    It has one depth and 256 channels in its heads: `num_layers` and `head_conv`, which all builders take, are
    not used.
    """
    return HourglassNet(heads)
