"""InfoNCE on the GPU: one pass over the negatives, which makes their sum and, with it, what the gradient needs of them.

For N queries and K negatives or candidates, in operations (a multiplication and an addition are two) and exponentials:
forward 4·N·K·D and N·K, without a gradient 2·N·K·D; backward as much again for candidates with a gradient, else none.
Above D = 256, and D = 128 for float32, the forward makes the cosines once for every 256 or 128 features of the mean;
float32 products cost three of tf32. In bytes, a number having b: the queue once, K·D·b, and N / tile times from L2; a
forward and a backward with the keys N·D·(9·b + 8) more. Memory beyond inputs and outputs, written once and read once:
4·N·(D + 2) bytes a split of the queue, of which there are as many as fill the chip once; in-batch backward as nt_xent.
"""

from __future__ import annotations

import ctypes
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton import softmax
from sslfast.kernels.triton.normalize import normalize_pairs, store_raw_gradient
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2
from sslfast.kernels.triton.softmax_backward_kernels import add_splits, pull
from sslfast.kernels.triton.tiles import FIXED_SHIFT_FROM, load_tile, read_temperature

# At most so many partial sums of the keys' gradient where their row blocks alone are too few for the chip.
SPLITS = 8


def forward(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    with_mean: bool,
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    unit: bool = True,
    with_rank: bool = False,
) -> tuple[Tensor, ...]:
    """Losses, shift, inverse_sum (N,), P_ij = exp((q_i·n_j − shift_i)/τ)·inverse_sum_i; mean; u; scale; rank.

    query (N, D), key (M, D): float32, bfloat16 or float16, any strides. queue: unit rows (K, D), contiguous; if None,
    the negatives are the other keys. tau: a 0-dim tensor that replaces temperature. targets (N,) int64: which key is
    a query's, by default that of its number; those of its id, int32 (M,), are no negatives. Unless unit: of dot
    products. mean (N, D) = Σ_j P_ij n_j, or (0, D). u: unit queries, then keys, (N + M, D) in the input dtype; scale:
    their factors (N + M,). rank int64: how many negatives are closer than the positive, (N,) or (0,). All others are
    float32.
    """
    n, d = query.shape
    temperature = ctypes.c_float(temperature).value  # as the kernels get it
    with torch.cuda.device_of(query):
        u, scale, cosine = normalize_pairs(query, key, targets, unit)
        negatives, skip, own_ids = queue, "none", (None, None)
        if queue is None:
            negatives, (skip, own_ids) = u[n:], _omitted(u, n, targets, ids)
        positive = cosine if with_rank else None
        sums = softmax.streaming_sums(
            u[:n], negatives, skip, temperature, tau, with_mean, own_ids, _fixed_shift_from(unit), positive
        )
        losses, shift, inverse_sum, mean = softmax.combine(sums, cosine, temperature, tau)
    return losses, shift, inverse_sum, scale.new_empty(0, d) if mean is None else mean, u, scale, sums.rank


def _fixed_shift_from(unit: bool) -> float:
    return FIXED_SHIFT_FROM.value if unit else math.inf


def _omitted(
    u: Tensor, n: int, targets: Tensor | None, ids: Tensor | None
) -> tuple[str, tuple[Tensor | None, Tensor | None]]:
    """Which pairs are no negatives: what to skip, and the ids of queries and keys."""
    if targets is None and ids is None:
        return "self", (None, None)
    if ids is None:
        ids = torch.arange(len(u) - n, dtype=torch.int32, device=u.device)
    return "none", (ids[:n] if targets is None else ids[targets.clamp(0, len(ids) - 1)], ids)


def backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    mean: Tensor,
    temperature: float,
    tau: Tensor | None,
    in_batch: bool,
    with_key: bool,
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    unit: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i: to the raw queries (N, D) and keys (M, D) or (0, D); to τ, 0-dim, if a tensor."""
    n, d = mean.shape
    m = len(u) - n
    temperature = ctypes.c_float(temperature).value
    with torch.cuda.device_of(u):
        dkey_unit = largest = None
        if in_batch and with_key:
            largest = torch.linalg.vector_norm(grad, ord=float("inf")) if u.dtype == torch.float16 else None
            fixed_shift_from = _fixed_shift_from(unit)
            factors = softmax.relative_factors(grad, shift, inverse_sum, largest, temperature, tau, fixed_shift_from)
            skip, (query_ids, key_ids) = _omitted(u, n, targets, ids)
            of_columns = softmax.Factors(None, None, factors, shift, key_ids, query_ids)
            dkey_unit = softmax.weighted_sums(
                of_columns, u[n:], u[:n], skip, temperature, tau, SPLITS, fixed_shift_from
            )
        pulled = None
        if targets is not None and with_key:  # a key by all queries that are to find it
            pulls = (grad * torch.expm1(-losses))[:, None] * u[:n]
            pulled = pulls.new_zeros(m, d).index_put_((targets.clamp(0, m - 1),), pulls, accumulate=True)
        dquery, dkey = u.new_empty(n, d), u.new_empty(m if with_key else 0, d)
        block = max(16, next_power_of_2(d))
        rows = max(1, 2048 // block)
        blocks = cdiv(max(n, m), rows)
        radial = None if tau is None else torch.empty(blocks, dtype=torch.float32, device=u.device)
        info_nce_bwd_kernel[(blocks,)](
            grad,
            grad.stride(0),
            losses,
            mean,
            targets,
            pulled,
            dkey_unit,
            u,
            scale,
            largest,
            dquery,
            dkey if with_key else None,
            radial,
            n,
            m,
            0 if dkey_unit is None else len(dkey_unit),
            temperature,
            tau,
            UNIT=unit,
            D=d,
            ROWS=rows,
            BLOCK_D=block,
            num_warps=8 if block > 512 else 4,
        )
        dtau = softmax.temperature_gradient(radial, 1.0, tau, u.device)
    return dquery, dkey, dtau


@triton.jit
def info_nce_bwd_kernel(
    grad,
    stride,
    losses,
    mean,
    targets,
    pulled,
    dkey_unit,
    u,
    scale,
    largest,
    dquery,
    dkey,
    radial,
    N,
    M,
    splits,
    temperature,
    tau,
    UNIT: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """dquery (N, D) and dkey (M, D); radial, if wanted: Σ_i q_i·(dL/dq)_i of a block.

    dL/dq_i = g_i (Σ_j P_ij n_j + (P_ii − 1) k_i)/τ, dL/dk_i = (g_i (P_ii − 1) q_i + Σ_j g_j P_ji q_j)/τ; the last sum
    is that of dkey_unit (splits, M, D), for keys that are negatives too. With targets, k_i is that of query i, and
    pulled (M, D) the sum over the queries of a key.
    """
    temperature = read_temperature(temperature, tau)
    row = tl.program_id(0) * ROWS
    i = row + tl.arange(0, ROWS)
    q = load_tile(u, row, 0, N, D, ROWS, BLOCK_D, True).to(tl.float32)
    keys = u + tl.cast(N, tl.int64) * D
    k = load_tile(keys, row, 0, M, D, ROWS, BLOCK_D, True).to(tl.float32)
    own = k
    if targets is not None:
        target = tl.load(targets + i, mask=i < N, other=-1)
        features = tl.arange(0, BLOCK_D)[None, :]
        inside = ((target >= 0) & (target < M))[:, None] & (features < D)
        own = tl.load(keys + target[:, None] * D + features, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + i.to(tl.int64) * stride, mask=i < N, other=0.0)
    pulls = pull(grad, stride, losses, i, N)[:, None]
    dq = g[:, None] * load_tile(mean, row, 0, N, D, ROWS, BLOCK_D, True) + pulls * own
    along = store_raw_gradient(dquery, tl.div_rn(dq, temperature), q, scale, row, N, D, ROWS, BLOCK_D, UNIT)
    if radial is not None:
        tl.store(radial + tl.program_id(0), along)
    if dkey is not None:
        dk = pulls * q if pulled is None else load_tile(pulled, row, 0, M, D, ROWS, BLOCK_D, True)
        if dkey_unit is not None:
            dk += add_splits(dkey_unit, largest, splits, row, M, D, ROWS, BLOCK_D)
        store_raw_gradient(dkey, tl.div_rn(dk, temperature), k, scale + N, row, M, D, ROWS, BLOCK_D, UNIT)
