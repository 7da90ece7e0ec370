"""Pictures cut into a square of tiles, with a gap between them and a jitter of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sslfast.augment import Images, ViewSampler, presets
from sslfast.config import ImageConfig
from sslfast.data import normalization_of
from sslfast.models import check_input_size

GRIDS = (2, 3)
SMALLEST = 8  # px: in a smaller image a tile shows nothing of its own


@dataclass(frozen=True, kw_only=True)
class TileConfig(ImageConfig):
    """What methods that cut pictures into tiles have in common."""

    preset: str = "mae"
    """Augmentation of the picture that is cut: mae is crop and flip, as published; see show-views for the others."""
    grid: int = 3
    """Tiles a side, 2 or 3: as published 3; of images of 32 px, a tile shows an object's part if there are only 2."""
    tile_size: int = 16
    """Side of a tile, in pixels. The picture that is cut has grid tile_size + (grid - 1) gap + 2 jitter a side."""
    gap: int = 4
    """Pixels between two tiles before the jitter, so that no line goes on from one to the next; 2 jitter at least."""
    jitter: int = 2
    """Every tile is moved by up to so many pixels up or down and left or right."""
    hidden_features: int = 512
    """Width of the hidden layer between the tiles' features and the prediction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid not in GRIDS:
            raise ValueError(f"grid must be one of {', '.join(map(str, GRIDS))}, got {self.grid}")
        self.check_at_least(tile_size=4, gap=0, jitter=0, hidden_features=1)
        if self.gap < 2 * self.jitter:
            raise ValueError(f"gap must be at least 2 x jitter, or tiles overlap, got {self.gap} and {self.jitter}")

    @property
    def picture_size(self) -> int:
        """Side of the picture that is cut, in pixels."""
        return self.grid * self.tile_size + (self.grid - 1) * self.gap + 2 * self.jitter


class TileCutter:
    """Augmented pictures of images, and where their tiles are.

    Args:
        config: the run's.
        backbone: it must take tiles of `tile_size` pixels as well as images of `image_size`.
        grayscale: probability that a picture is turned gray, instead of the preset's.

    Raises:
        ValueError: a backbone that does not take tiles of this size; an unknown preset, or a pair.
    """

    def __init__(self, config: TileConfig, backbone: nn.Module, *, grayscale: float | None = None) -> None:
        if hasattr(backbone, "patch_embed") and config.tile_size != config.image_size:
            raise ValueError(
                f"tile_size must be image_size, {config.image_size}, for {config.backbone}, which takes images of one "
                f"size only, got {config.tile_size}"
            )
        if config.tile_size != config.image_size:
            channels = len(normalization_of(config, gray=config.gray)[0])
            check_input_size(backbone, config.backbone, channels, config.tile_size, option="tile_size")
        preset = presets.preset(config.preset)
        if grayscale is not None:
            preset = replace(preset, grayscale=grayscale)
        self.grid, self.tile, self.gap, self.jitter = config.grid, config.tile_size, config.gap, config.jitter
        self.size = config.picture_size
        self.sampler = ViewSampler(preset, self.size, strength=config.strength)

    def pictures(self, images: Images, generator: torch.Generator | None = None) -> Tensor:
        """(B, C, H, W) uint8 -> (B, C, picture_size, picture_size) float32 in [0, 1].

        Raises:
            ValueError: images of less than 8 px a side.
        """
        height, width = images.shape[-2:]
        if min(height, width) < SMALLEST:
            raise ValueError(f"images must be at least {SMALLEST} px a side to be cut into tiles, got {height}x{width}")
        return self.sampler.view(images, generator=generator)

    def corners(self, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Top left corners of the T = grid² tiles of `batch` pictures, (B, T, 2) int64: row, column; row by row."""
        along = self.jitter + (self.tile + self.gap) * torch.arange(self.grid, device=device)
        shape = (batch, self.grid**2, 2)
        moved = torch.randint(-self.jitter, self.jitter + 1, shape, generator=generator, device=device)
        return torch.cartesian_prod(along, along) + moved


class Normalize(nn.Module):
    """Pixels in [0, 1], (…, C, H, W), by the data set's mean and deviation, as the images that are evaluated."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), normalization_of(config, gray=config.gray)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std


def cut(pictures: Tensor, corners: Tensor, size: int) -> Tensor:
    """The squares of `size` pixels at `corners`: (B, C, H, W), (B, T, 2) -> (B, T, C, size, size)."""
    along = torch.arange(size, device=pictures.device)
    rows, columns = (corners[..., None] + along).unbind(2)  # (B, T, size)
    image = torch.arange(len(pictures), device=pictures.device).view(-1, 1, 1, 1)
    found = pictures[image, :, rows[..., :, None], columns[..., None, :]]  # (B, T, size, size, C)
    return found.movedim(4, 2)
