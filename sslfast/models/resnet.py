"""ResNet-20 for 32 px images, and the stem that lets timm's ResNets see small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut that has no parameters (option A of the paper)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels)))


class CifarResNet(nn.Module):
    """He et al. 2015 (https://arxiv.org/abs/1512.03385, section 4.2): 6n+2 layers, n blocks of 16, 32 and 64 channels.

    forward: (B, C, H, W) float -> (B, 64), the mean over positions. H and W of at least 4.
    """

    num_features = 64

    def __init__(self, blocks: int = 3, *, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(in_channels, channels, stride)
        return nn.Sequential(first, *[Block(channels, channels, 1) for _ in range(blocks - 1)])

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, (B, C, H, W) -> (B, 64, H/4, W/4)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x).mean(dim=(2, 3))


def resnet20(*, in_channels: int = 3) -> CifarResNet:
    """ResNet-20: 0.27 million parameters, 41 million multiply-adds for a 32 px image, 64 features."""
    return CifarResNet(3, in_channels=in_channels)


def small_image_stem(model: nn.Module) -> None:
    """Give one of timm's ResNets, in place, a 3x3 stride-1 stem without max-pool, as SimCLR does for CIFAR (B.9)."""
    old = model.conv1
    if isinstance(old, nn.Conv2d):
        model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
        with torch.no_grad():
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    else:
        old[0].stride = (1, 1)  # the deep stems are 3x3 already
    model.maxpool = nn.Identity()
