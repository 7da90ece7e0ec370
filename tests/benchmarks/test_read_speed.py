"""Images a second from files are measured for every loader, and written as rows of the harness."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report

pytest.importorskip("lightly")


@pytest.mark.long
def test_rows_of_a_short_run_and_memory_by_epochs(tmp_path: Path) -> None:
    script = Path(report.__file__).with_name("read_speed.py")

    def run(*options: str) -> str:
        few = ["--images", "12", "--distinct", "6", "--turn", "8", "--size", "32", "--workers", "1", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(script), *few], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("--rounds", "2", "--output", str(tmp_path))
    with open(tmp_path / "read_speed-cpu.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["peer"] for row in rows] == ["torchvision", "lightly", "sslfast"] * 2
    assert [row["case"] for row in rows[2:4]] == ["JPEG 500x400, decoded", "JPEG 500x400, two SimCLR views of 32 px"]
    for row in rows:
        images = 8 / float(row["median_ms"]) * 1e3
        assert float(row["note"].partition(" ")[0]) == pytest.approx(images, rel=1e-2, abs=1)
    lines = run("--epochs", "2").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert "12 images" in lines[0]
