"""The two halves of a masked autoencoder around a vision transformer: visible patches in, all patches out."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast._extras import require
from sslfast.models.vit import initialise_linear, sine_cosine_positions
from sslfast.ops import gather_patches, gather_tokens, restore_tokens


def encode_visible(backbone: nn.Module, images: Tensor, keep: Tensor) -> Tensor:
    """What a vision transformer makes of the visible patches alone; masked ones are neither read nor embedded.

    Args:
        backbone: timm's `VisionTransformer` with a class token and positions for the size of the images.
        images: (B, C, H, W) normalised.
        keep: (B, K) int64, as `random_patch_mask` gives it.

    Returns:
        (B, 1 + K, D): the class token, then the patches in the order of `keep`.
    """
    proj = backbone.patch_embed.proj
    rows = gather_patches(images, keep, proj.kernel_size[0])  # (B, K, P·P·C)
    tokens = F.linear(rows, proj.weight.permute(0, 2, 3, 1).flatten(1), proj.bias)  # (B, K, D)
    positions = backbone.pos_embed.expand(len(images), -1, -1)  # (B, 1 + L, D)
    tokens = tokens + gather_tokens(positions[:, 1:], keep)
    tokens = torch.cat([backbone.cls_token + positions[:, :1], tokens], dim=1)
    return backbone.norm(backbone.blocks(backbone.norm_pre(backbone.pos_drop(tokens))))


class MAEDecoder(nn.Module):
    """A small transformer that paints all patches from the visible ones: (B, 1 + K, D), (B, L) -> (B, L, P·P·C).

    Its positions are sine-cosine ones that are not trained; the class token's is zero.

    Args:
        in_features: width D of the encoder.
        grid: patches of the square image in each direction, L = grid².
        patch_elements: P·P·C.
        width: of the decoder's tokens, a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: attention heads of a block.

    Raises:
        ValueError: depth is below 1, or width does not suit.

    Source: He et al. 2021, https://arxiv.org/abs/2111.06377, and facebookresearch/mae, models_mae.py.
    """

    def __init__(
        self, in_features: int, grid: int, patch_elements: int, *, width: int = 512, depth: int = 8, heads: int = 16
    ) -> None:
        super().__init__()
        if depth < 1 or heads < 1 or width % heads:
            raise ValueError(
                f"depth and heads must be at least 1 and width a multiple of heads, "
                f"got depth {depth}, heads {heads}, width {width}"
            )
        vit = require("timm.models.vision_transformer", extra="train")
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.embed = nn.Linear(in_features, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.register_buffer("positions", sine_cosine_positions(grid, width), persistent=False)  # (L, width)
        self.blocks = nn.Sequential(*(vit.Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)))
        self.norm = norm(width)
        self.predict = nn.Linear(width, patch_elements)
        initialise_linear(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, restore: Tensor) -> Tensor:
        x = self.embed(tokens).to(self.mask_token.dtype)  # under autocast the residual stream stays float32
        patches = restore_tokens(x[:, 1:], restore, self.mask_token, self.positions)  # (B, L, width)
        x = self.blocks(torch.cat([x[:, :1], patches], dim=1))
        return self.predict(self.norm(x[:, 1:]))
