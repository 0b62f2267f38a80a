"""Shared by the network families: the shape of a CenterNet, its heads, residual blocks, bilinear up-sampling."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from ...utils.errors import UserError

# A new heatmap says sigmoid(-2.19) = 0.1 everywhere, so that the focal loss of its many empty cells does not
# drown the first steps (the prior of RetinaNet, section 4.1).
HEATMAP_BIAS = -2.19


class ImageNetWeights(NamedTuple):
    """Where a backbone's ImageNet weights are published, and the file's name in the torch.hub cache."""

    url: str
    file_name: str
    sha256_prefix: str | None = None


class CenterNet(nn.Module):
    """A backbone and its heads ("Objects as Points", section 3 and figure 6).

    A family derives from this class, sets `backbone_prefixes` and gives `features` (with several stacks also
    `stack_features` and `head`); heads become attributes that are named after them.

    Attributes:
        side_multiple: the input's height and width must be multiples of it (as the family's entry in `families.py`).
        backbone_prefixes: how the names of the parameters that pretraining fills begin.
        unused_prefixes: how the names of backbone parameters begin that no output depends on; pretrained weights may
            lack them.
        imagenet: the backbone's published ImageNet weights, None where there are none.
    """

    side_multiple = 32
    backbone_prefixes: tuple[str, ...] = ()
    unused_prefixes: tuple[str, ...] = ()
    imagenet: ImageNetWeights | None = None

    def add_heads(
        self,
        heads: dict[str, int],
        in_channels: int,
        head_conv: int,
        initialise: Callable[[list[nn.Conv2d]], None],
    ) -> None:
        """Register a head for each `{name: channels}`, in this order.

        A head is a 3x3 convolution to `head_conv` channels, ReLU and a 1x1 convolution, or that last one alone
        when `head_conv` is 0. `initialise` gets the convolutions of each head that is not a heatmap; heatmaps
        keep PyTorch's initial weights and start from `HEATMAP_BIAS`.
        """
        self.heads = dict(heads)
        for name, channels in heads.items():
            head: nn.Module
            if head_conv > 0:
                hidden = nn.Conv2d(in_channels, head_conv, 3, padding=1)
                last = nn.Conv2d(head_conv, channels, 1)
                convs, head = [hidden, last], nn.Sequential(hidden, nn.ReLU(inplace=True), last)
            else:
                last = head = nn.Conv2d(in_channels, channels, 1)
                convs = [last]
            if is_heatmap(name):
                nn.init.constant_(bias_of(last), HEATMAP_BIAS)
            else:
                initialise(convs)
            self.add_module(name, head)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, 3, H, W] -> the map at stride 4 that the (last stack's) heads read, [B, c, H/4, W/4]."""
        raise NotImplementedError

    def stack_features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map [B, 3, H, W] -> the map that each stack's heads read, [B, c, H/4, W/4] each."""
        return [self.features(images)]

    def head(self, name: str, stack: int) -> nn.Module:
        """Return the head called `name` of a stack; [B, c, h, w] -> [B, channels, h, w]."""
        return getattr(self, name)

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """Return the raw outputs (logits, no activation), one dict a stack.

        Args:
            images: normalised images, float [B, 3, H, W].

        Returns:
            A list of `{head: [B, channels, H/4, W/4]}`, one entry a stack (one for all but hourglass); the last one is
            the result.

        Raises:
            UserError: H or W is not a multiple of `side_multiple`.
        """
        check_sides(images, self.side_multiple)
        return [
            {name: self.head(name, stack)(x) for name in self.heads}  # x is [B, c, h, w]
            for stack, x in enumerate(self.stack_features(images))
        ]


def bias_of(layer: nn.Conv2d) -> torch.Tensor:
    """Return the bias [out] of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


def is_heatmap(head: str) -> bool:
    """Return whether a head of this name is a keypoint heatmap (hm, hm_hp, hm_t, ...)."""
    return 'hm' in head


def check_sides(images: torch.Tensor, multiple: int) -> None:
    """Refuse images [B, 3, H, W] whose height or width is not a multiple of `multiple` (a `UserError`)."""
    height, width = images.shape[-2:]
    if height % multiple or width % multiple:
        raise UserError(
            f'the network takes inputs whose height and width are multiples of {multiple}, found '
            f'{height} x {width}: choose another --input_res (or --input_h and --input_w)'
        )


def small_normal(convs: list[nn.Conv2d]) -> None:
    """Start weights from N(0, 0.001) and biases from zero."""
    for conv in convs:
        nn.init.normal_(conv.weight, std=0.001)
        nn.init.zeros_(bias_of(conv))


def kaiming_convs(module: nn.Module) -> None:
    """Start the module's convolutions from N(0, sqrt(2 / (k * k * out))), as torchvision's ResNet does."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode='fan_out', nonlinearity='relu')


def conv_bn(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Make a convolution without bias (padded to keep the size at stride 1), then batch norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Build `conv_bn`, then ReLU."""
    return nn.Sequential(*conv_bn(in_channels, out_channels, kernel, stride), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut that the caller gives (the input itself by default)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, out_channels, kernel=3, stride=stride)
        self.conv2, self.bn2 = conv_bn(out_channels, out_channels, kernel=3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """x [B, in, h, w], shortcut [B, out, h / stride, w / stride] -> the shortcut's shape."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if shortcut is None else shortcut))


def bilinear_kernel(size: int) -> torch.Tensor:
    """Return the [size, size] kernel with which a transposed convolution of stride size / 2 interpolates linearly."""
    centre = (size - 1) / 2
    ramp = 1 - (torch.arange(size) - centre).abs() / (size / 2)  # [size]
    return ramp[:, None] * ramp  # [size, size]


def upsampling_conv(in_channels: int, out_channels: int, factor: int = 2, groups: int = 1) -> nn.ConvTranspose2d:
    """Make a transposed convolution without bias that makes maps `factor` (even) times as large."""
    return nn.ConvTranspose2d(
        in_channels, out_channels, 2 * factor, factor, padding=factor // 2, groups=groups, bias=False
    )
