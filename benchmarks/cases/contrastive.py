"""The contrastive losses, and SimSiam's."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cases.case import FLOAT32, Case, leaf, title


def pair(n: int, d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) of two views of N images: alike, not equal."""
    base = torch.randn(n, d)
    return leaf(base + torch.randn(n, d), dtype), leaf(base + torch.randn(n, d), dtype)


def nt_xent(device: str, views: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """By symmetry M²D to see each pair once, again for the gradient since (M, M) is not kept, and 2 M²D for it."""

    def make(m: int = views) -> dict[str, Tensor]:
        z1, z2 = pair(m // 2, dim, dtype)
        return {"z1": z1, "z2": z2}

    name, moved = title(f"M={views} D={dim}", dtype), 2 * views * dim * dtype.itemsize
    gate = (lambda: make(8192)) if views > 8192 else None
    return Case("nt_xent", name, device, 4 * views**2 * dim, moved, make, dtype, gate=gate, **more)


def nt_xent_views(device: str, views: int, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """As nt_xent with all V·N views; the pairs of views of one image are little beside these."""

    def make() -> dict[str, Tensor]:
        return {"z": leaf(torch.randn(n, dim) + torch.randn(views, n, dim), dtype)}

    name, moved = title(f"V={views} N={n} D={dim}", dtype), 2 * views * n * dim * dtype.itemsize
    return Case("nt_xent_views", name, device, 4 * (views * n) ** 2 * dim, moved, make, dtype, **more)


def info_nce(device: str, n: int, keys: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """MoCo: a product for the similarities with the queue, one for the gradient to the query, which alone has one."""

    def make() -> dict[str, Tensor]:
        query, key = pair(n, dim, dtype)
        queue = torch.nn.functional.normalize(torch.randn(keys, dim)).to(dtype)
        return {"query": query, "key": key.detach(), "queue": queue}

    moved = (keys + 3 * n) * dim * dtype.itemsize
    return Case(
        "info_nce", title(f"N={n} K={keys} D={dim}", dtype), device, 4 * n * keys * dim, moved, make, dtype, **more
    )


def info_nce_in_batch(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Similarities twice, since (N, N) is not kept, and a product for the gradient of query and key each."""

    def make() -> dict[str, Tensor]:
        query, key = pair(n, dim, dtype)
        return {"query": query, "key": key}

    moved = 4 * n * dim * dtype.itemsize
    return Case(
        "info_nce", title(f"N={n} D={dim} in-batch", dtype), device, 8 * n * n * dim, moved, make, dtype, **more
    )


def info_nce_hard_negatives(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """As in the batch, with a hard negative more for each query."""

    def make() -> dict[str, Tensor]:
        query, key = pair(n, dim, dtype)
        return {"query": query, "key": leaf(torch.cat([key.detach(), torch.randn(n, dim)]), dtype)}

    moved = 6 * n * dim * dtype.itemsize
    what = title(f"N={n} D={dim} hard negatives", dtype)
    return Case("info_nce", what, device, 16 * n * n * dim, moved, make, dtype, **more)


def clip_loss(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Similarities once for both directions, again since (N, N) is not kept, and a product for each gradient."""

    def make(rows: int = n) -> dict[str, Tensor]:
        image, text = pair(rows, dim, dtype)
        return {"image": image, "text": text}

    name, moved = title(f"N={n} D={dim}", dtype), 4 * n * dim * dtype.itemsize
    gate = (lambda: make(4096)) if n > 4096 else None
    return Case("clip_loss", name, device, 8 * n * n * dim, moved, make, dtype, gate=gate, **more)


def siglip_loss(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Similarities once, and from them a product for each gradient."""

    def make() -> dict[str, Tensor]:
        image, text = pair(n, dim, dtype)
        return {
            "image": image,
            "text": text,
            "logit_scale": leaf(torch.tensor(10.0)),
            "logit_bias": leaf(torch.tensor(-10.0)),
        }

    moved = 4 * n * dim * dtype.itemsize
    return Case("siglip_loss", title(f"N={n} D={dim}", dtype), device, 6 * n * n * dim, moved, make, dtype, **more)


def sup_con(device: str, rows: int, dim: int, classes: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """As nt_xent: every pair once forward, once again and twice for its gradient backward."""

    def make() -> dict[str, Tensor]:
        labels = torch.randperm(rows) % classes  # all have a positive: what else would count in the mean differs
        return {"z": leaf(torch.randn(classes, dim)[labels] + torch.randn(rows, dim), dtype), "labels": labels}

    name, moved = title(f"N={rows} D={dim} C={classes}", dtype), 2 * rows * dim * dtype.itemsize
    return Case("sup_con", name, device, 4 * rows**2 * dim, moved, make, dtype, **more)


def negative_cosine_similarity(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Both read by forward and by backward, both gradients written."""

    def make() -> dict[str, Tensor]:
        p, z = pair(n, dim, dtype)
        return {"p": p, "z": z}

    moved = 6 * n * dim * dtype.itemsize
    return Case("negative_cosine_similarity", title(f"N={n} D={dim}", dtype), device, 0, moved, make, dtype, **more)
