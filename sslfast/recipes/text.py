"""Recipes of the methods that learn from text."""

from __future__ import annotations

from typing import Any

from sslfast.methods.clm import CLMConfig
from sslfast.methods.mlm import MLMConfig
from sslfast.methods.nsp import NSPConfig
from sslfast.methods.sop import SOPConfig
from sslfast.recipes.base import Recipe

DOCS: dict[str, Any] = {
    "data": "docs",
    "epochs": 60,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "warmup_epochs": 3,
}

RECIPES = {
    "mlm": Recipe(MLMConfig(**DOCS), "Python's language reference: a minute or two on two CPU cores (ours)"),
    "clm": Recipe(CLMConfig(**DOCS, tokenizer="bpe"), "the same text with a small GPT-2 (ours)"),
    "sop": Recipe(SOPConfig(**DOCS), "the same text, order of two segments only (ours)"),
    "nsp": Recipe(NSPConfig(**DOCS), "the same text, next segment only (ours)"),
    "mlm-sop": Recipe(SOPConfig(**DOCS, mlm_weight=1.0), "masked words and order together, as in ALBERT (ours)"),
    "mlm-nsp": Recipe(NSPConfig(**DOCS, mlm_weight=1.0), "masked words and next segment together, as in BERT (ours)"),
}
