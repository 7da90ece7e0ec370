"""From a backbone's feature map back to pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PixelDecoder(nn.Module):
    """(Conv3x3, BatchNorm, ReLU), then as often as it takes (upsample x2, the same again), then a Conv1x1.

    (B, in_features, in_size, in_size) -> (B, out_channels, out_size, out_size). Where out_size is no in_size·2^n, the
    result is brought to it bilinearly.

    Args:
        in_features, in_size: shape of the feature map, see `feature_map_shape`.
        out_channels: values predicted for a pixel.
        out_size: side of the prediction, in pixels.
        width: channels in between.

    Raises:
        ValueError: an argument is below 1.
    """

    def __init__(self, in_features: int, in_size: int, out_channels: int, out_size: int, *, width: int) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "in_size": in_size, "out_channels": out_channels, "out_size": out_size}
        for argument, value in {**sizes, "width": width}.items():
            if value < 1:
                raise ValueError(f"{argument} must be at least 1, got {value}")
        layers = [_block(in_features, width)]
        while in_size < out_size:
            in_size *= 2
            layers += [nn.Upsample(scale_factor=2), _block(width, width)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, out_channels, 1))
        self.out_size = out_size

    def forward(self, features: Tensor) -> Tensor:
        pixels = self.layers(features)
        if pixels.shape[-1] == self.out_size:
            return pixels
        return F.interpolate(pixels, (self.out_size, self.out_size), mode="bilinear", antialias=True)


def _block(in_channels: int, channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
