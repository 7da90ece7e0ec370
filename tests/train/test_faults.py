"""Full disks, folders that cannot be written: one line, nothing half written, and a resume to the same bits."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from small import shrink, small_config
from toys import assert_same, flags

from sslfast.checkpoint import CHECKPOINT, load_checkpoint
from sslfast.cli import main
from sslfast.methods import SimCLR

FULL = "/dev/full"  # every write to it finds no space


def at_the_next_write_of(run: Path, name: str) -> None:
    """The file RUN/name, which is written beside its place and then put there, will find the disk full."""
    (run / name).parent.mkdir(exist_ok=True)
    (run / f"{name}.tmp").symlink_to(FULL)


def from_now_on(run: Path, name: str) -> None:
    """The open file RUN/name… finds the disk full."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        link = f"/proc/self/fd/{number}"
        if os.path.exists(link) and os.readlink(link).startswith(str(run / name)):
            found.append(int(number))
    (descriptor,) = found
    full = os.open(FULL, os.O_WRONLY)
    os.dup2(full, descriptor)
    os.close(full)


@pytest.fixture
def small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """The command of a run of eight small steps, without its --output, and the run, uninterrupted."""
    shrink(monkeypatch)
    config = small_config("simclr", tmp_path, checkpoint_every=2, log_every=1)
    command = ["pretrain", "simclr", *flags(config)]
    assert main([*command, "--output", str(tmp_path / "whole")]) == 0
    return command, tmp_path / "whole"


FAULTS: dict[str, tuple[Callable[[Path, str], None], int]] = {
    "checkpoints/last.ckpt": (at_the_next_write_of, 4),
    "metrics.jsonl": (from_now_on, 4),
    "tensorboard/events": (from_now_on, 4),
    "train.log": (from_now_on, 4),
    "exported/backbone.safetensors": (at_the_next_write_of, 7),
    "exported/config.json": (at_the_next_write_of, 7),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_full_disk_is_one_line_and_the_run_resumes_to_the_same_bits(
    name: str,
    small_run: tuple[list[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, whole = small_run
    run = tmp_path / "run"
    inject, when = FAULTS[name]

    def full(method: SimCLR, step: int, total: int) -> None:
        if step == when:
            inject(run, name)

    with monkeypatch.context() as patch:
        patch.setattr(SimCLR, "on_step", full)
        capsys.readouterr()
        assert main([*command, "--output", str(run)]) == 1
    *lines, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"sslfast: error: No space left on device: {run / name}")
    assert not any("Traceback" in line or "Exception" in line for line in lines)
    assert not list(run.rglob("*.tmp"))
    assert load_checkpoint(run / CHECKPOINT)["step"] == (8 if when == 7 else 4)

    assert main([*command, "--output", str(run), "--resume"]) == 0
    assert_same(*(load_checkpoint(folder / CHECKPOINT) for folder in (whole, run)))
    files = [(folder / "exported" / "backbone.safetensors").read_bytes() for folder in (whole, run)]
    assert files[0] == files[1]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("results.json", "evaluate {run} --protocol knn --k 3 --device cpu"),
        ("report.html", "report {run} --device cpu"),
        ("table.csv", "compare {run} --output {run}/table.csv"),
        ("table.png", "compare {run} --output {run}/table.png"),
    ],
)
def test_a_full_disk_leaves_what_was_judged_before(
    name: str, command: str, small_run: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = small_run
    line = command.format(run=run).split()
    assert main(["evaluate", str(run), "--protocol", "knn", "--device", "cpu"]) == 0
    assert main(line) == 0
    before = (run / name).read_bytes()
    at_the_next_write_of(run, name)
    capsys.readouterr()
    assert main(line) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"sslfast: error: No space left on device: {run / name}"
    assert not list(run.rglob("*.tmp"))
    assert (run / name).read_bytes() == before
    assert main(line) == 0


@pytest.mark.parametrize(
    ("output", "words"),
    [("{tmp}/" + 300 * "a", "File name too long"), ("/proc/run", "No such file or directory|not permitted|denied")],
    ids=["long", "read-only"],
)
def test_a_folder_that_cannot_be_made_is_one_line(
    output: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shrink(monkeypatch)
    command = ["pretrain", "simclr", *flags(small_config("simclr", tmp_path))]
    assert main([*command, "--output", output.format(tmp=tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sslfast: error: ")
    assert any(word in line for word in words.split("|"))


def test_a_disk_that_became_read_only_is_one_line(
    small_run: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, run = small_run

    def refuse(path: str, *_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "replace", refuse)
    capsys.readouterr()
    assert main([*command, "--output", str(run), "--resume"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("sslfast: error: Read-only file system: ")
    assert not list(run.rglob("*.tmp"))
