from __future__ import annotations

import dataclasses

import pytest
import torch

from sslfast.methods.image_tiles import TileConfig, TileCutter, cut
from sslfast.models import build_backbone

CONFIG = TileConfig(data="photos", tile_size=8, gap=5, jitter=2)
BACKBONE = build_backbone("resnet20")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def numbered(batch: int, size: int) -> torch.Tensor:
    """Pictures in which every pixel has a value of its own, channels too."""
    return torch.arange(batch * 3 * size * size, dtype=torch.float32).view(batch, 3, size, size)


def test_tiles_are_the_picture_at_their_corners() -> None:
    cutter = TileCutter(CONFIG, BACKBONE)
    pictures = numbered(4, cutter.size)
    corners = cutter.corners(4, generator(), torch.device("cpu"))
    tiles = cut(pictures, corners, 8)
    assert tiles.shape == (4, 9, 3, 8, 8)
    for b in range(4):
        for t in range(9):
            row, column = corners[b, t].tolist()
            assert torch.equal(tiles[b, t], pictures[b, :, row : row + 8, column : column + 8])


def test_a_grid_of_two_is_four_tiles() -> None:
    cutter = TileCutter(dataclasses.replace(CONFIG, grid=2, jitter=0), BACKBONE)
    assert cutter.size == 21
    corners = cutter.corners(1, generator(), torch.device("cpu"))
    assert corners.tolist() == [[[0, 0], [0, 13], [13, 0], [13, 13]]]
    with pytest.raises(ValueError, match="grid must be one of 2, 3, got 4"):
        dataclasses.replace(CONFIG, grid=4)


def test_jitter_takes_every_value_in_its_bounds_for_every_tile_of_its_own() -> None:
    cutter = TileCutter(CONFIG, BACKBONE)
    corners = cutter.corners(400, generator(), torch.device("cpu"))
    grid = torch.tensor([2, 15, 28])  # jitter, and on by tile + gap
    moved = corners.view(-1, 3, 3, 2) - torch.stack(torch.meshgrid(grid, grid, indexing="ij"), dim=2)
    for tile in moved.flatten(1, 2).unbind(1):
        assert set(tile[:, 0].tolist()) == set(tile[:, 1].tolist()) == {-2, -1, 0, 1, 2}
        assert abs(torch.corrcoef(tile.T.float())[0, 1]) < 0.2
    assert (moved[:, 0, 0] != moved[:, 2, 2]).any(dim=1).float().mean() > 0.9
    assert corners.min() == 0
    assert corners.max() + 8 == cutter.size  # the picture is as large as the tiles need


def test_tiles_never_touch_and_the_gap_is_not_seen() -> None:
    for jitter, least in ((0, 5), (2, 1)):
        cutter = TileCutter(dataclasses.replace(CONFIG, jitter=jitter), BACKBONE)
        corners = cutter.corners(200, generator(), torch.device("cpu")).view(-1, 3, 3, 2)
        down = corners[:, 1:, :, 0] - corners[:, :-1, :, 0] - 8
        across = corners[:, :, 1:, 1] - corners[:, :, :-1, 1] - 8
        assert down.min() == across.min() == least
    pictures = numbered(200, cutter.size)
    seen = cut(pictures, corners.flatten(1, 2), 8).flatten(1)
    assert all(len(row.unique()) == 9 * 3 * 64 for row in seen)  # no pixel twice


def test_pictures_are_augmented_and_drawn_from_the_generator_alone() -> None:
    cutter = TileCutter(CONFIG, BACKBONE)
    images = torch.randint(0, 256, (5, 3, 20, 31), dtype=torch.uint8, generator=generator())
    first, again = cutter.pictures(images, generator()), cutter.pictures(images, generator())
    assert first.shape == (5, 3, 38, 38)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, cutter.pictures(images, generator().manual_seed(1)))


def test_grayscale_replaces_the_presets() -> None:
    images = torch.randint(0, 256, (300, 3, 16, 16), dtype=torch.uint8, generator=generator())
    for chance, low, high in ((None, 0, 0), (0.66, 0.58, 0.74), (1.0, 1, 1)):
        pictures = TileCutter(CONFIG, BACKBONE, grayscale=chance).pictures(images, generator())
        gray = (pictures == pictures[:, :1]).flatten(1).all(dim=1).float().mean()
        assert low <= gray <= high


def test_images_that_are_too_small_are_named() -> None:
    with pytest.raises(ValueError, match=r"at least 8 px a side .* got 7x9"):
        TileCutter(CONFIG, BACKBONE).pictures(torch.zeros(2, 1, 7, 9, dtype=torch.uint8))


def test_a_backbone_for_one_size_needs_tiles_of_that_size() -> None:
    vit = build_backbone("vit_tiny_patch16_224", image_size=32)
    config = dataclasses.replace(CONFIG, backbone="vit_tiny_patch16_224", tile_size=16)
    with pytest.raises(ValueError, match=r"tile_size must be image_size, 32, for vit_tiny_patch16_224"):
        TileCutter(config, vit)
    TileCutter(dataclasses.replace(config, tile_size=32), vit)


@pytest.mark.parametrize(
    ("field", "value"),
    [("tile_size", 3), ("gap", -1), ("jitter", -1), ("gap", 3), ("hidden_features", 0)],
)
def test_wrong_configuration_is_named(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least"):
        dataclasses.replace(CONFIG, **{field: value})


def test_presets_that_cannot_be_used_are_named() -> None:
    for preset, words in (("byol", "is a pair"), ("none", "preset must be one of")):
        with pytest.raises(ValueError, match=words):
            TileCutter(dataclasses.replace(CONFIG, preset=preset), BACKBONE)
