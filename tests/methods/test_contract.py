"""What the training loop relies on, asked of every method."""

from __future__ import annotations

import pytest
import textruns
import torch
from small import CONFIGS

from sslfast.data import Passages
from sslfast.methods import METHODS, Method
from sslfast.models import build_backbone

IMAGES = torch.randint(0, 256, (6, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PASSAGES = textruns.random_passages()
every_method = pytest.mark.parametrize("name", METHODS)


def build(name: str) -> tuple[Method, torch.Tensor | Passages]:
    """A small one, and a batch of its data set."""
    cls = METHODS[name]
    if cls.Config.modality == "text":
        return textruns.build(name, **CONFIGS[name]), PASSAGES
    torch.manual_seed(0)
    config = cls.Config(data="photos", image_size=16, **CONFIGS[name])
    channels = 1 if config.gray else 3
    return cls(build_backbone(config.backbone, in_channels=channels, image_size=16), config), IMAGES


def seed(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)


@every_method
def test_views_are_drawn_from_the_generator_alone(name: str) -> None:
    method, source = build(name)
    views = method.views(source, seed(1))
    torch.rand(5)
    assert all(map(torch.equal, views, method.views(source, seed(1))))
    if name != "clm":  # which draws nothing
        assert not all(map(torch.equal, views, method.views(source, seed(2))))


@every_method
def test_every_trained_parameter_gets_a_gradient_with_bfloat16_and_the_loss_stays_float32(name: str) -> None:
    method, source = build(name)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(method.views(source, seed(1)))
    assert output["loss"].dtype == torch.float32
    assert not output["embeddings"].requires_grad
    output["loss"].backward()
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key


@every_method
def test_evaluation_leaves_the_method_as_it_is(name: str) -> None:
    method, source = build(name)
    method(method.views(source, seed(1)))
    method.eval()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.no_grad():
        assert method(method.views(source, seed(2)))["loss"].isfinite()
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
