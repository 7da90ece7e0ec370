"""sslfast's own speed from version to version, by pytest-benchmark: `make bench-regression`.

pytest benchmarks/regression --benchmark-autosave                  # keep this run in .benchmarks
pytest benchmarks/regression --benchmark-compare --benchmark-compare-fail=median:10%
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.calls import make_call
from benchmarks.cases import CASES, Case

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.mark.parametrize("case", [c for c in CASES if c.device in DEVICES], ids=lambda c: f"{c.device} {c.op} {c.name}")
def test_speed(benchmark, case: Case):
    call = make_call(case, "sslfast", case.device)
    call()

    def run() -> None:
        call()
        if case.device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = case.op
    benchmark(run)
