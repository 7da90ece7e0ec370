from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import TINY, Collapsing, toy_config, training

from sslfast.checkpoint import load_checkpoint
from sslfast.data import ExampleSet, batches, load_images, normalization
from sslfast.evaluate import Run, extract_features, knn_accuracy
from sslfast.evaluate.features import fingerprint
from sslfast.methods import METHODS, MoCo, SimCLR
from sslfast.modality import modality_of
from sslfast.models import build_backbone, load_backbone
from sslfast.train import pretrain
from sslfast.train.launch import epoch_order, view_generator
from sslfast.train.log import RunLog
from sslfast.train.loop import Training
from sslfast.train.start import initialise


def metrics(run: Path, key: str = "loss") -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def test_a_run_from_its_first_step_to_its_exported_backbone(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, epochs=3, knn_every=2)
    summary = pretrain(config, tmp_path / "run", command="sslfast pretrain simclr")
    run = summary.run

    losses = [line["loss"] for line in metrics(run)]
    assert len(losses) == 66 // 5 + 1
    assert losses[-1] < losses[0] - 0.5
    assert {"step", "epoch", "loss", "lr", "std", "effective_rank", "examples_per_second"} == set(metrics(run)[0])
    assert [(line["step"], line["epoch"]) for line in metrics(run, "knn_accuracy")] == [(44, 2), (66, 3)]
    assert 0.5 < summary.knn_accuracy <= 1

    assert json.loads((run / "config.json").read_text()) == config.to_dict()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["command"] == "sslfast pretrain simclr"
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert (run / "train.log").read_text().count("kNN accuracy") == 2
    assert list((run / "tensorboard").iterdir())

    # What is exported is what was measured.
    splits = [load_images("digits", split) for split in ("train", "test")]
    backbone = load_backbone(run / "exported")
    inputs = modality_of(config).inputs
    found = [extract_features(backbone, images, inputs=inputs) for images in splits]
    assert knn_accuracy(*found[0], *found[1]) == summary.knn_accuracy
    about = json.loads((run / "exported" / "config.json").read_text())
    assert (about["in_channels"], about["image_size"], about["mean"]) == (1, 8, list(normalization("digits")[0]))


def test_training_starts_from_the_network_that_evaluation_rebuilds(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, seed=5)
    trained = training(config, tmp_path).method.backbone
    torch.manual_seed(5)
    rebuilt = build_backbone("resnet20", in_channels=1, image_size=8)
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), rebuilt.state_dict().values()))


def test_order_of_an_epoch_depends_on_seed_and_epoch() -> None:
    examples = ExampleSet(torch.zeros(1000, dtype=torch.int64), [])
    orders = {key: epoch_order(examples, seed=key[0], epoch=key[1]) for key in [(0, 0), (0, 1), (1, 0)]}
    assert all(torch.equal(order.sort().values, torch.arange(1000)) for order in orders.values())
    assert len({tuple(order.tolist()) for order in orders.values()}) == 3
    assert torch.equal(orders[0, 1], epoch_order(examples, seed=0, epoch=1))


def test_ranks_augment_independently() -> None:
    first, second = (torch.rand(4, generator=view_generator(0, rank, torch.device("cpu"))) for rank in (0, 1))
    assert not torch.equal(first, second)


