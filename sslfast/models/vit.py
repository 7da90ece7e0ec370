"""Vision transformers for any image and patch size: timm's networks, as masked autoencoders initialise them."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from sslfast._extras import require

NAME = re.compile(r"vit_(micro|tiny|small|base|large)_patch(\d+)")
MICRO = {"embed_dim": 128, "depth": 4, "num_heads": 4}  # 0.8 million parameters


def build_vit(name: str, *, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """timm's vision transformer of a name like `vit_tiny_patch4`, which returns the mean of its patch tokens.

    Initialised as in facebookresearch/mae, models_mae.py: linear layers by Xavier's uniform rule, the class token with
    standard deviation 0.02, and sine-cosine positions that are not trained.

    Raises:
        ValueError: image_size is not a multiple of the patch size.
    """
    size, patch = NAME.fullmatch(name).groups()
    patch_size = int(patch)
    if patch_size < 1 or image_size % patch_size:
        raise ValueError(f"backbone {name!r} needs image_size to be a multiple of {patch_size}, got {image_size}")
    architecture = f"vit_{'tiny' if size == 'micro' else size}_patch16_224"
    options = {"img_size": image_size, "patch_size": patch_size, "in_chans": in_channels, "num_classes": 0}
    options |= {"global_pool": "avg", "fc_norm": False}  # the norm comes before the mean, where a decoder sees it too
    options |= MICRO if size == "micro" else {}
    vit = require("timm", extra="train").create_model(architecture, **options)
    vit.timm_arguments = architecture, options
    initialise_linear(vit)
    weight = vit.patch_embed.proj.weight
    nn.init.xavier_uniform_(weight.data.view(len(weight), -1))
    nn.init.normal_(vit.cls_token, std=0.02)
    vit.pos_embed.data[:, 1:] = sine_cosine_positions(vit.patch_embed.grid_size[0], vit.embed_dim)
    vit.pos_embed.data[:, :1] = 0
    vit.pos_embed.requires_grad_(False)
    return vit


def initialise_linear(module: nn.Module) -> None:
    """Xavier's uniform rule for the weights of all linear layers, in place; zero for their biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def sine_cosine_positions(side: int, width: int) -> Tensor:
    """Positions (side², width) of a square grid of patches in row-major order, as in facebookresearch/mae.

        angle = coordinate / 10000 ** (arange(width / 4) / (width / 4))
        position = [sin(angle of column), cos(angle of column), sin(angle of row), cos(angle of row)]

    Raises:
        ValueError: width is not a multiple of 4.
    """
    if width < 4 or width % 4:
        raise ValueError(f"width of sine-cosine positions must be a multiple of 4, got {width}")
    quarter = width // 4
    frequency = 10000 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.outer(torch.arange(side, dtype=torch.float64), frequency)  # (side, width / 4)
    line = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width / 2)
    columns, rows = line.expand(side, -1, -1), line[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1).float()
