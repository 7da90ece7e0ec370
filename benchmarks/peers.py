"""Who is measured: for every op, how PyTorch users compute it today, and how sslfast does.

A peer is a function of an op's inputs that returns its loss; it is made when asked for, so that a library that is not
installed costs only its own row.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import torch
from torch import Tensor

from sslfast import ops
from sslfast.kernels import reference

Peer = Callable[..., Tensor]
TEMPERATURE = 0.5


def _nt_xent_eager() -> Peer:
    return lambda z1, z2: reference.nt_xent(z1, z2, TEMPERATURE)


def _nt_xent_compile() -> Peer:
    return torch.compile(_nt_xent_eager())


def _nt_xent_lightly() -> Peer:
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=TEMPERATURE)


def _nt_xent_sslfast() -> Peer:
    return lambda z1, z2: ops.nt_xent(z1, z2, TEMPERATURE)


# "exact" is the gate: the oracle that every peer is held to, on float64 inputs. It is not timed.
EXACT = {"nt_xent": _nt_xent_eager}
PEERS: dict[str, dict[str, Callable[[], Peer]]] = {
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
