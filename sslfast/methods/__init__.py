"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method
from sslfast.methods.clm import CLM
from sslfast.methods.mlm import MLM
from sslfast.methods.nsp import NSP
from sslfast.methods.simclr import SimCLR
from sslfast.methods.sop import SOP

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "mlm": MLM,
    "clm": CLM,
    "sop": SOP,
    "nsp": NSP,
}

__all__ = ["CLM", "METHODS", "MLM", "NSP", "SOP", "Method", "SimCLR"]
