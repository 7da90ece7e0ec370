"""The streaming softmax over a block of negatives, which the contrastive losses share; no (R, C) tensor in memory."""

from __future__ import annotations

import torch

from sslfast.kernels import reference
from sslfast.kernels.cpu import negatives as cpu
from sslfast.ops.registry import define_op, lazily


def _reference_forward(rows, columns, skip_diagonal, temperature, tau, with_weighted):
    exact = torch.promote_types(rows.dtype, torch.float32)
    temperature = temperature if tau is None else tau
    return reference.negatives_forward(rows.to(exact), columns.to(exact), skip_diagonal, temperature, with_weighted)


def _reference_backward(rows, columns, skip_diagonal, row_factor, row_shift, column_factor, column_shift, temp, tau):
    exact = torch.promote_types(rows.dtype, torch.float32)
    return reference.negatives_backward(
        rows.to(exact), columns.to(exact), skip_diagonal, row_factor, row_shift, column_factor, column_shift,
        temp if tau is None else tau,
    )  # fmt: skip


def _fake_forward(rows, columns, skip_diagonal, temperature, tau, with_weighted):
    shift, total, weighted = (
        rows.new_empty(shape, dtype=torch.promote_types(rows.dtype, torch.float32))
        for shape in (rows.shape[0], rows.shape[0], (rows.shape[0] if with_weighted else 0, rows.shape[1]))
    )
    return shift, total, weighted


def _fake_backward(rows, *_):
    return rows.new_empty(rows.shape, dtype=torch.promote_types(rows.dtype, torch.float32))


# Rows and columns of unit length; what comes out, and why, is in kernels/reference.py.
forward = define_op(
    "negatives_forward(Tensor rows, Tensor columns, bool skip_diagonal, float temperature, Tensor? tau,"
    " bool with_weighted) -> (Tensor shift, Tensor sum, Tensor weighted)",
    fake=_fake_forward,
    reference=_reference_forward,
    cpu=cpu.forward,
    cuda=lazily("sslfast.kernels.triton.negatives", "forward"),
    layout={"rows": "R D: float", "columns": "C D: float", "tau": ": float"},
)
backward = define_op(
    "negatives_backward(Tensor rows, Tensor columns, bool skip_diagonal, Tensor? row_factor, Tensor? row_shift,"
    " Tensor? column_factor, Tensor? column_shift, float temperature, Tensor? tau) -> Tensor",
    fake=_fake_backward,
    reference=_reference_backward,
    cpu=cpu.backward,
    cuda=lazily("sslfast.kernels.triton.negatives", "backward"),
    layout={"rows": "R D: float", "columns": "C D: float", "tau": ": float"}
    | dict.fromkeys(("row_factor", "row_shift"), "R: exact rows")
    | dict.fromkeys(("column_factor", "column_shift"), "C: exact rows"),
)
