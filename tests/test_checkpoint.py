from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sslfast.checkpoint import (
    CHECKPOINT,
    add_checkpoint,
    earlier_checkpoints,
    load_checkpoint,
    load_last,
    newest_whole,
    save_checkpoint,
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
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


def steps_kept(run: Path) -> list[int]:
    return [load_checkpoint(path)["step"] for path in (run / CHECKPOINT, *earlier_checkpoints(run))]


@pytest.mark.parametrize(("keep", "kept"), [(1, [4]), (2, [4, 3]), (3, [4, 3, 2]), ("every", [4, 3, 2, 1, 0])])
@pytest.mark.parametrize("links", [True, False])
def test_checkpoints_before_the_last_are_kept(
    keep: int | str, kept: list[int], links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for step in range(5):
        add_checkpoint(tmp_path, {"step": step}, before=step - 1 if step else None, keep=keep)
    assert steps_kept(tmp_path) == kept
    assert len(list((tmp_path / "checkpoints").iterdir())) == len(kept)


def test_an_earlier_checkpoint_serves_when_the_last_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*last\.ckpt$"):
        load_last(tmp_path)
    for step in range(3):
        add_checkpoint(tmp_path, {"step": step}, before=step - 1 if step else None, keep="every")
    (tmp_path / CHECKPOINT).write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged.*; step-00000001\.ckpt before it is whole: --res"):
        load_last(tmp_path)
    assert newest_whole(tmp_path)[1]["step"] == 1
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(FileNotFoundError, match="step-00000001"):
        load_last(tmp_path)
    for path in earlier_checkpoints(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"step-00000000\.ckpt is damaged"):
        newest_whole(tmp_path)


def test_a_run_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        add_checkpoint(tmp_path / "gone", {"step": 1}, before=None, keep=2)
    assert not (tmp_path / "gone").exists()
