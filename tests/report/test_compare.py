from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from sslfast.cli import main
from sslfast.evaluate.protocols import settings_of
from sslfast.report.compare import Comparison


def result(protocol, accuracy, *, data="digits", train=100, **more):
    """An entry of results.json as `evaluate` writes it, but for what nobody compares."""
    baselines = {"random_init": 0.5, "pixels": 0.75}
    return {"protocol": protocol, "metric": "accuracy", "accuracy": accuracy, "baselines": baselines, "data": data,
            "train_examples": train, "test_examples": 30, "limit": None, "epoch": 7, "epochs": 7, "seed": 0,
            "run_seed": 0, "method": "simclr", "backbone": "resnet20", "settings": settings_of(protocol, {}),
            **more}  # fmt: skip


def write_run(folder, entries, **config):
    folder.mkdir()
    config = {"method": "simclr", "data": "digits", "backbone": "resnet20", "seed": 0, "epochs": 7} | config
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "results.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two runs that have one protocol in common."""
    loss = {"metric": "loss", "loss": 1.25, "baselines": {"random_init": 4.5}}
    results = {
        "one": {
            "linear": result("linear", 0.912, C=10.0, baseline_details={"random_init": {"inits": {"std": 0.021}}}),
            "knn": result("knn", 0.8),
            "pretext": result("pretext", 0, **loss),
        },
        "two": {
            "linear": result("linear", 0.95, train=60),
            "few-shot": result("few-shot", 0.625, std=0.031, baselines={"random_init": 0.4}),
            "knn@photos": result("knn", 0.3, data="photos"),
        },
    }
    return [write_run(tmp_path / name, entries) for name, entries in results.items()]


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
        "(50.0%",
        "±",
        "2.1)",
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
    assert "* Linear probe, digits, two: train_examples 60, not 100." in notes


def test_a_star_marks_other_settings_and_a_seed_that_decides_something(tmp_path):
    usual = {name: result(name, 0.5) for name in ("linear", "few-shot")}
    other = {name: result(name, 0.5, seed=7) for name in usual}  # a linear probe of everything draws nothing
    weak = usual | {"linear": result("linear", 0.4, settings={"C": 1e-5, "max_iter": 300})}
    runs = [write_run(tmp_path / name, entries) for name, entries in
            (("a", usual), ("b", usual), ("other", other), ("weak", weak))]  # fmt: skip
    _, a, b, *rest = Comparison(runs).text().splitlines()
    assert "*" not in a + b
    assert [line.count("*") for line in rest[:2]] == [1, 1]
    stars = [line for line in rest if line.startswith("*")]
    assert stars == ["* Linear probe, weak: C 1e-05, not the default.", "* Few-shot, linear, other: seed 7, not 0."]


def test_the_epochs_are_those_of_the_weights_judged(tmp_path):
    early = write_run(tmp_path / "early", {"linear": result("linear", 0.5, epoch=3), "knn": result("knn", 0.5)})
    assert Comparison([early]).text().splitlines()[1].split()[3:5] == ["3/7,", "7"]


def test_text_has_its_own_baseline(tmp_path):
    entry = result("linear", 0.8, data="docs", baselines={"bag_of_words": 0.9, "random_init": 0.3})
    run = write_run(tmp_path / "text", {"linear": entry}, method="mlm", data="docs", backbone="bert-tiny")
    comparison = Comparison([run])
    assert "Bag of words, Linear probe: 90.0%." in comparison.text().splitlines()
    comparison.write(tmp_path / "text.svg")
    assert "bag of words" in (tmp_path / "text.svg").read_text()


def test_files_are_written_by_their_ending(runs, tmp_path):
    names = [tmp_path / "new" / f"compare.{ending}" for ending in ("csv", "md", "png", "svg")]
    assert main(["compare", *map(str, runs), "--output", *map(str, names)]) == 0
    rows = list(csv.DictReader(names[0].open()))
    assert [(row["run"], row["protocol"], row["value"]) for row in rows[:1]] == [("one", "linear", "0.912")]
    assert [(row["C"], row["random_init_std"]) for row in rows[:2]] == [("10.0", "0.021"), ("", "")]
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
