"""The sigmoid loss on the GPU: weights in panels of texts, each of which serves the gradients of both sides.

For N images and texts, in operations (a multiplication and an addition are two) and exponentials: 2·N²·D and N² for
the losses, and 2·N²·D for each gradient from the same cosines; float32 products cost three of tf32. Memory beyond
inputs and outputs: a panel of weights, N x max(D, 2 KiB), and two sums a row for each of its tiles.
"""

from __future__ import annotations

import ctypes

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton import plans
from sslfast.kernels.triton.sizes import cdiv
from sslfast.kernels.triton.softmax_backward_kernels import add_panel_kernel
from sslfast.kernels.triton.tiles import add_product, cosines, first_row, load_tile, log1p, negatives

HALF_UNIT = 2.0**14  # float16 holds weights, which are at most 1, in this unit: small ones would vanish


def sums(
    image: Tensor,
    text: Tensor,
    factor: Tensor | None,
    own: bool,
    logit_scale: float,
    logit_bias: float,
    scale: Tensor | None,
    bias: Tensor | None,
    with_loss: bool,
    with_image: bool,
    with_text: bool,
) -> tuple[Tensor, ...]:
    """What `reference_image_text.siglip_sums` says, in float32; what is not wanted has no rows."""
    image, text = image.contiguous(), text.contiguous()
    (n, d), with_weights = image.shape, with_image or with_text
    numbers = *(ctypes.c_float(x).value for x in (logit_scale, logit_bias)), scale, bias
    half = with_weights and image.dtype == torch.float16
    with torch.cuda.device_of(image):
        size = 1.0  # of the largest weight
        if half and factor is not None:
            size = factor.abs().amax()
            factor = factor / torch.where(size == 0, 1, size)
        tile = "siglip_weights" if with_weights else "siglip_losses"
        schedule = plans.plan(tile, n, n, d, image.dtype, image.device)
        product = plans.plan("add_panel", n, n, d, image.dtype, image.device)
        row_blocks = cdiv(n, schedule.rows)
        if with_weights:
            panel_width, width = plans.panel_width(image), schedule.columns
        else:
            panel_width = n
            width = plans.split_columns(row_blocks, n, schedule.columns, plans.SPLITS, image.device)
        losses, weights = (
            torch.zeros(n if wanted else 0, dtype=torch.float32, device=image.device)
            for wanted in (with_loss, with_weights)
        )
        dimage, dtext = (
            torch.empty(n if wanted else 0, d, dtype=torch.float32, device=image.device)
            for wanted in (with_image, with_text)
        )
        panel_weights = image.new_empty(n, panel_width) if with_weights else None
        for panel in range(0, n, panel_width):
            count = min(panel_width, n - panel)
            splits = cdiv(count, width)
            partial = torch.empty(2, splits, n, dtype=torch.float32, device=image.device)
            siglip_tiles_kernel[(row_blocks, splits)](
                image,
                text,
                factor,
                partial[0] if with_loss else None,
                partial[1] if with_weights else None,
                panel_weights,
                panel,
                n,
                width,
                *numbers,
                OWN=own,
                WIDTH=panel_width,
                UNIT=HALF_UNIT if half else 1.0,
                **schedule.options,
            )
            if with_loss:
                losses += partial[0].sum(dim=0)
            if with_weights:
                weights += partial[1].sum(dim=0)
            if with_image:
                grid = cdiv(n, product.rows), cdiv(d, product.columns)
                add_panel_kernel[grid](panel_weights, text, dimage, panel, n, n, WIDTH=panel_width, **product.options)
            if with_text:
                grid = cdiv(count, product.rows), cdiv(d, product.columns)
                add_panel_transposed_kernel[grid](
                    panel_weights, image, dtext, panel, n, WIDTH=panel_width, **product.options
                )
        if half:
            weights, dimage, dtext = (x * (size / HALF_UNIT) for x in (weights, dimage, dtext))
    return losses, weights, dimage, dtext


