"""Where features lie on the sphere: Wang and Isola 2020 (https://arxiv.org/abs/2005.10242)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 1 << 25  # distances held at a time: 128 MiB of float32


def alignment(z1: Tensor, z2: Tensor) -> float:
    """How far the features of two views of an image are apart, on average; 0 is perfect.

        (F.normalize(z1) - F.normalize(z2)).square().sum(dim=1).mean()

    Args:
        z1, z2: (N, D) each, row i of both from image i; any float type.

    Returns:
        between 0 and 4; 2 for directions that have nothing to do with each other.

    Raises:
        ValueError: the shapes differ or are not (N, D), or there is no row.
    """
    if z1.dim() != 2 or 0 in z1.shape or z1.shape != z2.shape:
        raise ValueError(f"z1 and z2 must be (N, D), alike and not empty, got {tuple(z1.shape)} and {tuple(z2.shape)}")
    apart = F.normalize(z1.float(), dim=1) - F.normalize(z2.float(), dim=1)
    return apart.square().sum(dim=1).double().mean().item()


def uniformity(z: Tensor, t: float = 2.0) -> float:
    """How evenly features are spread over the sphere; the lower, the more evenly.

        torch.pdist(F.normalize(z)).square().mul(-t).exp().mean().log()

    Worked on some rows at a time, so that never more than 2^25 distances are in memory.

    Args:
        z: (N, D), any float type, N >= 2.
        t: of the Gaussian kernel, > 0.

    Returns:
        between -4t, which no more than two points reach, and 0, where all are one point.

    Raises:
        ValueError: z is not (N, D) with two rows or more, or t is not above 0.
    """
    if z.dim() != 2 or len(z) < 2 or z.shape[1] == 0:
        raise ValueError(f"z must be (N, D) with at least two rows, got {tuple(z.shape)}")
    if not t > 0:
        raise ValueError(f"t must be above 0, got {t}")
    unit = F.normalize(z.float(), dim=1)
    total = torch.zeros((), dtype=torch.float64, device=z.device)
    for rows in torch.arange(len(z), device=z.device).split(max(1, CELLS // len(z))):
        squared = (2 - 2 * unit[rows] @ unit.T).clamp_min(0)
        squared[torch.arange(len(rows), device=z.device), rows] = torch.inf  # a point is no pair with itself
        total += (-t * squared).exp().sum(dtype=torch.float64)
    return (total / (len(z) * (len(z) - 1))).log().item()
