from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslfast.evaluate import evaluate
from sslfast.evaluate.results import merge_result
from sslfast.report import build, figures, sections
from sslfast.report.material import Material
from sslfast.report.page import _accuracies
from sslfast.report.verdict import verdict

VOID = {"meta", "img", "br", "hr", "link", "input"}
REFERENCES = {"src", "href", "xlink:href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """A page's headings, text, pictures and references; fails on tags that are not closed as they were opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.pictures: list[dict[str, str]] = []
        self.references: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        attributes = dict(attributes)
        self.references += [value for name, value in attributes.items() if name in REFERENCES]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(filter(None, attributes.values())))
        if tag == "img":
            self.pictures.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2", "summary"):
            self.headings.append(data.strip())
        if "style" in self.open:
            assert "@import" not in data
            self.references += re.findall(r"url\(([^)]*)\)", data)
        else:
            self.text += data


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "run"))
    results = {protocol: evaluate(run, protocol) for protocol in ("linear", "knn")}
    return Page(build(run)), results, run


def test_it_has_every_section(evaluated):
    page, _, run = evaluated
    assert page.headings == [
        "SimCLR on digits", "Training", "Augmented pairs", "Nearest neighbours", "Map of the features",
        "Confusion matrix", "Evaluation in full", "Configuration", "Environment",
    ]  # fmt: skip
    assert "Not shown" not in page.text
    assert sorted(path.name for path in run.glob("report*")) == ["report.html"]


def test_nothing_comes_from_outside(evaluated):
    page, _, _ = evaluated
    assert page.references
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in page.references)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page.source)  # namespaces are names


def test_headline_is_the_results_beside_both_baselines(evaluated):
    page, results, _ = evaluated
    for result in results.values():
        for accuracy in (result["accuracy"], *result["baselines"].values()):
            assert f"{100 * accuracy:.1f}%" in page.text
    assert "random init" in page.text
    assert "raw pixels" in page.text
    said = [verdict(result) for result in results.values()]
    assert page.text.index(said[0]) < page.text.index(said[1]) < page.text.index("backbone")
    assert re.search(
        r"Also possible:\s+sslfast evaluate .* --protocol few-shot few-shot-finetune finetune pretext\n", page.text
    )


def test_probes_that_did_not_converge_are_all_named(run):
    notes = _accuracies("linear", evaluate(run, "linear", max_iter=3, limit=200))["notes"]
    for who in ("this run", "raw pixels", "random init"):
        assert f"{who} not converged" in notes


def test_a_class_without_test_images_is_not_the_hardest(run):
    result = evaluate(run, "linear", limit=5)
    judged = {name: accuracy for name, accuracy in result["class_accuracy"].items() if accuracy is not None}
    hardest = re.search(r"Hardest: (\d), ", sections.confusion(Material(run)).text)[1]
    assert 0 < len(judged) < 10
    assert judged[hardest] == min(judged.values())


def test_more_classes_than_a_matrix_has_room_for_are_said(run):
    accuracies = {f"class {k}": k / 30 for k in range(30)}
    merge_result(run, "linear", {"accuracy": 0.5, "baselines": {}, "test_examples": 90, "class_accuracy": accuracies})
    material = Material(run)
    assert (
        "of 30 classes, which are too many for a matrix. Hardest: class 0, 0.0% right"
        in sections.confusion(material).text
    )


def test_pictures_are_pictures_with_a_description(evaluated):
    page, _, _ = evaluated
    assert len(page.pictures) == 12 * 3 + 8 * 9
    for picture in page.pictures:
        assert picture["alt"]
        content = base64.b64decode(picture["src"].partition(",")[2])
        assert Image.open(io.BytesIO(content)).size == (8, 8)


def test_frames_say_whether_the_label_is_the_same(evaluated):
    page, _, _ = evaluated
    rows = page.pictures[36:]
    for row in (rows[k : k + 9] for k in range(0, len(rows), 9)):
        label = row[0]["alt"].rpartition(": ")[2]
        for picture in row[1:]:
            name = re.search(r": (.*), cosine", picture["alt"])[1]
            assert ("hit" if name == label else "miss") in picture["class"].split()


def test_views_are_the_presets_own(evaluated):
    page, _, _ = evaluated
    views = [picture for picture in page.pictures[:36] if picture["alt"].startswith("crop")]
    assert len(views) == 24
    assert len({view["alt"] for view in views}) == 24


def test_configuration_and_environment_are_in_full(evaluated):
    page, _, run = evaluated
    for name, value in json.loads((run / "config.json").read_text()).items():
        assert re.search(rf"\b{name}\n?\s*{re.escape('none' if value is None else str(value))}", page.text), name
    assert "sslfast pretrain simclr --epochs 2" in page.text


def test_curves_are_drawn_from_the_metrics(evaluated):
    page, _, _ = evaluated
    for caption in ("Loss", "kNN accuracy on the test examples", "Effective rank", "Spread", "Learning rate", "Speed"):
        assert caption in page.text
    assert page.tags.count("svg") == 6 + 2
    assert "currentColor" in page.source or "var(--ink)" in page.source  # figures follow light and dark
    assert figures.INK not in page.source


def test_a_run_without_evaluation_says_how_to_get_it(run):
    page = Page(build(run))
    assert f"sslfast evaluate {run} --protocol linear" in page.text
    assert "Not evaluated yet" in page.text
    assert "Confusion matrix" not in page.headings
    assert {"Augmented pairs", "Map of the features", "Nearest neighbours"} <= set(page.headings)


def test_an_unfinished_run_without_weights_or_images_is_still_a_page(run):
    shutil.rmtree(run / "exported")
    shutil.rmtree(run / "checkpoints")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": "folder:nowhere", "epochs": 50}))
    (run / "metrics.jsonl").write_text('{"step": 2, "epoch": 0.4, "loss": 5.5}\n{"step": 4, "epo')
    (run / "environment.json").unlink()
    page = Page(build(run))
    assert "0.4 of 50 (unfinished)" in page.text
    assert page.text.count("Not shown: the images of folder:nowhere could not be loaded") == 3
    assert page.text.count("Not shown") == 4  # and the environment
    assert not page.pictures


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.json"):
        build(tmp_path)
    with pytest.raises(FileNotFoundError, match="no run folder"):
        build(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        build(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("classes", [3, 15, 40])
def test_class_names_are_text_whatever_they_are(classes):
    names = ["<script>", "a & b", "$x^2$", *(f"class {k}" for k in range(3, classes))]
    points = np.random.default_rng(0).normal(size=(100, 2))
    svg = figures.scatter(points, np.arange(100) % classes, names)
    assert "<script>" not in svg
    if classes <= 20:
        assert all(name in svg for name in ("&lt;script&gt;", "a &amp; b", "$x^2$"))
    counts = np.random.default_rng(1).integers(0, 9, size=(classes, classes))
    assert "&lt;script&gt;" in figures.confusion(counts, names)


def test_a_curve_of_one_point_is_seen():
    assert figures.BLUE in figures.curve([1.0], [2.0], label="loss")


def test_a_long_curve_is_thinned():
    epochs = np.linspace(0, 10, 50_000)
    assert len(figures.curve(epochs, np.sin(40 * epochs), label="sine")) < 60_000
