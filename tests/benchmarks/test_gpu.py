"""What benchmarks/gpu.sh is made of, as far as it goes without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import smoke

ROOT = Path(__file__).parents[2]


def smoke_main(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["smoke.py", *map(str, arguments)])
    return smoke.main()


def test_smoke_checks_on_a_cpu(monkeypatch, capsys):
    assert smoke_main(monkeypatch, "check", "gather_tokens", "ema_update_", "--tiny", "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok"]


@pytest.mark.parametrize("wrong", [1.0, float("nan")])
def test_smoke_tells_a_wrong_result_and_goes_on(wrong, monkeypatch, capsys):
    errors = iter([0.0, wrong, 0.0, 0.0])
    monkeypatch.setattr(smoke, "error", lambda results, exact: next(errors))
    assert smoke_main(monkeypatch, "check", "gather_tokens", "gather_patches", "--tiny", "--device", "cpu") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["WRONG", "ok"]


def test_smoke_times_on_a_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(smoke, "rate", lambda device, dtype=None: 1e12)
    assert smoke_main(monkeypatch, "time", "gather_tokens", "--tiny", "--device", "cpu", "--seconds", 0.01,
                      "--output", tmp_path) == 0  # fmt: skip
    assert "gather_tokens" in (tmp_path / "smoke-cpu.csv").read_text()
    assert "copy: 1 TB/s" in capsys.readouterr().out


def test_smoke_knows_the_ops(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        smoke_main(monkeypatch, "check", "sorting")
    assert "no such op: sorting" in capsys.readouterr().err


@pytest.mark.long
def test_kernels_compiled_without_a_gpu_are_found_again_elsewhere(tmp_path):
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_CACHE_DIR": "cache", "TRITON_STORE_BINARY_ONLY": "1"}
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "compile_only.py", "gather_tokens"]

    def run(folder: Path) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()[-1]

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    first = run(here)
    here.rename(there)
    kernels = int(first.split()[0])
    assert first == f"{kernels} kernels compiled, 0 in the cache already, 0 cases failed"
    assert kernels >= 2
    assert run(there) == f"0 kernels compiled, {kernels} in the cache already, 0 cases failed"


def test_the_script_says_how_it_is_called():
    done = subprocess.run(["bash", ROOT / "benchmarks" / "gpu.sh"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "gpu.sh smoke" in done.stdout
