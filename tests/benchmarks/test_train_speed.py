"""Training's images a second are measured on whole steps, and written as rows of the harness."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report


@pytest.mark.slow
def test_rows_of_a_short_run(tmp_path: Path) -> None:
    script = Path(report.__file__).with_name("train_speed.py")
    case, path = "SimCLR digits resnet20 8 px mnist-like B=16", tmp_path / "train_speed-cpu.csv"
    report.write(path, [{"case": "another", "peer": "eager"}, {"case": case, "peer": "of an earlier run"}])
    options = "--recipe simclr --batch-size 16 --steps 1 --rounds 2"
    done = subprocess.run(
        [sys.executable, str(script), *options.split(), "--output", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    other, *rows = report.read(path)
    assert other["case"] == "another"
    assert [row["peer"] for row in rows] == ["eager", "sslfast", "none"]
    for row in rows:
        assert row["case"] == case
        assert row["rounds"] == "2"
        images = 16 / float(row["median_ms"]) * 1e3
        assert float(row["note"].partition(" ")[0]) == pytest.approx(images, rel=1e-2, abs=1)
    assert rows[0]["times_eager"] == "1.00"
    assert "images/s" in done.stdout
