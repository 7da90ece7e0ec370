"""The recipe for a folder: chosen by what is in it, and what happens where memory ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslfast import train
from sslfast._memory import saying_what_fits
from sslfast.cli import main
from sslfast.cli.pretrain import read
from sslfast.config import ImageConfig
from sslfast.data import TensorImages
from sslfast.methods import METHODS
from sslfast.modality import modality_of
from sslfast.recipes import RECIPES, recipe_for
from sslfast.recipes.folder import Facts, sized

IMAGE_METHODS = [name for name, method in METHODS.items() if issubclass(method.Config, ImageConfig)]
COUNTS = (10, 40, 2000, 10_000, 1_281_167)


@pytest.fixture
def icons(tmp_path: Path) -> Path:
    """60 gray images of 28 px."""
    rng = np.random.default_rng(0)
    for i in range(60):
        Image.fromarray(rng.integers(256, size=(28, 28), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("method", IMAGE_METHODS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_method_has_a_recipe_for_every_folder(method: str, device: str) -> None:
    for images in COUNTS:
        for side in (8, 28, 64, 500):
            config = sized(method, "folder:x", Facts(images, side, device), RECIPES).config
            assert config.method == method
            assert config.data == "folder:x"
            assert config.batch_size <= images
            assert config.warmup_epochs <= config.epochs


@pytest.mark.parametrize("method", IMAGE_METHODS)
@pytest.mark.parametrize("side", [8, 28, 300])
def test_its_networks_can_be_built_and_trained(method: str, side: int) -> None:
    config = sized(method, "folder:x", Facts(40, side, "cpu"), RECIPES).config
    network = METHODS[method](modality_of(config).build_backbone(), config)
    pixels = torch.randint(256, (config.batch_size, 3, side, side), dtype=torch.uint8)
    images = TensorImages(pixels, torch.zeros(len(pixels), dtype=torch.int64), [])
    output = network(network.views(images.on("cpu"), torch.Generator().manual_seed(0)))
    output["loss"].backward()
    assert output["loss"].isfinite()


def test_more_images_take_fewer_epochs_and_larger_batches() -> None:
    found = [sized("simclr", "folder:x", Facts(images, 28, "cpu"), RECIPES).config for images in COUNTS]
    assert [config.batch_size for config in found] == [4, 16, 128, 256, 256]
    assert [config.epochs for config in found] == [100, 100, 30, 6, 1]
    assert {config.image_size for config in found} == {28}


def test_a_gpu_and_many_photographs_have_the_published_recipe() -> None:
    config = sized("simclr", "folder:x", Facts(1_281_167, 400, "cuda"), RECIPES).config
    published = RECIPES["simclr-imagenet"].config
    assert (config.backbone, config.batch_size, config.epochs) == ("resnet50", 512, published.epochs)
    small = sized("simclr", "folder:x", Facts(2000, 400, "cuda"), RECIPES).config
    assert (small.backbone, small.batch_size, small.image_size) == ("resnet18", 128, 128)


def test_what_was_chosen_is_said_and_may_be_changed(icons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, recipe = recipe_for("simclr", f"folder:{icons}", cpu=True)
    assert name == "simclr-folder"
    assert recipe.about.startswith(
        "for 60 images of 28 px on cpu: resnet20 on views of 28 px, batch 16, 100 epochs, sgd with learning rate 0.12;"
    )
    options = ["--data", f"folder:{icons}", "--accelerator", "cpu", "--batch-size", "16", "--backbone", "resnet18"]
    config = read(["simclr", *options]).training
    assert (config.batch_size, config.backbone, config.image_size) == (16, "resnet18", 28)
    assert f"recipe simclr-folder {recipe.about}" in capsys.readouterr().err
    assert recipe_for("simclr-cifar10", f"folder:{icons}")[0] == "simclr-cifar10"  # asked for by its name


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "mae", "--data", f"folder:{tmp_path}/none"]) == 2
    assert capsys.readouterr().err == f"sslfast: error: there is no folder {tmp_path}/none\n"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_a_batch_size(
    error: Exception, icons: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(train.loop.Training, "_train_step", fail)
    options = ["--accelerator", "cpu", "--batch-size", "16", "--accumulate", "3", "--output", str(icons / "run")]
    assert main(["pretrain", "simclr", "--data", f"folder:{icons}", *options]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == (
        "sslfast: error: out of memory: batch_size 16 is too much for resnet20 here; try --batch-size 8 --accumulate 6"
    )


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), saying_what_fits("try less"):
        raise RuntimeError("shapes differ")
