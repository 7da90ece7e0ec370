"""Training: one loop for every method, on any device, that can be stopped and resumed with the same bits."""

from __future__ import annotations

from sslfast.train.loop import Summary
from sslfast.train.pretrain import ensure_trained, pretrain
from sslfast.train.stop import Interrupted

__all__ = ["Interrupted", "Summary", "ensure_trained", "pretrain"]
