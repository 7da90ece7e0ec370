"""Makes Triton's interpreter (TRITON_INTERPRET=1) do bfloat16 and dots as a GPU does; import it before a kernel runs.

It stores bfloat16 as 16-bit integers, which its dot product multiplies as integers, and truncates where a GPU rounds.
Of inline assembly, which it refuses, it learns the one instruction that the kernels have.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

_cast = InterpreterBuilder.cast_impl


def widened(x: TensorHandle) -> TensorHandle:
    """bfloat16 as float32."""
    if x.dtype.scalar != tl.bfloat16:
        return x
    bits = torch.from_numpy(np.ascontiguousarray(x.data))
    return TensorHandle(bits.view(torch.bfloat16).float().numpy(), tl.float32)


def _create_dot(self, a, b, d, *_):
    """Term by term, a product and a sum rounded once, as a GPU does: the order in which numpy's library sums depends on
    the CPU, and may differ between x·y and y·x."""
    a, b, total = widened(a).data.astype(np.float64), widened(b).data.astype(np.float64), d.data
    for k in range(a.shape[-1]):
        total = (total + a[..., :, k, None] * b[..., None, k, :]).astype(d.data.dtype)
    return TensorHandle(total, d.dtype.scalar)


def _cast_impl(self, source, target):
    if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
        return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)
    return _cast(self, source, target)


def _create_inline_asm(self, assembly, constraints, values, *rest):
    if assembly != "mov.b32 $0, $1;":
        raise NotImplementedError(assembly)
    return SimpleNamespace(get_result=values.__getitem__)


InterpreterBuilder.create_dot = _create_dot
InterpreterBuilder.create_inline_asm = _create_inline_asm
InterpreterBuilder.cast_impl = _cast_impl
