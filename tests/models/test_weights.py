from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from sslfast.models.weights import load_weights, save_weights


@pytest.fixture
def written(tmp_path: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(4)).bfloat16()
    save_weights(module, tmp_path / "weights.safetensors")
    return module, tmp_path / "weights.safetensors"


def test_weights_are_read_back_here_and_by_safetensors(written: tuple[nn.Module, Path]) -> None:
    module, path = written
    for found in (load_weights(path), safetensors.torch.load_file(path)):
        assert found.keys() == module.state_dict().keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in module.state_dict().items())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"  # without it, transformers refuses the file


def test_the_same_weights_are_the_same_bytes(written: tuple[nn.Module, Path], tmp_path: Path) -> None:
    module, path = written
    for number in range(5):
        save_weights(module, tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == path.read_bytes()


def test_every_damaged_byte_is_found(written: tuple[nn.Module, Path]) -> None:
    module, path = written
    content = path.read_bytes()
    expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    values = sum(tensor.nbytes for tensor in expected.values())
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            found = load_weights(path)
        except ValueError:
            refused += 1
        else:  # what was damaged says nothing about the weights: a space, or the name of a metadatum
            assert place < len(content) - values
            assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert refused > values


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_another_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged or no safetensors file"):
        load_weights(tmp_path / "x.safetensors")


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    assert load_weights(tmp_path / "x.safetensors")["a"].sum() == 3