def weights(run: Path) -> dict[str, Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["method"]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_accumulated_batches_are_one_large_batch(optimizer: str, tmp_path: Path) -> None:
    options = {"optimizer": optimizer, "learning_rate": 0.01, "epochs": 2}
    pretrain(toy_config(batch_size=64, accumulate=4, **options), tmp_path / "parts")
    pretrain(toy_config(batch_size=256, accumulate=1, **options), tmp_path / "whole")
    parts, whole = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.allclose(parts[name], whole[name], rtol=1e-4, atol=1e-6) for name in whole)
    for a, b in zip(metrics(tmp_path / "parts"), metrics(tmp_path / "whole")):
        assert (a["step"], a["lr"]) == (b["step"], b["lr"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


class Whole(SimCLR):
    """SimCLR of what no image shares with another, with two views that nobody draws."""

    def __init__(self, backbone: nn.Module, config: SimCLR.Config) -> None:
        super().__init__(backbone, config)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
        self.backbone.num_features = 16
        self.head = nn.Linear(16, 8)

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x = images.float() / 255
        return x, x.roll(1, dims=2)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_accumulated_batches_are_contrasted_as_one(compile: bool, tmp_path: Path, monkeypatch) -> None:
    """With the same gradient to a learned temperature, too; the mean of losses of their own is another."""
    monkeypatch.setitem(METHODS, "simclr", Whole)
    monkeypatch.setattr(modality_of(TINY).__class__, "export", lambda *_, **__: None)
    options = {"epochs": 1, "log_every": 1, "learnable_temperature": True, "lr_scaling": "none"}
    runs = {
        "whole": {"batch_size": 256},
        "parts": {"batch_size": 64, "accumulate": 4, "compile": compile},
        "average": {"batch_size": 64, "accumulate": 4, "accumulate_mode": "average"},
    }
    for name, changes in runs.items():
        pretrain(dataclasses.replace(TINY, **options, **changes), tmp_path / name)
    whole, parts, average = ([line["loss"] for line in metrics(tmp_path / name)] for name in runs)
    assert parts == pytest.approx(whole, rel=1e-4)
    assert average[0] < whole[0] - 1  # log 511 to log 127
    for name, expected in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "parts")[name], expected, rtol=1e-3, atol=1e-5)


def test_accumulated_keys_enter_the_queue_after_the_loss_once(tmp_path: Path, monkeypatch) -> None:
    options = {**dataclasses.asdict(TINY), "epochs": 1, "batch_size": 64, "accumulate": 2}
    for name in ("temperature", "learnable_temperature", "projection_layers", "projection_hidden"):
        options.pop(name)
    run = training(MoCo.Config(**options, queue_size=256), tmp_path)
    keys, enqueue = [], run.method.queue.enqueue
    monkeypatch.setattr(run.method.queue, "enqueue", lambda x: keys.append(x) or enqueue(x))
    before = run.method.queue.keys.clone()
    run.log = RunLog(tmp_path, total=1, step=0, enabled=False)
    loader = batches(run.train_set, 64, order=torch.arange(128))
    run.method.train()
    run._train_step(loader)
    assert [x.shape[0] for x in keys] == [128]
    torch.testing.assert_close(run.method.queue.keys[:128], nn.functional.normalize(keys[0]))
    assert torch.equal(run.method.queue.keys[128:], before[128:])
    assert run.method.state_dict()["key_encoder.module.0.bn1.num_batches_tracked"] == 2


@pytest.mark.usefixtures("toy")
def test_the_loop_follows_its_schedule(tmp_path: Path) -> None:
    config = toy_config(epochs=2, warmup_epochs=0.5, learning_rate=0.4, log_every=1)
    run = training(config, tmp_path)
    run.fit()
    assert run.method.steps == [(step, 44) for step in range(44)]
    rates = [line["lr"] for line in metrics(tmp_path)]
    assert rates == [run.learning_rate(step) for step in range(44)]
    assert rates[10] == 0.4
    assert {group["lr"] for group in run.optimizer.param_groups if group["constant_lr"]} == {0.4}
    assert "error" in metrics(tmp_path)[0]  # a scalar of the method's own


@pytest.mark.usefixtures("toy")
def test_logged_loss_is_the_mean_since_the_last_line(tmp_path: Path) -> None:
    pretrain(toy_config(log_every=1), tmp_path / "each")
    pretrain(toy_config(log_every=5), tmp_path / "fives")
    each = [line["loss"] for line in metrics(tmp_path / "each")]
    fives = metrics(tmp_path / "fives")
    assert [line["step"] for line in fives] == [5, 10, 15, 20, 22]
    assert [line["loss"] for line in fives] == pytest.approx([np.mean(each[k : k + 5]) for k in range(0, 22, 5)])


@pytest.mark.usefixtures("toy")
def test_a_broken_loss_stops_the_run_and_is_not_saved(tmp_path: Path) -> None:
    config = toy_config(scale=1e36, learning_rate=1e3, log_every=10)
    with pytest.raises(FloatingPointError, match=r"loss is (inf|nan) at step \d+ with learning rate") as caught:
        pretrain(config, tmp_path / "run")
    assert "at step 2 " in str(caught.value)
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert state["step"] == 0
    assert all(tensor.isfinite().all() for tensor in state["method"].values())


