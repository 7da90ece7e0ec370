"""Self-supervised methods, one file each."""

from __future__ import annotations

from sslfast.methods.base import Method, Panel
from sslfast.methods.byol import BYOL
from sslfast.methods.clm import CLM
from sslfast.methods.colorization import Colorization
from sslfast.methods.inpainting import Inpainting
from sslfast.methods.jigsaw import Jigsaw
from sslfast.methods.mae import MAE
from sslfast.methods.mlm import MLM
from sslfast.methods.moco import MoCo
from sslfast.methods.nsp import NSP
from sslfast.methods.registry import METHODS, method_named, register
from sslfast.methods.relative_patch import RelativePatch
from sslfast.methods.rotation import Rotation
from sslfast.methods.simclr import SimCLR
from sslfast.methods.simsiam import SimSiam
from sslfast.methods.sop import SOP

__all__ = [
    "BYOL",
    "CLM",
    "MAE",
    "METHODS",
    "MLM",
    "NSP",
    "SOP",
    "Colorization",
    "Inpainting",
    "Jigsaw",
    "Method",
    "MoCo",
    "Panel",
    "RelativePatch",
    "Rotation",
    "SimCLR",
    "SimSiam",
    "method_named",
    "register",
]
