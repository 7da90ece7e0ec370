"""tests/gpu_session.py, with a device that is broken by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpu_session import turns

BREAKING = """
import torch

broken = False


def synchronize():
    if broken:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, synchronize


def test_first():
    pass


def test_that_breaks_the_device():
    global broken
    broken = True
    assert False, "here"


def test_after():
    pass
"""


def test_files_take_turns():
    assert turns([[1, 4, 6], [2], [3, 5]]) == [1, 2, 3, 4, 5, 6]


def test_a_broken_device_ends_the_process_and_the_report_of_the_test_stays(tmp_path):
    (tmp_path / "test_breaking.py").write_text(BREAKING)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    environment.pop("PYTEST_XDIST_WORKER", None)  # of the process that runs this test
    command = [sys.executable, "-m", "pytest", "-p", "gpu_session", "-p", "no:cacheprovider", "test_breaking.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "AssertionError: here" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "test_that_breaks_the_device left the device unusable: CUDA error: an illegal memory access" in done.stdout
