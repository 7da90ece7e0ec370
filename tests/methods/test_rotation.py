from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from train.toys import assert_resumes_exactly

from sslfast.methods import Rotation
from sslfast.models import build_backbone
from sslfast.recipes import RECIPES
from sslfast.train import pretrain

IMAGES = torch.randint(0, 256, (6, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SHORT = dataclasses.replace(
    RECIPES["rotation"].config, epochs=1, warmup_epochs=0.2, knn_every=0, log_every=1, accelerator="cpu"
)


def build(**changes: object) -> Rotation:
    torch.manual_seed(0)
    config = Rotation.Config(**{"data": "photos", "image_size": 16, **changes})
    return Rotation(build_backbone("resnet20"), config)


def draw(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_four_turns_of_every_image_are_in_the_batch() -> None:
    (turned,) = build().views(IMAGES, draw())
    assert turned.shape == (4, 6, 3, 16, 16)
    corner = turned[0, :, :, 0, -1]  # top right goes to top left, bottom left, bottom right
    assert torch.equal(turned[1, :, :, 0, 0], corner)
    assert torch.equal(turned[2, :, :, -1, 0], corner)
    assert torch.equal(turned[3, :, :, -1, -1], corner)


def test_loss_is_the_cross_entropy_of_the_turns_in_one_forward_pass() -> None:
    method = build()
    (turned,) = method.views(IMAGES, draw())
    output = method((turned,))
    logits = method.head(method.backbone(torch.cat(list(turned))))
    labels = torch.tensor([0] * 6 + [1] * 6 + [2] * 6 + [3] * 6)
    assert output["loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert output["accuracy"].item() == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item())
    assert output["embeddings"].shape == (6, 64)
    assert not output["embeddings"].requires_grad


def test_gray_images() -> None:
    config = Rotation.Config(data="digits", image_size=8, preset="mnist-like")
    method = Rotation(build_backbone("resnet20", in_channels=1, image_size=8), config)
    (turned,) = method.views(IMAGES[:, :1, :8, :8], draw())
    assert turned.shape == (4, 6, 1, 8, 8)


def test_illustration_shows_the_turns_and_marks_the_guesses() -> None:
    method = build(strength=0.0).eval()
    with torch.no_grad():
        method.head.weight.zero_()
        method.head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))  # always 270°
        rows = method.illustrate(IMAGES, draw())
    assert [panel.caption for panel in rows[2]] == [f"turned by {90 * k}°, guessed 270°" for k in range(4)]
    assert [panel.mark for panel in rows[2]] == ["miss", "miss", "miss", "hit"]
    assert len(rows) == 6
    upright, quarter = rows[0][0].content, rows[0][1].content
    assert 0 <= upright.min() < 0.3
    assert 0.7 < upright.max() <= 1
    assert torch.equal(quarter, upright.rot90(1, dims=(1, 2)))


def test_a_pair_of_presets_is_refused() -> None:
    with pytest.raises(ValueError, match="is a pair"):
        build(preset="byol")


def test_it_learns_on_its_embedded_default(tmp_path: Path) -> None:
    pretrain(SHORT, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 22
    assert sum(line["loss"] for line in lines[-5:]) / 5 < 0.8 * lines[0]["loss"]
    assert lines[-1]["accuracy"] > 0.4


def test_resume_is_exact(tmp_path: Path) -> None:
    assert_resumes_exactly(dataclasses.replace(SHORT, batch_size=128), tmp_path, step=4)
