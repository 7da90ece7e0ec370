"""Both ways of a training step compute the same, and their times are written as rows of the harness."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import report, train_speed

SMALL = {name: partial(build, batch=8) for name, build in train_speed.STEPS.items()}


@pytest.mark.parametrize("name", SMALL)
def test_both_ways_have_one_loss_and_one_gradient(name: str) -> None:
    torch.manual_seed(0)
    _, network, losses = SMALL[name]("cpu")
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = {}
    for way, loss in losses.items():
        torch.manual_seed(1)
        value = loss(network)
        found[way] = value, torch.cat([grad.flatten() for grad in torch.autograd.grad(value, trained)])
    (eager, eager_grad), (fused, fused_grad) = found["eager"], found["sslfast"]
    torch.testing.assert_close(fused, eager, rtol=1e-4, atol=0)
    assert (fused_grad - eager_grad).norm() < 1e-2 * eager_grad.norm()


def test_rows_of_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, path = "NT-Xent, a head of two layers on 2 x 8 features of 512", tmp_path / "train_speed-cpu.csv"
    report.write(path, [{"case": "another", "peer": "eager"}, {"case": case, "peer": "of an earlier run"}])
    monkeypatch.setattr(train_speed, "STEPS", SMALL)
    monkeypatch.setattr(train_speed, "machine", lambda device: {"device": device})
    monkeypatch.setattr(sys, "argv", ["train_speed.py", "--step", "head", "--seconds", "0", "--output", str(tmp_path)])
    assert train_speed.main() == 0
    other, *rows = report.read(path)
    assert other["case"] == "another"
    assert [(row["case"], row["peer"], row["rounds"]) for row in rows] == [(case, "eager", "5"), (case, "sslfast", "5")]
    medians = [float(row["median_ms"]) for row in rows]
    assert float(rows[1]["times_eager"]) == pytest.approx(medians[0] / medians[1], abs=0.01)
