from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import SMALL
from torch import nn

from sslfast.cli import evaluate as cli
from sslfast.data import TensorImages
from sslfast.evaluate import Task, evaluate, read_results
from sslfast.evaluate.features import fingerprint
from sslfast.evaluate.few_shot import FEW
from sslfast.evaluate.finetune import FineTuning, _groups, finetune
from sslfast.modality import modality_of
from sslfast.modality.images import to_inputs
from sslfast.models import build_backbone


class Mean(nn.Module):
    """The mean brightness and its square; with a parameter to train, and BatchNorm to be left alone."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.norm = nn.BatchNorm1d(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean(dim=(1, 2, 3))
        return self.norm(torch.stack([mean, mean.square()], dim=1) * self.scale)


def brightness(count: int, *, seed: int) -> TensorImages:
    """Three classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    noise = torch.randint(40, (count, 1, 6, 6), generator=generator)
    return TensorImages((noise + 90 * labels.view(-1, 1, 1, 1)).byte(), labels, ["dark", "gray", "bright"])


def bright_task(**options) -> Task:
    inputs = partial(to_inputs, size=None, mean=(0.5,), std=(0.3,))
    return Task(brightness(120, seed=0), brightness(60, seed=1), inputs=inputs, **options)


def test_it_learns_and_leaves_the_network_alone():
    network = Mean()
    before, state = fingerprint(network), torch.random.get_rng_state()
    result = finetune(network, bright_task(), epochs=12, learning_rate=0.1, train_batch_size=32)
    assert result["accuracy"] > 0.9
    assert result["train_loss"] < 0.6
    assert (result["updates"], result["features"], result["predictions"].shape) == (36, 2, (60,))
    assert fingerprint(network) == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_all_of_the_network_is_trained(monkeypatch):
    tested = []
    monkeypatch.setattr("sslfast.evaluate.finetune._test", lambda model, task: (tested.append(model), (None, 0.0))[1])
    network = Mean()
    finetune(network, bright_task(), epochs=1)
    weights = dict(network.named_parameters())
    assert all(not torch.equal(tuned, weights[name]) for name, tuned in tested[0][0].named_parameters())


def test_the_seed_decides_and_augmentation_is_used_in_training_only():
    seen = []

    def augmented(source, generator):
        seen.append(torch.rand((), generator=generator).item())
        return source.float() / 255

    once, again = (finetune(Mean(), bright_task(augmented=augmented, seed=5), epochs=2) for _ in range(2))
    other = finetune(Mean(), bright_task(augmented=augmented, seed=6), epochs=2)
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] != seen[4:]
    assert once["train_loss"] == again["train_loss"] != other["train_loss"]


def test_layers_of_a_vision_transformer_learn_the_slower_the_deeper_they_are():
    network = build_backbone("vit_tiny_patch16_224", image_size=32)
    model = nn.Sequential(network, nn.Linear(network.num_features, 10))
    groups, decay = _groups(model, FineTuning())
    assert decay == 0.75
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    first, last = (rates[id(network.blocks[k].mlp.fc1.weight)] for k in (0, -1))
    assert last == pytest.approx(1e-3)
    assert first == pytest.approx(1e-3 * 0.75**11)
    assert rates[id(network.patch_embed.proj.weight)] == pytest.approx(1e-3 * 0.75**12)
    assert rates[id(model[1].weight)] == 1e-3
    assert decays[id(network.pos_embed)] == decays[id(network.norm.weight)] == decays[id(model[1].bias)] == 0
    assert decays[id(model[1].weight)] == 0.05
    one, _ = _groups(model, FineTuning(layer_decay=1.0))
    assert {group["lr"] for group in one} == {1e-3}


def test_images_are_cropped_and_flipped_only_if_the_preset_flips():
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    images[..., :2] = 255  # a bright left edge
    mirrored = {}
    for preset in ("mnist-like", "simclr-cifar"):
        config = SMALL.from_dict({**SMALL.to_dict(), "preset": preset, "image_size": 8})
        views = modality_of(config).augmented(images, torch.Generator().manual_seed(0))
        assert views.shape == (64, 1, 8, 8)
        assert len(views.flatten(1).unique(dim=0)) > 3
        mirrored[preset] = (views[..., -1] > views[..., 0]).any().item()
    assert mirrored == {"mnist-like": False, "simclr-cifar": True}


def test_a_run_beside_training_from_scratch(run):
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = evaluate(run, "finetune", epochs=1, limit=300, train_batch_size=64)
    assert result == read_results(run)["finetune"]
    assert result["baselines"].keys() == {"random_init"}
    assert result["settings"]["epochs"] == 1
    assert result["settings"]["learning_rate"] == 1e-3
    assert (result["epochs"], result["layer_decay"], result["updates"]) == (2, 1.0, 4)
    assert sum(map(sum, result["confusion"])) == 300
    assert kept == {path: path.read_bytes() for path in kept}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0"),
        ({"layer_decay": 1.5}, r"layer_decay must be above 0 and at most 1, got 1\.5"),
        ({"layer_decay": 0.5}, "layer_decay must be 1, as the layers of Mean"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1"),
    ],
)
def test_wrong_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        finetune(Mean(), bright_task(), **changes)
    with pytest.raises(ValueError, match="network must have num_features, which Flatten lacks"):
        finetune(nn.Flatten(), bright_task())


def test_help_says_the_defaults():
    said = Path(cli.__file__).read_text()
    for name, default in vars(FineTuning()).items():
        words = re.search(rf'    {name}: [^\n]*\n    """(.*?)"""', said, re.DOTALL)[1]
        few = getattr(FEW, name)
        wanted = (
            f"{default:g} if not given" + (f", few-shot-finetune: {few:g}" if few != default else "")
            if default is not None
            else "if not given"
        )
        assert wanted in " ".join(words.split()), name
