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
PACKAGES = {
    "Hugging Face": "transformers",
    "Inf-CL": "inf-cl",
    "Liger": "liger-kernel",
    "open_clip": "open-clip-torch",
}  # other names are their own


def version(peer: str) -> str:
    """The version of the package behind a peer; of what is no package, as eager, that of torch."""
    try:
        return importlib.metadata.version(PACKAGES.get(peer, peer))
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("torch")
