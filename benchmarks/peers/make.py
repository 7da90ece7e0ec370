"""How a peer is made of a function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslfast import ops

Peer = Callable[..., Tensor | tuple[Tensor, ...] | None]
MakePeer = Callable[[dict[str, Tensor]], Peer | None]  # None: the package does not compute this case


def plain(function: Peer) -> MakePeer:
    return lambda inputs: function


def drawing(peer: Peer) -> Peer:
    """A peer with random numbers of its own: the gate does not compare what it makes of them."""
    peer.draws = True
    return peer


def compiled(function: Peer) -> MakePeer:
    """For these shapes only, as in a training loop."""
    return lambda inputs: torch.compile(function, dynamic=False)


def sslfast(function: Peer, *needed: str) -> MakePeer:
    """A peer that calls the named functions of sslfast.ops; an older revision may lack some."""

    def make(inputs: dict[str, Tensor]) -> Peer:
        missing = [name for name in needed if not hasattr(ops, name)]
        if missing:
            raise ImportError(f"sslfast.ops has no {', '.join(missing)}")
        return function

    return make
