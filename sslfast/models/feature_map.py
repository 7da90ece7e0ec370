"""The last feature map of a backbone, for the methods that predict pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def feature_map(backbone: nn.Module, images: Tensor) -> Tensor:
    """What the backbone pools into its features: (B, C, H, W) images -> (B, F, h, w).

    Args:
        backbone: from `build_backbone`; a vision transformer's patch tokens are laid out as the map they came from.

    Raises:
        ValueError: the backbone has no map, i.e. its `forward_features` is missing or gives something else.
    """
    if not hasattr(backbone, "forward_features"):
        raise ValueError(f"backbone must have forward_features, {type(backbone).__name__} has not")
    found = backbone.forward_features(images)
    if found.dim() == 3 and hasattr(backbone, "patch_embed"):  # (B, prefix + h·w, F)
        height, width = backbone.patch_embed.grid_size
        tokens = found[:, getattr(backbone, "num_prefix_tokens", 0) :]
        return tokens.transpose(1, 2).unflatten(2, (height, width))
    if found.dim() != 4:
        raise ValueError(f"backbone must have a feature map (B, F, h, w), got {tuple(found.shape)}")
    return found.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", "NCHW") == "NHWC" else found


def feature_map_shape(backbone: nn.Module, in_channels: int, image_size: int) -> tuple[int, int]:
    """(F, h) of the feature map for images of this size; the backbone's buffers and mode stay as they are.

    A norm after the map, like ConvNeXt's, is no part of it and stays as it was initialised.

    Raises:
        ValueError: as in `feature_map`; or the features are not the map's, pooled, because layers that a loss on the
            map would never train come after it (MobileNetV3, VGG).
    """
    training = backbone.training
    parameter = next(backbone.parameters())
    backbone.eval()
    with torch.no_grad():
        found = feature_map(backbone, parameter.new_zeros(1, in_channels, image_size, image_size))
    backbone.train(training)
    if found.shape[1] != backbone.num_features:
        raise ValueError(
            f"backbone must pool its feature map into its features, {type(backbone).__name__} has layers in between: "
            f"a map of {found.shape[1]} channels, {backbone.num_features} features"
        )
    return found.shape[1], found.shape[2]
