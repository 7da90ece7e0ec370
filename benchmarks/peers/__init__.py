"""Who is measured: for every task, how PyTorch users compute it today, and how sslfast does.

PEERS[task][name] makes a peer from the inputs of a case: a function of them, positionally, that returns the results, or
nothing where it works in place. It is made when asked for, so that a package that is not installed costs only its row.
EXACT[task] is the gate, which is not timed: the reference in float64 that every peer is held to.
"""

from __future__ import annotations

import importlib.metadata

from benchmarks.peers import contrastive, mae, momentum, views

PEERS = contrastive.PEERS | momentum.PEERS | mae.PEERS | views.PEERS
EXACT = contrastive.EXACT | momentum.EXACT | mae.EXACT | views.EXACT
PACKAGES = {"Hugging Face": "transformers", "Inf-CL": "inf-cl", "Liger": "liger-kernel"}  # other names are their own


def version(peer: str) -> str:
    """The version of the package behind a peer."""
    package = PACKAGES.get(peer, peer)
    return importlib.metadata.version(package if package in INSTALLABLE else "torch")


INSTALLABLE = {
    "ema-pytorch", "kornia", "lightly", "pytorch-metric-learning", "siglip-kernel", "sslfast", "timm", "torchvision",
    "triton-augment", *PACKAGES.values(),
}  # fmt: skip
