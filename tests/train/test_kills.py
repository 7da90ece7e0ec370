from __future__ import annotations

import os
import re
import subprocess
import sys

import kills
import pytest


@pytest.mark.parametrize("count", [3, pytest.param(100, marks=pytest.mark.long)])
def test_killed_runs_end_with_the_same_bits(count: int) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, kills.__file__, "--kills", str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    killed, runs, on_shards = map(int, re.findall(r"(\d+) (?:processes|runs)", done.stdout))
    assert killed >= count
    assert runs >= 1
    assert on_shards == 4
