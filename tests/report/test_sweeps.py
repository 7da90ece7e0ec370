"""Runs of a sweep beside each other: what differs, means over seeds, curves; and what is passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sslfast.cli import main
from sslfast.evaluate import read_results
from sslfast.recipes import RECIPES
from sslfast.report.compare import Comparison
from sslfast.report.differences import by_seed, differing
from sslfast.report.figures import TEN

CONFIG = RECIPES["simclr"].config.to_dict()


def write_run(folder: Path, accuracy: float, **changes: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    lines = [{"step": k, "epoch": k / 2, "loss": 4 - k * accuracy} for k in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    entry = {
        "protocol": "knn", "metric": "accuracy", "accuracy": accuracy, "baselines": {"random_init": 0.5},
        "baseline_details": {"random_init": {}}, "data": "digits", "train_examples": 9, "test_examples": 5,
        "limit": None, "seed": 0, "run_seed": 0, "settings": {}, "epoch": 100, "epochs": 100, "method": "simclr",
        "backbone": "resnet20",
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps({"knn": entry}))
    assert read_results(folder)
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for temperature, accuracies in ((0.1, (0.80, 0.82)), (0.5, (0.70, 0.76))):
        for seed, accuracy in enumerate(accuracies):
            write_run(tmp_path / "sweep" / f"t{temperature}-s{seed}", accuracy, temperature=temperature, seed=seed)
    (tmp_path / "sweep" / "notes.txt").touch()
    (tmp_path / "sweep" / "empty").mkdir()
    return tmp_path / "sweep"


def test_what_differs_has_a_column_and_seeds_a_mean(sweep: Path) -> None:
    text = Comparison(sorted(sweep.iterdir())).text().splitlines()
    assert text[0].split() == ["run", "method", "backbone", "epochs", "temperature", "kNN"]
    assert text[1].split()[-4:] == ["100", "0.1", "80.0%", "(50.0%)"]
    means = [line.split()[-4:] for line in text if line.startswith("mean of 2 seeds")]
    assert means == [["0.1", "81.0%", "±", "1.4"], ["0.5", "73.0%", "±", "4.2"]]
    assert "Passed over, being no run: empty, notes.txt." in text


def test_the_page_of_a_sweep_has_the_curves(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = sweep.parent / "all.html"
    assert main(["compare", *map(str, sorted(sweep.iterdir())), "--output", str(page)]) == 0
    shown = page.read_text()
    assert "<td>mean of 2 seeds</td>" in shown
    assert shown.count("<svg") == 1  # no kNN during these trainings
    picture = shown.partition("<svg")[2]
    assert "t0.5-s1" in picture
    assert [colour in picture for colour in TEN[:3]] == [True, True, False]  # one a temperature
    assert "http://" not in shown.replace("http://www.w3.org", "")


def test_differences_are_those_that_all_have() -> None:
    runs = [{"seed": k, "a": a, "b": 1, "workers": k, **extra} for k, (a, extra) in enumerate([(1, {}), (2, {"c": 3})])]
    assert differing(runs) == ["a"]
    assert by_seed(runs) == []
    assert by_seed([runs[0], runs[0] | {"seed": 5}, runs[1]]) == [[0, 1]]
    assert by_seed([runs[0], runs[0]]) == []
