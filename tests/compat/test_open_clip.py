"""sslfast.compat.open_clip against open_clip's own losses, in one process and in two."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
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


def open_clip(name: str) -> Any:
    """A loss of the installed open_clip, from its file: importing the package also imports models, for seconds."""
    [package] = importlib.util.find_spec("open_clip").submodule_search_locations
    spec = importlib.util.spec_from_file_location("open_clip_loss", Path(package) / "loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def value_and_gradients(loss: Any, leaves: list[Tensor]) -> list[Tensor]:
    image, text, log_scale = leaves
    value = loss(F.normalize(image, dim=-1), F.normalize(text, dim=-1), log_scale.exp())
    return [value.detach(), *torch.autograd.grad(value, leaves)]


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_siglip_in_one_process(rows: int, device: str) -> None:
    """Features as they are, whatever their length; the gradient to them, too, is open_clip's."""
    leaves, bias = inputs(rows, device), torch.tensor(-3.0, device=device, requires_grad=True)
    found = []
    theirs = open_clip("SigLipLoss")()
    for loss in (SigLipLoss(), theirs):
        value = loss(*leaves, bias)
        found.append([value.detach(), *torch.autograd.grad(value, [*leaves, bias])])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    image, text, scale = (x.detach() for x in leaves)
    torch.testing.assert_close(SigLipLoss()(image, text, 2.0, None), theirs(image, text, 2.0, None))
    in_shape = SigLipLoss(cache_labels=True)(image, text, scale.reshape(1), bias.reshape(1), output_dict=True)
    torch.testing.assert_close(in_shape["contrastive_loss"], found[0][0])


@pytest.mark.parametrize("rows", [1, 2, 33])
def test_one_process(rows: int, device: str) -> None:
    leaves = inputs(rows, device)
    found = [value_and_gradients(loss, leaves) for loss in (ClipLoss(), open_clip("ClipLoss")())]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_what_else_the_call_takes() -> None:
    image, text, scale = F.normalize(torch.randn(2, 5, 4), dim=-1).unbind() + (torch.tensor([3.0]),)
    bias = torch.tensor(-10.0, requires_grad=True)
    found = ClipLoss(cache_labels=True)(image, text, scale, bias, output_dict=True)["contrastive_loss"]
    torch.testing.assert_close(found, open_clip("ClipLoss")()(image, text, scale))
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


def of_this_rank() -> list[list[list[Tensor]]]:
    """By every mode, ours and theirs; the gradient to the scale as the mean over the ranks, which DDP makes of it."""
    rank, found = dist.get_rank(), []
    *features, log_scale = inputs(8, dtype=torch.float64)
    leaves = [*(x.detach()[4 * rank :][:4].requires_grad_() for x in features), log_scale]
    for clip, siglip in ((ClipLoss, SigLipLoss), (open_clip("ClipLoss"), open_clip("SigLipLoss"))):
        losses = [clip(local_loss, gather_with_grad, rank=rank, world_size=2) for local_loss, gather_with_grad in MODES]
        for dist_impl in ("bidir", "shift", "reduce", "gather"):
            loss = siglip(rank=rank, world_size=2, dist_impl=dist_impl)
            losses.append(partial(loss, logit_bias=BIAS))
        found.append([value_and_gradients(loss, leaves) for loss in losses])
        for _, *_, scale in found[-1]:
            dist.all_reduce(scale.div_(2))
    return found


def test_two_processes(tmp_path) -> None:
    for ours, theirs in run_ranks(of_this_rank, 2, tmp_path):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", ["sparse", "mkldnn"])
def test_features_of_another_layout_are_refused_by_name(layout: str) -> None:
    x = F.normalize(torch.randn(4, 5), dim=1)
    odd = x.to_sparse() if layout == "sparse" else x.to_mkldnn()
    for features, name in (((odd, x), "image_features"), ((x, odd), "text_features")):
        with pytest.raises(TypeError, match=f"ClipLoss: {name} must be a dense tensor"):
            ClipLoss()(*features, 10.0)
