from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from runs import SMALL

from sslfast.data import load_images
from sslfast.evaluate import Run, evaluate, linear_probe, read_results
from sslfast.evaluate.features import fingerprint
from sslfast.train.launch import launch
from sslfast.train.loop import Training


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory) -> Path:
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "run"))
    for protocol in ("linear", "knn"):
        assert evaluate(run, protocol) == read_results(run)[protocol]
    return run


@pytest.fixture
def both(evaluated):
    return read_results(evaluated)


@pytest.mark.parametrize("protocol", ["linear", "knn"])
def test_result_is_complete(both, evaluated, protocol):
    result = both[protocol]
    assert result["protocol"] == protocol
    assert 0.5 < result["accuracy"] <= 1
    assert result["baselines"].keys() == {"pixels", "random_init"}
    assert all(0.5 < accuracy <= 1 for accuracy in result["baselines"].values())
    assert (result["train_examples"], result["test_examples"]) == (1437, 360)
    assert (result["epoch"], result["epochs"], result["step"], result["seed"]) == (2, 2, 10, 3)
    assert (result["method"], result["backbone"], result["data"]) == ("simclr", "resnet20", "digits")
    assert result["features"] == 64
    assert result["versions"].keys() >= {"sslfast", "python", "torch", "torchvision", "timm", "scikit-learn", "numpy"}
    assert result["commit"] == Run(evaluated).environment["commit"]
    assert "init_from" not in result
    confusion = torch.tensor(result["confusion"])
    assert confusion.sum() == 360
    assert confusion.diagonal().sum().item() / 360 == pytest.approx(result["accuracy"])
    recall = confusion.diagonal() / confusion.sum(1)
    assert list(result["class_accuracy"].values()) == pytest.approx(recall.tolist(), abs=1e-6)


def test_settings_are_said(both):
    assert (both["knn"]["k"], both["knn"]["temperature"]) == (20, 0.1)
    assert both["linear"]["max_iter"] == 300
    assert both["linear"]["converged"] is True
    assert 0 < both["linear"]["iterations"] < 300


def test_final_knn_is_what_training_logged(both, trained):
    logged = [line["knn_accuracy"] for line in Run(trained).metrics if "knn_accuracy" in line]
    assert both["knn"]["accuracy"] == pytest.approx(logged[-1], abs=1.5 / 360)


def test_baselines_are_the_same_protocol_on_pixels_and_on_the_initial_network(both, trained):
    initial = Run(trained).initial_backbone()
    others = [Run(trained).initial_backbone(seed) for seed in (4, 5)]
    pixels, features = [], [[], [], []]
    for split in ("train", "test"):
        images = load_images("digits", split)
        inputs = Run(trained).modality.inputs(images.images)
        pixels += [inputs.flatten(1), images.labels]
        for network, found in zip((initial, *others), features):
            found += [network(inputs).detach(), images.labels]
    baselines = both["linear"]["baselines"]
    assert baselines["pixels"] == linear_probe(*pixels)["accuracy"]
    wanted = [linear_probe(*found)["accuracy"] for found in features]
    inits = both["linear"]["baseline_details"]["random_init"]["inits"]
    assert inits["accuracies"] == pytest.approx(wanted, abs=1.5 / 360)
    assert baselines["random_init"] == pytest.approx(sum(wanted) / 3, abs=1.5 / 360)
    assert {"train_accuracy", "iterations", "converged", "held_out"} <= both["linear"]["baseline_details"][
        "pixels"
    ].keys()


def test_initial_backbone_is_the_one_training_began_with(trained, tmp_path):
    state = torch.random.get_rng_state()
    rebuilt = Run(trained).initial_backbone()
    assert torch.equal(torch.random.get_rng_state(), state)
    training = Training(launch(SMALL), SMALL, tmp_path / "other")
    assert fingerprint(rebuilt) == fingerprint(training.method.backbone)
    assert fingerprint(rebuilt) != fingerprint(Run(trained).backbone())


def test_evaluating_again_gives_the_same(both, run):
    assert evaluate(run, "knn") == both["knn"]


