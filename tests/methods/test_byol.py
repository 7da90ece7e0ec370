from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from train.toys import assert_resumes_exactly

from sslfast.methods import BYOL
from sslfast.models import build_backbone
from sslfast.recipes import RECIPES
from sslfast.train import pretrain

CONFIG = BYOL.Config(
    data="digits", image_size=8, preset="mnist-like", batch_size=64, projection_hidden=64, projection_features=32,
    base_momentum=0.9, learning_rate=0.4, warmup_epochs=0, log_every=10, knn_every=0, accelerator="cpu",
)  # fmt: skip
IMAGES = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build(**changes: object) -> BYOL:
    torch.manual_seed(0)
    return BYOL(build_backbone("resnet20", in_channels=1, image_size=8), dataclasses.replace(CONFIG, **changes))


def views(method: BYOL, seed: int = 1) -> tuple[torch.Tensor, ...]:
    return method.views(IMAGES, torch.Generator().manual_seed(seed))


def disturb(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn_like(parameter)


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_views_come_from_the_generator_alone_and_from_two_distributions() -> None:
    method = build(preset="byol")
    first, second = views(method)
    torch.rand(5)  # the global generator plays no part
    assert all(torch.equal(a, b) for a, b in zip((first, second), views(method)))
    assert first.shape == second.shape == (6, 1, 8, 8)
    assert not torch.equal(first, second)
    assert [(s.preset.blur, s.preset.solarize) for s in method.samplers] == [(1.0, 0.0), (0.1, 0.2)]


def test_loss_is_the_papers_in_both_directions() -> None:
    method = build()
    disturb(method.target)
    first, second = views(method)
    q1, q2 = (F.normalize(method.predictor(method.projector(method.backbone(x)))) for x in (first, second))
    t1, t2 = (F.normalize(method.target.module(x)) for x in (first, second))
    expected = (q1 - t2).square().sum(dim=1).mean() + (q2 - t1).square().sum(dim=1).mean()
    output = method((first, second))
    assert output["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert method((second, first))["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(output["embeddings"], method.projector(method.backbone(first)))
    assert not output["embeddings"].requires_grad


def test_a_view_does_not_depend_on_the_other_through_batch_norm() -> None:
    method = build()
    first, second = views(method)
    alone = method((first, second))["embeddings"]
    assert torch.equal(method((first, 5 * second))["embeddings"], alone)


def test_the_trained_network_gets_gradients_and_the_target_none() -> None:
    method = build()
    output = method(views(method))
    output["loss"].backward()
    for name, parameter in method.named_parameters():
        if name.startswith("target."):
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.grad.abs().sum() > 0, name


def test_momentum_rises_to_one_step_by_step() -> None:
    method = build(base_momentum=0.8)
    method.on_step(0, 10)
    for step in range(1, 11):
        disturb(method.online)
        before = [p.clone() for p in method.target.parameters()]
        method.on_step(step, 10)
        m = 1 - 0.2 * (1 + math.cos(math.pi * (step - 1) / 10)) / 2
        for was, source, now in zip(before, method.online.parameters(), method.target.parameters()):
            torch.testing.assert_close(now, m * was + (1 - m) * source)
    assert method.target.momentum_at(10) == 1


def test_the_target_starts_as_the_network_whatever_weights_were_loaded() -> None:
    method = build()
    disturb(method.backbone)
    method.on_step(0, 10)
    pairs = zip(method.target.module.state_dict().values(), method.online.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_targets_batch_norm_has_statistics_of_its_own() -> None:
    method = build()
    disturb(method.target)
    method(views(method))
    method.on_step(1, 10)
    ours, theirs = (network.state_dict()["1.1.running_mean"] for network in (method.target.module, method.online))
    assert ours.abs().sum() > 0
    assert not torch.allclose(ours, theirs)


def test_heads_of_the_recipe_for_imagenet_are_the_papers() -> None:
    backbone = nn.Flatten()
    backbone.num_features = 2048
    method = BYOL(backbone, RECIPES["byol-imagenet"].config)
    for head, width in ((method.projector, 2048), (method.predictor, 256)):
        shapes = [module.weight.shape for module in head if not isinstance(module, nn.ReLU)]
        assert shapes == [(4096, width), (4096,), (256, 4096)]  # Linear, BatchNorm, Linear


@pytest.mark.parametrize(
    ("field", "value"),
    [("base_momentum", 1.1), ("base_momentum", -0.1), ("base_momentum", math.nan), ("projection_hidden", 0),
     ("projection_features", 0)],
)  # fmt: skip
def test_wrong_configuration_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})


def test_the_embedded_recipe_learns(tmp_path: Path) -> None:
    config = dataclasses.replace(
        RECIPES["byol"].config, epochs=2, batch_size=128, warmup_epochs=0, log_every=2, knn_every=0, accelerator="cpu"
    )
    pretrain(config, tmp_path)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert losses[-1] < losses[0] - 0.5
    assert "collapsed" not in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("switch", ["predictor", "stop_gradient"])
def test_without_it_the_embeddings_collapse(switch: str, tmp_path: Path) -> None:
    pretrain(dataclasses.replace(CONFIG, epochs=2, **{switch: False}), tmp_path)
    assert "the embeddings have collapsed" in (tmp_path / "train.log").read_text()


def test_with_both_they_do_not(tmp_path: Path) -> None:
    pretrain(dataclasses.replace(CONFIG, epochs=2), tmp_path)
    assert "collapsed" not in (tmp_path / "train.log").read_text()


def test_resumes_exactly(tmp_path: Path) -> None:
    assert_resumes_exactly(dataclasses.replace(CONFIG, epochs=2, batch_size=128), tmp_path, step=4)
