from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from toys import TINY, Toy, toy_config

from sslfast.methods import SimCLR
from sslfast.models import build_backbone
from sslfast.train.optim import build_optimizer, parameter_groups, set_learning_rate


def simclr(backbone: str = "resnet20", **changes: object) -> SimCLR:
    config = dataclasses.replace(TINY, learnable_temperature=True, **changes)
    return SimCLR(build_backbone(backbone, in_channels=1, image_size=32), config)


def test_biases_norms_and_temperature_are_excluded() -> None:
    method = simclr()
    groups = {group["excluded"]: group for group in parameter_groups(method, 0.1)}
    assert groups[False]["weight_decay"] == 0.1
    assert groups[True]["weight_decay"] == 0.0
    assert all(name.endswith("weight") and ".bn" not in name for name in groups[False]["names"])
    norms = [f"{n}.{p}" for n, m in method.named_modules() if isinstance(m, nn.BatchNorm2d) for p in ("weight", "bias")]
    assert {*norms, "head.3.bias", "loss.log_temperature"} <= set(groups[True]["names"])
    assert sum(len(group["params"]) for group in groups.values()) == len(list(method.parameters()))


def test_what_a_transformer_exempts_is_excluded_and_frozen_parameters_are_in_no_group() -> None:
    method = simclr("vit_tiny_patch16_224")
    method.head.requires_grad_(False)
    groups = {group["excluded"]: group["names"] for group in parameter_groups(method, 0.1)}
    assert {"backbone.pos_embed", "backbone.cls_token"} <= set(groups[True])
    assert not any(name.startswith("head.") for names in groups.values() for name in names)


def test_lars_adapts_weights_and_not_biases() -> None:
    method = Toy(nn.Identity(), toy_config())
    optimizer = build_optimizer(method, toy_config(optimizer="lars", weight_decay=0.0, momentum=0.0))
    set_learning_rate(optimizer, 0.5, 0.5)
    weight, bias = method.head.weight, method.head.bias
    before = weight.detach().clone(), bias.detach().clone()
    weight.grad, bias.grad = torch.randn_like(weight), torch.randn_like(bias)
    optimizer.step()
    trust = 0.001 * before[0].norm() / weight.grad.norm()  # adapted even where the decay is 0
    torch.testing.assert_close(weight.detach(), before[0] - 0.5 * trust * weight.grad)
    torch.testing.assert_close(bias.detach(), before[1] - 0.5 * bias.grad)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_weight_decay_moves_weights_only(name: str) -> None:
    method = Toy(nn.Identity(), toy_config())
    optimizer = build_optimizer(method, toy_config(optimizer=name, weight_decay=0.5))
    set_learning_rate(optimizer, 0.1, 0.1)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    for p in method.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"backbone.1.weight", "head.weight"}


def test_constant_lr_parameters_keep_the_peak() -> None:
    method = Toy(nn.Identity(), toy_config())
    optimizer = build_optimizer(method, toy_config())
    set_learning_rate(optimizer, 0.1, 0.5)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates == {"backbone.1.weight": 0.1, "backbone.1.bias": 0.1, "head.weight": 0.5, "head.bias": 0.5}
