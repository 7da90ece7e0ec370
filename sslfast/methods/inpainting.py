"""Inpainting: Pathak et al. 2016, Context Encoders (https://arxiv.org/abs/1604.07379)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.augment import Images, ViewSampler
from sslfast.config import ImageConfig
from sslfast.data import normalization_of
from sslfast.methods.base import Method, Panel
from sslfast.models import PixelDecoder, feature_map, feature_map_shape

OVERLAP_WEIGHT = 10.0  # of the pixels around the hole that are predicted though they are seen


@dataclass(frozen=True, kw_only=True)
class InpaintingConfig(ImageConfig):
    """Inpainting's fields.

    The authors' code: Adam, 2e-3 (discriminator 2e-4), beta 0.5, batch 64, 128 px, overlap 4, adversarial 0.001.
    """

    method: ClassVar[str] = "inpainting"

    preset: str = "mae"
    """Augmentation before the hole is cut: simclr, moco-v2, mae (crop and flip) or mnist-like, for instance."""
    mask: Literal["center", "blocks"] = "center"
    """One square hole in the middle, or several anywhere, which may overlap."""
    hole: float = 0.25
    """Share of the image that is hidden; of blocks that overlap less."""
    blocks: int = 4
    """Number of blocks."""
    overlap: int = 0
    """Pixels around the hole that are predicted too, though they are seen, and weigh ten times."""
    decoder_width: int = 64
    """Channels of the decoder."""
    adversarial: float = 0.0
    """Weight of a discriminator's verdict against the squared error; 0 trains none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(blocks=1, overlap=0, decoder_width=1, adversarial=0)
        if not 0 < self.hole < 1:
            raise ValueError(f"hole must be in (0, 1), got {self.hole}")


class Inpainting(Method):
    """The pixels of a hole from what is around it.

    With `adversarial` > 0 a discriminator is trained in the same step: it sees images and filled images, and the
    gradient that it sends into the filled ones is reversed, so that one optimizer plays both sides.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features), with a feature map.
        config: the run's.
    """

    Config = InpaintingConfig

    def __init__(self, backbone: nn.Module, config: InpaintingConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.size, self.overlap, self.adversarial = config.image_size, config.overlap, config.adversarial
        self.sampler = ViewSampler(config.preset, self.size, strength=config.strength)
        self.mean, self.std = normalization_of(config)
        variance = torch.tensor(self.std, dtype=torch.float32).square().view(1, -1, 1, 1)
        self.register_buffer("variance", variance, persistent=False)  # on the device: a copy would make the host wait
        self.centred = config.mask == "center"
        self.blocks = 1 if self.centred else config.blocks
        self.side = max(1, round(self.size * math.sqrt(config.hole / self.blocks)))  # of a block, in pixels
        channels = len(self.mean)
        self.decoder = PixelDecoder(
            *feature_map_shape(backbone, channels, self.size), channels, self.size, width=config.decoder_width
        )
        self.discriminator = _discriminator(channels, config.decoder_width) if self.adversarial else None

    def views(self, images: Images, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The images (B, C, size, size), normalised, and their holes (B, 1, size, size) bool, True where hidden."""
        view = self.sampler.view(images, generator=generator, mean=self.mean, std=self.std)
        return view, self._holes(view, generator)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """Squared error in the hole, and the discriminator's loss if there is one."""
        images, hole = batch
        features, filled = self._fill(images, hole)
        weight = hole.float()
        if self.overlap:
            seen = F.max_pool2d(weight, 2 * self.overlap + 1, 1, self.overlap) - weight
            weight = weight + OVERLAP_WEIGHT * seen
        error = (filled - images).square()  # (B, C, size, size)
        loss = (weight * error).sum() / (weight.sum() * images.shape[1])
        output = {"embeddings": features.detach().mean(dim=(2, 3)), "psnr": self._psnr(error.detach(), hole)}
        if self.discriminator is not None:
            verdict = self._verdict(images, torch.where(hole, filled, images))
            output["discriminator_loss"] = verdict.detach()
            loss = loss + verdict
        return {"loss": loss, **output}

    def illustrate(self, source: Tensor, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """The image with its hole, filled by the network, and the original."""
        images, hole = self.views(source, generator)
        filled = torch.where(hole, self._fill(images, hole)[1], images)
        mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        shown = [(picture * std + mean).clamp(0, 1) for picture in (images * ~hole, filled, images)]
        return [
            [Panel(given, "given", "query"), Panel(guess, "filled"), Panel(original, "original")]
            for given, guess, original in zip(*shown)
        ]

    def _holes(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, 1, size, size): blocks of side x side pixels, in the middle or wherever they fit."""
        free = self.size - self.side
        if self.centred:
            corner = torch.full((len(images), 1, 2), free // 2, dtype=torch.int64, device=images.device)
        else:
            shape = len(images), self.blocks, 2
            draws = torch.rand(shape, generator=generator, dtype=torch.float32, device=images.device)
            corner = (draws * (free + 1)).long()
        offset = torch.arange(self.size, device=images.device) - corner[..., None]  # (B, blocks, 2, size)
        row, column = ((offset >= 0) & (offset < self.side)).unbind(2)
        return (row[..., :, None] & column[..., None, :]).any(dim=1, keepdim=True)

    def _fill(self, images: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """The feature map of the images with holes of the mean colour, which is 0, and what the decoder makes of it."""
        features = feature_map(self.backbone, images * ~hole)
        return features, self.decoder(features).float()

    def _psnr(self, error: Tensor, hole: Tensor) -> Tensor:
        """Peak signal-to-noise ratio within the holes, in dB, of images in [0, 1]."""
        error = error * self.variance
        return -10 * torch.log10((hole * error).sum() / (hole.sum() * error.shape[1]))

    def _verdict(self, images: Tensor, filled: Tensor) -> Tensor:
        """The discriminator's cross-entropy: −log D(image) − log(1 − D(filled)), halved."""
        real, made = self.discriminator(torch.cat([images, _Reverse.apply(filled, self.adversarial)])).float().chunk(2)
        return (F.softplus(-real).mean() + F.softplus(made).mean()) / 2


class _Reverse(torch.autograd.Function):
    """The identity, whose gradient is −weight: Ganin and Lempitsky 2015 (https://arxiv.org/abs/1409.7495)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def _discriminator(channels: int, width: int) -> nn.Sequential:
    """Three strided convolutions to a logit (B,) of being real."""
    layers: list[nn.Module] = []
    for k in range(3):
        layers += [nn.Conv2d(channels, width * 2**k, 3, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width * 2**k
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1), nn.Flatten(0))
