from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from sslfast.cli import main
from sslfast.report.compare import Comparison


def result(accuracy, *, data="digits", train=100, **more):
    baselines = {"random_init": 0.5, "pixels": 0.75}
    return {"accuracy": accuracy, "metric": "accuracy", "baselines": baselines, "data": data, "train_examples": train,
            "test_examples": 30, **more}  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    """Two runs that have one protocol in common."""
    results = {
        "one": {
            "linear": result(0.912),
            "knn": result(0.8),
            "pretext": {**result(0), "metric": "loss", "loss": 1.25, "baselines": {"random_init": 4.5}},
        },
        "two": {
            "linear": result(0.95, train=60),
            "few-shot": result(0.625, std=0.031, baselines={"random_init": 0.4}),
            "knn@photos": result(0.3, data="photos"),
        },
    }
    for name, entries in results.items():
        (tmp_path / name).mkdir()
        config = {"method": "simclr", "data": "digits", "backbone": "resnet20", "seed": 0, "epochs": 7}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "results.json").write_text(json.dumps(entries))
    return [tmp_path / name for name in results]


def test_table_has_a_row_a_run_and_a_dash_for_what_is_not_there(runs):
    head, one, two, *notes = Comparison(runs).text().splitlines()
    assert head.split("  ")[0] == "run"
    for title in (
        "Linear probe, digits",
        "kNN, digits",
        "Pretext task, digits",
        "Few-shot, linear, digits",
        "kNN, photos",
    ):
        assert title in head
    assert one.split() == [
        "one",
        "SimCLR",
        "resnet20",
        "7",
        "91.2%",
        "(50.0%)",
        "80.0%",
        "(50.0%)",
        "1.25",
        "(4.5)",
        "–",
        "–",
    ]
    assert two.split() == [
        "two",
        "SimCLR",
        "resnet20",
        "7",
        "95.0%",
        "(50.0%)*",
        "–",
        "–",
        "62.5%",
        "±",
        "3.1",
        "(40.0%)",
        "30.0%",
        "(50.0%)",
    ]
    assert "Raw pixels, Linear probe, digits: 75.0%." in notes
    assert "* Linear probe, digits, two: 60 training and 30 test examples, not 100 and 30." in notes


def test_files_are_written_by_their_ending(runs, tmp_path):
    names = [tmp_path / f"compare.{ending}" for ending in ("csv", "md", "png", "svg")]
    assert main(["compare", *map(str, runs), "--output", *map(str, names)]) == 0
    rows = list(csv.DictReader(names[0].open()))
    assert [(row["run"], row["protocol"], row["value"]) for row in rows[:1]] == [("one", "", "0.912")]
    assert len(rows) == 6
    assert rows[4]["std"] == "0.031"
    assert rows[2]["metric"] == "loss"
    assert names[1].read_text().startswith("| run | method | backbone | epochs | Linear probe, digits |")
    assert Image.open(names[2]).size[0] > 500
    assert "Few-shot, linear" in names[3].read_text()
    assert "Pretext" not in names[3].read_text()


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    (tmp_path / "deep").mkdir()
    twin = runs[0].rename(tmp_path / "deep" / "two")
    assert Comparison([runs[1], twin]).labels == [str(runs[1]), str(twin)]


def test_runs_without_results_are_named(runs):
    for run in runs:
        (run / "results.json").unlink()
    with pytest.raises(ValueError, match=r"none of .*one, .*two has been evaluated"):
        Comparison(runs)
