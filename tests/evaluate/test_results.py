from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from sslfast.evaluate import read_results
from sslfast.evaluate.results import merge_result


def test_a_new_result_keeps_the_others(tmp_path):
    merge_result(tmp_path, "knn", {"accuracy": 0.5})
    merge_result(tmp_path, "linear", {"accuracy": 0.25, "confusion": [[1, 2], [3, 4]]})
    merge_result(tmp_path, "knn", {"accuracy": 0.75})
    wanted = {"knn": {"accuracy": 0.75}, "linear": {"accuracy": 0.25, "confusion": [[1, 2], [3, 4]]}}
    assert read_results(tmp_path) == wanted == json.loads((tmp_path / "results.json").read_text())
    assert "[ 1, 2 ]" in (tmp_path / "results.json").read_text()


def test_no_results_yet(tmp_path):
    assert read_results(tmp_path) == {}


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    merge_result(tmp_path, "knn", {"accuracy": 0.5})

    def crash(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        merge_result(tmp_path, "linear", {"accuracy": 0.25})
    assert read_results(tmp_path) == {"knn": {"accuracy": 0.5}}


def test_what_json_does_not_have_is_refused_and_changes_nothing(tmp_path):
    merge_result(tmp_path, "knn", {"accuracy": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        merge_result(tmp_path, "knn", {"accuracy": float("nan")})
    assert read_results(tmp_path) == {"knn": {"accuracy": 0.5}}


@pytest.mark.parametrize("content", ['{"knn": {"accu', "[1, 2]", '{"knn": 0.5}'])
def test_a_damaged_file_is_named_and_left_alone(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json"):
        merge_result(tmp_path, "knn", {"accuracy": 0.5})
    assert (tmp_path / "results.json").read_text() == content


def merge_many(run: Path, name: str) -> None:
    for k in range(25):
        merge_result(run, f"{name}{k}", {"accuracy": k / 25})


def test_processes_do_not_lose_each_others_results(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=merge_many, args=(tmp_path, name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert len(read_results(tmp_path)) == 50
