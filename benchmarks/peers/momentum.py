"""The momentum update of a model's parameters, as people compute it.

Not torch.compile: it unrolls the loop over 161 tensors and compiles for minutes what `_foreach_lerp_` does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.peers.make import MakePeer, Peer, plain, sslfast
from sslfast import ops
from sslfast.kernels import reference_ema

MOMENTUM = 0.996


def update(function: Callable[[list[Tensor], list[Tensor]], None]) -> Peer:
    """A peer over targets and then sources, from a function of the two lists."""

    @torch.no_grad()
    def peer(*tensors: Tensor) -> None:
        function(list(tensors[: len(tensors) // 2]), list(tensors[len(tensors) // 2 :]))

    return peer


def eager(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.mul_(MOMENTUM).add_(source.to(target.dtype), alpha=1 - MOMENTUM)


def foreach(targets: list[Tensor], sources: list[Tensor]) -> None:
    torch._foreach_lerp_(targets, [source.to(targets[0].dtype) for source in sources], 1 - MOMENTUM)


def modules(inputs: dict[str, Tensor]) -> tuple[nn.Module, nn.Module]:
    """Modules whose parameters are the targets and the sources themselves."""
    tensors = list(inputs.values())
    half = len(tensors) // 2
    target, source = (
        nn.ParameterList([nn.Parameter(x, requires_grad=False) for x in part])
        for part in (tensors[:half], tensors[half:])
    )
    return target, source


def lightly(inputs: dict[str, Tensor]) -> Peer:
    from lightly.models.utils import update_momentum

    target, source = modules(inputs)
    return lambda *tensors: update_momentum(source, target, MOMENTUM)


def ema_pytorch(inputs: dict[str, Tensor]) -> Peer:
    from ema_pytorch import EMA

    target, source = modules(inputs)
    average = EMA(source, target, beta=MOMENTUM, min_value=MOMENTUM, update_after_step=0, update_every=1,
                  include_online_model=False, use_foreach=True, coerce_dtype=True)  # fmt: skip
    average.initted.fill_(True)
    average.step.fill_(1000)  # past its warm-up

    def peer(*tensors: Tensor) -> None:
        average.update()

    return peer


def fused(name: str) -> MakePeer:
    return sslfast(update(lambda targets, sources: ops.ema_update_(targets, sources, MOMENTUM)), name)


EXACT = {"ema_update_": update(lambda targets, sources: reference_ema.ema_update_(targets, sources, MOMENTUM, 0))}
PEERS = {
    "ema_update_": {
        "eager": plain(update(eager)),
        "_foreach_lerp_": plain(update(foreach)),
        "lightly": lightly,
        "ema-pytorch": ema_pytorch,
        "sslfast": fused("ema_update_"),
    }
}
