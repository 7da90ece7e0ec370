from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sslfast.methods import METHODS

SCRIPT = Path(__file__).parents[2] / "examples" / "findings.py"


@pytest.fixture(scope="module")
def findings():
    specification = importlib.util.spec_from_file_location("findings", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["findings"] = module  # where dataclasses look for their module
    specification.loader.exec_module(module)
    return module


def test_a_difference_must_be_clear(findings) -> None:
    assert findings.verdict([0.70, 0.72, 0.71], [0.60, 0.61, 0.60])[0] == "yes"
    assert findings.verdict([0.60, 0.61, 0.60], [0.70, 0.72, 0.71])[0] == "the opposite"
    assert findings.verdict([0.605, 0.606], [0.600, 0.601])[0] == "no"  # clear, but half a point
    word, mean, error = findings.verdict([0.70, 0.60, 0.65], [0.60, 0.65, 0.60])  # +10, -5, +5
    assert word == "no"
    assert mean == pytest.approx(0.1 / 3)
    assert error == pytest.approx(0.0763763 / 3**0.5, rel=1e-4)
    assert findings.verdict([0.62], [0.60]) == ("yes", pytest.approx(0.02), None)
    with pytest.raises(ValueError, match="shorter"):
        findings.verdict([0.6, 0.7], [0.6])


def test_pairing_by_seed_decides(findings) -> None:
    better, worse = [0.50, 0.60, 0.70], [0.47, 0.575, 0.672]  # seeds differ more than the settings
    assert findings.verdict(better, worse)[0] == "yes"
    assert findings.verdict(better, worse[::-1])[0] == "no"


def test_every_run_must_ring_but_the_published_ones(findings) -> None:
    both = [True, True]
    assert findings.collapse_verdict({"as published": [False, False], "a": both, "b": both}) == "yes"
    assert findings.collapse_verdict({"as published": [False, False], "a": both, "b": [True, False]}) == "no"
    assert findings.collapse_verdict({"as published": [False, True], "a": both, "b": both}) == "no"


@pytest.mark.parametrize("data", ["photos", "digits", "folder:somewhere"])
def test_every_experiment_is_a_configuration(findings, data: str) -> None:
    for name, finding in findings.FINDINGS.items():
        configs = [findings.configuration(finding, setting, 1, data=data, epochs=8) for setting in finding.settings]
        assert len({str(config.to_dict()) for config in configs}) == len(configs), name
        for config in configs:
            assert isinstance(config, METHODS[finding.method].Config)
            assert (config.data, config.seed) == (data, 1)
        assert {finding.better, finding.worse} <= {*finding.settings, ""}
    batch = findings.FINDINGS["batch-steps"]
    few, many = (findings.configuration(batch, setting, 0, data=data, epochs=8) for setting in batch.settings)
    assert few.epochs / few.batch_size == many.epochs / many.batch_size


@pytest.mark.long
def test_two_findings_run_through_and_are_kept(tmp_path: Path) -> None:
    command = [
        sys.executable,
        SCRIPT,
        "--quick",
        "--only",
        "head",
        "byol-predictor",
        "--data",
        "digits",
        "--output",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "findings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["finding"] for row in rows] == ["head"] * 4 + ["byol-predictor"] * 4
    assert [row["seed"] for row in rows] == ["0", "1"] * 4
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    page = (tmp_path / "findings.md").read_text().splitlines()
    table = [line for line in page if line.startswith("|")]
    assert len(table) == 4
    assert all(line.endswith(("| yes |", "| no |", "| the opposite |")) for line in table[2:])
    with Image.open(tmp_path / "findings.png") as picture:
        assert picture.width > 600
    assert len(list((tmp_path / "runs").iterdir())) == 8

    logs = {path: path.read_bytes() for path in tmp_path.glob("runs/*/train.log")}
    subprocess.run(command, check=True, capture_output=True)
    assert {path: path.read_bytes() for path in tmp_path.glob("runs/*/train.log")} == logs
