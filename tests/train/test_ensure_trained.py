from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toys import assert_same, interrupt_at, toy_config, training

from sslfast.checkpoint import CHECKPOINT, load_checkpoint
from sslfast.train import ensure_trained, pretrain
from sslfast.train.folder import write_config


@pytest.mark.usefixtures("toy")
def test_trains_what_is_left_to_train(tmp_path: Path) -> None:
    config, whole, broken = toy_config(), tmp_path / "whole", tmp_path / "broken"
    pretrain(config, whole)
    broken.mkdir()
    write_config(broken, config.to_dict())
    interrupt_at(training(config, broken), 7)
    ensure_trained(config, broken)
    assert_same(*(load_checkpoint(run / CHECKPOINT) for run in (whole, broken)))

    log = (whole / "train.log").read_bytes()
    ensure_trained(replace(config, log_every=1), whole)  # changes nothing that is computed
    assert (whole / "train.log").read_bytes() == log
    with pytest.raises(ValueError, match=r"whole was trained with other settings: scale: 1.0 -> 2.0"):
        ensure_trained(replace(config, scale=2.0), whole)


@pytest.mark.usefixtures("toy")
def test_a_run_without_a_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    write_config(tmp_path, toy_config(epochs=9).to_dict())
    ensure_trained(toy_config(), tmp_path)
    assert load_checkpoint(tmp_path / CHECKPOINT)["epoch"] == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        ensure_trained(toy_config(), tmp_path / "other")
