"""The training layer from Python."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import sslfast
from sslfast.train.bar import NotebookBar

SHORT = {"epochs": 1, "warmup_epochs": 0, "knn_every": 0, "batch_size": 512, "accelerator": "cpu"}


def test_from_a_method_to_features(tmp_path: Path) -> None:
    run = sslfast.pretrain("simclr", output=tmp_path / "run", **SHORT)
    assert run.finished
    found = sslfast.evaluate(run, "knn", k=5, device="cpu", limit=100)
    assert found["accuracy"] == sslfast.evaluate.read_results(run)["knn"]["accuracy"]
    features, labels, names, classes = sslfast.embed(run, split="test", device="cpu")
    assert features.shape == (len(labels), 64)
    assert features.isfinite().all()
    assert (len(names), classes) == (len(labels), [str(digit) for digit in range(10)])
    backbones = [sslfast.load_backbone(path) for path in (run, run.folder, run.folder / "exported")]
    inputs = torch.rand(2, 1, 8, 8)
    assert all(torch.equal(backbone(inputs), backbones[0](inputs)) for backbone in backbones)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(TypeError, match="simclr has no setting epoch; it has data"):
        sslfast.pretrain("simclr", epoch=3)


def test_a_notebook_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    handle = types.SimpleNamespace(update=shown.append)
    display = types.ModuleType("IPython.display")
    display.HTML = str
    display.display = lambda picture, display_id: shown.append(picture) or handle
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    bar = NotebookBar(4, 1)
    bar.status("loss < 1")
    bar.advance(4)
    bar.stop()
    assert 'value="1" max="4"' in shown[0]
    assert 'value="4" max="4"' in shown[-1]
    assert "4/4 loss &lt; 1" in shown[-1]


def test_several_devices_in_a_notebook_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(ValueError, match=r"devices is 2, but an interactive session cannot .* torchrun"):
        sslfast.pretrain("simclr", output=tmp_path / "run", devices=2, **SHORT)


def test_a_command_says_something_on_a_terminal_before_it_loads_torch() -> None:
    ours, theirs = pty.openpty()
    code = "import sys; from sslfast.cli import _command; sys.modules['torch'] = None; _command('recipes')"
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, stdin=subprocess.DEVNULL, check=False)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert done.returncode == 0
    assert shown.startswith(f"sslfast {sslfast.__version__}: recipes")
