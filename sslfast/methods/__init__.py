"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method, Panel
from sslfast.methods.mae import MAE
from sslfast.methods.moco import MoCo
from sslfast.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "mae": MAE,
}

__all__ = ["MAE", "METHODS", "Method", "MoCo", "Panel", "SimCLR"]
