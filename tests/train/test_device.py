"""What makes a step fast on a GPU, as far as it shows without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import shrink, small_config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import training

from sslfast.data import batches
from sslfast.methods import METHODS
from sslfast.models import build_backbone, split_batch_norm
from sslfast.recipes import RECIPES
from sslfast.train.log import RunLog
from sslfast.train.loop import Training
from sslfast.train.optim import build_optimizer


class NoWaiting(TorchDispatchMode):
    """Inside, tensors on "meta" stand for those of a GPU, and whatever would make the host wait for one raises.

    Values of a meta tensor cannot be read (item, nonzero, a boolean index, a copy to the CPU): torch raises itself.
    What is left to catch is a copy to the device, for which the host waits where its memory is not pinned.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # A number may lie on the host: it is an argument of the kernel, unless it is to be copied.
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if len({x.device.type for x in tensors if x.ndim > 0 or copies}) > 1:
            raise AssertionError(f"{func} copies between host and device")
        return result


def on_meta(run: Training, optimizer: str) -> Iterator[Any]:
    """The networks and the optimizer of a training moved to "meta"; its batches there."""
    run.method.to("meta")
    config = type(run.config)(**{**vars(run.config), "optimizer": optimizer})
    run.model, run.stepper = run.fabric.setup(
        run.method, build_optimizer(run.method, config), move_to_device=False, _reapply_compile=False
    )
    run.optimizer, run.generator = run.stepper, None
    run.log = RunLog(run.run, total=run.total, enabled=False)
    return batches(run.train_set, run.config.batch_size, device="meta", drop_last=True)


@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits_for_the_device(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    run = training(small_config(name, tmp_path), tmp_path)
    loader = on_meta(run, "lars" if name == "simclr" else run.config.optimizer)
    run._train_step(loader)  # the first may: it copies what stays on the device
    with NoWaiting():
        run._train_step(loader)
        run._train_step(loader)
    assert all(loss.device.type == "meta" for loss in run.pending)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool(x.any()),
        lambda x: x.cpu(),
        lambda x: x + torch.tensor(1.0).to("meta"),
        lambda x: torch.zeros(4, device="cpu").copy_(x),
    ],
)
def test_the_check_sees_what_waits(wait: Any) -> None:
    x = torch.zeros(4, device="meta")
    with NoWaiting(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        wait(x)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet20 split"])
def test_feature_maps_stay_channels_last(name: str) -> None:
    backbone = build_backbone(name.split()[0], image_size=32)
    if name.endswith("split"):
        split_batch_norm(backbone, 2)
    backbone.to(memory_format=torch.channels_last)
    seen = []

    def check(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[1:]) > 1:
            assert output.is_contiguous(memory_format=torch.channels_last), module
            seen.append(module)

    for module in backbone.modules():
        module.register_forward_hook(check)
    backbone(torch.randn(4, 3, 32, 32)).sum().backward()
    assert len(seen) > 20
    for parameter in backbone.parameters():
        if parameter.ndim == 4 and parameter.shape[2] > 1:
            assert parameter.grad.is_contiguous(memory_format=torch.channels_last)


def test_recipes_for_a_gpu_are_fast_and_those_for_a_cpu_are_reproducible() -> None:
    gpu = [name for name in RECIPES if name.endswith(("-cifar10", "-imagenet", "-wikitext"))]
    assert len(gpu) > 20
    for name, recipe in RECIPES.items():
        config = recipe.config
        fast = (config.precision, config.compile, config.deterministic, config.log_every)
        if name in gpu:
            assert fast == ("bf16-mixed", True, False, 50), name
        else:
            assert fast[1:3] == (False, True), name


@pytest.mark.parametrize("deterministic", [True, False])
def test_cudnn_tries_algorithms_only_where_bits_do_not_matter(
    deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", not deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", deterministic)
    shrink(monkeypatch)
    training(small_config("simclr", tmp_path, deterministic=deterministic), tmp_path)
    found = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    assert found == (deterministic, not deterministic)
