"""A softmax that streams over negatives, on the CPU: 2 or, with the weighted sum, 4 R·C·D operations; backward 4. Of
rows among themselves R²·D; backward 2 R²·D and, where the cosines are not kept, 1 more."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu import contrastive
from sslfast.kernels.cpu.contrastive import address, contiguous, floats, kept, rows, value
from sslfast.kernels.cpu.memory import empty


def forward(
    x: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    temperature: float,
    tau: Tensor | None,
    with_weighted: bool,
    row_ids: Tensor | None = None,
    column_ids: Tensor | None = None,
    positives: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, columns, positives, *ids = contiguous(x, columns, positives, row_ids, column_ids)
    count, d = x.shape
    rank = empty(0 if positives is None else count, dtype=torch.int64)
    shift, total, weighted = floats(count), floats(count), floats(count if with_weighted else 0, d)
    _C.negatives_forward(
        rows(x),
        count,
        rows(columns),
        len(columns),
        skip_diagonal,
        *map(address, ids),
        None if positives is None else rows(positives),
        value(temperature, tau),
        shift.data_ptr(),
        total.data_ptr(),
        rows(weighted) if with_weighted else None,
        0 if positives is None else rank.data_ptr(),
    )
    return shift, total, weighted, rank


def backward(
    x: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    row_factor: Tensor | None,
    row_shift: Tensor | None,
    column_factor: Tensor | None,
    column_shift: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    row_ids: Tensor | None = None,
    column_ids: Tensor | None = None,
) -> Tensor:
    vectors = (row_ids, column_ids, row_factor, row_shift, column_factor, column_shift)
    x, columns, *vectors = contiguous(x, columns, *vectors)
    out = floats(*x.shape)
    _C.negatives_backward(
        rows(x),
        len(x),
        rows(columns),
        len(columns),
        skip_diagonal,
        *map(address, vectors),
        value(temperature, tau),
        rows(out),
    )
    return out


def cosines(x: Tensor, wanted: bool) -> int:
    """Floats for the cosines among rows that the forward pass keeps."""
    blocks = contrastive.blocks(x.shape[0])
    return contrastive.cosines(x, blocks * (blocks + 1) // 2, wanted)


def among_forward(
    x: Tensor,
    ids: Tensor | None,
    labels: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    with_cosines: bool,
    with_rank: bool = False,
) -> tuple[Tensor, ...]:
    x, ids, labels = contiguous(x, ids, labels)
    shift, total, positive = floats(len(x)), floats(len(x)), floats(0 if labels is None else len(x))
    room, rank = floats(cosines(x, with_cosines)), empty(len(x) if with_rank else 0, dtype=torch.int64)
    _C.negatives_among_forward(
        rows(x),
        len(x),
        address(ids),
        address(labels),
        value(temperature, tau),
        shift.data_ptr(),
        total.data_ptr(),
        positive.data_ptr(),
        rank.data_ptr() if with_rank else 0,
        kept(room),
    )
    return shift, total, positive, room, rank


def among_backward(
    x: Tensor,
    ids: Tensor | None,
    labels: Tensor | None,
    factor: Tensor,
    shift: Tensor,
    pull: Tensor | None,
    cosines: Tensor,
    temperature: float,
    tau: Tensor | None,
) -> Tensor:
    x, ids, labels, factor, shift, pull = contiguous(x, ids, labels, factor, shift, pull)
    out = floats(*x.shape)
    _C.negatives_among_backward(
        rows(x),
        len(x),
        *map(address, (ids, labels, factor, shift, pull)),
        kept(cosines),
        value(temperature, tau),
        rows(out),
    )
    return out
