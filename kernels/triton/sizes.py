"""Arithmetic on sizes at a launch: Triton's own functions of these names take microseconds a call on the host."""

from __future__ import annotations


def cdiv(x: int, y: int) -> int:
    """x / y, rounded up."""
    return -(-x // y)


def next_power_of_2(x: int) -> int:
    """The least power of two that is not below x >= 1."""
    return 1 << (x - 1).bit_length()
