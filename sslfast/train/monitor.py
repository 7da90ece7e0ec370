"""The collapse alarm: are the embeddings still different from each other?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_RANK = 1.5
ROWS = 1024  # more add time to the singular values, not knowledge


@torch.no_grad()
def embedding_statistics(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """How spread out embeddings are, two scalars on their device.

    std: the standard deviation of the L2-normalised embeddings, averaged over the D dimensions, times √D. About 1 when
    they fill the sphere, 0 when they are all the same (Chen & He 2021, SimSiam, section 4.1).

    effective rank: exp(entropy of the singular values, normalised to sum 1) of the centred normalised embeddings,
    between 1 and min(B, D) (Roy & Vetterli 2007; RankMe has it uncentred). It is 1 when all lie on one line.

    Args:
        embeddings: (B, D), any float type; the first 1024 rows are looked at. One row alone has std and rank 0.
    """
    z = F.normalize(embeddings[:ROWS].float(), dim=1)
    centred = z - z.mean(dim=0)
    std = centred.square().mean(dim=0).sqrt().mean() * z.shape[1] ** 0.5
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    rank = torch.special.entr(share).sum().exp()
    return std, torch.where(values.sum() > 0, rank, 0)


def collapsed(std: float, effective_rank: float, rows: int, collapse_std: float = 0.1) -> bool:
    """Whether so many embeddings of these statistics have collapsed to a point or to a line. One is always a point, and
    two lie on a line."""
    return (rows > 1 and std < collapse_std) or (rows > 2 and effective_rank < LEAST_RANK)
