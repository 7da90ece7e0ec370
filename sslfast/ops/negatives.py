"""The streaming softmax over a block of negatives, which the contrastive losses share; no (R, C) tensor in memory."""

from __future__ import annotations

import torch

from sslfast.kernels import reference
from sslfast.kernels.cpu import negatives as cpu
from sslfast.ops.layout import require
from sslfast.ops.registry import HAS_CPU_KERNELS, define_op, lazily


def _reference_forward(
    rows, columns, skip_diagonal, temperature, tau, with_weighted, row_ids=None, column_ids=None, positives=None
):
    exact = torch.promote_types(rows.dtype, torch.float32)
    return reference.negatives_forward(
        rows.to(exact),
        columns.to(exact),
        skip_diagonal,
        temperature if tau is None else tau,
        with_weighted,
        row_ids,
        column_ids,
        None if positives is None else positives.to(exact),
    )


def _reference_backward(
    rows,
    columns,
    skip_diagonal,
    row_factor,
    row_shift,
    column_factor,
    column_shift,
    temperature,
    tau,
    row_ids=None,
    column_ids=None,
):
    exact = torch.promote_types(rows.dtype, torch.float32)
    return reference.negatives_backward(
        rows.to(exact),
        columns.to(exact),
        skip_diagonal,
        row_factor,
        row_shift,
        column_factor,
        column_shift,
        temperature if tau is None else tau,
        row_ids,
        column_ids,
    )


def _reference_among_forward(rows, ids, labels, temperature, tau, with_cosines, with_rank=False):
    exact = torch.promote_types(rows.dtype, torch.float32)
    partners = rows.roll(rows.shape[0] // 2, 0) if with_rank else None
    shift, total, _, rank = _reference_forward(rows, rows, True, temperature, tau, False, ids, ids, partners)
    positive = shift.new_empty(0)
    if labels is not None:
        same = (labels[:, None] == labels).fill_diagonal_(False)
        positive = torch.where(same, rows.to(exact) @ rows.to(exact).T, 0).sum(dim=1)
    return shift, total, positive, rows.new_empty(0, dtype=torch.float32), rank


def _reference_among_backward(rows, ids, labels, factor, shift, pull, cosines, temperature, tau):
    du = _reference_backward(rows, rows, True, factor, shift, factor, shift, temperature, tau, ids, ids)
    if labels is None:
        return du
    same = (labels[:, None] == labels).fill_diagonal_(False)
    return du - torch.where(same, pull[:, None] + pull, 0) @ rows.to(du.dtype)


def _fake_forward(
    rows, columns, skip_diagonal, temperature, tau, with_weighted, row_ids=None, column_ids=None, positives=None
):
    shift, total, weighted = (
        rows.new_empty(shape, dtype=torch.promote_types(rows.dtype, torch.float32))
        for shape in (rows.shape[0], rows.shape[0], (rows.shape[0] if with_weighted else 0, rows.shape[1]))
    )
    return shift, total, weighted, rows.new_empty(0 if positives is None else rows.shape[0], dtype=torch.int64)


def _fake_among_forward(rows, ids, labels, temperature, tau, with_cosines, with_rank=False):
    kept = cpu.cosines(rows, with_cosines and HAS_CPU_KERNELS)
    partners = rows if with_rank else None
    shift, total, _, rank = _fake_forward(rows, rows, True, temperature, tau, False, positives=partners)
    positive = shift.new_empty(0 if labels is None else rows.shape[0])
    return shift, total, positive, rows.new_empty(kept, dtype=torch.float32), rank


def _fake_backward(rows, *_):
    return rows.new_empty(rows.shape, dtype=torch.promote_types(rows.dtype, torch.float32))


# Rows and columns of unit length; what comes out, and why, is in kernels/reference.py. Pairs of equal ids are no
# negatives. The rank counts those that are closer than the row of `positives`.
forward = define_op(
    "negatives_forward(Tensor rows, Tensor columns, bool skip_diagonal, float temperature, Tensor? tau,"
    " bool with_weighted, Tensor? row_ids=None, Tensor? column_ids=None, Tensor? positives=None)"
    " -> (Tensor shift, Tensor sum, Tensor weighted, Tensor rank)",
    fake=_fake_forward,
    reference=_reference_forward,
    cpu=cpu.forward,
    cuda=lazily("sslfast.kernels.triton.negatives", "forward"),
    layout={"rows": "R D: float", "columns": "C D: float", "positives": "R D: rows", "tau": ": float"}
    | {"row_ids": "R: int32", "column_ids": "C: int32"},
)
backward = define_op(
    "negatives_backward(Tensor rows, Tensor columns, bool skip_diagonal, Tensor? row_factor, Tensor? row_shift,"
    " Tensor? column_factor, Tensor? column_shift, float temperature, Tensor? tau, Tensor? row_ids=None,"
    " Tensor? column_ids=None) -> Tensor",
    fake=_fake_backward,
    reference=_reference_backward,
    cpu=cpu.backward,
    cuda=lazily("sslfast.kernels.triton.negatives", "backward"),
    layout={"rows": "R D: float", "columns": "C D: float", "tau": ": float"}
    | {"row_ids": "R: int32", "column_ids": "C: int32"}
    | dict.fromkeys(("row_factor", "row_shift"), "R: exact rows")
    | dict.fromkeys(("column_factor", "column_shift"), "C: exact rows"),
)
# The same of rows among themselves, each with all others; the pairs of one label are positives. Forward the sum of
# their cosines, backward less the sum of (pull_i + pull_j)·rows_j over them. `cosines` are what a CPU kernel keeps. The
# rank counts those that are closer than the row R / 2 apart.
among_forward = define_op(
    "negatives_among_forward(Tensor rows, Tensor? ids, Tensor? labels, float temperature, Tensor? tau,"
    " bool with_cosines, bool with_rank=False)"
    " -> (Tensor shift, Tensor sum, Tensor positive, Tensor cosines, Tensor rank)",
    fake=_fake_among_forward,
    reference=_reference_among_forward,
    cpu=cpu.among_forward,
    cuda=lazily("sslfast.kernels.triton.negatives", "among_forward"),
    layout={"rows": "R D: float", "tau": ": float"} | dict.fromkeys(("ids", "labels"), "R: int32"),
)
among_backward = define_op(
    "negatives_among_backward(Tensor rows, Tensor? ids, Tensor? labels, Tensor factor, Tensor shift, Tensor? pull,"
    " Tensor cosines, float temperature, Tensor? tau) -> Tensor",
    fake=_fake_backward,
    reference=_reference_among_backward,
    cpu=cpu.among_backward,
    cuda=lazily("sslfast.kernels.triton.negatives", "among_backward"),
    layout={"rows": "R D: float", "cosines": "C: float32", "tau": ": float"}
    | dict.fromkeys(("ids", "labels"), "R: int32")
    | dict.fromkeys(("factor", "shift", "pull"), "R: exact rows"),
    requires=lambda rows, ids, labels, factor, shift, pull, *_: require(
        "negatives_among_backward", "pull", "given with labels", labels is None or pull is not None, pull
    ),
)
