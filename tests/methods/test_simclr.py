from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from sslfast.kernels import reference
from sslfast.methods import METHODS, SimCLR
from sslfast.models import build_backbone

CONFIG = SimCLR.Config(data="digits", image_size=8, preset="mnist-like", temperature=0.2)
IMAGES = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build(**changes: object) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(build_backbone("resnet20", in_channels=1, image_size=8), dataclasses.replace(CONFIG, **changes))


def test_every_method_names_itself() -> None:
    assert all(method.Config.method == name for name, method in METHODS.items())


def test_views_are_two_and_drawn_from_the_generator_alone() -> None:
    method = build()
    first, second = method.views(IMAGES, torch.Generator().manual_seed(1))
    torch.rand(5)  # the global generator plays no part
    again = method.views(IMAGES, torch.Generator().manual_seed(1))
    assert first.shape == second.shape == (6, 1, 8, 8)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_the_two_views_of_an_asymmetric_preset() -> None:
    method = build(preset="byol", strength=0.0)
    sampled = [sampler.preset for sampler in method.samplers]
    assert [preset.blur for preset in sampled] == [1.0, 0.1]
    first, second = method.views(IMAGES, torch.Generator().manual_seed(1))
    assert first.shape == second.shape == (6, 1, 8, 8)


def test_loss_is_nt_xent_of_the_projections_of_one_forward_pass() -> None:
    method = build()
    views = method.views(IMAGES, torch.Generator().manual_seed(1))
    output = method(views)
    z1, z2 = method.head(method.backbone(torch.cat(views))).chunk(2)
    assert output["loss"].item() == pytest.approx(reference.nt_xent(z1, z2, 0.2).item(), rel=1e-5)
    assert torch.allclose(output["embeddings"], z1)
    assert not output["embeddings"].requires_grad


def test_a_learned_temperature_is_logged() -> None:
    method = build(learnable_temperature=True)
    assert method(method.views(IMAGES))["temperature"].item() == pytest.approx(0.2)


def test_projection_options() -> None:
    head = build(projection_layers=3, projection_hidden=32, projection_features=16).head
    assert [m.out_features for m in head if isinstance(m, torch.nn.Linear)] == [32, 32, 16]


@pytest.mark.parametrize("field", ["temperature", "epochs", "batch_size", "learning_rate", "optimizer", "momentum"])
def test_wrong_configuration_is_named(field: str) -> None:
    wrong = {"optimizer": "adam", "epochs": 0, "batch_size": 1}
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: wrong.get(field, float("nan"))})


def test_configuration_as_json_has_every_field() -> None:
    values = json.loads(json.dumps(CONFIG.to_dict()))
    assert values["method"] == "simclr"
    assert values["betas"] == [0.9, 0.999]
    assert set(values) == {field.name for field in dataclasses.fields(CONFIG)} | {"method"}
