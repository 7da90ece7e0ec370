"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method
from sslfast.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {"simclr": SimCLR}

__all__ = ["METHODS", "Method", "SimCLR"]
