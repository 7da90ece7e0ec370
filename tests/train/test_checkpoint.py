from __future__ import annotations

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sslfast.train.checkpoint import load_checkpoint, rng_state, save_checkpoint, set_rng_state


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    save_checkpoint(path, {"step": 3, "weights": torch.arange(4.0)})
    state = load_checkpoint(path)
    assert state["step"] == 3
    assert torch.equal(state["weights"], torch.arange(4.0))
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"step": 1})

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path)["step"] == 1
    save_checkpoint(path, {"step": 3})
    assert load_checkpoint(path)["step"] == 3


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "truncated": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
        "empty": b"",
        "text": b"hello\n" * 50,
    }


@pytest.mark.parametrize("kind", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_file_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"weights": torch.randn(5000)})
    path.write_bytes(damaged(path.read_bytes())[kind])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged or not a checkpoint"):
        load_checkpoint(path)


def test_a_foreign_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"foreign\.ckpt is not a checkpoint of sslfast"):
        load_checkpoint(tmp_path / "foreign.ckpt")
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    torch.save({"format": "sslfast-checkpoint-1", "config": Path("x")}, tmp_path / "last.ckpt")  # a pickled object
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_every_generator_continues_where_it_was() -> None:
    generator = torch.Generator().manual_seed(1)

    def draw() -> list[float]:
        views = torch.rand(1, generator=generator).item()
        return [random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item(), views]  # noqa: NPY002

    draw()
    file = io.BytesIO()
    torch.save(rng_state(generator), file)
    expected = draw()
    file.seek(0)
    set_rng_state(torch.load(file, weights_only=True), generator)
    assert draw() == expected
