"""A split of images of which none is in both parts."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

Groups = dict[str, list[str]]


def hold_out(root: Path, classes: Groups, seed: int) -> tuple[Groups, Groups, int]:
    """A fifth of every class, drawn by `seed`, for testing; files of the same bytes stay on one side.

    Args:
        root: the folder.
        classes: paths relative to it, by class.

    Returns:
        training and test images by class, and how many files are copies of another one.
    """
    first = _first_copies(root, [path for paths in classes.values() for path in paths])
    held_out: set[str] = set()
    for paths in classes.values():
        own = [path for path in paths if path not in first]
        held_out.update(own[i] for i in a_fifth(torch.arange(len(own)), seed).tolist())
    parts: tuple[Groups, Groups] = {}, {}
    for name, paths in classes.items():
        for part, wanted in zip(parts, (False, True)):
            part[name] = [path for path in paths if (first.get(path, path) in held_out) == wanted]
    return *parts, len(first)


def a_fifth(members: Tensor, seed: int) -> Tensor:
    """A fifth of the members of a class (n,), drawn by `seed`."""
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
    return members[order[: round(len(members) / 5)]]


def _first_copies(root: Path, paths: list[str]) -> dict[str, str]:
    """For every file that has the bytes of an earlier one, that one. Only files of one size are read."""
    found = defaultdict(list)
    for path in paths:
        try:
            status = os.stat(root / path)
            found[status.st_size].append((path, status.st_mtime_ns))
        except OSError:  # whoever reads it says what is wrong
            continue
    suspects = [(path, size, time) for size, same in found.items() if len(same) > 1 for path, time in same]
    with ThreadPoolExecutor() as pool:
        digests = dict(pool.map(lambda file: (file[0], _digest(root / file[0], *file[1:])), suspects))
    met: dict[str, str] = {}
    copies = {}
    for path in paths:
        if digest := digests.get(path):
            original = met.setdefault(digest, path)
            if original != path:
                copies[path] = original
    return copies


@cache  # the two splits are made one after the other
def _digest(path: Path, size: int, time: int) -> str | None:
    """Of a file of this size that was last changed at this time."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(2**20):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError:  # whoever reads it says what is wrong
        return None
