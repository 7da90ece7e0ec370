"""Jigsaw: Noroozi & Favaro 2016, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles
(https://arxiv.org/abs/1603.09246)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.methods.base import Method, Panel
from sslfast.methods.image_tiles import Normalize, TileConfig, TileCutter, cut
from sslfast.methods.permutations import MOST, load_permutations
from sslfast.models import ProjectionHead

FLAT = 1 / 255  # the least standard deviation a tile is divided by: one level of uint8


@dataclass(frozen=True, kw_only=True)
class JigsawConfig(TileConfig):
    """Jigsaw's fields. A forward pass sees all tiles of an image, nine of the default grid."""

    method: ClassVar[str] = "jigsaw"

    permutations: int = 64
    """Permutations that the puzzles are made with, 2 to 1000; the paper's are 1000, in smaller sets 64 and 100. Of a
    grid of 2 there are 24."""
    tile_normalization: Literal["tile", "data"] = "tile"
    """tile: every tile by its own mean and standard deviation, as published, so that brightness tells nothing of its
    place; data: by the data set's, as the images that are evaluated."""
    grayscale: float = 0.66
    """Probability that a picture is turned gray, so that colour fringes do not tell where a tile was."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.permutations <= MOST[self.grid**2]:
            raise ValueError(
                f"permutations must be in 2..{MOST[self.grid**2]} with grid {self.grid}, got {self.permutations}"
            )
        if not 0 <= self.grayscale <= 1:
            raise ValueError(f"grayscale is a probability in [0, 1], got {self.grayscale}")


class Jigsaw(Method):
    """By which permutation the tiles of a picture were shuffled.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features), for tiles and for whole images.
        config: the run's.

    Raises:
        ValueError: the backbone cannot take tiles of this size; the preset is unknown or a pair.
    """

    Config = JigsawConfig

    def __init__(self, backbone: nn.Module, config: JigsawConfig) -> None:
        super().__init__()
        self.cutter = TileCutter(config, backbone, grayscale=config.grayscale)
        self.backbone = backbone
        self.normalize = normalize_tiles if config.tile_normalization == "tile" else Normalize(config)
        tiles = config.grid**2
        self.head = ProjectionHead(tiles * backbone.num_features, config.hidden_features, config.permutations)
        # The list is part of the package; a checkpoint keeps it so that a run stays what it was.
        self.register_buffer("permutations", load_permutations(config.permutations, tiles))  # (P, T)

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Shuffled tiles (B, T, C, tile_size, tile_size), normalised; classes (B,)."""
        _, shuffled, label = self._puzzles(images, generator)
        return self.normalize(shuffled), label

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """Cross-entropy over the permutations; `embeddings` are the features of each puzzle's first tile."""
        tiles, label = batch
        features = self.backbone(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])  # (B, T, F)
        logits = self.head(features.flatten(1)).float()  # (B, P)
        return {
            "loss": F.cross_entropy(logits, label),
            "accuracy": (logits.argmax(dim=1) == label).float().mean(),
            "embeddings": features[:, 0].detach(),
        }

    def illustrate(self, source: Tensor, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """A row an image: the puzzle, how the network puts it together, and the picture it was cut from."""
        pictures, shuffled, label = self._puzzles(source, generator)
        features = self.backbone(self.normalize(shuffled).flatten(0, 1))
        guess = self.head(features.unflatten(0, shuffled.shape[:2]).flatten(1)).argmax(dim=1)
        solved = _reorder(shuffled, self.permutations[guess].argsort(dim=1))
        right = (self.permutations[guess] == self.permutations[label]).sum(dim=1).tolist()
        count, grid = shuffled.shape[1], self.cutter.grid
        rows = zip(_assemble(shuffled, grid), _assemble(solved, grid), pictures, right)
        return [
            [
                Panel(puzzle, "the puzzle", "query"),
                Panel(answer, f"put together: {hits} of {count} tiles right", "hit" if hits == count else "miss"),
                Panel(picture, "the picture"),
            ]
            for puzzle, answer, picture, hits in rows
        ]

    def _puzzles(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in [0, 1], their tiles in the drawn orders, and which orders these are."""
        pictures = self.cutter.pictures(images, generator)
        corners = self.cutter.corners(len(images), generator, images.device)
        tiles = cut(pictures, corners, self.cutter.tile)  # (B, T, C, t, t)
        label = torch.randint(len(self.permutations), (len(images),), generator=generator, device=images.device)
        return pictures, _reorder(tiles, self.permutations[label]), label


def normalize_tiles(tiles: Tensor) -> Tensor:
    """Every tile by its own mean and standard deviation, channel by channel, so that they tell nothing of its place.

    (…, h, w) -> (…, h, w); a tile without any contrast becomes 0.
    """
    std, mean = torch.std_mean(tiles, dim=(-2, -1), correction=0, keepdim=True)
    return (tiles - mean) / std.clamp_min(FLAT)


def _reorder(tiles: Tensor, order: Tensor) -> Tensor:
    """(B, T, C, h, w), (B, T) -> tiles order[b, 0], order[b, 1], … of each picture b."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order]


def _assemble(tiles: Tensor, grid: int) -> Tensor:
    """(B, T, C, h, w) in [0, 1] -> (B, C, grid (h + 1), grid (w + 1)): row by row, a white line after each."""
    tiles = F.pad(tiles, (0, 1, 0, 1), value=1.0).unflatten(1, (grid, grid))  # (B, grid, grid, C, h + 1, w + 1)
    return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
