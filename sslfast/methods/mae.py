"""MAE: He et al. 2021, Masked Autoencoders Are Scalable Vision Learners (https://arxiv.org/abs/2111.06377)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslfast._extras import require
from sslfast.augment import Images, ViewSampler
from sslfast.config import ImageConfig, Optimizer
from sslfast.data import normalization_of
from sslfast.methods.base import Method, Panel
from sslfast.models import MAEDecoder, encode_visible
from sslfast.ops import PatchMask, gather_patches, masked_patch_loss, random_patch_mask


@dataclass(frozen=True, kw_only=True)
class MAEConfig(ImageConfig):
    """MAE's fields. The paper's: AdamW, 1.5e-4 x batch/256, betas 0.9 and 0.95, decay 0.05, decoder of 8 x 512."""

    method: ClassVar[str] = "mae"

    backbone: str = "vit_tiny_patch4"
    """Vision transformer to train: vit_tiny_patch4 and its like, or any of timm's that has a class token."""
    preset: str = "mae"
    """Augmentation: mae (crop and flip), mnist-like, or any of the others."""
    optimizer: Optimizer = "adamw"
    """Optimizer; biases, norm parameters, positions and tokens are left out of weight decay."""
    learning_rate: float = 1.5e-4
    """Peak learning rate before lr_scaling."""
    weight_decay: float = 0.05
    """Weight decay, decoupled for AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""
    warmup_epochs: float = 40.0
    """Epochs over which the learning rate rises linearly to its peak; a half cosine to 0 follows."""
    mask_ratio: float = 0.75
    """The part of the patches that the encoder does not see."""
    norm_pix: bool = True
    """Predict every patch normalised by its own mean and variance."""
    decoder_width: int = 512
    """Width of the decoder's tokens."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of a decoder block; they divide its width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(decoder_width=4, decoder_depth=1, decoder_heads=1)
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {self.mask_ratio}")
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width must be a multiple of 4 and of decoder_heads {self.decoder_heads}, "
                f"got {self.decoder_width}"
            )


class MAE(Method):
    """An encoder sees a quarter of the patches; a small decoder paints the others, where the loss is.

    Args:
        backbone: timm's VisionTransformer with a class token and positions.
        config: the run's.

    Raises:
        ValueError: the backbone is another network, image_size is not a multiple of its patches' side, or mask_ratio
            leaves none or all of them visible.
    """

    Config = MAEConfig

    def __init__(self, backbone: nn.Module, config: MAEConfig) -> None:
        super().__init__()
        _check_backbone(backbone, config)
        self.backbone = backbone
        self.patch_size, self.grid = backbone.patch_embed.patch_size[0], backbone.patch_embed.grid_size[0]
        self.mask_ratio, self.norm_pix = config.mask_ratio, config.norm_pix
        self.decoder = MAEDecoder(
            backbone.embed_dim,
            self.grid,
            self.patch_size**2 * backbone.patch_embed.proj.in_channels,
            width=config.decoder_width,
            depth=config.decoder_depth,
            heads=config.decoder_heads,
        )
        self.sampler = ViewSampler(config.preset, config.image_size, strength=config.strength)
        self.mean, self.std = normalization_of(config)

    def views(self, images: Images, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """A view of each image, (B, C, image_size, image_size) normalised, and noise (B, L) that orders its patches."""
        device = images.device
        view = self.sampler.view(images, generator=generator, mean=self.mean, std=self.std)
        return view, torch.rand(len(images), self.grid**2, generator=generator, dtype=torch.float32, device=device)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """The patches with the least noise are seen; the mean of their tokens is the embedding."""
        images, noise = batch
        tokens, pred, hidden = self._reconstruct(images, noise)
        loss = masked_patch_loss(pred, images, hidden.mask, self.patch_size, norm_pix=self.norm_pix)
        return {"loss": loss, "embeddings": tokens[:, 1:].mean(dim=1).detach()}

    def _reconstruct(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, PatchMask]:
        """The encoder's tokens (B, 1 + K, D), the decoder's patches (B, L, P·P·C), and which were hidden."""
        hidden = random_patch_mask(*noise.shape, self.mask_ratio, noise=noise)
        tokens = encode_visible(self.backbone, images, hidden.keep)
        return tokens, self.decoder(tokens, hidden.restore), hidden

    def illustrate(self, source: Images, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """Of every image what was seen, what the decoder made of it around the visible patches, and the view itself."""
        images, noise = self.views(source, generator)
        _, pred, hidden = self._reconstruct(images, noise)
        every = torch.arange(noise.shape[1], device=images.device).expand_as(noise)
        target = gather_patches(images, every, self.patch_size)  # (B, L, P·P·C)
        if self.norm_pix:  # the network paints contrasts; brightness and its scale are those of the true patch
            variance, mean = torch.var_mean(target, dim=2, keepdim=True)
            pred = pred * (variance + 1e-6).sqrt() + mean
        masked = hidden.mask[:, :, None]
        seen = self._picture(target.masked_fill(masked, 0))  # 0 is the mean colour
        painted = self._picture(torch.where(masked, pred.float(), target))
        whole = self._picture(target)
        captions = (f"{self.mask_ratio:.0%} masked", "reconstruction", "original")
        return [[Panel(*panel) for panel in zip(row, captions)] for row in zip(seen, painted, whole)]

    def _picture(self, patches: Tensor) -> Tensor:
        """Normalised patches (B, L, P·P·C) to pictures (B, C, H, W) in [0, 1]."""
        side, p = self.grid, self.patch_size
        pixels = patches.unflatten(2, (p, p, -1)).unflatten(1, (side, side))  # (B, side, side, P, P, C)
        images = pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)


def _check_backbone(backbone: nn.Module, config: MAEConfig) -> None:
    vit = require("timm.models.vision_transformer", extra="train")
    if not (
        isinstance(backbone, vit.VisionTransformer)
        and isinstance(backbone.patch_embed, vit.PatchEmbed)  # and no hybrid's, whose patches are of a feature map
        and backbone.has_class_token
        and backbone.pos_embed is not None
        and backbone.pos_embed.shape[1] == 1 + backbone.patch_embed.num_patches
    ):
        raise ValueError(
            "backbone must be a vision transformer of patches of pixels with a class token and positions, like "
            f"vit_tiny_patch4, got {config.backbone}"
        )
    patch_size, patches = backbone.patch_embed.patch_size[0], backbone.patch_embed.num_patches
    if config.image_size % patch_size:
        raise ValueError(f"image_size must be a multiple of the patch size {patch_size}, got {config.image_size}")
    if not 0 < int(patches * (1 - config.mask_ratio)) < patches:
        raise ValueError(f"mask_ratio must hide some of {patches} patches and not all, got {config.mask_ratio}")
