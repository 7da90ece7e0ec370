from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import TINY, assert_same, flags, interrupt_at, training

from sslfast.checkpoint import load_checkpoint
from sslfast.cli import main
from sslfast.data import FolderImages, TensorImages, folder
from sslfast.evaluate import evaluate
from sslfast.train import pretrain

BROKEN = {"class0/4.jpg": 300, "class1/9.jpg": 0, "class1/33.jpg": 20}  # file -> bytes of it that are left
IN_TEST = "class0/2.jpg"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """train/ with 48 JPEGs of two classes, three of them broken, and test/ with 8, one of them broken."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 48), ("test", 8)):
        for k in range(count):
            path = tmp_path / "images" / split / f"class{k % 2}" / f"{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)).save(path)
    for name, left in BROKEN.items():
        path = tmp_path / "images" / "train" / name
        path.write_bytes(path.read_bytes()[:left])
    (tmp_path / "images" / "test" / IN_TEST).write_text("no image")
    return tmp_path / "images"


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", 0)


def config(images: Path, **changes: object) -> object:
    fields = {"preset": "simclr", "image_size": 16, "batch_size": 8, "workers": 2, "log_every": 1, "knn_every": 1}
    return dataclasses.replace(TINY, data=f"folder:{images}", **{**fields, "skip_corrupt": True, **changes})


def skipped(run: Path) -> list[str]:
    """The files that train.log names, in the order of the lines."""
    return re.findall(r"WARNING skipped unreadable image (\S+): .+ \(\d+ so far\)\n", (run / "train.log").read_text())


@pytest.mark.usefixtures("streamed")
def test_without_the_flag_a_streamed_run_stops_at_the_file_and_with_it_goes_on(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["pretrain", "simclr", "--output", str(run)]
    assert main([*command, *flags(config(images, skip_corrupt=False, workers=1))]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"sslfast: error: unreadable image \S+/class\d/\d+\.jpg: .+ \(--skip-corrupt\).*", error)
    assert not (run / "exported").exists()

    assert main([*command, *flags(config(images)), "--resume"]) == 0
    assert f"skipped   4 unreadable image files, named in {run / 'train.log'}" in capsys.readouterr().out
    expected = sorted(str(images / "train" / name) for name in BROKEN) + [str(images / "test" / IN_TEST)]
    assert sorted(skipped(run)) == sorted(expected)  # each once, in two epochs
    assert "4 image files could not be read and were skipped, see above" in (run / "train.log").read_text()
    state = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert (state["step"], state["examples"], sorted(state["skipped"])) == (12, 48, sorted(expected))

    assert main(["evaluate", str(run), "--protocol", "knn", "--k", "3", "--device", "cpu", "--workers", "0"]) == 0
    assert "4 image files could not be read and were skipped; results.json names them" in capsys.readouterr().out
    assert json.loads((run / "results.json").read_text())["knn"]["unreadable"] == sorted(expected)


@pytest.mark.usefixtures("streamed")
def test_a_resumed_run_skips_the_same_files_and_has_the_same_bits(images: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert pretrain(config(images, workers=0), whole).skipped == 4  # the bits are those of any number of workers
    broken.mkdir()
    interrupted = training(config(images, workers=1), broken)
    assert isinstance(interrupted.train_set, FolderImages)
    interrupt_at(interrupted, step=8)  # of 12, in the second epoch
    for name in BROKEN:  # mended meanwhile: it would change the bits, were they read now
        Image.new("RGB", (40, 40), "red").save(images / "train" / name)
    assert pretrain(config(images, workers=0), broken, resume=True).skipped == 4
    assert_same(*(load_checkpoint(run / "checkpoints" / "last.ckpt") | {"config": 0} for run in (whole, broken)))
    assert skipped(broken) == skipped(whole)  # none is named twice
    assert (
        "continuing after step 9, epoch 2, with 4 unreadable image files to skip" in (broken / "train.log").read_text()
    )
    with pytest.raises(ValueError, match="skips 4 unreadable images: resume it with skip_corrupt"):
        pretrain(config(images, skip_corrupt=False), broken, resume=True)


def test_images_in_memory_are_checked_at_once(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ValueError, match=r"unreadable image .*jpg"):
        pretrain(config(images, skip_corrupt=False), run)
    run.mkdir()
    interrupted = training(config(images), run)
    assert isinstance(interrupted.train_set, TensorImages)
    assert len(interrupted.train_set) == 45
    interrupt_at(interrupted, step=6)  # of 10
    summary = pretrain(config(images), run, resume=True)
    assert (summary.steps, summary.skipped) == (10, 4)
    assert len(skipped(run)) == 4
    result = evaluate(run, "knn", device="cpu", k=3)
    assert (result["train_examples"], result["test_examples"], len(result["unreadable"])) == (45, 7, 4)
    mended = images / "train" / "class1" / "9.jpg"
    Image.new("RGB", (40, 40)).save(mended)
    with pytest.raises(ValueError, match="other images: it had 45, now there are 46 that can be read"):
        pretrain(config(images), run, resume=True)


STREAMED = """
import sys
from sslfast.cli import main
from sslfast.data import folder
folder.IN_MEMORY = 0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_files_that_other_processes_skip_are_named_too(images: Path, tmp_path: Path) -> None:
    run, script = tmp_path / "run", tmp_path / "streamed.py"
    script.write_text(STREAMED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    options = flags(config(images, epochs=1, knn_every=0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*torchrun, "pretrain", "simclr", *options, "--output", str(run)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = sorted(str(images / "train" / name) for name in BROKEN)  # each was in one process's half
    assert sorted(skipped(run)) == expected
    assert sorted(load_checkpoint(run / "checkpoints" / "last.ckpt")["skipped"]) == expected


def test_evaluation_can_skip_what_training_never_read(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in BROKEN:
        (images / "train" / name).unlink()
    run = tmp_path / "run"
    pretrain(config(images, epochs=1, knn_every=0, skip_corrupt=False), run)
    command = ["evaluate", str(run), "--protocol", "knn", "--k", "3", "--device", "cpu"]
    assert main(command) == 2
    assert re.search(rf"unreadable image .*{IN_TEST}: .*\(--skip-corrupt\)", capsys.readouterr().err)
    assert main([*command, "--skip-corrupt"]) == 0
    assert "1 image files could not be read" in capsys.readouterr().out
