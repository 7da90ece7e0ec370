"""sslfast.compat.open_clip against open_clip's formula, written out, in one process and in two."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gloo import run_ranks
from torch import Tensor

from sslfast.compat.open_clip import ClipLoss, SigLipLoss


def inputs(rows: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Raw features of images and texts, and the logarithm of the scale."""
    generator = torch.Generator().manual_seed(0)
    raw = [torch.randn(rows, 7, generator=generator).to(device, dtype).requires_grad_() for _ in range(2)]
    return [*raw, torch.tensor(2.0, device=device, dtype=dtype, requires_grad=True)]


def formula(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    logits, own = scale * image @ text.T, torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def sigmoid_formula(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | float) -> Tensor:
    labels = 2 * torch.eye(len(image), device=image.device, dtype=image.dtype) - 1
    return -F.logsigmoid(labels * (scale * image @ text.T + bias)).sum() / len(image)


def value_and_gradients(loss: Any, leaves: list[Tensor]) -> list[Tensor]:
    image, text, log_scale = leaves
    value = loss(F.normalize(image, dim=-1), F.normalize(text, dim=-1), log_scale.exp())
    return [value.detach(), *torch.autograd.grad(value, leaves)]


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_siglip_in_one_process(rows: int, device: str) -> None:
    """Features as they are, whatever their length; the gradient to them, too, is open_clip's."""
    leaves, bias = inputs(rows, device), torch.tensor(-3.0, device=device, requires_grad=True)
    found = []
    for loss in (SigLipLoss(), sigmoid_formula):
        value = loss(*leaves, bias)
        found.append([value.detach(), *torch.autograd.grad(value, [*leaves, bias])])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    image, text, scale = (x.detach() for x in leaves)
    torch.testing.assert_close(SigLipLoss()(image, text, 2.0, None), sigmoid_formula(image, text, scale, 0.0))
    in_shape = SigLipLoss(cache_labels=True)(image, text, scale.reshape(1), bias.reshape(1), output_dict=True)
    torch.testing.assert_close(in_shape["contrastive_loss"], found[0][0])


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_one_process(rows: int, device: str) -> None:
    leaves = inputs(rows, device)
    found = [value_and_gradients(loss, leaves) for loss in (ClipLoss(), formula)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_what_else_the_call_takes() -> None:
    image, text, scale = F.normalize(torch.randn(2, 5, 4), dim=-1).unbind() + (torch.tensor([3.0]),)
    bias = torch.tensor(-10.0, requires_grad=True)
    found = ClipLoss(cache_labels=True)(image, text, scale, bias, output_dict=True)["contrastive_loss"]
    torch.testing.assert_close(found, formula(image, text, scale))
    torch.testing.assert_close(found, ClipLoss()(image, text, 3.0))
    found.backward()
    assert bias.grad == 0


def test_rows_that_a_model_has_not_normalised(device: str) -> None:
    image, text = F.normalize(torch.randn(2, 5, 4, device=device), dim=-1)
    if device == "cpu":
        with pytest.raises(ValueError, match=r"text_features must have rows of unit length.*lengths from 1 to 2"):
            ClipLoss()(image, torch.cat([text[:4], 2 * text[4:]]), 3.0)
    else:
        assert ClipLoss()(image, 2 * text, 3.0).isnan()
    ClipLoss()(image.bfloat16(), text.bfloat16(), 3.0)


def test_what_is_not_served_says_what_to_use() -> None:
    for options, match in (
        ({"use_horovod": True}, "use_horovod is not served; use torch.distributed"),
        ({"local_loss": True, "world_size": 2}, "use gather_with_grad=True"),
    ):
        with pytest.raises(ValueError, match=match):
            ClipLoss(**options)
    with pytest.raises(ValueError, match="dist_impl must be None or one of bidir, shift, reduce, gather, got 'tree'"):
        SigLipLoss(dist_impl="tree")
    x = F.normalize(torch.randn(5, 4), dim=-1)
    with pytest.raises(ValueError, match="world_size must be that of the default group, 1, got 2"):
        ClipLoss(world_size=2)(x, x, 3.0)
    with pytest.raises(ValueError, match="SigLipLoss: world_size must be that of the default group, 1, got 2"):
        SigLipLoss(world_size=2)(x, x, 3.0, -1.0)


BIAS = -3.0
MODES = [(True, True), (False, True), (False, False)]  # local_loss, gather_with_grad


def of_this_rank() -> list[list[Tensor]]:
    """By every mode; the gradient to the scale as the mean over the ranks, which DDP makes of it."""
    rank, found = dist.get_rank(), []
    *features, log_scale = inputs(8, dtype=torch.float64)
    leaves = [*(x.detach()[4 * rank :][:4].requires_grad_() for x in features), log_scale]
    for local_loss, gather_with_grad in MODES:
        loss = ClipLoss(local_loss, gather_with_grad, rank=rank, world_size=2)
        found.append(value_and_gradients(loss, leaves))
    for dist_impl in ("bidir", "gather"):
        loss = SigLipLoss(rank=rank, world_size=2, dist_impl=dist_impl)
        found.append(value_and_gradients(partial(loss, logit_bias=BIAS), leaves))
    for _, *_, scale in found:
        dist.all_reduce(scale.div_(2))
    return found


def test_two_processes(tmp_path) -> None:
    """The loss of all; gradients twice as large, which DDP halves, but for the features in open_clip's default."""
    whole, image, text, scale = value_and_gradients(formula, inputs(8, dtype=torch.float64))
    ranks = run_ranks(of_this_rank, 2, tmp_path)
    by_mode = list(zip(*ranks))
    for mode, both in zip(MODES, by_mode):
        local_loss, gather_with_grad = mode
        values = torch.stack([found[0] for found in both])
        torch.testing.assert_close(values.mean(), whole)
        assert local_loss == (not torch.allclose(*values))
        factor = 2 if gather_with_grad else 1
        for rank, found in enumerate(both):
            mine = slice(4 * rank, 4 * rank + 4)
            torch.testing.assert_close(found[1:], [factor * image[mine], factor * text[mine], scale])
    whole, image, text, scale = value_and_gradients(partial(sigmoid_formula, bias=BIAS), inputs(8, dtype=torch.float64))
    for both in by_mode[len(MODES) :]:
        torch.testing.assert_close(torch.stack([found[0] for found in both]).mean(), whole)
        for rank, found in enumerate(both):
            mine = slice(4 * rank, 4 * rank + 4)
            torch.testing.assert_close(found[1:], [2 * image[mine], 2 * text[mine], scale])


@pytest.mark.parametrize("layout", ["sparse", "mkldnn"])
def test_features_of_another_layout_are_refused_by_name(layout: str) -> None:
    x = F.normalize(torch.randn(4, 5), dim=1)
    odd = x.to_sparse() if layout == "sparse" else x.to_mkldnn()
    for features, name in (((odd, x), "image_features"), ((x, odd), "text_features")):
        with pytest.raises(TypeError, match=f"ClipLoss: {name} must be a dense tensor"):
            ClipLoss()(*features, 10.0)
