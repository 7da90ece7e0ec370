"""Fast self-supervised learning in PyTorch: fused ops, and a thin training layer over them.

Nothing is loaded before it is used: `sslfast.ops`, like every other part, comes with its first mention.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sslfast._version import __version__

if TYPE_CHECKING:
    from sslfast import (
        augment,
        compat,
        data,
        evaluate,
        kernels,
        losses,
        methods,
        models,
        ops,
        recipes,
        report,
        train,
    )
    from sslfast.api import embed, give, load_backbone, load_transform, pretrain
    from sslfast.ema import EMA
    from sslfast.grad_cache import GradCache
    from sslfast.key_queue import KeyQueue
    from sslfast.losses import (
        CLIPLoss,
        InfoNCELoss,
        NegativeCosineSimilarity,
        NTXentLoss,
        SigLIPLoss,
        SupConLoss,
    )

# Where the names live that are no parts of their own.
_HOMES = {
    "CLIPLoss": "losses",
    "EMA": "ema",
    "GradCache": "grad_cache",
    "InfoNCELoss": "losses",
    "KeyQueue": "key_queue",
    "NTXentLoss": "losses",
    "NegativeCosineSimilarity": "losses",
    "SigLIPLoss": "losses",
    "SupConLoss": "losses",
    "embed": "api",
    "give": "api",
    "load_backbone": "api",
    "load_transform": "api",
    "pretrain": "api",
}

__all__ = [
    "EMA",
    "CLIPLoss",
    "GradCache",
    "InfoNCELoss",
    "KeyQueue",
    "NTXentLoss",
    "NegativeCosineSimilarity",
    "SigLIPLoss",
    "SupConLoss",
    "__version__",
    "augment",
    "compat",
    "data",
    "embed",
    "evaluate",
    "give",
    "kernels",
    "load_backbone",
    "load_transform",
    "losses",
    "methods",
    "models",
    "ops",
    "pretrain",
    "recipes",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sslfast' has no attribute {name!r}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"sslfast.{_HOMES[name]}"), name)
    return importlib.import_module(f"sslfast.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
