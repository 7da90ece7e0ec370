"""The sweep over strengths: what is trained and measured, what is concluded from it, what is said meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import SMALL

from sslfast.augment import ViewSampler
from sslfast.cli import main
from sslfast.config import PretrainConfig
from sslfast.data import normalization
from sslfast.evaluate import Run, alignment, knn_accuracy, linear_probe
from sslfast.modality.images import Images
from sslfast.ops import augment
from sslfast.train.calibrate import Calibration, Point, calibrate, hold_out

NORMALIZED = dict(zip(("mean", "std"), normalization("digits")))


def sweep_of(*linear: float, images: int = 100) -> Calibration:
    points = tuple(Point(float(k), accuracy, 0.5, 0.1, -1.0) for k, accuracy in enumerate(linear))
    return Calibration(points, Point(None, 0.1, 0.1, 0.0, 0.0), images)


def test_zones_lie_around_the_best_within_its_error() -> None:
    weak, right, strong = "too weak", "right", "too strong"
    assert sweep_of(0.2, 0.55, 0.6, 0.59, 0.3).zones == [weak, right, right, right, strong]
    assert sweep_of(0.55, 0.6, 0.59).zones == [right] * 3  # too few images to tell them apart
    assert sweep_of(0.55, 0.6, 0.59, images=100_000).zones == [weak, right, strong]
    assert sweep_of(0.9, 0.5, 0.2).zones == [right, strong, strong]
    assert sweep_of(0.2, 0.5, 0.9).zones == [weak, weak, right]
    assert sweep_of(0.6, 0.3, 0.6).zones == [right] * 3  # a dip between two good ones is in neither outer zone
    assert sweep_of(0.5).zones == [right]


def test_the_weaker_of_equals_is_the_best() -> None:
    assert sweep_of(0.4, 0.6, 0.6).best.strength == 1


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    folder = tmp_path_factory.mktemp("swept")
    return folder, calibrate(SMALL, folder, strengths=(1, 0))


def test_points_are_probes_of_training_images_held_out(swept: tuple[Path, Calibration]) -> None:
    folder, sweep = swept
    assert [point.strength for point in sweep.points] == [0, 1]
    assert [Run(folder / f"strength-{name}").config["strength"] for name in "01"] == [0, 1]
    rest, held = hold_out(1437, SMALL.seed)
    assert len(held) == sweep.held_out == 287
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(1437))
    run = Run(folder / "strength-1")
    images = run.modality.load("train")
    for backbone, point in ((run.backbone(), sweep.points[1]), (run.initial_backbone(), sweep.random_init)):
        with torch.no_grad():
            x, y = backbone(run.modality.inputs(images.images)), images.labels
        split = x[rest], y[rest], x[held], y[held]
        assert point.linear == pytest.approx(linear_probe(*split)["accuracy"], abs=1.5 / 287)
        assert point.knn == pytest.approx(knn_accuracy(*split), abs=1.5 / 287)


def test_no_test_image_is_looked_at(swept: tuple[Path, Calibration], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, sweep = swept
    load = Images.load
    monkeypatch.setattr(Images, "load", lambda self, split, **options: load(self, {"train": "train"}[split], **options))
    assert calibrate(SMALL, folder, strengths=(0, 1)) == sweep


def test_alignment_is_measured_between_views_of_strength_one(swept: tuple[Path, Calibration]) -> None:
    folder, sweep = swept
    run = Run(folder / "strength-0")  # whatever strength it was trained with
    _, held = hold_out(1437, SMALL.seed)
    images, generator = run.modality.load("train").images[held], torch.Generator().manual_seed(SMALL.seed)
    sampler = ViewSampler(SMALL.preset, 8)
    z1, z2 = (
        torch.cat([
            run.backbone()(augment(part, sampler.sample(len(part), (8, 8), generator=generator), 8, **NORMALIZED))
            for part in images.split(256)
        ])
        for _ in range(2)
    )  # fmt: skip
    assert sweep.points[0].alignment == pytest.approx(alignment(z1.detach(), z2.detach()), rel=0.01)  # of uint8 views


def test_finished_runs_are_kept_and_others_refused(
    swept: tuple[Path, Calibration], caplog: pytest.LogCaptureFixture
) -> None:
    folder, sweep = swept
    before = (folder / "strength-0" / "train.log").read_bytes()
    with caplog.at_level("INFO", "sslfast.calibrate"):
        assert calibrate(SMALL, folder, strengths=(0, 1)) == sweep
    assert caplog.messages == ["strength 0: 1 of 2, 1 left", "strength 1: 2 of 2, 0 left", "random init"]
    assert (folder / "strength-0" / "train.log").read_bytes() == before
    with pytest.raises(ValueError, match=r"strength-0 was trained with other settings: epochs: 2 -> 3"):
        calibrate(replace(SMALL, epochs=3), folder, strengths=(0,))


def test_what_cannot_be_swept_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config must be of a method that learns from images"):
        calibrate(PretrainConfig.__new__(PretrainConfig), tmp_path)
    for wrong in ((), (-1,), (1, 1.0)):
        with pytest.raises(ValueError, match="strengths must be different numbers >= 0"):
            calibrate(SMALL, tmp_path, strengths=wrong)
    with pytest.raises(ValueError, match="devices and nodes must be 1 for a sweep, got 2 and 1"):
        calibrate(replace(SMALL, devices=2), tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    for data in ("stl10-unlabeled", f"folder:{tmp_path}"):
        with pytest.raises(ValueError, match=f"data must have labels to judge by, .* which {data} has not"):
            calibrate(replace(SMALL, data=data), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--epochs", "1", "--warmup-epochs", "0", "--batch-size", "512", "--accelerator", "cpu"]
    assert main(["calibrate", "simclr", *quick, "--strengths", "0.5", "--output", str(tmp_path)]) == 0
    shown, said = capsys.readouterr()
    assert "0.5" in shown
    assert "random init" in shown
    assert [line for line in said.splitlines() if line.startswith("strength")] == ["strength 0.5: 1 of 1, 0 left"]
    assert sorted(path.suffix for path in tmp_path.glob("calibrate.*")) == [".csv", ".png"]
    assert (tmp_path / "strength-0.5" / "exported").is_dir()
    assert "sslfast calibrate simclr" in (tmp_path / "strength-0.5" / "environment.json").read_text()
    for wrong, words in [
        ("--strengths 1", "wants the name of a method or recipe before --strengths"),
        ("simclr --strength 1", "give --strengths, not --strength"),
        ("simclr --strengths -1", "strengths must be different numbers >= 0"),
        ("nothing", "unknown method or recipe 'nothing'"),
    ]:
        assert main(["calibrate", *wrong.split()]) == 2
        assert words in capsys.readouterr().err
    assert main(["calibrate"]) == 2
    assert main(["calibrate", "simclr", "--help"]) == 0
    assert "--strengths" in capsys.readouterr().out
