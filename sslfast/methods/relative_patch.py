"""Relative patch location: Doersch et al. 2015, Unsupervised Visual Representation Learning by Context Prediction
(https://arxiv.org/abs/1505.05192)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.methods.base import Method, Panel
from sslfast.methods.image_tiles import Normalize, TileConfig, TileCutter, cut
from sslfast.models import ProjectionHead

PLACES = ("top left", "top", "top right", "left", "right", "bottom left", "bottom", "bottom right")
NOISE = 0.01  # of the standard deviation of the channel that is kept

ColorDefence = Literal["drop", "project", "none"]


@dataclass(frozen=True, kw_only=True)
class RelativePatchConfig(TileConfig):
    """Relative patch location's fields. A forward pass sees two patches an image."""

    method: ClassVar[str] = "relative-patch"

    gap: int = 8
    """Pixels between two patches before the jitter, half a patch as published; 2 jitter at least."""
    jitter: int = 1
    """Every patch is moved by up to so many pixels up or down and left or right; published are 7 for 96 px."""
    color_defence: ColorDefence = "project"
    """Against colour fringes of lenses, which tell where a patch was: project removes the green-magenta axis,
    drop keeps one random channel of a patch and puts faint noise in the others. Gray images need none."""


class RelativePatch(Method):
    """On which of eight sides of a patch another one of the same picture lies.

    The first is the centre of 3x3 patches; of 2x2 it is any of the four.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features), for patches and for whole images.
        config: the run's.

    Raises:
        ValueError: the backbone cannot take patches of this size; the preset is unknown or a pair.
    """

    Config = RelativePatchConfig

    def __init__(self, backbone: nn.Module, config: RelativePatchConfig) -> None:
        super().__init__()
        self.cutter = TileCutter(config, backbone)
        self.backbone = backbone
        self.head = ProjectionHead(2 * backbone.num_features, config.hidden_features, len(PLACES))
        self.color_defence = config.color_defence
        self.normalize = Normalize(config)
        pairs, places = tile_pairs(config.grid)
        self.register_buffer("neighbours", pairs, persistent=False)
        self.register_buffer("places", places, persistent=False)

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Pairs (B, 2, C, tile_size, tile_size) of a patch and a neighbour, normalised; the neighbour's place (B,)."""
        _, _, patches, place = self._pairs(images, generator)
        return self._inputs(patches, generator), place

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """Cross-entropy over the eight places; `embeddings` are the features of the first patches."""
        patches, place = batch
        features, logits = self._predict(patches)
        return {
            "loss": F.cross_entropy(logits, place),
            "accuracy": (logits.argmax(dim=1) == place).float().mean(),
            "embeddings": features[:, 0].detach(),
        }

    def illustrate(self, source: Tensor, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """A row an image: the patch, its neighbour with the place and the guess, and where both are in the picture."""
        pictures, corners, patches, place = self._pairs(source, generator)
        guess = self._predict(self._inputs(patches, generator))[1].argmax(dim=1)
        framed = _frame(_frame(pictures, corners[:, 0], self.cutter.tile, 0.0), corners[:, 1], self.cutter.tile, 1.0)
        return [
            [
                Panel(first, "the patch", "query"),
                Panel(neighbour, f"lies {PLACES[true]}, guessed {PLACES[said]}", "hit" if said == true else "miss"),
                Panel(picture, "the picture: the patch in black, its neighbour in white"),
            ]
            for (first, neighbour), picture, true, said in zip(patches, framed, place.tolist(), guess.tolist())
        ]

    def _predict(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2, F) and logits (B, 8), from one forward pass of patches and neighbours."""
        features = self.backbone(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return features, self.head(features.flatten(1)).float()

    def _pairs(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures in [0, 1]; corners (B, 2, 2) of patch and neighbour; both of them; the neighbour's place."""
        pictures = self.cutter.pictures(images, generator)
        batch, device = len(images), images.device
        drawn = torch.randint(len(self.neighbours), (batch,), generator=generator, device=device)
        tiles = self.neighbours[drawn]  # (B, 2)
        corners = self.cutter.corners(batch, generator, device).gather(1, tiles[..., None].expand(-1, -1, 2))
        return pictures, corners, cut(pictures, corners, self.cutter.tile), self.places[drawn]

    def _inputs(self, patches: Tensor, generator: torch.Generator | None) -> Tensor:
        """Patches in [0, 1] -> what the backbone gets: on the scale of the images it is evaluated on."""
        if patches.shape[2] == 3 and self.color_defence == "project":
            patches = project_colors(patches)
        patches = self.normalize(patches)
        if patches.shape[2] == 3 and self.color_defence == "drop":
            patches = drop_colors(patches, generator)
        return patches


def tile_pairs(grid: int) -> tuple[Tensor, Tensor]:
    """Pairs of neighbouring tiles, (P, 2) int64, and the place of the second seen from the first, (P,) int64.

    Of 3x3 tiles the first is the centre, P is 8 (Doersch et al. 2015); of 2x2 it is any, P is 12.
    """
    tiles = range(grid**2)
    pairs = [(a, b) for a in (tiles if grid == 2 else [4]) for b in tiles if a != b]
    nine = [3 * (b // grid - a // grid) + (b % grid - a % grid) + 4 for a, b in pairs]  # 4 would be the tile itself
    return tuple(torch.tensor(x, dtype=torch.int64) for x in (pairs, [place - (place > 4) for place in nine]))


def project_colors(patches: Tensor) -> Tensor:
    """(…, 3, h, w) without its part along the green-magenta axis a = (-1, 2, -1): x − a(a·x)/(a·a); gray stays gray."""
    red, green, blue = patches.unbind(dim=-3)
    along = (2 * green - red - blue) / 6  # a·x / a·a
    return torch.stack([red + along, green - 2 * along, blue + along], dim=-3)


def drop_colors(patches: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(B, T, 3, h, w) with one random channel of each patch kept; noise of a hundredth of its std in the other two."""
    batch, tiles = patches.shape[:2]
    device = patches.device
    kept = torch.randint(3, (batch, tiles, 1, 1, 1), generator=generator, device=device)
    scale = NOISE * patches.gather(2, kept.expand(-1, -1, 1, *patches.shape[3:])).std(dim=(3, 4), keepdim=True)
    noise = torch.randn(patches.shape, generator=generator, dtype=patches.dtype, device=device) * scale
    return torch.where(torch.arange(3, device=device).view(3, 1, 1) == kept, patches, noise)


def _frame(pictures: Tensor, corners: Tensor, size: int, value: float) -> Tensor:
    """(B, C, H, W) with the outline of a square of `size` pixels at `corners` (B, 2), one pixel wide, in `value`."""
    rows, columns = (torch.arange(length, device=pictures.device) for length in pictures.shape[-2:])
    down, across = rows - corners[:, :1], columns - corners[:, 1:]  # (B, H), (B, W), within the square
    inside = [(at >= 0) & (at < size) for at in (down, across)]
    edge = [(at == 0) | (at == size - 1) for at in (down, across)]
    outline = (edge[0][:, :, None] & inside[1][:, None]) | (inside[0][:, :, None] & edge[1][:, None])
    return torch.where(outline[:, None], value, pictures)
