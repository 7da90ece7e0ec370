"""What a run learns from, images or text: how examples are loaded, and how backbones are built, fed and kept."""

from __future__ import annotations

from pathlib import Path

from sslfast.config import PretrainConfig
from sslfast.modality.base import Modality

__all__ = ["Modality", "modality_of"]


def modality_of(config: PretrainConfig, folder: Path | None = None) -> Modality:
    """The modality of a run of this configuration; `folder` is the run's if there is one already."""
    if config.modality == "images":
        from sslfast.modality.images import Images

        return Images(config, folder)
    if config.modality == "text":
        from sslfast.modality.text import Text

        return Text(config, folder)
    raise ValueError(f"modality of {config.method} must be images or text, got {config.modality!r}")
