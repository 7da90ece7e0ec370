from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from train.toys import assert_resumes_exactly

from sslfast.data import load_images
from sslfast.methods import Inpainting
from sslfast.models import build_backbone
from sslfast.recipes import RECIPES
from sslfast.train import pretrain

CONFIG = Inpainting.Config(data="photos", image_size=16, decoder_width=8)
PHOTOS = load_images("photos", "test").images[::40]  # 15 of them
TRAINING = dataclasses.replace(
    RECIPES["inpainting"].config, image_size=8, batch_size=32, epochs=1, warmup_epochs=0, knn_every=0,
    log_every=1, accelerator="cpu", workers=0,
)  # fmt: skip


def build(**changes: object) -> Inpainting:
    config = dataclasses.replace(CONFIG, **changes)
    torch.manual_seed(0)
    return Inpainting(build_backbone("resnet20", in_channels=1 if config.data == "digits" else 3), config)


def seed(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def test_centre_hole_is_a_quarter_in_the_middle() -> None:
    images, hole = build().views(PHOTOS, seed())
    assert images.shape == (15, 3, 16, 16)
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:12, 4:12] = True
    assert (hole == expected).all()
    assert hole.shape == (15, 1, 16, 16)


def test_blocks_lie_anywhere_and_cover_at_most_their_share() -> None:
    method = build(mask="blocks")
    holes = torch.cat([method.views(PHOTOS, seed(k))[1] for k in range(20)])
    share = holes.float().mean(dim=(1, 2, 3))
    assert share.max() <= 0.25
    assert share.min() >= 0.25 / 4
    assert share.unique().numel() > 3  # some overlap
    assert holes.any(dim=0).all()  # corners too
    assert torch.equal(method.views(PHOTOS, seed(0))[1], holes[:15])
    one = build(mask="blocks", blocks=1).views(PHOTOS, seed())[1]
    assert (one.sum(dim=(2, 3)) == 64).all()
    assert not torch.equal(one[0], one[1])


def test_hole_is_filled_with_the_mean_colour_and_nothing_of_it_leaks() -> None:
    method = build().eval()
    images, hole = method.views(PHOTOS, seed())
    seen = []
    method.backbone.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    before = method._fill(images, hole)[1]
    after = method._fill(torch.where(hole, torch.randn_like(images), images), hole)[1]
    assert torch.equal(before, after)
    assert not seen[0].masked_select(hole).any()  # 0 is the mean after normalisation
    assert torch.equal(seen[0].masked_select(~hole), images.masked_select(~hole))


def test_loss_is_the_squared_error_in_the_hole_alone() -> None:
    method = build().eval()
    images, hole = method.views(PHOTOS, seed())
    output = method((images, hole))
    filled = method._fill(images, hole)[1]
    inside = hole.expand_as(images)
    error = (filled - images)[inside].square()
    assert output["loss"].item() == pytest.approx(error.mean().item(), rel=1e-5)
    scale = torch.tensor(method.std).view(1, 3, 1, 1).expand_as(images)[inside]
    psnr = -10 * torch.log10(((filled - images)[inside] * scale).square().mean())
    assert output["psnr"].item() == pytest.approx(psnr.item(), rel=1e-4)
    assert output["embeddings"].shape == (15, 64)
    assert not output["embeddings"].requires_grad


def test_overlap_weighs_the_border_ten_times() -> None:
    method = build(overlap=2).eval()
    images, hole = method.views(PHOTOS, seed())
    weight = torch.zeros(16, 16)
    weight[2:14, 2:14] = 10
    weight[4:12, 4:12] = 1
    error = (method._fill(images, hole)[1] - images).square()
    expected = (weight * error).sum() / (weight.sum() * 3 * 15)
    assert method((images, hole))["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_adversarial_term_trains_both_sides_in_one_step() -> None:
    method = build(adversarial=0.5)
    views = method.views(PHOTOS, seed())
    with torch.autocast("cpu", torch.bfloat16):
        output = method(views)
    assert output["loss"].dtype == torch.float32
    output["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())

    images = views[0]
    filled = torch.randn_like(images).requires_grad_()
    verdict = method._verdict(images, filled)
    gradient, of_discriminator = torch.autograd.grad(verdict, [filled, method.discriminator[0].weight])
    method.adversarial = -1.0  # no reversal
    plain, same = torch.autograd.grad(
        method._verdict(images, filled), [filled, method.discriminator[0].weight]
    )  # what lowers the discriminator's loss
    assert torch.allclose(gradient, -0.5 * plain)
    assert torch.allclose(of_discriminator, same)


def test_no_discriminator_is_built_without_its_weight() -> None:
    assert build().discriminator is None
    assert "discriminator_loss" not in build()(build().views(PHOTOS, seed()))


def test_illustration_is_masked_filled_original() -> None:
    method = build().eval()
    with torch.no_grad():
        rows = method.illustrate(PHOTOS[:4], seed())
    assert [[panel.caption for panel in row] for row in rows] == [["given", "filled", "original"]] * 4
    given, filled, original = (torch.stack([row[k].content for row in rows]) for k in range(3))
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[4:12, 4:12] = False
    assert torch.equal(filled[..., outside], original[..., outside])
    assert torch.equal(given[..., outside], original[..., outside])
    assert torch.allclose(given[..., 8, 8], torch.tensor(method.mean).expand(4, 3))
    assert original.min() >= 0
    assert original.max() <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("mask", "random"), ("hole", 0.0), ("hole", 1.0), ("blocks", 0), ("overlap", -1), ("adversarial", -1.0)],
)
def test_wrong_configuration_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})


def test_digits_are_filled_too() -> None:
    method = build(data="digits", image_size=8, preset="mnist-like", mask="blocks")
    output = method(method.views(load_images("digits", "test").images[:8], seed()))
    assert output["loss"].isfinite()


def test_a_vision_transformer_fills_as_well() -> None:
    backbone = build_backbone("vit_tiny_patch16_224", image_size=32)
    method = Inpainting(backbone, dataclasses.replace(CONFIG, image_size=32))
    assert method(method.views(PHOTOS, seed()))["loss"].isfinite()


def test_training_on_the_photographs_lowers_the_loss(tmp_path: Path) -> None:
    pretrain(TRAINING, tmp_path / "run")  # 75 steps
    found = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(found[-10:]) < 0.8 * sum(found[:10])


def test_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    config = dataclasses.replace(TRAINING, batch_size=800, mask="blocks", adversarial=0.01)
    assert_resumes_exactly(config, tmp_path, step=1)  # of 3
