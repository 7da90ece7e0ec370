from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslfast.cli import main
from sslfast.report.figures import TEN

RED = (200, 30, 60)


def show(*arguments: str) -> int:
    return main(["show-views", *arguments])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def share(picture: np.ndarray, colour: tuple[int, ...]) -> float:
    return (np.abs(picture.astype(int) - colour).max(axis=2) <= 1).mean()


def test_the_command_writes_a_picture_of_that_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sslfast", "show-views", "--data", "photos", "--preset", "simclr-cifar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "views-photos-simclr-cifar-1.png\n"
    picture = pixels(tmp_path / "views-photos-simclr-cifar-1.png")
    height, width, _ = picture.shape
    assert 1000 < width < 2000
    assert 1000 < height < 2000  # four rows with text, five columns
    assert picture.std() > 40
    for colour in TEN[:4]:  # the frames of four views
        assert share(picture, tuple(bytes.fromhex(colour[1:]))) > 0.001


def test_the_same_seed_draws_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "new" / name for name in ("a.png", "b.png", "c.png")]
    for file, seed in zip(files, ("3", "3", "4")):
        options = ["--seed", seed, "--images", "2", "--views", "1", "--output", str(file)]
        assert show("--data", "digits", "--preset", "mnist-like", *options) == 0
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    a, b, c = map(pixels, files)
    assert np.array_equal(a, b)
    assert a.shape != c.shape or not np.array_equal(a, c)


def test_the_views_of_a_pair_take_turns(tmp_path: Path) -> None:
    file = tmp_path / "views.svg"
    options = ["--data", "photos", "--preset", "byol", "--images", "12", "--views", "2", "--output", str(file)]
    assert show(*options) == 0
    said = re.sub(r"\s*</?tspan[^>]*>\s*|</text>\s*<text[^>]*>", " ", file.read_text())
    assert 12 <= len(re.findall(r"blur \d", said)) < 24  # always in the first view, seldom in the second


def test_every_view_has_its_parameters_below_it(tmp_path: Path) -> None:
    file = tmp_path / "views.svg"
    assert show("--data", "photos", "--images", "3", "--views", "2", "--size", "48", "--output", str(file)) == 0
    text = file.read_text()
    assert text.count("<image") == 3 * (1 + 2)
    assert len(re.findall(r">crop \d+x\d+ at \(\d+, \d+\)", text)) == 3 * 2
    assert len(re.findall(r">image \d+: \w+, 64 x 64 px<", text)) == 3
    assert "photos, preset simclr, strength 1, views of 48 px" in text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """PATH/{train,test}/red with images of one colour that are wider than high, and a broken one in train/."""
    for split in ("train", "test"):
        for k in range(3):
            path = tmp_path / "my photos" / split / "red" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 30), RED).save(path)
    (tmp_path / "my photos" / "train" / "red" / "9.png").write_text("no image")
    return tmp_path / "my photos"


def test_a_folder_at_strength_0(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "--data",
        f"folder:{folder}",
        "--preset",
        "mnist-like",
        "--strength",
        "0",
        "--images",
        "9",
        "--views",
        "1",
    ]
    assert show(*options) == 2
    assert re.search(r"^sslfast: error: unreadable image .*9\.png: .*--skip-corrupt", capsys.readouterr().err)
    assert show(*options, "--skip-corrupt") == 0
    shown = capsys.readouterr().out.splitlines()
    assert re.match(r"skipped unreadable image .*9\.png: ", shown[0])
    assert shown[1] == "views-my-photos-mnist-like-0.png"
    picture = pixels(tmp_path / shown[1])
    rows = [row for row in np.abs(picture.astype(int) - RED).max(axis=2) if (row <= 1).mean() > 0.9]
    assert len(rows) > 0.3 * len(picture)  # sources and views, side by side: nothing but crops and blurs of red


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", r"--data"),
        ("--data faces", r"data must be one of digits.*got 'faces'"),
        ("--data digits --preset strong", r"preset must be one of simclr.*got 'strong'"),
        ("--data digits --strength -1", r"strength must be >= 0, got -1"),
        ("--data digits --images 0", r"images must be at least 1, got 0"),
        ("--data digits --views 0", r"views must be at least 1, got 0"),
        ("--data digits --size 0", r"size must be at least 1, got 0"),
        ("--data digits --output x.gif", r"output must end in .png, .*got x.gif"),
        ("--data folder:{tmp}/none", r"there is no folder .*none"),
        ("--data digits --colour red", r"Unrecognized options: --colour"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(*line.format(tmp=tmp_path).split()) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("sslfast: error: ")
    assert re.search(words, shown.err), shown.err
    assert shown.out == ""
