"""Features of every example, and what an export brings for that."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2  # noqa: F401 (what an export's transform is written with)

import sslfast
from sslfast.cli import main
from sslfast.modality.images import Transform
from sslfast.models import build_backbone, export_backbone
from sslfast.models.weights import load_weights, save_weights

NORMALIZED = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]}


def write_images(folder: Path, count: int = 6) -> Path:
    for k in range(count):
        path = folder / ("cat" if k % 2 else "dog") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return folder


def exported(folder: Path, name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    backbone = build_backbone(name, image_size=size).eval()
    config = {"backbone": name, "in_channels": 3, "image_size": size, **NORMALIZED}
    export_backbone(backbone, folder, config=config)
    return backbone


def test_features_of_every_image_with_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path / "images")
    network = exported(tmp_path / "exported", "resnet20", 16)
    loaded = sslfast.load_backbone(tmp_path)
    found = sslfast.embed(loaded, f"folder:{images}", device="cpu")
    paths = sorted(str(path) for path in images.rglob("*.png"))
    assert sorted(found.names) == paths
    assert [found.classes[label] for label in found.labels] == [Path(name).parent.name for name in found.names]
    transform = sslfast.load_transform(tmp_path)
    with torch.no_grad():
        one = network(transform([found.names[3]]))[0]
    torch.testing.assert_close(found.features[3], one, rtol=1e-4, atol=1e-5)
    found.save(tmp_path / "features.npz")
    found.save(tmp_path / "features.parquet")
    archive = np.load(tmp_path / "features.npz")
    table = pyarrow.parquet.read_table(tmp_path / "features.parquet").to_pydict()
    assert archive["names"].tolist() == table["name"] == found.names
    assert np.array_equal(archive["features"], np.array(table["feature"], dtype=np.float32))
    assert set(table["label"]) == {"cat", "dog"}
    (images / "cat" / "bad.png").write_bytes(b"no image")
    fewer = sslfast.embed(loaded, f"folder:{images}", skip_corrupt=True, device="cpu")
    assert sorted(fewer.names) == paths


def test_rows_of_arrays_are_in_their_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    network = nn.Sequential(nn.Flatten(), nn.Identity())
    found = sslfast.embed(network, images, inputs=lambda x: x.float(), device="cpu")
    assert torch.equal(found.features, torch.from_numpy(images).permute(0, 3, 1, 2).flatten(1).float())
    assert (found.names, found.classes) == (["0", "1", "2", "3", "4"], [])
    with pytest.raises(TypeError, match="inputs must be given: Sequential has no pretrained_cfg"):
        sslfast.embed(network, images)
    with pytest.raises(TypeError, match="data must be given with a network"):
        sslfast.embed(network)


def test_embed_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    short = {"image_size": 8, "batch_size": 8, "epochs": 1, "warmup_epochs": 0, "knn_every": 0, "accelerator": "cpu"}
    run = sslfast.pretrain("simclr", data=images, output=tmp_path / "run", **short)
    assert main(["embed", str(run.folder), "--output", str(tmp_path / "x.npz"), "--device", "cpu"]) == 0
    assert "8 x 64 features written to" in capsys.readouterr().out
    assert main(["embed", str(run.folder), "--output", "x.csv"]) == 2
    assert "output must end in .npz or .parquet, got x.csv" in capsys.readouterr().err
    mode = (run.folder / "exported" / "backbone.safetensors").stat().st_mode
    assert stat.S_IMODE(mode) & 0o444 == 0o444


def test_the_transform_in_torchvision_words_is_the_same(tmp_path: Path) -> None:
    exported(tmp_path, "resnet20", 16)
    transform = Transform(16, NORMALIZED["mean"], NORMALIZED["std"])
    ours = sslfast.load_transform(tmp_path)
    assert (ours.size, ours.mean, ours.std) == (transform.size, transform.mean, transform.std)
    theirs = eval(transform.torchvision_code())
    picture = Image.fromarray(np.random.default_rng(0).integers(60, 200, (32, 32, 3), dtype=np.uint8))
    torch.testing.assert_close(ours(picture), theirs(picture), rtol=0, atol=2e-3)
    assert ours([picture, picture]).shape == (2, 3, 16, 16)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.register_buffer("part", torch.arange(10.0)[2:5])


def test_weights_that_share_memory_are_written(tmp_path: Path) -> None:
    tied = Tied()
    save_weights(tied, tmp_path / "tied.safetensors")
    for found in (
        load_weights(tmp_path / "tied.safetensors"),
        safetensors.torch.load_file(tmp_path / "tied.safetensors"),
    ):
        assert all(torch.equal(found[name], tensor) for name, tensor in tied.state_dict().items())
    head = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4, bias=False))
    save_weights(head, tmp_path / "head.safetensors")
    head.load_state_dict(load_weights(tmp_path / "head.safetensors"))
