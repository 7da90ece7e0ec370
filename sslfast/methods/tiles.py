"""Pictures cut into 3x3 tiles, with a gap between them and a jitter of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sslfast.augment import ViewSampler, presets
from sslfast.config import ImageConfig
from sslfast.ops import augment

SIDE = 3  # tiles a side
TILES = SIDE * SIDE
SMALLEST = 8  # px: in a smaller image a tile shows nothing of its own


@dataclass(frozen=True, kw_only=True)
class TileConfig(ImageConfig):
    """What methods that cut pictures into 3x3 tiles have in common."""

    preset: str = "mae"
    """Augmentation of the picture that is cut: mae is crop and flip, as published; see show-views for the others."""
    tile_size: int = 16
    """Side of a tile, in pixels. The picture that is cut has 3 tile_size + 2 gap + 2 jitter a side."""
    gap: int = 4
    """Pixels between two tiles before the jitter, so that no line goes on from one to the next; 2 jitter at least."""
    jitter: int = 2
    """Every tile is moved by up to so many pixels up or down and left or right."""
    hidden_features: int = 512
    """Width of the hidden layer between the tiles' features and the prediction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(tile_size=4, gap=0, jitter=0, hidden_features=1)
        if self.gap < 2 * self.jitter:
            raise ValueError(f"gap must be at least 2 x jitter, or tiles overlap, got {self.gap} and {self.jitter}")

    @property
    def picture_size(self) -> int:
        """Side of the picture that is cut, in pixels."""
        return SIDE * self.tile_size + (SIDE - 1) * self.gap + 2 * self.jitter


class TileCutter:
    """Augmented pictures of images, and where their tiles are.

    Args:
        config: the run's.
        backbone: it must take tiles of `tile_size` pixels as well as images of `image_size`.
        grayscale: probability that a picture is turned gray, instead of the preset's.

    Raises:
        ValueError: a backbone for one size only, and tiles of another; an unknown preset, or a pair.
    """

    def __init__(self, config: TileConfig, backbone: nn.Module, *, grayscale: float | None = None) -> None:
        if hasattr(backbone, "patch_embed") and config.tile_size != config.image_size:
            raise ValueError(
                f"tile_size must be image_size, {config.image_size}, for {config.backbone}, which takes images of one "
                f"size only, got {config.tile_size}"
            )
        preset = presets.preset(config.preset)
        if grayscale is not None:
            preset = replace(preset, grayscale=grayscale)
        self.tile, self.gap, self.jitter, self.size = config.tile_size, config.gap, config.jitter, config.picture_size
        self.sampler = ViewSampler(preset, self.size, strength=config.strength)

    def pictures(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, C, H, W) uint8 -> (B, C, picture_size, picture_size) float32 in [0, 1].

        Raises:
            ValueError: images of less than 8 px a side.
        """
        height, width = images.shape[-2:]
        if min(height, width) < SMALLEST:
            raise ValueError(
                f"images must be at least {SMALLEST} px a side to be cut into 3x3 tiles, got {height}x{width}"
            )
        params = self.sampler.sample(len(images), (height, width), generator=generator, device=images.device)
        return augment(images, params, self.size)

    def corners(self, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Top left corners of the tiles of `batch` pictures, (B, 9, 2) int64: row and column, row by row."""
        grid = self.jitter + (self.tile + self.gap) * torch.arange(SIDE, device=device)
        moved = torch.randint(
            -self.jitter, self.jitter + 1, (batch, TILES, 2), generator=generator, device=device
        )  # (B, 9, 2)
        return torch.cartesian_prod(grid, grid) + moved


def cut(pictures: Tensor, corners: Tensor, size: int) -> Tensor:
    """The squares of `size` pixels at `corners`: (B, C, H, W), (B, T, 2) -> (B, T, C, size, size)."""
    along = torch.arange(size, device=pictures.device)
    rows, columns = (corners[..., None] + along).unbind(2)  # (B, T, size)
    image = torch.arange(len(pictures), device=pictures.device).view(-1, 1, 1, 1)
    found = pictures[image, :, rows[..., :, None], columns[..., None, :]]  # (B, T, size, size, C)
    return found.movedim(4, 2)
