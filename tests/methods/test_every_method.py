"""The command line from end to end, for every method on the data it trains on by default."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from sslfast.cli import main
from sslfast.evaluate import read_results
from sslfast.methods import METHODS
from sslfast.recipes import RECIPES

EPOCH = ["--epochs", "1", "--warmup-epochs", "0.2", "--knn-every", "0", "--log-every", "2", "--accelerator", "cpu"]
BASELINES = {"images": {"pixels", "random_init"}, "text": {"bag_of_words", "random_init"}}
SMALLER = {name: ["--image-size", "16"] for name in ("mae", "colorization", "inpainting")}  # than the recipes
GUESSES = set(METHODS) - {"simclr", "moco", "byol", "simsiam"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in ("sop", "nsp", "clm") else name for name in METHODS]
)
def test_trains_is_judged_and_reported(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["pretrain", name, *EPOCH, *SMALLER.get(name, []), "--output", str(run)]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) > 1
    assert all(math.isfinite(value) for line in lines for value in line.values())

    judged = ["evaluate", str(run), "--protocol", "pretext", "linear", "knn", "--limit", "200", "--device", "cpu"]
    assert main(judged) == 0
    results = read_results(run)
    assert set(results) == {"pretext", "linear", "knn"}
    for protocol in ("linear", "knn"):
        assert set(results[protocol]["baselines"]) == BASELINES[RECIPES[name].config.modality]
    assert results["pretext"]["baselines"].keys() == {"random_init"}

    assert main(["report", str(run), "--device", "cpu"]) == 0
    page = (run / "report.html").read_text()
    assert ("What it was asked" in page) == (name in GUESSES)
    assert ("Augmented pairs" in page) == (name not in GUESSES)
