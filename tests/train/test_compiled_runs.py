"""`compile`: one graph a method, the losses of eager, nothing compiled anew from step to step, and the same resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import shrink, small_config
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from toys import assert_resumes_exactly

from sslfast.methods import METHODS, Method
from sslfast.train import pretrain


def metrics(run: Path) -> list[dict[str, float]]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts graphs, and runs them without generating code: what is traced and differentiated is the same."""
    counter = CompileCounterWithBackend("aot_eager")

    def compile(method: Method, **options: object) -> None:
        nn.Module.compile(method, backend=counter, **options)

    monkeypatch.setattr(Method, "compile", compile, raising=False)
    torch._dynamo.reset()
    return counter


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_one_graph_with_the_losses_of_eager(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counter: CompileCounterWithBackend
) -> None:
    shrink(monkeypatch)
    found = {}
    for compiled in (False, True):
        # kNN after the first epoch changes modes and back.
        config = small_config(name, tmp_path, compile=compiled, log_every=1, knn_every=1)
        run = tmp_path / f"compiled-{compiled}"
        pretrain(config, run)
        found[compiled] = metrics(run)
    assert counter.frame_count == 1
    assert len(found[True]) >= 6
    for eager, compiled in zip(found[False], found[True], strict=True):
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-5)
        assert compiled.keys() == eager.keys()


def test_a_compiled_run_resumes_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counter: CompileCounterWithBackend
) -> None:
    shrink(monkeypatch)
    assert_resumes_exactly(small_config("byol", tmp_path, compile=True), tmp_path, step=5)


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_generated_code_has_the_losses_of_eager_and_resumes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch)
    torch._dynamo.reset()
    with torch._inductor.config.patch(fallback_random=True):  # dropout of the same bits as eager's
        for compiled in (False, True):
            pretrain(small_config(name, tmp_path, compile=compiled, log_every=1), tmp_path / f"compiled-{compiled}")
    eager, compiled = ([line["loss"] for line in metrics(tmp_path / f"compiled-{flag}")] for flag in (False, True))
    assert compiled == pytest.approx(eager, rel=2e-4)
    torch._dynamo.reset()
    assert_resumes_exactly(small_config(name, tmp_path, compile=True), tmp_path, step=5)
