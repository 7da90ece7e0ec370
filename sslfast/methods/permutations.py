"""The permutations that a jigsaw is shuffled by: of nine tiles a fixed list, made once and kept in permutations.txt."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FILE = Path(__file__).with_name("permutations.txt")
MOST = {4: 24, 9: 1000}  # tiles -> length of their list


def greedy_permutations(count: int, length: int = 9) -> np.ndarray:
    """`count` permutations that differ in as many places as possible, (count, length) uint8.

    Starting from the identity, the next one is always that with the largest Hamming distance to its nearest among
    those chosen; of equals the one with the largest distance to all of them together, then the lexicographically first.
    So every prefix of the list is a set of large distances too (Noroozi & Favaro 2016, algorithm 1, takes the mean).
    """
    candidates = np.array(list(itertools.permutations(range(length))), dtype=np.uint8)
    if not 1 <= count <= len(candidates):
        raise ValueError(f"count must be in 1..{len(candidates)}, got {count}")
    columns = np.ascontiguousarray(candidates.T)
    nearest = np.full(len(candidates), length, dtype=np.int64)
    total = np.zeros(len(candidates), dtype=np.int64)
    chosen = [0]
    for _ in range(count - 1):
        distance = (columns != columns[:, chosen[-1], None]).sum(axis=0, dtype=np.int64)
        np.minimum(nearest, distance, out=nearest)
        total += distance
        chosen.append(int(np.argmax(nearest * (length * count) + total)))
    return candidates[chosen]


def load_permutations(count: int, length: int = 9) -> Tensor:
    """The first `count` permutations of the greedy list, (count, length) int64: of nine tiles the shipped ones.

    Raises:
        ValueError: length is not 4 or 9, or there are not `count` permutations in the list.
    """
    if length not in MOST:
        raise ValueError(f"length must be one of {', '.join(map(str, MOST))}, got {length}")
    if not 2 <= count <= MOST[length]:
        raise ValueError(f"permutations must be in 2..{MOST[length]} for {length} tiles, got {count}")
    if length == 9:
        rows = FILE.read_text().split()[:count]
        return torch.tensor([[int(digit) for digit in row] for row in rows], dtype=torch.int64)
    return torch.from_numpy(greedy_permutations(count, length)).long()
