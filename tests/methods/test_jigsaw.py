from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from train.toys import assert_resumes_exactly

from sslfast.data import normalization
from sslfast.methods import Jigsaw
from sslfast.methods.image_tiles import cut
from sslfast.methods.jigsaw import normalize_tiles
from sslfast.methods.permutations import greedy_permutations, load_permutations
from sslfast.models import build_backbone
from sslfast.recipes import RECIPES
from sslfast.train import pretrain

IMAGES = torch.randint(0, 256, (6, 3, 30, 34), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CONFIG = Jigsaw.Config(data="photos", tile_size=8, gap=4, jitter=2, hidden_features=32, permutations=24)
# Two permutations and no gap: the edges of the tiles say it all.
SHORT = dataclasses.replace(
    RECIPES["jigsaw-photos"].config, tile_size=8, gap=0, jitter=0, strength=0.0, permutations=2, hidden_features=64,
    epochs=1, batch_size=32, warmup_epochs=0.1, optimizer="adamw", learning_rate=4e-3, weight_decay=0.0, knn_every=0,
    log_every=1, accelerator="cpu",
)  # fmt: skip


def build(**changes: object) -> Jigsaw:
    torch.manual_seed(0)
    return Jigsaw(build_backbone("resnet20"), dataclasses.replace(CONFIG, **changes))


def draw(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_shipped_list_is_what_the_generator_makes() -> None:
    assert load_permutations(100).tolist() == greedy_permutations(100).tolist()


@pytest.mark.slow
def test_the_whole_shipped_list_is_what_the_generator_makes() -> None:
    assert load_permutations(1000).tolist() == greedy_permutations(1000).tolist()


@pytest.mark.parametrize(
    ("count", "least", "mean"), [(9, 9, 9.0), (24, 7, 8.3), (64, 7, 8.1), (100, 6, 8.0), (1000, 5, 8.0)]
)
def test_every_prefix_of_the_list_is_a_set_of_large_distances(count: int, least: int, mean: float) -> None:
    chosen = load_permutations(count)
    assert (chosen.sort(dim=1).values == torch.arange(9)).all()
    distance = (chosen[:, None] != chosen[None]).sum(dim=2)[~torch.eye(count, dtype=torch.bool)]
    assert distance.min() >= least
    assert distance.float().mean() >= mean


def test_four_tiles_have_all_their_permutations() -> None:
    chosen = load_permutations(24, length=4)
    assert sorted(chosen.tolist()) == [list(order) for order in itertools.permutations(range(4))]
    assert torch.equal(load_permutations(5, length=4), chosen[:5])
    for count, length, words in (
        (25, 4, r"must be in 2\.\.24 for 4 tiles, got 25"),
        (2, 5, "length must be one of 4, 9"),
    ):
        with pytest.raises(ValueError, match=words):
            load_permutations(count, length)


def test_greedy_choice_against_brute_force() -> None:
    chosen = greedy_permutations(10, length=4)
    assert len(np.unique(chosen, axis=0)) == 10
    distances = [[(a != b).sum() for b in chosen[:k]] for k, a in enumerate(chosen)]
    assert [min(row) for row in distances[1:4]] == [4, 4, 4]  # a Latin square comes first
    with pytest.raises(ValueError, match=r"count must be in 1\.\.24, got 25"):
        greedy_permutations(25, length=4)


@pytest.mark.parametrize("grid", [2, 3])
def test_views_are_the_tiles_in_the_order_of_their_class(grid: int) -> None:
    method = build(grid=grid)
    tiles, label = method.views(IMAGES, draw())
    assert tiles.shape == (6, grid**2, 3, 8, 8)
    generator = draw()
    pictures = method.cutter.pictures(IMAGES, generator)
    in_order = cut(pictures, method.cutter.corners(6, generator, torch.device("cpu")), 8)
    for b in range(6):
        order = method.permutations[label[b]]
        assert torch.equal(tiles[b], normalize_tiles(in_order[b, order]))


def test_classes_and_tiles_are_drawn_from_the_generator_alone() -> None:
    method = build()
    many = IMAGES.repeat(100, 1, 1, 1)
    first, again, other = (method.views(many, draw(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert first[1].bincount(minlength=24).min() > 5  # 25 each


def test_every_tile_is_normalised_by_itself() -> None:
    tiles, _ = build().views(IMAGES, draw())
    flat = tiles.flatten(-2)
    assert flat.mean(dim=-1).abs().max() < 1e-4
    assert (flat.std(dim=-1, correction=0) - 1).abs().max() < 1e-3
    # Brightness and contrast of a tile tell nothing, and one without contrast is no NaN.
    assert torch.allclose(normalize_tiles(0.3 + 0.2 * tiles), tiles, atol=1e-4)
    assert torch.equal(normalize_tiles(torch.full((2, 9, 3, 8, 8), 0.25)), torch.zeros(2, 9, 3, 8, 8))


def test_tiles_can_be_on_the_scale_of_the_images_that_are_evaluated() -> None:
    tiles, label = build(tile_normalization="data").views(IMAGES, draw())
    _, shuffled, again = build()._puzzles(IMAGES, draw())
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalization("photos"))
    assert torch.equal(label, again)
    assert torch.allclose(tiles * std + mean, shuffled, atol=1e-5)


def test_pictures_are_turned_gray_as_a_defence() -> None:
    for grayscale, share in ((0.0, 0.0), (1.0, 1.0)):
        tiles, _ = build(grayscale=grayscale).views(IMAGES, draw())
        assert (tiles == tiles[:, :, :1]).flatten(1).all(dim=1).float().mean() == share


@pytest.mark.parametrize("grid", [2, 3])
def test_loss_is_the_cross_entropy_of_the_permutations(grid: int) -> None:
    method = build(grid=grid)
    tiles, label = method.views(IMAGES, draw())
    output = method((tiles, label))
    features = method.backbone(tiles.reshape(-1, 3, 8, 8)).reshape(6, grid**2 * 64)
    logits = method.head(features)
    assert output["loss"].item() == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
    assert output["embeddings"].shape == (6, 64)
    assert not output["embeddings"].requires_grad


@pytest.mark.parametrize("grid", [2, 3])
def test_illustration_puts_the_puzzle_together_by_the_guess(grid: int) -> None:
    method = build(jitter=0, grid=grid).eval()
    with torch.no_grad():
        method.head[-1].weight.zero_()
        method.head[-1].bias.zero_()[5] = 1.0  # always the sixth permutation
        rows = method.illustrate(IMAGES.repeat(20, 1, 1, 1), draw())
    _, label = method.views(IMAGES.repeat(20, 1, 1, 1), draw())
    assert [row[1].mark == "hit" for row in rows] == (label == 5).tolist()
    puzzle, answer, picture = rows[label.tolist().index(5)]
    assert puzzle.mark == "query"
    assert f"{grid**2} of {grid**2}" in answer.caption
    assert answer.content.shape == (3, 9 * grid, 9 * grid)
    for row in range(grid):
        for column in range(grid):
            tile = answer.content[:, 9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
            assert torch.equal(tile, picture.content[:, 12 * row : 12 * row + 8, 12 * column : 12 * column + 8])
    assert not torch.equal(puzzle.content, answer.content)


@pytest.mark.parametrize(("field", "value"), [("permutations", 1), ("permutations", 1001), ("grayscale", 1.5)])
def test_wrong_configuration_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})
    with pytest.raises(ValueError, match=r"permutations must be in 2\.\.24 with grid 2, got 25"):
        dataclasses.replace(CONFIG, grid=2, permutations=25)


def test_it_learns_on_the_photographs(tmp_path: Path) -> None:
    pretrain(SHORT, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 75
    early, late = (sum(line["loss"] for line in part) / 15 for part in (lines[:15], lines[-15:]))
    assert late < min(0.95 * early, math.log(2))


def test_resume_is_exact(tmp_path: Path) -> None:
    assert_resumes_exactly(dataclasses.replace(SHORT, tile_size=4, gap=2, jitter=1, batch_size=256), tmp_path, step=4)