@triton.jit
def _read(number, tensor):
    """The number from the host, or that in the 0-dim tensor which replaces it."""
    if tensor is not None:
        number = tl.load(tensor).to(tl.float32)
    return number


@triton.jit
def siglip_tiles_kernel(
    image,
    text,
    factor,
    losses,
    totals,
    weights,
    panel,
    N,
    width,
    logit_scale,
    logit_bias,
    scale,
    bias,
    OWN: tl.constexpr,
    WIDTH: tl.constexpr,
    UNIT: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):
    """Of a block of images and `width` texts of the panel from `panel` on: losses, totals (splits, N), the sums of
    log(1 + exp z) and of W = ±σ(z); weights (N, WIDTH) = W. Each unless it is None."""
    logit_scale = _read(logit_scale, scale)
    logit_bias = _read(logit_bias, bias)
    row = tl.program_id(0) * BLOCK_M
    begin = panel + tl.program_id(1) * width
    end = tl.minimum(panel + WIDTH, N)
    i0 = first_row(row, N, BLOCK_M, MASK_ROWS)
    i = i0 + tl.arange(0, BLOCK_M)
    loss = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for column in range(begin, tl.minimum(begin + width, end), BLOCK_N):
        j0 = first_row(column, N, BLOCK_N, MASK_COLUMNS)
        j = j0 + tl.arange(0, BLOCK_N)
        c = cosines(image, text, i0, j0, N, N, D, BLOCK_M, BLOCK_N, BLOCK_D, MASK_ROWS, MASK_COLUMNS)
        z = tl.fma(c, logit_scale, logit_bias)
        apart = j0 - i0
        meets_own = OWN & (apart > -BLOCK_N) & (apart < BLOCK_M)
        if meets_own:
            z = tl.where(i[:, None] == j[None, :], -z, z)
        # Minus infinity is nothing in all sums.
        z = negatives(z, i0, j0, column, N, N, None, None, "none", BLOCK_M, BLOCK_N, MASK_COLUMNS)
        e = tl.exp(-tl.abs(z))
        if losses is not None:
            loss += tl.sum(tl.maximum(z, 0.0) + log1p(e), axis=1)
        if weights is not None:
            w = tl.where(z > 0, 1.0, e) / (1.0 + e) * UNIT
            if factor is not None:
                w *= tl.load(factor + i, mask=i < N, other=0.0)[:, None]
            if meets_own:
                w = tl.where(i[:, None] == j[None, :], -w, w)
            total += tl.sum(w, axis=1)
            out = weights + i.to(tl.int64)[:, None] * WIDTH + (j - panel)[None, :]
            owned = ((i >= row) & (i < N))[:, None] & ((j >= column) & (j < end))[None, :]
            tl.store(out, w, mask=owned)
    sums = tl.program_id(1).to(tl.int64) * N + i
    if losses is not None:
        tl.store(losses + sums, loss, mask=(i >= row) & (i < N))
    if weights is not None:
        tl.store(totals + sums, total, mask=(i >= row) & (i < N))


@triton.jit
def add_panel_transposed_kernel(
    weights,
    rows,
    out,
    panel,
    N,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr,
):
    """out[panel : panel + WIDTH] (N, D) = weightsᵀ @ rows, of weights (N, WIDTH) and rows (N, D)."""
    column = tl.program_id(0) * BLOCK_M
    feature = tl.program_id(1) * BLOCK_N
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, N, BLOCK_K):
        w = load_tile(weights, k, column, N, WIDTH, BLOCK_K, BLOCK_M, MASKED)
        x = load_tile(rows, k, feature, N, D, BLOCK_K, BLOCK_N, MASKED)
        total = add_product(total, w.T, x)
    j = panel + column + tl.arange(0, BLOCK_M)
    features = feature + tl.arange(0, BLOCK_N)
    pointers = out + j.to(tl.int64)[:, None] * D + features[None, :]
    tl.store(pointers, total, mask=(j < tl.minimum(panel + WIDTH, N))[:, None] & (features < D)[None, :])
