"""Launches of the Triton kernels, without a GPU: a call like one before compiles nothing, and takes few launches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("triton")

from benchmarks.host import DEVICE, calls, kernels, without_gpu

SOURCES = Path(__file__).parents[2] / "kernels" / "triton"


def cached() -> dict[str, tuple[int, int]]:
    """Of every kernel that was launched: compiled variants, and combinations of arguments seen."""
    caches = {kernel.__name__: kernel.device_caches.get(DEVICE) for kernel in kernels()}
    return {name: (len(entry[0]), len(entry[1])) for name, entry in caches.items() if entry}


def test_repeated_calls_find_what_the_first_compiled():
    with without_gpu():
        functions = [function for both in calls().values() for function in both]
        for function in functions:
            function()
        first = cached()
        for function in functions:
            for _ in range(100):
                function()
        assert cached() == first


def test_every_kernel_is_among_the_calls():
    sources = "".join(path.read_text() for path in SOURCES.glob("*.py"))
    launched = set(re.findall(r"(\w+)\[(?:\(.*|grid)\]\(", sources))
    assert "gather_tokens_fwd_kernel" in launched
    with without_gpu():
        for both in calls().values():
            for function in both:
                function()
        assert set(cached()) == launched
