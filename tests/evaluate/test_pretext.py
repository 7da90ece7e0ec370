from __future__ import annotations

import math

import pytest
import torch
from textruns import tiny_config, write_text
from torch import nn

from sslfast.data import TensorImages
from sslfast.evaluate import Run, Task, evaluate
from sslfast.evaluate.features import fingerprint
from sslfast.evaluate.pretext import pretext
from sslfast.methods import Method
from sslfast.train import pretrain
from sslfast.train.launch import launch
from sslfast.train.loop import Training


class Guess(Method):
    """Loss: the mean image; accuracy: how many are bright; and a queue that only training moves."""

    def __init__(self, careless: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Identity()
        self.register_buffer("queue", torch.zeros(()))
        self.careless = careless

    def views(self, images, generator=None):
        return (images.float() + 0 * torch.rand(len(images), 1, 1, 1, generator=generator),)

    def forward(self, batch):
        if self.training or self.careless:
            self.queue += 1
        means = batch[0].mean(dim=(1, 2, 3))
        return {"loss": means.mean(), "embeddings": means[:, None], "accuracy": (means > 99).float().mean(), "n": 3}


IMAGES = TensorImages(
    torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1).expand(-1, 1, 2, 2), torch.zeros(200).long(), ["one"]
)


def test_means_of_every_logged_scalar():
    task = Task(IMAGES, IMAGES, inputs=lambda source: source, batch_size=50)
    result = pretext(Guess(), task)
    assert result["metrics"] == pytest.approx({"loss": 99.5, "accuracy": 0.5})
    assert (result["loss"], result["accuracy"]) == tuple(result["metrics"].values())
    assert (result["examples"], result["batch_size"]) == (200, 50)


def test_a_batch_that_is_not_full_is_left_out_unless_it_is_the_only_one():
    for size, examples in ((120, 120), (1000, 200)):
        result = pretext(Guess(), Task(IMAGES, IMAGES, inputs=lambda source: source, batch_size=size))
        assert (result["examples"], result["batch_size"]) == (examples, examples)


def test_a_method_that_changes_is_caught():
    with pytest.raises(RuntimeError, match="changed queue"):
        pretext(Guess(careless=True), Task(IMAGES, IMAGES, inputs=lambda source: source))


def test_a_run_beside_its_random_init(run):
    result = evaluate(run, "pretext")
    assert result["metric"] == "loss"
    assert "accuracy" not in result
    assert result["loss"] < result["baselines"]["random_init"]
    assert result["batch_size"] == result["examples"] == 256
    assert result["metrics"] == {"loss": result["loss"]}
    assert evaluate(run, "pretext") == result


def test_the_initial_method_is_the_one_training_began_with(run, tmp_path):
    config = Run(run).settings
    assert fingerprint(Run(run).initial_method()) == fingerprint(
        Training(launch(config), config, tmp_path / "x").method
    )


@pytest.mark.parametrize("method", ["mlm", "clm"])
def test_perplexity_is_the_exponential_of_the_mean_loss(method, tmp_path):
    pytest.importorskip("transformers")
    config = tiny_config(method, write_text(tmp_path / "a.txt", words=600), epochs=1)
    pretrain(config, tmp_path / "run")
    result = evaluate(tmp_path / "run", "pretext")
    assert result["examples"] >= 2 * result["batch_size"]
    assert result["metrics"]["perplexity"] == pytest.approx(math.exp(result["metrics"]["loss"]), rel=1e-5)
