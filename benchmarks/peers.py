"""Who is measured: for every op, how PyTorch users compute it today, and how sslfast does.

A peer is a function of an op's inputs that returns its loss, or nothing where it works in place; it is made when asked
for, so that a library that is not installed costs only its own row.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import torch
from torch import Tensor

from sslfast import ops
from sslfast.kernels import reference

Peer = Callable[..., Tensor | None]
TEMPERATURE = 0.5
MOMENTUM = 0.996


def _nt_xent_eager() -> Peer:
    return lambda z1, z2: reference.nt_xent(z1, z2, TEMPERATURE)


def _nt_xent_compile() -> Peer:
    return torch.compile(_nt_xent_eager())


def _nt_xent_lightly() -> Peer:
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=TEMPERATURE)


def _nt_xent_sslfast() -> Peer:
    return lambda z1, z2: ops.nt_xent(z1, z2, TEMPERATURE)


def _ema(update: Callable[[list[Tensor], list[Tensor]], None]) -> Peer:
    """A peer over targets and then sources, from a function of the two lists."""

    @torch.no_grad()
    def peer(*tensors: Tensor) -> None:
        update(list(tensors[: len(tensors) // 2]), list(tensors[len(tensors) // 2 :]))

    return peer


def _ema_eager() -> Peer:
    def update(targets: list[Tensor], sources: list[Tensor]) -> None:
        for target, source in zip(targets, sources, strict=True):
            target.mul_(MOMENTUM).add_(source.to(target.dtype), alpha=1 - MOMENTUM)

    return _ema(update)


def _ema_foreach() -> Peer:
    return _ema(lambda targets, sources: torch._foreach_lerp_(targets, [s.float() for s in sources], 1 - MOMENTUM))


def _ema_sslfast() -> Peer:
    return _ema(lambda targets, sources: ops.ema_update_(targets, sources, MOMENTUM))


# "exact" is the gate: the oracle that every peer is held to, on float64 inputs. It is not timed.
EXACT = {
    "ema": lambda: _ema(lambda targets, sources: reference.ema_update_(targets, sources, MOMENTUM, 0)),
    "nt_xent": _nt_xent_eager,
}
PEERS: dict[str, dict[str, Callable[[], Peer]]] = {
    "ema": {"eager": _ema_eager, "_foreach_lerp_": _ema_foreach, "sslfast": _ema_sslfast},
    "nt_xent": {
        "eager": _nt_xent_eager,
        "torch.compile": _nt_xent_compile,
        "lightly": _nt_xent_lightly,
        "sslfast": _nt_xent_sslfast,
    },
}


def version(peer: str) -> str:
    """The version of the package behind a peer."""
    return importlib.metadata.version(peer if peer in ("lightly", "sslfast") else "torch")
