"""Evaluation and report of a run whose files are damaged: one clear line, and no number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sslfast.checkpoint import CHECKPOINT
from sslfast.cli import main
from sslfast.evaluate import Run


def damage(path: Path, count: int = 200) -> None:
    """Other bytes in the middle, where the weights are."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + count] = bytes(byte ^ 0x55 for byte in content[middle : middle + count])
    path.write_bytes(content)


COMMANDS = ("evaluate {run} --protocol knn --device cpu", "report {run} --device cpu")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("finished", [True, False])
def test_damaged_weights_are_not_judged(
    finished: bool, command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if finished:
        damage(run / "exported" / "backbone.safetensors")
        words = "backbone.safetensors is damaged: its weights are not those of its checksum"
    else:
        shutil.rmtree(run / "exported")
        damage(run / CHECKPOINT)
        words = "before it is whole: --resume auto continues the run from there"
    assert main(command.format(run=run).split()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sslfast: error: ")
    assert words in last
    assert not (run / "report.html").exists()
    assert not (run / "results.json").exists()


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"epochs": "ten"}),
        ("config.json", {"seed": None}),
        ("config.json", {"backbone": 5}),
        ("config.json", {"batch_size": "many"}),
        ("config.json", {"image_size": [8]}),
        ("config.json", {"method": "magic"}),
        ("config.json", {"unknown_field": 1}),
        ("exported/config.json", {"backbone": 5}),
        ("exported/config.json", {"image_size": "large"}),
        ("exported/config.json", {"in_channels": None}),
        ("environment.json", {"device": "gpu"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", COMMANDS)
def test_other_types_in_a_file_are_one_line(
    command: str, file: str, changes: dict, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if file == "environment.json" and command.startswith("evaluate"):
        pytest.skip("evaluation does not read it")
    path = run / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert main(command.format(run=run).split()) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("sslfast: error: ")


def test_metrics_of_other_types_are_left_out(run: Path) -> None:
    before = Run(run).metrics
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": "one"}\n[1, 2]\n3\n{"loss": null}\n{"step"')
    assert Run(run).metrics == before
