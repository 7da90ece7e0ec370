"""CLIP's loss on the GPU: one square of cosines forward, for both directions; blocks of rows backward; never in memory.

For N images and texts, in operations (a multiplication and an addition are two) and exponentials: forward 2·N²·D and
N² (twice that for τ < 1/64 or with ranks), backward 8·N²·D and 2·N²; float32 products cost three of tf32. Memory
beyond inputs and outputs as nt_xent for 2N views.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from sslfast.kernels.triton import plans, softmax
from sslfast.kernels.triton.normalize import normalize_pairs
from sslfast.kernels.triton.nt_xent import GROUPS, SPLITS, finish
from sslfast.kernels.triton.pair_loss_kernels import pair_loss_fwd_kernel
from sslfast.kernels.triton.sizes import cdiv
from sslfast.kernels.triton.tiles import FIXED_SHIFT_FROM


def forward(
    image: Tensor, text: Tensor, temperature: float, tau: Tensor | None, with_rank: bool = False
) -> tuple[Tensor, ...]:
    """Losses of images, then texts; shift and inverse_sum (2N,), P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i; u;
    scale; rank.

    image, text: (N, D) float32, bfloat16 or float16, any strides. tau: a 0-dim tensor that replaces temperature.
    u: unit rows (2N, D) in the input dtype; scale: their factors (2N,). rank int64: how many of the other kind are
    closer than the own one, (2N,) or (0,). All others are float32.
    """
    temperature = ctypes.c_float(temperature).value  # as the kernels get it
    with torch.cuda.device_of(image):
        u, scale, cosine = normalize_pairs(image, text)
        v, w = u.chunk(2)
        if with_rank:
            of_both = [
                softmax.streaming_sums(*sides, "self", temperature, tau, False, positive=cosine)
                for sides in ((v, w), (w, v))
            ]
        else:
            of_both = _square_sums(v, w, temperature, tau)
        results = (softmax.combine(sums, cosine, temperature, tau) for sums in of_both)
        losses, shift, inverse_sum = map(torch.cat, list(zip(*results))[:3])
        rank = torch.cat([sums.rank for sums in of_both]) if with_rank else of_both[0].rank
    return losses, shift, inverse_sum, u, scale, rank


def _square_sums(v: Tensor, w: Tensor, temperature: float, tau: Tensor | None) -> list[softmax.Sums]:
    """Of images and of texts over the negatives, each pair once where its exponential serves both."""
    n, d = v.shape
    plan = plans.plan("sums", n, n, d, v.dtype, v.device)
    block = max(plan.rows, plan.columns)
    size = block * cdiv(n, block * GROUPS)
    groups = cdiv(n, size)
    launched = softmax.variants(temperature, tau)
    partial = torch.empty(2, 2 if False in launched else 1, groups, n, dtype=torch.float32, device=v.device)
    for fixed_shift in launched:
        if fixed_shift:
            pair_loss_fwd_kernel[(groups**2,)](v, w, *partial, n, size, temperature, tau, SKIP="self", **plan.options)
        else:
            for rows, columns, sums in ((v, w, partial[0]), (w, v, partial[1])):
                softmax.row_sums(sums, rows, columns, "self", size, temperature, tau, plan)
    return [softmax.Sums(sums, None, FIXED_SHIFT_FROM.value) for sums in partial]


def backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    temperature: float,
    tau: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i: to the raw rows (2N, D) in u's dtype, and to τ, 0-dim float32, if a tensor."""
    temperature = ctypes.c_float(temperature).value
    with torch.cuda.device_of(u):
        largest = torch.linalg.vector_norm(grad, ord=float("inf")) if u.dtype == torch.float16 else None
        factors = softmax.relative_factors(grad, shift, inverse_sum, largest, temperature, tau)
        (v, w), of_images, of_texts = u.chunk(2), *zip(factors.chunk(2), shift.chunk(2))
        du = [
            softmax.weighted_sums(
                softmax.Factors(*of_rows, *of_columns), rows, columns, "self", temperature, tau, SPLITS
            )
            for rows, columns, of_rows, of_columns in ((v, w, of_images, of_texts), (w, v, of_texts, of_images))
        ]
        return finish(grad, losses, du, u, scale, largest, temperature, tau)
