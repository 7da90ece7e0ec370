"""Every command and every line of Python of docs/own-data.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslfast.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
SHORT = ["--epochs", "1", "--warmup-epochs", "0", "--image-size", "8", "--accelerator", "cpu"]


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(15):
            size = (12, 9 + i % 3, 3)
            Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)).save(tmp_path / f"pictures/{name}/{i}.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 5
    for language, block in blocks:
        if language:
            found = {}
            exec(block, found)
            assert len(found["features"]) == len(found["labels"]) == 24
            continue
        for line in block.splitlines():
            program, command, *options = shlex.split(line)
            assert program == "sslfast"
            assert main([command, *options, *(SHORT if command == "pretrain" else [])]) == 0, line
    assert (tmp_path / "views.png").is_file()
    assert (tmp_path / "runs" / "pictures" / "report.html").is_file()
    assert {path.name for path in (tmp_path / "runs" / "pictures" / "exported").iterdir()} >= {"config.json"}
