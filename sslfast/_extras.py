"""Optional dependencies, imported where they are used and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, which the extra `sslfast[extra]` brings.

    Raises:
        ImportError: `module` is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"this part of sslfast needs the package {error.name!r}: pip install 'sslfast[{extra}]'", name=error.name
        ) from error
