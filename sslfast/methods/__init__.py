"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method
from sslfast.methods.jigsaw import Jigsaw
from sslfast.methods.relative_patch import RelativePatch
from sslfast.methods.rotation import Rotation
from sslfast.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "rotation": Rotation,
    "jigsaw": Jigsaw,
    "relative-patch": RelativePatch,
}

__all__ = [
    "METHODS",
    "Jigsaw",
    "Method",
    "RelativePatch",
    "Rotation",
    "SimCLR",
]
