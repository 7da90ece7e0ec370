"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method
from sslfast.methods.moco import MoCo
from sslfast.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {"simclr": SimCLR, "moco": MoCo}

__all__ = ["METHODS", "Method", "MoCo", "SimCLR"]
