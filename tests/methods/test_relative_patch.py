from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from train.toys import assert_resumes_exactly

from sslfast.data import normalization
from sslfast.methods import RelativePatch
from sslfast.methods.image_tiles import cut
from sslfast.methods.relative_patch import PLACES, drop_colors, project_colors
from sslfast.models import build_backbone
from sslfast.recipes import RECIPES
from sslfast.train import pretrain

IMAGES = torch.randint(0, 256, (6, 3, 30, 34), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CONFIG = RelativePatch.Config(data="photos", tile_size=8, gap=4, jitter=2, hidden_features=32, color_defence="none")
SHORT = dataclasses.replace(
    RECIPES["relative-patch-photos"].config, tile_size=4, epochs=1, batch_size=256, warmup_epochs=0.2, knn_every=0,
    log_every=1, accelerator="cpu",
)  # fmt: skip


def build(**changes: object) -> RelativePatch:
    torch.manual_seed(0)
    return RelativePatch(build_backbone("resnet20"), dataclasses.replace(CONFIG, **changes))


def draw(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patches_are_the_centre_and_the_neighbour_at_the_named_place() -> None:
    method = build(jitter=0)
    many = IMAGES.repeat(50, 1, 1, 1)
    pictures, corners, patches, place = method._pairs(many, draw())
    assert patches.shape == (300, 2, 3, 8, 8)
    assert (corners[:, 0] == 12).all()  # after a tile and a gap
    seen = {PLACES[p]: (row - 12, column - 12) for p, (row, column) in zip(place.tolist(), corners[:, 1].tolist())}
    assert seen == {
        "top left": (-12, -12), "top": (-12, 0), "top right": (-12, 12), "left": (0, -12), "right": (0, 12),
        "bottom left": (12, -12), "bottom": (12, 0), "bottom right": (12, 12),
    }  # fmt: skip
    assert torch.equal(patches, cut(pictures, corners, 8))
    assert place.bincount(minlength=8).min() > 15  # 37 each


def test_views_are_drawn_from_the_generator_alone() -> None:
    for defence in ("none", "project", "drop"):
        method = build(color_defence=defence)
        first, again, other = (method.views(IMAGES, draw(seed)) for seed in (1, 1, 2))
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert not torch.equal(first[0], other[0])


def test_of_four_patches_any_is_the_first() -> None:
    method = build(jitter=0, grid=2)
    pictures, corners, patches, place = method._pairs(IMAGES.repeat(100, 1, 1, 1), draw())
    assert torch.equal(patches, cut(pictures, corners, 8))
    moved = corners[:, 1] - corners[:, 0]
    words = {(-12, 0): "top", (12, 0): "bottom", (0, -12): "left", (0, 12): "right", (-12, -12): "top left",
             (-12, 12): "top right", (12, -12): "bottom left", (12, 12): "bottom right"}  # fmt: skip
    assert [PLACES[p] for p in place.tolist()] == [words[row, column] for row, column in moved.tolist()]
    pairs, times = corners.flatten(1).unique(dim=0, return_counts=True)
    assert len(pairs) == 12
    assert times.min() > 25  # 50 each


def test_patches_are_on_the_scale_of_the_images_that_are_evaluated() -> None:
    method = build()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalization("photos"))
    _, _, patches, _ = method._pairs(IMAGES, draw())
    assert torch.allclose(method.views(IMAGES, draw())[0] * std + mean, patches, atol=1e-5)


def test_projection_removes_the_green_magenta_axis_and_leaves_gray_alone() -> None:
    patches = torch.rand(4, 2, 3, 8, 8, generator=draw())
    projected = project_colors(patches)
    axis = torch.tensor([-1.0, 2.0, -1.0])
    assert torch.einsum("c,bnchw->bnhw", axis, projected).abs().max() < 1e-6
    assert torch.allclose(project_colors(projected), projected, atol=1e-6)
    gray = patches[:, :, :1].expand(-1, -1, 3, -1, -1)
    assert torch.allclose(project_colors(gray), gray, atol=1e-6)
    magenta_against_green = project_colors(patches + axis.view(3, 1, 1))
    assert torch.allclose(magenta_against_green, projected, atol=1e-6)


def test_dropping_keeps_one_channel_of_each_patch_and_makes_noise_of_the_others() -> None:
    patches = torch.rand(200, 2, 3, 8, 8, generator=draw())
    dropped = drop_colors(patches, draw())
    kept = (dropped == patches).flatten(3).all(dim=3)  # (200, 2, 3)
    assert (kept.sum(dim=2) == 1).all()
    assert kept.float().mean(dim=(0, 1)).min() > 0.25  # each channel has its turn
    assert 0.2 < (kept[:, 0] == kept[:, 1]).all(dim=1).float().mean() < 0.47  # a draw of its own for each patch
    noise = dropped[~kept]
    spread = noise.flatten(1).std(dim=1) / patches[kept].flatten(1).std(dim=1).repeat_interleave(2)
    assert spread.min() > 0.005
    assert spread.max() < 0.015


def test_gray_images_need_no_defence() -> None:
    for defence in ("none", "project", "drop"):
        config = dataclasses.replace(CONFIG, data="digits", color_defence=defence)
        method = RelativePatch(build_backbone("resnet20", in_channels=1), config)
        patches, _ = method.views(IMAGES[:, :1], draw())
        assert patches.shape == (6, 2, 1, 8, 8)


def test_loss_is_the_cross_entropy_of_the_places() -> None:
    method = build()
    patches, place = method.views(IMAGES, draw())
    output = method((patches, place))
    features = method.backbone(patches.reshape(12, 3, 8, 8)).reshape(6, 128)
    assert output["loss"].item() == pytest.approx(F.cross_entropy(method.head(features), place).item(), rel=1e-5)
    assert torch.allclose(output["embeddings"], features[:, :64])
    assert not output["embeddings"].requires_grad


def test_illustration_shows_both_patches_and_where_they_are() -> None:
    method = build(jitter=0).eval()
    many = IMAGES.repeat(10, 1, 1, 1)
    with torch.no_grad():
        method.head[-1].weight.zero_()
        method.head[-1].bias.zero_()[1] = 1.0  # always "top"
        rows = method.illustrate(many, draw())
    _, place = method.views(many, draw())
    assert [row[1].mark == "hit" for row in rows] == (place == 1).tolist()
    centre, neighbour, picture = rows[place.tolist().index(0)]
    assert neighbour.caption == "lies top left, guessed top"
    assert centre.mark == "query"
    assert (picture.content[:, 12, 12:20] == 0).all()
    assert (picture.content[:, 12:20, 19] == 0).all()
    assert (picture.content[:, 0, :8] == 1).all()
    assert torch.equal(picture.content[:, 1:7, 1:7], neighbour.content[:, 1:7, 1:7])
    assert torch.equal(picture.content[:, 13:19, 13:19], centre.content[:, 1:7, 1:7])


def test_wrong_configuration_is_named() -> None:
    with pytest.raises(ValueError, match="color_defence must be one of drop, project, none"):
        dataclasses.replace(CONFIG, color_defence="gray")


def test_it_learns_the_places_of_a_batch() -> None:
    method = build()
    pairs = method.views(IMAGES.repeat(5, 1, 1, 1), draw())
    optimizer = torch.optim.AdamW(method.parameters(), lr=2e-3)
    for _ in range(20):
        output = method(pairs)
        output["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert output["loss"] < 1.2  # ln 8 is chance
    assert output["accuracy"] > 0.7


def test_it_trains_on_the_photographs(tmp_path: Path) -> None:
    pretrain(SHORT, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    assert all(0 <= line["accuracy"] <= 1 for line in lines)


def test_resume_is_exact(tmp_path: Path) -> None:
    assert_resumes_exactly(SHORT, tmp_path, step=4)
