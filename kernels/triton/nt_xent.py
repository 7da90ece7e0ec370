"""NT-Xent on the GPU: one triangle of cosines forward, blocks of rows backward, the matrix never in memory.

For M = 2N views, in operations (a multiplication and an addition are two) and exponentials: forward M²·D and M²/2
(twice that for τ < 1/64 or with ranks), backward 4·M²·D and M²; float32 products cost three of tf32. With tiles of
R x C pairs, u comes M/2C times from L2 forward and M/R times backward. Memory beyond inputs and outputs: 256·M bytes
forward (twice that for τ < 1/64 or in a tensor); backward 4·M·D a split, above D = 256 and for float32 also a panel of
weights, M x max(D, 2 KiB).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from sslfast.kernels.triton import plans, softmax
from sslfast.kernels.triton.normalize import normalize_pairs
from sslfast.kernels.triton.pair_loss_kernels import pair_loss_bwd_kernel, pair_loss_fwd_kernel
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2
from sslfast.kernels.triton.tiles import FIXED_SHIFT_FROM

# At most so many groups of columns with a partial sum each: the workspace of the forward is GROUPS·M floats, not M².
GROUPS = 64
# At most so many partial sums of the gradient where its row blocks alone are too few for the chip.
SPLITS = 8


def forward(
    z1: Tensor, z2: Tensor, temperature: float, tau: Tensor | None, with_rank: bool = False
) -> tuple[Tensor, ...]:
    """Losses of the 2N views; shift and inverse_sum (2N,), P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i; u; scale;
    rank.

    z1, z2: (N, D) float32, bfloat16 or float16, any strides. tau: a 0-dim tensor that replaces temperature.
    u: unit rows (2N, D) in the input dtype; scale: their factors (2N,). rank int64: how many views are closer than the
    other one of the image, (2N,) or (0,). All others are float32.
    """
    temperature = ctypes.c_float(temperature).value  # as the kernels get it
    with torch.cuda.device_of(z1):
        u, scale, cosine = normalize_pairs(z1, z2)
        if with_rank:
            sums = softmax.streaming_sums(u, u, "views", temperature, tau, False, positive=cosine.repeat(2))
        else:
            sums = _triangle_sums(u, temperature, tau)
        losses, shift, inverse_sum, _ = softmax.combine(sums, cosine, temperature, tau)
    return losses, shift, inverse_sum, u, scale, sums.rank


def _triangle_sums(u: Tensor, temperature: float, tau: Tensor | None) -> softmax.Sums:
    """Of every view over the negatives, each pair once where its exponential serves both."""
    m, d = u.shape
    plan = plans.plan("sums", m, m, d, u.dtype, u.device)
    block = max(plan.rows, plan.columns)
    size = block * cdiv(m, block * GROUPS)
    groups = cdiv(m, size)
    launched = softmax.variants(temperature, tau)
    partial = torch.empty(2 if False in launched else 1, groups, m, dtype=torch.float32, device=u.device)
    for fixed_shift in launched:
        if fixed_shift:
            pair_loss_fwd_kernel[(groups * (groups + 1) // 2,)](
                u, u, partial, partial, m, size, temperature, tau, SKIP="views", **plan.options
            )
        else:
            softmax.row_sums(partial, u, u, "views", size, temperature, tau, plan)
    return softmax.Sums(partial, None, FIXED_SHIFT_FROM.value)


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
    """Gradients of Σ_i grad_i·loss_i: to the raw views (2N, D) in u's dtype, and to τ, 0-dim float32, if a tensor."""
    temperature = ctypes.c_float(temperature).value
    with torch.cuda.device_of(u):
        largest = torch.linalg.vector_norm(grad, ord=float("inf")) if u.dtype == torch.float16 else None
        factors = softmax.relative_factors(grad, shift, inverse_sum, largest, temperature, tau)
        both = softmax.Factors(factors, shift, factors, shift)
        du = softmax.weighted_sums(both, u, u, "views", temperature, tau, SPLITS)
        return finish(grad, losses, (du,), u, scale, largest, temperature, tau)


def finish(
    grad: Tensor,
    losses: Tensor,
    du: Sequence[Tensor],
    u: Tensor,
    scale: Tensor,
    largest: Tensor | None,
    temperature: float,
    tau: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The gradients from du, (splits, 2N, D) or (splits, N, D) of each view: sums over the negatives."""
    m, d = u.shape
    dz = torch.empty_like(u)
    block = max(16, next_power_of_2(d))
    rows = max(1, 4096 // block)
    blocks = cdiv(m // 2, rows)
    radial = None if tau is None else torch.empty(2, blocks, dtype=torch.float32, device=u.device)
    first, second = du if len(du) == 2 else (*du, None)
    pair_loss_bwd_kernel[(blocks, 2)](
        grad,
        grad.stride(0),
        losses,
        first,
        second,
        u,
        scale,
        largest,
        dz,
        radial,
        m,
        len(first),
        temperature,
        tau,
        D=d,
        ROWS=rows,
        BLOCK_D=block,
    )
    return dz, softmax.temperature_gradient(radial, 0.5, tau, u.device)
