"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method
from sslfast.methods.byol import BYOL
from sslfast.methods.simclr import SimCLR
from sslfast.methods.simsiam import SimSiam

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "byol": BYOL,
    "simsiam": SimSiam,
}

__all__ = ["BYOL", "METHODS", "Method", "SimCLR", "SimSiam"]
