"""Every block of docs/python-api.md, and every cell of the notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import sslfast

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
NOTEBOOK = json.loads((ROOT / "examples" / "from_python.ipynb").read_text(encoding="utf-8"))


def run_all(blocks: list[str]) -> dict:
    names: dict = {}
    for block in blocks:
        exec(compile(block, "<block>", "exec"), names)
    return names


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 4
    names = run_all(BLOCKS)
    assert names["features"].shape == (64, 64)
    assert (tmp_path / "features.npz").is_file()
    assert names["own"].config["backbone"].startswith("given:Sequential-")
    assert names["loss"].isfinite()
    assert set(sslfast.evaluate.read_results("runs/first")) == {"knn"}  # the data passed again are the run's own


def test_every_cell_of_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not any(cell.get("outputs") for cell in NOTEBOOK["cells"])
    run_all([cell["source"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"])
    assert "torch.Size([1, 64])" in capsys.readouterr().out