def test_an_unfinished_run_is_judged_by_its_checkpoint(both, run):
    shutil.rmtree(run / "exported")
    result = evaluate(run, "knn")
    assert result == both["knn"]
    (run / "checkpoints" / "last.ckpt").write_bytes(b"half a checkpoint")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        evaluate(run, "knn")
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"step-\d+\.ckpt before it is whole: --resume auto"):
        evaluate(run, "knn")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(FileNotFoundError, match="neither an exported backbone nor a checkpoint"):
        evaluate(run, "knn")


def test_options_reach_the_protocol_and_a_clipped_k_is_said(run):
    result = evaluate(run, "knn", k=500, temperature=0.5, limit=100, seed=1)
    assert (result["k"], result["k_requested"], result["temperature"]) == (100, 500, 0.5)
    assert (result["train_examples"], result["test_examples"], result["limit"], result["seed"]) == (100, 100, 100, 1)
    short = evaluate(run, "linear", C=None, max_iter=3, limit=200)
    assert not any(entry["converged"] for entry in (short, *short["baseline_details"].values()))
    assert read_results(run).keys() == {"knn", "linear"}


def test_another_data_set_has_an_entry_of_its_own(run):
    result = evaluate(run, "knn", data="photos", limit=300)  # colour, 64 px, for a network of gray 8 px
    assert result["data"] == "photos"
    assert result["accuracy"] > 2 / 12
    assert read_results(run).keys() == {"knn@photos"}


def test_a_pretext_task_needs_images_of_the_runs_channels(run):
    with pytest.raises(ValueError, match="data photos has 3 channels, but the method was trained on 1"):
        evaluate(run, "pretext", data="photos")


def test_a_class_without_test_examples_has_no_accuracy(run):
    result = evaluate(run, "knn", limit=5)
    rows = dict(zip(result["class_accuracy"], result["confusion"]))
    assert len(rows) == 10
    assert {name for name, value in result["class_accuracy"].items() if value is None} == {
        name for name, row in rows.items() if sum(row) == 0
    }


def test_a_damaged_results_file_is_said_before_anything_is_computed(run, monkeypatch):
    (run / "results.json").write_text("{")
    monkeypatch.setattr(Run, "backbone", lambda self: pytest.fail("computed"))
    with pytest.raises(ValueError, match=r"results\.json is damaged"):
        evaluate(run, "knn")


def test_a_network_that_does_not_stay_frozen_leaves_no_result(run, monkeypatch):
    class Drifting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("shift", torch.zeros(()))

        def forward(self, images):
            self.shift += 1
            return images.flatten(1) + self.shift

    monkeypatch.setattr(Run, "backbone", lambda self: Drifting())
    with pytest.raises(RuntimeError, match="changed shift"):
        evaluate(run, "knn", limit=50)
    assert read_results(run) == {}


def test_wrong_arguments_are_named(run, tmp_path):
    with pytest.raises(ValueError, match=r"protocol must be one of linear, knn, few-shot, .*, got 'svm'"):
        evaluate(run, "svm")
    with pytest.raises(TypeError, match="protocol knn has no option C; it has k, temperature"):
        evaluate(run, "knn", C=1.0)
    with pytest.raises(ValueError, match=r"seed must be at least 0 and below 2\^63, got 9999"):
        evaluate(run, "knn", seed=99999999999999999999999)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        evaluate(run, "knn", limit=0)
    with pytest.raises(ValueError, match="device 'abacus' cannot be used here"):
        evaluate(run, "knn", device="abacus")
    with pytest.raises(FileNotFoundError, match="no run folder"):
        evaluate(tmp_path / "nowhere", "knn")
    with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.json"):
        evaluate(tmp_path, "knn")
    with pytest.raises(FileNotFoundError, match=r"exported is what a run exported: give the run's own folder"):
        evaluate(run / "exported", "knn")
    (run / "config.json").write_text(json.dumps({"method": "simclr"}))
    with pytest.raises(ValueError, match="lacks data, backbone"):
        evaluate(run, "knn")
