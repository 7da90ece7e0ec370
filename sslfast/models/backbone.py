"""Backbones by name: any of timm's, `resnet20`, and vision transformers of any patch size."""

from __future__ import annotations

from torch import nn

from sslfast._extras import require
from sslfast._outside import is_outside
from sslfast._words import nearest
from sslfast.models.input_size import check_input_size
from sslfast.models.own import own_backbone
from sslfast.models.resnet import resnet20, small_image_stem
from sslfast.models.vit import NAME, build_vit

TIMM = "timm:"
SMALL = 64  # px: up to here a ResNet gets the 3x3 stem


def build_backbone(name: str, *, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """A randomly initialised network from images to features.

    Args:
        name: `resnet20` (He et al.'s for 32 px images); `vit_SIZE_patchP`, SIZE micro, tiny, small, base or large, P
            the side of a patch in pixels (`build_vit`); any name of `timm.list_models()`, with `timm:` before it or
            not; or what leads to a network of somebody's own (`own_backbone`).
        in_channels: channels of the images, 1 for grayscale.
        image_size: side of the (square) images in pixels. A ResNet for images up to 64 px gets a 3x3 stride-1 stem
            and no max-pool (SimCLR, appendix B.9); a vision transformer gets position embeddings for this size.

    Returns:
        A module, (B, in_channels, image_size, image_size) float -> (B, F); `.num_features` is F. If timm alone can
        build it, `.timm_arguments` are the name and the options that its `create_model` takes for that.

    Raises:
        ValueError: no such name (the message has the closest ones), or the network cannot take this size.
        ImportError: timm is not installed.
    """
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1, got {in_channels}")
    if image_size < 4:
        raise ValueError(f"image_size must be at least 4 px, got {image_size}")
    if name == "resnet20":
        return resnet20(in_channels=in_channels)
    if NAME.fullmatch(name):
        return build_vit(name, in_channels=in_channels, image_size=image_size)
    timm = require("timm", extra="train")
    if not name.startswith(TIMM) and is_outside("backbones", name):
        return own_backbone(name, in_channels=in_channels, image_size=image_size)
    name = name.removeprefix(TIMM)
    # A name like "hf-hub:…" would make timm look for weights in the network.
    if ":" in name or not timm.is_model(name):
        hint = nearest(name, ["resnet20", *timm.list_models()], most=4) or "; timm.list_models() has the names"
        raise ValueError(f"unknown backbone {name!r}{hint}")

    options = {"pretrained": False, "num_classes": 0, "in_chans": in_channels}
    try:
        sized = {**options, "img_size": image_size}
        model = timm.create_model(name, **sized)
        model.timm_arguments = name, sized
    except TypeError:  # a network that takes any size has no such argument
        model = timm.create_model(name, **options)
        model.timm_arguments = name, options
    except (AssertionError, ValueError) as error:
        raise ValueError(f"backbone {name!r} cannot take image_size {image_size}: {error}") from error
    if isinstance(model, timm.models.ResNet) and image_size <= SMALL:
        small_image_stem(model)
        del model.timm_arguments  # timm has no such stem
    # Some networks have one more layer between their last feature map and what they return.
    model.num_features = getattr(model, "head_hidden_size", model.num_features)
    check_input_size(model, name, in_channels, image_size)
    return model
