"""Recipes of the methods that learn from text."""

from __future__ import annotations

from typing import Any

from sslfast.methods.clm import CLMConfig
from sslfast.methods.mlm import MLMConfig
from sslfast.methods.nsp import NSPConfig
from sslfast.methods.sop import SOPConfig
from sslfast.recipes.base import FAST, Recipe

DOCS: dict[str, Any] = {
    "data": "docs",
    "epochs": 20,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "warmup_epochs": 3,
}
PAIRS: dict[str, Any] = {**DOCS, "learning_rate": 5e-4}

# A size that was published, for a text like WikiText-103.
WIKITEXT: dict[str, Any] = {
    "data": "text:wiki.train.tokens",
    "batch_size": 32,
    "accumulate": 8,
    "epochs": 40,
    "warmup_epochs": 1,
    "weight_decay": 0.01,
    "knn_every": 0,
    **FAST,
    "checkpoint_every": 1000,
}
BERT_BASE: dict[str, Any] = {
    **WIKITEXT,
    "backbone": "bert-base",
    "vocabulary": 30522,
    "length": 512,
    "learning_rate": 1e-4,
}
GPT2_SMALL: dict[str, Any] = {
    **WIKITEXT,
    "backbone": "gpt2",
    "tokenizer": "bpe",
    "vocabulary": 50257,
    "length": 1024,
    "learning_rate": 2.5e-4,
}
BERT_SOURCE = "Devlin et al. 2018, appendix A.2: batch 256, 512 tokens, AdamW 1e-4, decay 0.01, over 40 epochs"

RECIPES = {
    "mlm": Recipe(MLMConfig(**DOCS), "Python's language reference, a small BERT (ours)"),
    "mlm-wikitext": Recipe(MLMConfig(**BERT_BASE), BERT_SOURCE),
    "clm": Recipe(CLMConfig(**DOCS, tokenizer="bpe"), "the same text with a small GPT-2 (ours)"),
    "clm-wikitext": Recipe(
        CLMConfig(**GPT2_SMALL), "GPT-2's smallest size; rate and cosine of GPT, Radford et al. 2018, section 4.1"
    ),
    "sop": Recipe(SOPConfig(**PAIRS), "Python's language reference, order of two segments only (ours)"),
    "nsp": Recipe(NSPConfig(**PAIRS), "Python's language reference, next segment only (ours)"),
    "mlm-sop": Recipe(SOPConfig(**PAIRS, mlm_weight=1.0), "masked words and order together, as in ALBERT (ours)"),
    "mlm-nsp": Recipe(NSPConfig(**PAIRS, mlm_weight=1.0), "masked words and next segment together, as in BERT (ours)"),
    "mlm-nsp-wikitext": Recipe(NSPConfig(**BERT_BASE, mlm_weight=1.0), BERT_SOURCE),
}
