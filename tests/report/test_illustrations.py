from __future__ import annotations

import shutil

import pytest
from test_report import Page

from sslfast.evaluate.results import merge_result
from sslfast.methods import SimCLR
from sslfast.methods.base import Panel
from sslfast.report import build


def pictures(self, source, generator=None):
    assert not self.training
    return [[Panel(image, "asked", "query"), Panel(image.float() / 255, f"guess <{k}>", ("hit", "miss")[k % 2])]
            for k, image in enumerate(source)]  # fmt: skip


def words(self, source, generator=None):
    return [[Panel("The", ""), Panel("cat", "dog 0.6", "miss"), Panel("sat", "sat 0.9", "hit")]]


def test_pictures_stand_with_their_captions_and_frames(run, monkeypatch):
    monkeypatch.setattr(SimCLR, "illustrate", pictures)
    page = Page(build(run))
    assert "What it was asked" in page.headings
    assert "3 of 6 guesses are right" in page.text
    assert [f"guess <{k}>" in page.text for k in range(7)] == [True] * 6 + [False]
    assert [picture["class"].split()[0] for picture in page.pictures[:4]] == ["query", "hit", "query", "miss"]


def test_words_are_a_running_text_with_marks(run, monkeypatch):
    monkeypatch.setattr(SimCLR, "illustrate", words)
    page = Page(build(run))
    assert " ".join(page.text.split()).count("The cat dog 0.6 sat sat 0.9") == 1
    assert 'class="word miss"' in page.source


@pytest.mark.parametrize("has", [True, False])
def test_without_a_checkpoint_it_is_said_only_where_there_is_something_to_show(run, monkeypatch, has):
    if has:
        monkeypatch.setattr(SimCLR, "illustrate", words)
    shutil.rmtree(run / "checkpoints")
    assert ("no checkpoint" in Page(build(run)).text or "nor a checkpoint" in Page(build(run)).text) == has


def test_pairs_are_shown_of_methods_that_make_pairs(run, monkeypatch):
    monkeypatch.setattr(SimCLR, "pairs", False)
    assert "Augmented pairs" not in Page(build(run)).headings


def test_cards_of_results_that_are_no_accuracies_and_of_few_labels(run):
    about = {"test_examples": 9, "train_examples": 9, "epoch": 2, "epochs": 2, "data": "digits", "protocol": "pretext"}
    loss = {"metric": "loss", "loss": 3.21, "metrics": {"loss": 3.21, "psnr": 20.5}, "baselines": {"random_init": 6.5}}
    merge_result(run, "pretext", {**loss, "baseline_details": {"random_init": {}}, **about})
    shots = {
        "1": {"mean": 0.4, "std": 0.1, "accuracies": [0.3, 0.5]},
        "5": {"mean": 0.8, "std": 0.0, "accuracies": [0.8] * 2},
    }
    few = {"accuracy": 0.8, "std": 0.0, "shots": shots, "baselines": {"random_init": 0.2}}
    merge_result(run, "few-shot", {**few, "baseline_details": {"random_init": {"shots": shots}}, **about})
    page = Page(build(run))
    assert "Pretext task: loss, lower is better" in page.text
    assert page.source.count('<span class="track">') == 2  # of few-shot: a worse loss has no longer bar
    assert "3.21" in page.text
    assert "psnr 20.5" in page.text
    assert "Few labels" in page.headings
    assert "5 labels a class, 2 draws, ± 0.0" in page.text
