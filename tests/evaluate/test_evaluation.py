from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sslfast.evaluate import Evaluation, evaluate, read_results, standard_result
from sslfast.evaluate import task as tasks


@pytest.fixture
def extractions(monkeypatch) -> list[int]:
    """How many examples went through a network each time."""
    counts: list[int] = []
    extract = tasks.extract_features

    def counting(network, examples, **options):
        counts.append(len(options["indices"]))
        return extract(network, examples, **options)

    monkeypatch.setattr(tasks, "extract_features", counting)
    return counts


def test_features_are_computed_once_for_all_protocols(run, extractions):
    evaluation = Evaluation(run, limit=100)
    for protocol in ("knn", "linear", "few-shot"):
        evaluation.judge(protocol)
    assert extractions == [100] * 10  # two splits: the run, pixels, three seeds of random init
    assert list(read_results(run)) == ["knn", "linear", "few-shot"]
    entry = read_results(run)["knn"]
    assert evaluate(run, "knn", limit=100) == entry


def test_features_of_a_network_that_has_changed_are_computed_again(run, extractions):
    evaluation = Evaluation(run, limit=50)
    backbone = evaluation.run.backbone()
    first = evaluation.task.features(backbone)[0]
    assert evaluation.task.features(backbone)[0] is first
    next(backbone.parameters()).data.mul_(2)
    assert not evaluation.task.features(backbone)[0].equal(first)


def test_a_result_on_other_terms_is_not_the_standard_one(run):
    assert standard_result(run, "knn") is None
    entry = evaluate(run, "knn")
    assert standard_result(run, "knn") == entry
    for changes in ({"limit": 50}, {"k": 3}, {"seed": 8}):
        evaluate(run, "knn", **changes)
        assert standard_result(run, "knn") is None, changes
    (run / "results.json").write_text(json.dumps({"knn": {**entry, "epoch": 1}}))
    assert standard_result(run, "knn") is None


def test_baselines_of_another_run_are_taken_if_they_are_the_same(run, tmp_path, extractions):
    own = evaluate(run, "knn", limit=100)
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (other / "results.json").unlink()
    extractions.clear()
    taken = evaluate(other, "knn", limit=100, baselines_from=run)
    assert len(extractions) == 2  # the run's own backbone
    assert taken.pop("baselines_from") == str(run)
    assert taken == own
    with pytest.raises(ValueError, match=r"the baselines of .*run are others: .*limit 100, not 99"):
        evaluate(other, "knn", limit=99, baselines_from=run)
    with pytest.raises(ValueError, match=r"are others: settings .*'k': None.*, not .*'k': 5"):
        evaluate(other, "knn", limit=100, k=5, baselines_from=run)
    extractions.clear()
    assert "baselines_from" not in evaluate(other, "knn", limit=99, baselines_from=[run])  # none of several fits
    assert len(extractions) == 10
    third = shutil.copytree(run, tmp_path / "third")
    assert evaluate(third, "knn", limit=99, baselines_from=[run, other])["baselines_from"] == str(other)
    with pytest.raises(ValueError, match="has no result of linear"):
        evaluate(other, "linear", limit=100, baselines_from=run)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "seed": 4}))
    with pytest.raises(ValueError, match=r"initial_sha256 .*run_seed 3, not 4"):
        evaluate(other, "knn", limit=100, seed=3, baselines_from=run)
