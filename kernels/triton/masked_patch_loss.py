"""Squared error over the masked patches, whose targets are taken from the image on the way: only they are read."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.patches import compact, load_patches
from sslfast.kernels.triton.rows import row_tile
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

EPS = tl.constexpr(1e-6)  # added to the variance of a patch
CHUNKS = 8  # at most, of a patch in registers
THREAD = 48  # elements of a thread that has patches in registers


@triton.jit
def _load_predictions(
    pred,
    strides,
    patch,
    masked,
    first,
    PATCHES: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(ROWS, BLOCK) float32: elements first.. of masked patches, which count through all images."""
    image_stride, patch_stride, element_stride = strides
    e = first + tl.arange(0, BLOCK)
    row = (patch // PATCHES).to(tl.int64) * image_stride + (patch % PATCHES).to(tl.int64) * patch_stride
    mask = masked[:, None] if E % BLOCK == 0 else masked[:, None] & (e < E)[None, :]
    pointers = pred + row[:, None] + (e.to(tl.int64) * element_stride)[None, :]
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _inside(x, first, E: tl.constexpr):
    """x (ROWS, BLOCK), elements first.. of patches, with zeros behind their end."""
    BLOCK: tl.constexpr = x.shape[1]
    return x if first + BLOCK <= E else tl.where((first + tl.arange(0, BLOCK) < E)[None, :], x, 0.0)


@triton.jit
def _statistics(targets, E: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """A first mean of each patch, what its rounding left to the mean, and 1 / standard deviation: (ROWS,) each.

    The rest counts: rstd magnifies it a thousandfold in a nearly flat patch.
    """
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for i in tl.static_range(len(targets)):
        total += _inside(targets[i], i * BLOCK, E)
    about = tl.sum(total, axis=1) / E
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    for i in tl.static_range(len(targets)):
        deviation = _inside(targets[i] - about[:, None], i * BLOCK, E)
        total += deviation
        squares += deviation * deviation
    shift = tl.sum(total, axis=1) / E
    variance = (tl.sum(squares, axis=1) - shift * shift * E) / (E - 1)
    return about, shift, tl.div_rn(1.0, tl.sqrt_rn(variance + EPS))


@triton.jit
def masked_patch_loss_fwd_kernel(
    pred,
    images,
    mask,
    mean,
    rstd,
    sums,
    count,
    pred_image_stride,
    pred_patch_stride,
    pred_element_stride,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    PATCHES: tl.constexpr,
    COLUMNS: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """sums (2, programs): mean squared errors of ROWS patches, and how many of them are masked.

    Patches stay in registers, in chunks of BLOCK elements: a power of two that holds one whole would idle many lanes.
    """
    E: tl.constexpr = P * P * C
    pred_strides = (pred_image_stride, pred_patch_stride, pred_element_stride)
    strides = (image_stride, channel_stride, row_stride, column_stride)
    patch = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    masked = tl.load(mask + patch, mask=patch < count, other=0) != 0
    targets = ()
    predictions = ()
    for first in tl.static_range(0, E, BLOCK):
        target = load_patches(
            images, strides, patch // PATCHES, patch % PATCHES, masked, first, P, C, COLUMNS, SCALE, OFFSET, BLOCK
        )
        x = _load_predictions(pred, pred_strides, patch, masked, first, PATCHES, E, BLOCK)
        targets = targets + (target,)
        predictions = predictions + (x,)
    about = tl.zeros((ROWS,), tl.float32)
    shift = tl.zeros((ROWS,), tl.float32)
    r = tl.full((ROWS,), 1.0, tl.float32)
    if mean is not None:
        about, shift, r = _statistics(targets, E, ROWS, BLOCK)
        tl.store(mean + patch, tl.where(masked, about + shift, 0.0), mask=patch < count)
        tl.store(rstd + patch, tl.where(masked, r, 0.0), mask=patch < count)
    errors = tl.zeros((ROWS, BLOCK), tl.float32)
    for i in tl.static_range(len(targets)):
        d = predictions[i] + (shift * r)[:, None] - (targets[i] - about[:, None]) * r[:, None]
        d = _inside(d, i * BLOCK, E)
        errors += d * d
    error = tl.where(masked, tl.sum(errors, axis=1), 0.0)
    tl.store(sums + tl.program_id(0), tl.sum(error) / E)
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(masked.to(tl.float32)))


@triton.jit
def masked_patch_loss_mean_kernel(sums, loss, count, size, BLOCK: tl.constexpr):
    errors = tl.zeros((BLOCK,), tl.float32)
    masked = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        index = start + tl.arange(0, BLOCK)
        errors += tl.load(sums + index, mask=index < size, other=0.0)
        masked += tl.load(sums + size + index, mask=index < size, other=0.0)
    tl.store(loss, tl.div_rn(tl.sum(errors), tl.sum(masked)))
    tl.store(count, tl.sum(masked))


@triton.jit
def masked_patch_loss_bwd_kernel(
    grad,
    pred,
    images,
    mask,
    mean,
    rstd,
    masked_count,
    dpred,
    count,
    pred_image_stride,
    pred_patch_stride,
    pred_element_stride,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    PATCHES: tl.constexpr,
    COLUMNS: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK elements of ROWS patches."""
    E: tl.constexpr = P * P * C
    pred_strides = (pred_image_stride, pred_patch_stride, pred_element_stride)
    strides = (image_stride, channel_stride, row_stride, column_stride)
    CHUNKS: tl.constexpr = tl.cdiv(E, BLOCK)
    patch = tl.program_id(0) // CHUNKS * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(0) % CHUNKS * BLOCK
    masked = tl.load(mask + patch, mask=patch < count, other=0) != 0
    target = load_patches(
        images, strides, patch // PATCHES, patch % PATCHES, masked, first, P, C, COLUMNS, SCALE, OFFSET, BLOCK
    )
    x = _load_predictions(pred, pred_strides, patch, masked, first, PATCHES, E, BLOCK)
    if mean is not None:
        m = tl.load(mean + patch, mask=masked, other=0.0)
        target = (target - m[:, None]) * tl.load(rstd + patch, mask=masked, other=0.0)[:, None]
    factor = tl.div_rn(2.0 * tl.load(grad).to(tl.float32), tl.load(masked_count) * E)
    d = tl.where(masked[:, None], factor * (x - target), 0.0)
    e = first + tl.arange(0, BLOCK)
    pointers = dpred + patch.to(tl.int64)[:, None] * E + e[None, :]
    tl.store(pointers, d.to(dpred.dtype.element_ty), mask=(patch < count)[:, None] & (e < E)[None, :])


def forward(
    pred: Tensor,
    images: Tensor,
    mask: Tensor,
    patch_size: int,
    norm_pix: bool,
    scale: list[float],
    offset: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss and count, 0-dim; mean and rstd (B, L) of the masked targets, 0 elsewhere, or (0, 0) without norm_pix.

    pred (B, L, P·P·C) and images (B, C, H, W) of any strides, mask (B, L). All results are float32.
    """
    images, elements = compact(images), pred.shape[2]
    block = max(32, next_power_of_2(cdiv(elements, CHUNKS)))
    size = cdiv(elements, block) * block
    warps = min(32, max(4, next_power_of_2(cdiv(size, 32 * THREAD))))
    rows = next_power_of_2(max(1, 32 * THREAD * warps // size) + 1) // 2
    programs = cdiv(mask.numel(), rows)
    sums = torch.empty(2, programs, dtype=torch.float32, device=pred.device)
    loss, count = (torch.empty((), dtype=torch.float32, device=pred.device) for _ in range(2))
    mean, rstd = (sums.new_empty(mask.shape if norm_pix else (0, 0)) for _ in range(2))
    with torch.cuda.device_of(pred):
        masked_patch_loss_fwd_kernel[(programs,)](
            pred,
            images,
            _bytes(mask),
            mean if norm_pix else None,
            rstd,
            sums,
            mask.numel(),
            *pred.stride(),
            *images.stride(),
            **_layout(pred, images, patch_size),
            SCALE=tuple(scale),
            OFFSET=tuple(offset),
            ROWS=rows,
            BLOCK=block,
            num_warps=warps,
        )
        masked_patch_loss_mean_kernel[(1,)](sums, loss, count, programs, BLOCK=4096, num_warps=16)
    return loss, mean, rstd, count


def backward(
    grad: Tensor,
    pred: Tensor,
    images: Tensor,
    mask: Tensor,
    mean: Tensor,
    rstd: Tensor,
    count: Tensor,
    patch_size: int,
    norm_pix: bool,
    scale: list[float],
    offset: list[float],
) -> Tensor:
    """dpred (B, L, P·P·C) in the dtype of pred, zero where nothing is masked."""
    images, elements = compact(images), pred.shape[2]
    rows, block = row_tile(elements)
    dpred = torch.empty(pred.shape, dtype=pred.dtype, device=pred.device)
    with torch.cuda.device_of(pred):
        masked_patch_loss_bwd_kernel[(cdiv(mask.numel(), rows) * cdiv(elements, block),)](
            grad,
            pred,
            images,
            _bytes(mask),
            mean if norm_pix else None,
            rstd,
            count,
            dpred,
            mask.numel(),
            *pred.stride(),
            *images.stride(),
            **_layout(pred, images, patch_size),
            SCALE=tuple(scale),
            OFFSET=tuple(offset),
            ROWS=rows,
            BLOCK=block,
            num_warps=4,
        )
    return dpred


def _bytes(mask: Tensor) -> Tensor:
    return mask.contiguous().view(torch.uint8)


def _layout(pred: Tensor, images: Tensor, patch_size: int) -> dict[str, int]:
    """The kernels' parameters about patches."""
    return {"PATCHES": pred.shape[1], "COLUMNS": images.shape[3] // patch_size, "P": patch_size, "C": images.shape[1]}
