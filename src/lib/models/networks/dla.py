"""Deep layer aggregation (Yu et al. 2018): the DLA-34 backbone and the iterative aggregation that up-samples it."""

from collections.abc import Callable

import torch
from torch import nn

from .common import (
    BasicBlock,
    CenterNet,
    ImageNetWeights,
    bilinear_kernel,
    conv_bn,
    conv_bn_relu,
    kaiming_convs,
    upsampling_conv,
)

CHANNELS = (16, 32, 64, 128, 256, 512)  # of levels 0 to 5, which have strides 1 to 32
FIRST_LEVEL = 2  # its stride is the output's

# The weights' first home is gone; timm publishes the same under another file name.
IMAGENET = ImageNetWeights(
    'https://huggingface.co/timm/dla34.in1k/resolve/main/pytorch_model.bin', 'dla34-ba72cf86.pth'
)


class Root(nn.Module):
    """Aggregation node: a 1x1 convolution over the concatenation of its inputs."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv, self.bn = conv_bn(in_channels, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Maps [B, c_i, h, w] with in_channels together -> [B, out_channels, h, w]."""
        return self.relu(self.bn(self.conv(torch.cat(inputs, dim=1))))


class Tree(nn.Module):
    """Hierarchical aggregation (section 3.2, figure 3): two subtrees of depth `levels` - 1, joined by one root.

    Args:
        levels: depth; at 1 the subtrees are residual blocks.
        in_channels, out_channels, stride: of the whole tree.
        level_root: whether the (down-sampled) input goes to the root, too.
        extra_channels: channels of the `extra` maps that `forward` will get for the root.
    """

    def __init__(
        self,
        levels: int,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        level_root: bool = False,
        extra_channels: int = 0,
    ):
        super().__init__()
        self.is_leaf, self.level_root = levels == 1, level_root
        if level_root:
            extra_channels += in_channels
        self.downsample = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.tree1: nn.Module
        self.tree2: nn.Module
        if self.is_leaf:
            self.tree1 = BasicBlock(in_channels, out_channels, stride)
            self.tree2 = BasicBlock(out_channels, out_channels)
            self.root = Root(2 * out_channels + extra_channels, out_channels)
        else:
            self.tree1 = Tree(levels - 1, in_channels, out_channels, stride)
            self.tree2 = Tree(levels - 1, out_channels, out_channels, extra_channels=extra_channels + out_channels)
        # Fidelity: a tree of trees carries a projection (its weights are published) that nothing reads.
        self.project = conv_bn(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: torch.Tensor, extra: tuple[torch.Tensor, ...] = ()) -> torch.Tensor:
        """Map [B, in, h, w] -> [B, out, h / stride, w / stride]; `extra` maps, of the output's size, go to the root."""
        bottom = self.downsample(x)  # [B, in, h / stride, w / stride]
        if self.level_root:
            extra = (*extra, bottom)
        if self.is_leaf:
            first = self.tree1(x, self.project(bottom))
            return self.root(self.tree2(first), first, *extra)
        first = self.tree1(x)
        return self.tree2(first, (*extra, first))


class DLA34(nn.Module):
    """The backbone; `classifier` keeps the ImageNet classifier's `fc`, which nothing reads."""

    def __init__(self, classifier: bool = False):
        super().__init__()
        self.base_layer = conv_bn_relu(3, CHANNELS[0], kernel=7)
        self.level0 = conv_bn_relu(CHANNELS[0], CHANNELS[0], kernel=3)
        self.level1 = conv_bn_relu(CHANNELS[0], CHANNELS[1], kernel=3, stride=2)
        self.level2 = Tree(1, CHANNELS[1], CHANNELS[2], stride=2)
        self.level3 = Tree(2, CHANNELS[2], CHANNELS[3], stride=2, level_root=True)
        self.level4 = Tree(2, CHANNELS[3], CHANNELS[4], stride=2, level_root=True)
        self.level5 = Tree(1, CHANNELS[4], CHANNELS[5], stride=2, level_root=True)
        if classifier:
            self.fc = nn.Conv2d(CHANNELS[5], 1000, 1)
        kaiming_convs(self)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map [B, 3, H, W] -> levels 2 to 5, [B, 64, H/4, W/4] to [B, 512, H/32, W/32]."""
        x = self.level1(self.level0(self.base_layer(images)))  # [B, 32, H/2, W/2]
        maps = []
        for level in (self.level2, self.level3, self.level4, self.level5):
            x = level(x)
            maps.append(x)
        return maps


class DLACenterNet(CenterNet):
    """A CenterNet whose backbone `base` is DLA-34: both DLA families."""

    backbone_prefixes = ('base.',)
    unused_prefixes = ('base.level3.project.', 'base.level4.project.', 'base.fc.')
    imagenet = IMAGENET


class IDAUp(nn.Module):
    """Iterative aggregation (section 3.1): brings maps to the first one's size and merges them one after another.

    Map i > 0 goes through `proj_i` (to `out_channels`) and `up_i` (to the first one's size); `node_i` then reads
    what `merge` makes of it and the result so far. Families derive, register `proj_i` and `node_i` in the order of
    their published weights, and give `merge`.
    """

    def __init__(self, out_channels: int, channels: tuple[int, ...], factors: tuple[int, ...]):
        super().__init__()
        self.out_channels, self.channels, self.factors = out_channels, channels, factors

    def add_projection(self, i: int, build: Callable[[int, int], nn.Module]) -> None:
        """Register `proj_i` = build(in, out) and the bilinear `up_i`."""
        self.add_module(f'proj_{i}', build(self.channels[i], self.out_channels))
        self.add_module(f'up_{i}', bilinear_upsampling(self.out_channels, self.factors[i]))

    @staticmethod
    def merge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Map two [B, out_channels, h, w] -> what a node reads."""
        raise NotImplementedError

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """n maps [B, channels[i], h / factors[i], w / factors[i]] -> the n - 1 nodes' [B, out_channels, h, w]."""
        x, nodes = maps[0], []
        for i, y in enumerate(maps[1:], start=1):
            y = getattr(self, f'up_{i}')(getattr(self, f'proj_{i}')(y))
            x = getattr(self, f'node_{i}')(self.merge(x, y))
            nodes.append(x)
        return nodes


class DLAUp(nn.Module):
    """Aggregates the backbone's levels 2 to 5 from the deepest up: `ida_0` to stride 16, `ida_1` to 8, `ida_2` to 4.

    Args:
        ida: the family's `IDAUp`.
    """

    def __init__(self, ida: type[IDAUp]):
        super().__init__()
        channels = list(CHANNELS[FIRST_LEVEL:])
        for i in range(len(channels) - 1):
            start = len(channels) - 2 - i
            out, merged = channels[start], len(channels) - 1 - start
            # All maps below the first come from the last step (or are the deepest level): twice its stride.
            self.add_module(f'ida_{i}', ida(out, tuple(channels[start:]), (1, *[2] * merged)))
            channels[start + 1 :] = [out] * merged

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Levels 2 to 5 -> one map a level, the most aggregated of its stride; same shapes, finest first."""
        maps, finished = list(maps), [maps[-1]]
        for i in range(len(maps) - 1):
            start = len(maps) - 2 - i
            maps[start + 1 :] = getattr(self, f'ida_{i}')(maps[start:])
            finished.insert(0, maps[-1])
        return finished


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution a channel that starts as bilinear interpolation by `factor`."""
    up = upsampling_conv(channels, channels, factor, groups=channels)
    with torch.no_grad():
        up.weight.copy_(bilinear_kernel(2 * factor))
    return up
