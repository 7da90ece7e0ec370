"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method
from sslfast.methods.colorization import Colorization
from sslfast.methods.inpainting import Inpainting
from sslfast.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "colorization": Colorization,
    "inpainting": Inpainting,
}

__all__ = ["METHODS", "Colorization", "Inpainting", "Method", "SimCLR"]
