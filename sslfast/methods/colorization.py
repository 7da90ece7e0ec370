"""Colorization: Zhang et al. 2016, Colorful Image Colorization (https://arxiv.org/abs/1603.08511)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.augment import Images, ViewSampler
from sslfast.config import ImageConfig
from sslfast.data import LUMA, normalization_of
from sslfast.methods.base import Method, Panel
from sslfast.methods.lab import annealed_mean, colour_bins, lab_to_rgb, rebalancing, rgb_to_lab, soft_encode, xyz_matrix
from sslfast.models import PixelDecoder, feature_map, feature_map_shape
from sslfast.ops.distributed import find_group

COLOURFUL = 5.0  # an image without a pixel with |a| or |b| above it has nearly no colour
UNIT = 2**16  # of the count of colours
SLOWEST = 0.01  # share that a batch has in the running estimate of the colours' frequencies, at least


@dataclass(frozen=True, kw_only=True)
class ColorizationConfig(ImageConfig):
    """Colorization's fields. The paper's: Adam, 3e-5, betas 0.9 and 0.99, decay 1e-3, batch 40, 176 px."""

    method: ClassVar[str] = "colorization"
    gray: ClassVar[bool] = True

    data: str = "photos"
    """Colour images to train on: photos, cifar10, cifar100, stl10 or folder:PATH."""
    preset: str = "mae"
    """Augmentation that leaves colours as they are: mae (crop and flip)."""
    stride: int = 4
    """Colours are predicted for squares of stride x stride pixels."""
    decoder_width: int = 128
    """Channels of the decoder."""
    gamma: float = 0.5
    """Rebalancing of rare colours, above 0: 1 weighs all the same, less weighs rare ones more."""
    temperature: float = 0.38
    """Temperature of the annealed mean, which turns predictions into colours in pictures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(stride=1, decoder_width=1)
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], got {self.gamma}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.image_size % self.stride:
            raise ValueError(f"stride must divide the image_size {self.image_size}, got {self.stride}")