def test_collapse_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "toy", Collapsing)
    pretrain(toy_config(), tmp_path / "collapsed")
    log = (tmp_path / "collapsed" / "train.log").read_text()
    assert log.count("the embeddings have collapsed at step 5") == 1
    assert log.count("collapsed") == 1  # told once, not at every line
    pretrain(dataclasses.replace(TINY, epochs=1), tmp_path / "healthy")
    assert "collapsed" not in (tmp_path / "healthy" / "train.log").read_text()


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="effective batch of 2048 is more than the 1437"):
        pretrain(dataclasses.replace(TINY, batch_size=512, accumulate=4), tmp_path / "run")


def test_init_from_takes_weights_of_a_checkpoint_or_an_export(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, epochs=1)
    pretrain(config, tmp_path / "first")
    old = weights(tmp_path / "first")
    other = dataclasses.replace(config, seed=1)

    whole, backbone = (Training(training(config, tmp_path).fabric, other, tmp_path / "second") for _ in range(2))
    initialise(whole, tmp_path / "first" / "checkpoints" / "last.ckpt")
    initialise(backbone, tmp_path / "first" / "exported" / "backbone.safetensors")
    assert all(torch.equal(old[name], tensor) for name, tensor in whole.method.state_dict().items())
    weights_of = backbone.method.state_dict()
    assert all(torch.equal(old[name], weights_of[name]) for name in old if name.startswith("backbone."))
    assert not torch.equal(old["head.0.weight"], weights_of["head.0.weight"])
    assert whole.step == 0

    wider = Training(whole.fabric, dataclasses.replace(config, projection_features=32), tmp_path / "second")
    with pytest.raises(ValueError, match=r"last\.ckpt do not fit"):
        initialise(wider, tmp_path / "first" / "checkpoints" / "last.ckpt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        initialise(whole, tmp_path / "nowhere.ckpt")


@pytest.mark.usefixtures("toy")
def test_a_resumed_run_still_says_how_it_began(tmp_path: Path) -> None:
    config = toy_config()
    pretrain(config, tmp_path / "first")
    weights = tmp_path / "first" / "exported" / "backbone.safetensors"
    pretrain(config, tmp_path / "run", init_from=weights, command="begun")
    for command in ("again", "once more"):
        pretrain(config, tmp_path / "run", resume=True, command=command)
    environment = Run(tmp_path / "run").environment
    assert environment["command"] == "begun"
    same = training(config, tmp_path)
    initialise(same, weights)
    sha256 = fingerprint(same.method.backbone)
    assert environment["init_from"] == {"path": str(weights), "weights_sha256": sha256}
    assert [resumption["command"] for resumption in environment["resumed"]] == ["again", "once more"]


@pytest.mark.usefixtures("toy")
def test_an_occupied_folder_is_refused_and_overwritten_on_request_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(toy_config(), run)
    (run / "results.json").write_text("{}")
    (run / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="--resume or replace it with --overwrite"):
        pretrain(toy_config(), run)
    with pytest.raises(ValueError, match="data must be one of"):
        pretrain(toy_config(data="nothing"), run, overwrite=True)
    assert (run / "results.json").exists()  # an error found in time costs nothing
    pretrain(toy_config(), run, overwrite=True)
    assert not (run / "results.json").exists()
    assert (run / "mine.txt").exists()
    assert len(metrics(run)) == 5

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="it is no run"):
        pretrain(toy_config(), tmp_path / "home", overwrite=True)
    with pytest.raises(NotADirectoryError, match=r"thesis\.tex"):
        pretrain(toy_config(), tmp_path / "home" / "thesis.tex")


def test_bf16_trains_and_says_where_it_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslfast.train.loop.has_bfloat16", lambda: False)
    pretrain(dataclasses.replace(TINY, epochs=1, precision="bf16-mixed"), tmp_path / "run")
    assert "precision 32 is much faster" in (tmp_path / "run" / "train.log").read_text()
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert losses[-1] < losses[0]
    assert all(t.dtype != torch.bfloat16 for t in weights(tmp_path / "run").values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without CUDA says")
@pytest.mark.parametrize(
    ("changes", "words"), [({"accelerator": "cuda"}, "no CUDA"), ({"precision": "16-mixed"}, "16-mixed needs a CUDA")]
)
def test_a_device_that_is_not_there_is_named(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        pretrain(dataclasses.replace(TINY, **changes), tmp_path / "run")
