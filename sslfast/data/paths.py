"""Many paths in two arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


class Paths(Sequence[Path]):
    """Paths below a folder, as bytes end to end.

    A worker process shares the memory of its parent until one of them writes to it, and looking at a Python object
    writes its count of references: a list of a million paths is copied into every worker, bit by bit. Two arrays are
    not (pytorch/pytorch#13246).

    Args:
        root: the folder.
        names: relative to it; names that are not UTF-8 have Python's surrogates.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.root = root
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Path:
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return self.root / os.fsdecode(self._bytes[start : self._ends[index]].tobytes())