class Colorization(Method):
    """The colours of an image from its luma, as a choice among 313 of them for every square of pixels.

    Args:
        backbone: (B, 1, H, W) -> (B, backbone.num_features), with a feature map.
        config: the run's.

    Raises:
        ValueError: the images have no colours, the preset changes them, or the backbone takes another input.
    """

    Config = ColorizationConfig

    def __init__(self, backbone: nn.Module, config: ColorizationConfig) -> None:
        super().__init__()
        self.backbone = backbone
        if len(normalization_of(config)[0]) != 3:
            raise ValueError(f"data must have colours for colorization to predict, {config.data!r} is gray")
        self.sampler = ViewSampler(config.preset, config.image_size, strength=config.strength)
        if self.sampler.steps:
            steps = ", ".join(self.sampler.steps)
            raise ValueError(f"preset must leave colours as they are, e.g. mae; {config.preset!r} has {steps}")
        self.size, self.stride, self.gamma = config.image_size, config.stride, config.gamma
        self.temperature = config.temperature
        (self.mean,), (self.std,) = normalization_of(config, gray=True)
        bins = colour_bins()
        self.decoder = PixelDecoder(
            *feature_map_shape(backbone, 1, self.size), len(bins), self.size // self.stride, width=config.decoder_width
        )
        # Constants that the steps need on the device; to copy one there would make the host wait.
        self.register_buffer("bins", bins, persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA, dtype=torch.float32), persistent=False)
        self.register_buffer("xyz", xyz_matrix().float(), persistent=False)
        self.register_buffer(
            "prior", torch.full((len(bins),), 1 / len(bins), dtype=torch.float32)
        )  # running frequencies of the colours
        self.register_buffer("batches", torch.zeros((), dtype=torch.float32))  # that the prior has seen

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """The luma to look at, and what is to be predicted.

        Returns:
            luma (B, 1, size, size), normalised; nearest and share (B, size/stride, size/stride, 5), the colours as
            `soft_encode` gives them; colourful (B,) bool, False for an image with nearly no colour.
        """
        return self._question(self._crop(images, generator))

    def forward(self, batch: tuple[Tensor, ...]) -> dict[str, Any]:
        """Weighted cross-entropy with the soft targets; while training, the colours' frequencies are updated first."""
        luma, nearest, share, colourful = batch
        features = feature_map(self.backbone, luma)  # (B, F, h', w')
        logits = self._logits(features)
        if self.training:
            self._count(nearest, share, colourful)
        seen = colourful[:, None, None].float()  # (B, 1, 1)
        hard = nearest[..., 0]  # (B, h, w)
        weight = rebalancing(self.prior, self.gamma)[hard] * seen
        entropy = logits.logsumexp(dim=-1) - (share * logits.gather(-1, nearest)).sum(dim=-1)  # the shares sum to 1
        return {
            "loss": (weight * entropy).mean(),
            "embeddings": features.detach().mean(dim=(2, 3)),
            "accuracy": ((logits.argmax(dim=-1) == hard) * seen).mean() / seen.mean().clamp_min(1 / len(seen)),
        }

    def illustrate(self, source: Tensor, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """The luma, the colours predicted for it (annealed mean), and the original."""
        rgb = self._crop(source, generator)
        luma = self._question(rgb)[0]
        ab = annealed_mean(self._logits(feature_map(self.backbone, luma)), self.bins, self.temperature)
        ab = F.interpolate(ab.permute(0, 3, 1, 2), rgb.shape[-2:], mode="bilinear")
        coloured = lab_to_rgb(torch.cat([rgb_to_lab(rgb, self.xyz)[:, :1], ab], dim=1))
        shown = luma * self.std + self.mean
        return [
            [Panel(seen, "given", "query"), Panel(guess, "predicted colours"), Panel(original, "original")]
            for seen, guess, original in zip(shown, coloured, rgb)
        ]

    def _crop(self, images: Images, generator: torch.Generator | None) -> Tensor:
        if images.shape[1] != 3:
            raise ValueError(f"images must have 3 channels for colorization, got {images.shape[1]}")
        return self.sampler.view(images, generator=generator)  # (B, 3, size, size)

    def _question(self, rgb: Tensor) -> tuple[Tensor, ...]:
        luma = torch.einsum("bchw,c->bhw", rgb, self.luma).unsqueeze(1)
        ab = rgb_to_lab(rgb, self.xyz)[:, 1:]
        colourful = (ab.abs() > COLOURFUL).flatten(1).any(dim=1)
        squares = F.avg_pool2d(ab, self.stride).permute(0, 2, 3, 1)  # (B, h, w, 2)
        return (luma - self.mean) / self.std, *soft_encode(squares, self.bins), colourful

    def _logits(self, features: Tensor) -> Tensor:
        return self.decoder(features).float().permute(0, 2, 3, 1)  # (B, h, w, 313)

    @torch.no_grad()
    def _count(self, nearest: Tensor, share: Tensor, colourful: Tensor) -> None:
        """The mean of the batches up to the hundredth, from then on one that forgets; gray images do not count.

        A batch is that of all devices.
        """
        # Integers: sums of floats depend on the order, which differs from run to run on a GPU.
        counted = (share * colourful[:, None, None, None] * UNIT).round().long()
        found = torch.zeros(len(self.prior), dtype=torch.long, device=share.device)
        found.index_add_(0, nearest.flatten(), counted.flatten())
        if (group := find_group("colorization", "world", "all")) is not None:
            dist.all_reduce(found, group=group)
        total = found.sum()
        self.batches += total > 0
        rate = (1 / self.batches.clamp_min(1)).clamp_min(SLOWEST) * (total > 0)
        self.prior.lerp_(found / total.clamp_min(1), rate)
