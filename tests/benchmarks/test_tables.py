"""What is written: CSV, table, verdicts, plots, and the command line around them."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report

BENCHMARKS = Path(report.__file__).parent
ROW = {"op": "nt_xent", "case": "M=4 D=2", "version": "1", "device": "cpu", "threads": 2, "dtype": "float32",
       "spread_percent": "3", "rounds": 9, "error": "1e-07", "torch": "2", "commit": "c", "processor": "p", "note": "",
       "floor_ms": "1"}  # fmt: skip


def rows() -> list[dict]:
    times = {"eager": ("10", "1.00", "80.0", "0.10"), "lightly": ("20", "0.50", "90.0", "0.05"),
             "sslfast": ("2", "5.00", "4.0", "0.50")}  # fmt: skip
    made = [
        ROW | {"peer": peer, "median_ms": ms, "times_eager": ratio, "peak_mib": mib, "fraction_of_floor": part}
        for peer, (ms, ratio, mib, part) in times.items()
    ]
    return [*made, ROW | {"peer": "torch.compile", "note": "failed the gate"}]


def test_csv_holds_every_column(tmp_path):
    report.write(tmp_path / "deep" / "nt_xent-cpu.csv", rows())
    with open(tmp_path / "deep" / "nt_xent-cpu.csv", newline="") as file:
        back = list(csv.DictReader(file))
    assert list(back[0]) == report.COLUMNS
    assert [row["peer"] for row in back] == ["eager", "lightly", "sslfast", "torch.compile"]
    assert back == report.read_all(tmp_path / "deep", "cpu")


def test_table_says_why_there_is_no_time():
    lines = report.table(rows()).splitlines()
    assert {line.count("|") for line in lines} == {len(report.SHOWN) + 1}
    assert "| torch.compile | failed the gate |" in lines[-1]
    assert "| sslfast | 2 | 3 | 5.00 | 4.0 | 0.50 |" in lines[-2]


@pytest.mark.parametrize(
    ("bars", "said"),
    [
        ({"times eager": 5}, "times eager ≥ 5: met (5)"),
        ({"times eager": 5.1}, "times eager ≥ 5.1: MISSED (5)"),
        ({"times lightly": 3}, "times lightly ≥ 3: met (10)"),
        ({"times torch.compile": 3}, "times torch.compile: not measured"),
        ({"memory of eager": 0.1}, "memory of eager ≤ 0.1: met (0.05)"),
        ({"memory of eager": 0.04}, "memory of eager ≤ 0.04: MISSED (0.05)"),
        ({"fraction of floor": 0.8}, "fraction of floor ≥ 0.8: MISSED (0.5)"),
        ({"milliseconds": 0.06}, "milliseconds ≤ 0.06: MISSED (2)"),
        ({}, ""),
    ],
)
def test_verdicts(bars, said):
    assert report.verdict(bars, rows()) == said


def test_no_time_meets_no_bar():
    assert report.verdict({"times eager": 1}, rows()[:2]) == "missed: no time"


def test_page_and_plots(tmp_path):
    tiny = [row | {"case": "M=2 D=2 (overhead)", "peak_mib": ""} for row in rows()]
    report.write(tmp_path / "nt_xent-cpu.csv", [row | {"bar": ""} for row in rows() + tiny])
    made = [path.name for path in report.render(tmp_path, "cpu")]
    assert made == ["bench-cpu.md", "speed-cpu.png", "memory-cpu.png", "overhead-cpu.png"]
    assert all((tmp_path / name).stat().st_size > 300 for name in made)
    assert "## nt_xent" in (tmp_path / "bench-cpu.md").read_text()
    assert report.render(tmp_path, "cuda") == []


def test_busy_rows_have_files_of_their_own(tmp_path):
    assert (report.place("cpu", 0), report.place("cpu", 2)) == ("cpu", "cpu-busy2")
    roofs = {"busy": 2, "gflops_thread": "50", "gflops": "99", "gb_s": "20"}
    report.write(tmp_path / "nt_xent-cpu-busy2.csv", [row | {"bar": ""} | roofs for row in rows()])
    assert report.render(tmp_path, "cpu") == []
    assert "bench-cpu-busy2.md" in [path.name for path in report.render(tmp_path, "cpu-busy2")]
    page = (tmp_path / "bench-cpu-busy2.md").read_text()
    assert page.splitlines()[0].endswith("torch 2, beside 2 busy processes")
    assert "float32 peak 99 GFLOP/s (50 by one thread), memory 20 GB/s" in page


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, BENCHMARKS / "run.py", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_command_line(tmp_path):
    arguments = ("--op", "random_patch_mask", "--without", "torch.compile", "--output", tmp_path)
    done = run(*arguments, "--case", "(nothing)")
    assert done.returncode == 2
    assert "no case contains '(nothing)'" in done.stderr
    done = run(*arguments, "--case", "B=2 L=16", "--seconds", 0.01)
    assert done.returncode == 0, done.stderr
    assert "| B=2 L=16 (overhead) | sslfast |" in done.stdout
    assert not list(tmp_path.iterdir())  # a part of an op is shown, not written
    assert "--busy must be at least 0, got -1" in run("--busy", -1).stderr
    listed = run("--list", "--op", "nt_xent", "--device", "cuda").stdout
    assert "M=65536 D=256 bfloat16" in listed


def test_gpu_script_is_a_script():
    subprocess.run(["bash", "-n", BENCHMARKS / "gpu.sh"], check=True)
