from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from train.toys import assert_resumes_exactly

from sslfast.methods import SimSiam
from sslfast.models import build_backbone
from sslfast.recipes import RECIPES
from sslfast.train import pretrain
from sslfast.train.optim import build_optimizer, set_learning_rate

CONFIG = SimSiam.Config(
    data="digits", image_size=8, preset="mnist-like", batch_size=128, projection_layers=2, projection_features=64,
    learning_rate=0.2, warmup_epochs=0, log_every=5, knn_every=0, accelerator="cpu",
)  # fmt: skip
IMAGES = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build(**changes: object) -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(build_backbone("resnet20", in_channels=1, image_size=8), dataclasses.replace(CONFIG, **changes))


def views(method: SimSiam, seed: int = 1) -> tuple[torch.Tensor, ...]:
    return method.views(IMAGES, torch.Generator().manual_seed(seed))


def test_views_are_two_and_drawn_from_the_generator_alone() -> None:
    method = build()
    first, second = views(method)
    torch.rand(5)  # the global generator plays no part
    assert all(torch.equal(a, b) for a, b in zip((first, second), views(method)))
    assert first.shape == second.shape == (6, 1, 8, 8)
    assert not torch.equal(first, second)


def test_loss_is_the_papers_in_both_directions() -> None:
    method = build()
    first, second = views(method)
    z1, z2 = (method.projector(method.backbone(x)) for x in (first, second))
    p1, p2 = method.predictor(z1), method.predictor(z2)
    expected = -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2
    output = method((first, second))
    assert output["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert method((second, first))["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.equal(output["embeddings"], z1)
    assert not output["embeddings"].requires_grad


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_what_is_predicted_gets_no_gradient(stop_gradient: bool) -> None:
    method = build(stop_gradient=stop_gradient)
    outputs: list[torch.Tensor] = []
    method.projector.register_forward_hook(lambda *args: outputs.append(args[-1]))
    loss = method(views(method))["loss"]
    gradients = torch.autograd.grad(loss, outputs, retain_graph=True)
    z1, z2 = outputs
    p1, p2 = method.predictor(z1), method.predictor(z2)
    t1, t2 = (z.detach() if stop_gradient else z for z in outputs)
    expected = torch.autograd.grad(
        -(F.cosine_similarity(p1, t2).mean() + F.cosine_similarity(p2, t1).mean()) / 2, outputs
    )
    for ours, theirs in zip(gradients, expected):
        torch.testing.assert_close(ours, theirs)


def test_a_view_does_not_depend_on_the_other_through_batch_norm() -> None:
    method = build()
    first, second = views(method)
    alone = method((first, second))["embeddings"]
    assert torch.equal(method((first, 5 * second))["embeddings"], alone)


def test_heads_of_the_recipe_for_imagenet_are_the_papers() -> None:
    backbone = nn.Flatten()
    backbone.num_features = 2048
    method = SimSiam(backbone, RECIPES["simsiam-imagenet"].config)
    names = [type(module).__name__ for module in method.projector]
    assert names == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [m.affine for m in method.projector if isinstance(m, nn.BatchNorm1d)] == [True, True, False]
    assert all(m.weight.shape == (2048, 2048) for m in method.projector if isinstance(m, nn.Linear))
    assert [type(module).__name__ for module in method.predictor] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [m.weight.shape for m in method.predictor if isinstance(m, nn.Linear)] == [(512, 2048), (2048, 512)]
    assert method.predictor[-1].bias is not None


def test_only_the_predictor_keeps_its_learning_rate() -> None:
    method = build()
    optimizer = build_optimizer(method, CONFIG)
    set_learning_rate(optimizer, 0.1, peak=0.8)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates == {n: 0.8 if n.startswith("predictor.") else 0.1 for n, _ in method.named_parameters()}


@pytest.mark.parametrize(
    ("field", "value"), [("projection_layers", 0), ("projection_features", 3), ("projection_features", -1)]
)
def test_wrong_configuration_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})


def test_the_embedded_recipe_learns(tmp_path: Path) -> None:
    config = dataclasses.replace(
        RECIPES["simsiam"].config, epochs=2, batch_size=64, learning_rate=0.4, warmup_epochs=0, log_every=4,
        knn_every=0, accelerator="cpu",
    )  # fmt: skip
    pretrain(config, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 0.1
    assert "collapsed" not in (tmp_path / "train.log").read_text()


def test_resumes_exactly(tmp_path: Path) -> None:
    assert_resumes_exactly(dataclasses.replace(CONFIG, epochs=2), tmp_path, step=4)


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["", "predictor", "stop_gradient"])
def test_the_embeddings_collapse_without_predictor_or_stop_gradient_only(switch: str, tmp_path: Path) -> None:
    changes = {"epochs": 6, "batch_size": 64, "learning_rate": 0.4, "projection_features": 256}
    pretrain(dataclasses.replace(CONFIG, **changes, **({switch: False} if switch else {})), tmp_path)
    alarm = "the embeddings have collapsed" in (tmp_path / "train.log").read_text()
    assert alarm == bool(switch)
