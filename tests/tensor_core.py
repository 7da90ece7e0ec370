"""A pytest plugin: dots in Triton's interpreter come out as on a tensor core of sm_90 (pytest -p tensor_core).

The arithmetic is that of MMA-Sim, https://arxiv.org/abs/2511.10909, which was compared with the chips bit by bit: a
step adds 16 products of 16-bit numbers, or 8 of tf32, to the accumulator; all of them lose their bits below 2**-25 of
the largest, their sum its bits below those of float32. That the steps go by rising index is an assumption.
"""

from __future__ import annotations

import numpy as np
import triton.language as tl
from triton._C.libtriton import ir
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle
from triton_interpreter import widened

FRACTION_BITS = 25
OF_ZERO = -(2**12)  # an exponent below all others


def to_tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to 10 bits of fraction, halves away from zero: cvt.rna.tf32.f32."""
    rounded = ((x.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def read_as_tf32(x: np.ndarray) -> np.ndarray:
    """As a tensor core reads float32: the lowest 13 bits do not count."""
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def _toward_zero(x: np.ndarray) -> np.ndarray:
    """float64 to float32."""
    nearest = x.astype(np.float32)
    beyond = (np.abs(nearest.astype(np.float64)) > np.abs(x)) & np.isfinite(nearest)
    return np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)


def _exponents(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, OF_ZERO, np.frexp(x)[1] - 1)


def multiply_add(a: np.ndarray, b: np.ndarray, total: np.ndarray, step: int) -> np.ndarray:
    """total + a @ b, float32, with (M, K) and (K, N) of numbers that a tensor core takes, `step` products at a time."""
    total = total.astype(np.float64)
    a, b = a.astype(np.float64)[:, :, None], b.astype(np.float64)[None]  # their products are exact
    of_a, of_b = _exponents(a), _exponents(b)
    for k in range(0, a.shape[1], step):
        now = slice(k, k + step)
        largest = np.maximum((of_a[:, now] + of_b[:, now]).max(axis=1), _exponents(total))
        unit = np.ldexp(1.0, np.maximum(largest, -500) - FRACTION_BITS)
        units = np.trunc(a[:, now] * b[:, now] / unit[:, None]).sum(axis=1) + np.trunc(total / unit)
        total = _toward_zero(units * unit).astype(np.float64)
    return total.astype(np.float32)


def tf32x3(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of float32 in three products, as Triton makes them: the small parts are read, not rounded, as tf32."""
    big_a, big_b = to_tf32(a), to_tf32(b)
    small_a, small_b = read_as_tf32(a - big_a), read_as_tf32(b - big_b)
    total = multiply_add(small_a, big_b, np.zeros((a.shape[0], b.shape[1]), np.float32), 8)
    total = multiply_add(big_a, small_b, total, 8)
    return multiply_add(big_a, big_b, np.where(np.isnan(total), np.float32(0), total), 8)


def _create_dot(self, a, b, total, precision, *_):
    x, y, z = (np.ascontiguousarray(widened(operand).data) for operand in (a, b, total))
    assert x.ndim == 2
    with np.errstate(all="ignore"):
        if a.dtype.scalar != tl.float32:
            result = multiply_add(x, y, z, 16)
        elif precision == ir.INPUT_PRECISION.TF32:
            result = multiply_add(read_as_tf32(x), read_as_tf32(y), z, 8)
        elif precision == ir.INPUT_PRECISION.TF32x3:
            result = tf32x3(x, y) + z
        else:  # not on tensor cores
            result = x @ y + z
    return TensorHandle(result, tl.float32)


InterpreterBuilder.create_dot = _create_dot
