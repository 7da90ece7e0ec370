"""The arithmetic of a tensor core in tests/tensor_core.py, on sums whose outcome is known."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("triton")

from tensor_core import multiply_add, read_as_tf32, tf32x3, to_tf32

BIT = 2.0**-23  # the last of 1.0 in float32


def summed(terms, start=0.0, step=8):
    """`terms` times one, added to `start`."""
    row = np.array([terms], dtype=np.float32)
    return multiply_add(row, np.ones_like(row.T), np.full((1, 1), start, np.float32), step).item()


@pytest.mark.parametrize(
    ("terms", "start", "expected"),
    [
        ([BIT / 2, BIT / 2], 1.0, 1 + BIT),  # summed before the sum is cut
        ([0.9 * BIT], 1.0, 1.0),  # cut, not rounded
        ([-0.1 * BIT], -1.0, -1.0),  # toward zero, on both sides
        ([BIT / 4] * 8, 1.0, 1 + 2 * BIT),  # two bits more than float32 are kept of each
        ([BIT / 8] * 8, 1.0, 1.0),  # three are not
        ([BIT / 8] * 8, 0.0, BIT),  # unless nothing is larger
        ([1.0, -1.0, BIT / 8], 0.0, 0.0),  # also where what was larger cancels
        ([2.0**-140], 0.0, 2.0**-140),
        ([np.inf, 1.0], 0.0, np.inf),
    ],
)
def test_a_step_cuts_each_term_and_then_the_sum(terms, start, expected):
    assert summed(terms, start) == expected


def test_what_cuts_one_step_leaves_the_next_alone():
    assert summed([1.0, -1.0] + [0.0] * 6 + [BIT / 8]) == BIT / 8
    assert summed([1.0, -1.0] + [0.0] * 6 + [BIT / 8], step=16) == 0.0


def test_nan_stays():
    assert np.isnan(summed([np.nan, 1.0])).all()
    assert np.isnan(summed([np.inf, -np.inf])).all()


def test_tf32_has_ten_bits():
    third = np.array([1 + 3 * 2.0**-11, -1 - 3 * 2.0**-11, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(to_tf32(third), np.array([1 + 2.0**-9, -1 - 2.0**-9, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(read_as_tf32(third[:2]), np.array([1 + 2.0**-10, -1 - 2.0**-10], np.float32))


def test_three_products_of_tf32_are_nearly_float32():
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 64), (64, 16)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    zeros = np.zeros((16, 16), np.float32)

    def error(result):
        return np.linalg.norm(result - exact) / np.linalg.norm(exact)

    assert 2.0**-14 < error(multiply_add(read_as_tf32(a), read_as_tf32(b), zeros, 8)) < 2.0**-9
    assert 2.0**-25 < error(tf32x3(a, b)) < 2.0**-20
