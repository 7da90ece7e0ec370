"""InfoNCE on the GPU: one pass over the negatives, which makes their sum and, with it, what the gradient needs of them.

For N queries and K negatives, in operations (a multiplication and an addition are two) and exponentials: forward
4·N·K·D and N·K, without a gradient 2·N·K·D; backward none but in the batch with a gradient to the keys, 4·N²·D and N².
Above D = 256, and D = 128 for float32, the forward makes the cosines once for every 256 or 128 features of the mean;
float32 products cost three of tf32. In bytes, a number having b: the queue once, K·D·b, and N / tile times from L2; a
forward and a backward with the keys N·D·(9·b + 8) more. Memory beyond inputs and outputs, written once and read once:
4·N·(D + 2) bytes a split of the queue, of which there are as many as fill the chip once; in-batch backward as nt_xent.
"""

from __future__ import annotations

import ctypes

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton import softmax
from sslfast.kernels.triton.normalize import normalize_pairs, store_raw_gradient
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2
from sslfast.kernels.triton.softmax_kernels import add_splits, pull
from sslfast.kernels.triton.tiles import load_tile, read_temperature

# At most so many partial sums of the keys' gradient where their row blocks alone are too few for the chip.
SPLITS = 8


def forward(
    query: Tensor, key: Tensor, queue: Tensor | None, temperature: float, tau: Tensor | None, with_mean: bool
) -> tuple[Tensor, ...]:
    """Losses, shift, inverse_sum (N,), P_ij = exp((q_i·n_j − shift_i)/τ)·inverse_sum_i; mean; u; scale.

    query, key: (N, D) float32, bfloat16 or float16, any strides. queue: unit rows (K, D), contiguous; if None, the
    negatives are the other keys. tau: a 0-dim tensor that replaces temperature. mean (N, D) = Σ_j P_ij n_j, or (0, D).
    u: unit queries, then keys, (2N, D) in the input dtype; scale: their factors (2N,); all but u are float32.
    """
    n, d = query.shape
    temperature = ctypes.c_float(temperature).value  # as the kernels get it
    with torch.cuda.device_of(query):
        u, scale, cosine = normalize_pairs(query, key)
        negatives, skip = (u[n:], "self") if queue is None else (queue, "none")
        sums = softmax.streaming_sums(u[:n], negatives, skip, temperature, tau, with_mean)
        losses, shift, inverse_sum, mean = softmax.combine(sums, cosine, temperature, tau)
    return losses, shift, inverse_sum, scale.new_empty(0, d) if mean is None else mean, u, scale


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i: to the raw queries (N, D) and keys (N, D) or (0, D); to τ, 0-dim, if a tensor."""
    n, d = len(u) // 2, u.shape[1]
    temperature = ctypes.c_float(temperature).value
    with torch.cuda.device_of(u):
        dkey_unit = largest = None
        if in_batch and with_key:
            largest = torch.linalg.vector_norm(grad, ord=float("inf")) if u.dtype == torch.float16 else None
            factors = softmax.relative_factors(grad, shift, inverse_sum, largest, temperature, tau)
            of_columns = softmax.Factors(None, None, factors, shift)
            dkey_unit = softmax.weighted_sums(of_columns, u[n:], u[:n], "self", temperature, tau, SPLITS)
        dquery, dkey = u.new_empty(n, d), u.new_empty(n if with_key else 0, d)
        block = max(16, next_power_of_2(d))
        rows = max(1, 2048 // block)
        blocks = cdiv(n, rows)
        radial = None if tau is None else torch.empty(blocks, dtype=torch.float32, device=u.device)
        _finish_rows[(blocks,)](
            grad, grad.stride(0), losses, mean, dkey_unit, u, scale, largest, dquery, dkey if with_key else None,
            radial, n, 0 if dkey_unit is None else len(dkey_unit), temperature, tau, D=d, ROWS=rows, BLOCK_D=block,
            num_warps=8 if block > 512 else 4,
        )  # fmt: skip
        dtau = softmax.temperature_gradient(radial, 1.0, tau, u.device)
    return dquery, dkey, dtau


@triton.jit
def _finish_rows(
    grad, stride, losses, mean, dkey_unit, u, scale, largest, dquery, dkey, radial, N, splits, temperature, tau,
    D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dquery and dkey (N, D); radial, if wanted: Σ_i q_i·(dL/dq)_i of a block.

    dL/dq_i = g_i (Σ_j P_ij n_j + (P_ii − 1) k_i)/τ, dL/dk_i = (g_i (P_ii − 1) q_i + Σ_j g_j P_ji q_j)/τ; the last sum
    is that of dkey_unit (splits, N, D), for keys that are negatives too.
    """
    temperature = read_temperature(temperature, tau)
    row = tl.program_id(0) * ROWS
    i = row + tl.arange(0, ROWS)
    q = load_tile(u, row, 0, N, D, ROWS, BLOCK_D, True).to(tl.float32)
    k = load_tile(u + tl.cast(N, tl.int64) * D, row, 0, N, D, ROWS, BLOCK_D, True).to(tl.float32)
    g = tl.load(grad + i.to(tl.int64) * stride, mask=i < N, other=0.0)
    pulls = pull(grad, stride, losses, i, N)[:, None]
    dq = g[:, None] * load_tile(mean, row, 0, N, D, ROWS, BLOCK_D, True) + pulls * k
    along = store_raw_gradient(dquery, tl.div_rn(dq, temperature), q, scale, row, N, D, ROWS, BLOCK_D)
    if radial is not None:
        tl.store(radial + tl.program_id(0), along)
    if dkey is not None:
        dk = pulls * q
        if dkey_unit is not None:
            dk += add_splits(dkey_unit, largest, splits, row, N, D, ROWS, BLOCK_D)
        store_raw_gradient(dkey, tl.div_rn(dk, temperature), k, scale + N, row, N, D, ROWS, BLOCK_D)
