"""Running out of memory in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORDS = ("out of memory", "can't allocate memory", "not enough memory")  # of torch's allocators


@contextmanager
def saying_what_fits(advice: str) -> Iterator[None]:
    """Inside, running out of memory, a GPU's too, is a MemoryError of one line that ends in `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        own = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not own and not any(words in str(error) for words in WORDS):
            raise
        raise MemoryError(f"out of memory: {advice}") from error
