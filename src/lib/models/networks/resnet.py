"""The ResNet backbone (He et al. 2016) that msra_resnet and resnet_dcn put their up-sampling layers on."""

from pathlib import PurePosixPath

import torch
import torchvision
from torch import nn

from .common import CenterNet, ImageNetWeights

BACKBONE = ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4')


class ResNetCenterNet(CenterNet):
    """torchvision's ResNet without its classifier; families add `deconv_layers` (stride 32 to 4) and heads.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
    """

    backbone_prefixes = tuple(f'{name}.' for name in BACKBONE)

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module
    deconv_layers: nn.Module

    def __init__(self, num_layers: int):
        super().__init__()
        resnet = torchvision.models.get_model(f'resnet{num_layers}', weights=None)
        for name in BACKBONE:
            self.add_module(name, getattr(resnet, name))
        self.backbone_channels = resnet.fc.in_features
        url = torchvision.models.get_model_weights(f'resnet{num_layers}').IMAGENET1K_V1.url
        file = PurePosixPath(url)
        self.imagenet = ImageNetWeights(url, file.name, sha256_prefix=file.stem.split('-')[-1])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map [B, 3, H, W] -> [B, c, H/4, W/4]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # [B, 64, H/4, W/4]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [B, backbone_channels, H/32, W/32]
        return self.deconv_layers(x)
