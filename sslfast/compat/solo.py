"""solo-learn's loss functions (https://github.com/vturrisi/solo-learn, 1.0), by their names and signatures."""

from __future__ import annotations

from torch import Tensor

from sslfast import ops
from sslfast.ops.checks import check_dense


def simclr_loss_func(z1: Tensor, z2: Tensor, temperature: float = 0.1, extra_pos_mask: Tensor | None = None) -> Tensor:
    """SimCLR's loss of two views (N, D); the result is float32 also for bfloat16 and float16.

    Raises:
        ValueError: extra_pos_mask is given. TypeError, ValueError: as `ops.nt_xent` does.
    """
    if extra_pos_mask is not None:
        raise ValueError("simclr_loss_func: extra_pos_mask is not served; use solo-learn's own for it")
    return ops.nt_xent(z1, z2, temperature)


def moco_loss_func(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.1) -> Tensor:
    """MoCo's loss of queries and keys (N, D), which solo-learn's methods have normalised, against a queue (D, K).

    The result is float32 also for bfloat16 and float16. The queue is copied, (K, D), at every call:
    `ops.info_nce` with a `KeyQueue` needs no copy.

    Raises:
        TypeError, ValueError: as `ops.info_nce` does, or the queue is not (D, K).
    """
    check_dense("moco_loss_func", "query", query, " (N, D)")
    check_dense("moco_loss_func", "queue", queue, " (D, K)")
    if queue.dim() != 2 or queue.shape[:1] != query.shape[1:]:
        raise ValueError(f"moco_loss_func: queue must be (D, K), as wide as query, got shape {tuple(queue.shape)}")
    return ops.info_nce(query, key, queue.T, temperature, normalize=False)


def byol_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """BYOL's loss of predictions p and targets z, (N, D), which get no gradient: 2 minus twice the mean cosine.

    Both values of `simplified`, which are one formula, give the same. It differs from solo-learn's as
    `compat.lightly.NegativeCosineSimilarity` does from PyTorch's cosine: for vectors shorter than 1e-8.
    """
    return 2 + 2 * simsiam_loss_func(p, z, simplified)


def simsiam_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """SimSiam's loss of predictions p and projections z, (N, D), which get no gradient: minus the mean cosine."""
    check_dense("simsiam_loss_func", "z", z, " (N, D)")
    return ops.negative_cosine_similarity(p, z.detach())
