from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslfast.data import FolderImages, TensorImages, batches, folder, load_images
from sslfast.data import images as image_sets
from sslfast.data.decode import _reduced, read


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """train/ with ant/0..4 and bee/0..4, the k-th of all of the one gray 10·k; test/ with one of each."""
    for c, name in enumerate(("ant", "bee")):
        for split, count in (("train", 5), ("test", 1)):
            for k in range(count):
                path = tmp_path / split / name / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (9, 9), 10 * (5 * c + k)).save(path)
    return tmp_path


def break_files(root: Path, *names: str) -> list[str]:
    paths = [root / "train" / f"{name}.png" for name in names]
    for path in paths:
        path.write_bytes(path.read_bytes()[:40])
    return [str(path) for path in paths]


def load(root: Path, **options: bool) -> FolderImages | TensorImages:
    return load_images(f"folder:{root}", "train", source_size=8, **options)


def test_a_set_in_memory_is_without_them(classes: Path) -> None:
    broken = break_files(classes, "ant/0", "bee/2", "bee/4")
    images = load(classes, skip_corrupt=True)
    assert images.shape == (3, 8, 8)
    assert images.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40, 50, 60, 80]
    assert images.labels.tolist() == [0] * 4 + [1] * 3
    assert list(images.corrupt) == broken
    assert all("\n" not in reason and reason for reason in images.corrupt.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_streamed_set_the_next_of_the_class_takes_its_place(
    classes: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    broken = break_files(classes, "ant/0", "ant/1", "bee/4")
    images = load(classes, skip_corrupt=True)
    assert len(images) == 10
    assert images.corrupt == {}  # nothing has been read
    for _ in range(2):  # the second time they are known
        visits = batches(images, 4, order=torch.tensor([9, 0, 5, 3, 1, 2, 4, 8]), workers=workers)
        index, pixels, labels = (torch.cat(parts) for parts in zip(*visits))
        assert index.tolist() == [5, 2, 5, 3, 2, 2, 4, 8]
        assert (pixels == (10 * index)[:, None, None, None]).all()
        assert labels.tolist() == [1, 0, 1, 0, 0, 0, 0, 1]
        assert sorted(images.corrupt) == sorted(broken)


def test_a_start_in_the_middle_gives_the_same_images(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    break_files(classes, "ant/0", "bee/4")
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    whole, rest = (
        [index.tolist() for index, _, _ in batches(load(classes, skip_corrupt=True), 3, order=order, start=start)]
        for start in (0, 2)
    )
    assert rest == whole[2:]


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_nothing_is_skipped_unasked_and_the_message_says_how(
    classes: Path, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", in_memory)
    break_files(classes, "bee/0")
    with pytest.raises(ValueError, match=r"^unreadable image .*bee/0\.png: .*; skip_corrupt \(--skip-corrupt\)"):
        list(batches(load(classes), 10, workers=1))


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_a_folder_of_nothing_else_is_an_error(classes: Path, in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", in_memory)
    break_files(classes, *(f"{name}/{k}" for name in ("ant", "bee") for k in range(5)))
    with pytest.raises(ValueError, match=r"none of the 10 images can be read, the last: .*bee/4\.png: "):
        load(classes, skip_corrupt=True)


@pytest.mark.parametrize(("tries", "last"), [(64, r"ant/4"), (3, r"ant/2")])
def test_a_class_of_nothing_else_and_files_that_have_vanished_are_an_error(
    classes: Path, tries: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    monkeypatch.setattr(image_sets, "TRIES", tries)
    images = load(classes, skip_corrupt=True)
    for path in (classes / "train" / "ant").iterdir():
        path.unlink()
    words = rf"unreadable image .*ant/0\.png, and none of its class after it can be read, up to .*{last}\.png"
    with pytest.raises(ValueError, match=words):
        next(batches(images, 4))


@pytest.mark.parametrize(
    ("width", "height", "decoded"), [(640, 400, (3, 50, 80)), (300, 100, (3, 50, 150)), (99, 300, None)]
)
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(
    tmp_path: Path, width: int, height: int, decoded: tuple[int, int, int] | None
) -> None:
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 6, height))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x * y / 2)], axis=2)
    path = tmp_path / "x.jpg"
    Image.fromarray((127.5 + 127.5 * waves).astype(np.uint8)).save(path, quality=95)
    reduced = _reduced(path, 50)
    assert (None if reduced is None else tuple(reduced.shape)) == decoded
    small = read(path, 50)
    assert min(small.shape[1:]) == 50
    assert small.is_contiguous()
    path.rename(path.with_suffix(".bin"))
    Image.fromarray(read(path.with_suffix(".bin")).permute(1, 2, 0).numpy()).save(tmp_path / "x.png")
    middle = [slice((side - 50) // 2, (side + 50) // 2) for side in small.shape[1:]]
    whole = read(tmp_path / "x.png", 50)  # a PNG is decoded in full
    difference = (small.float() - whole)[:, middle[0], middle[1]].abs()
    assert difference.mean() <= 1
    assert difference.max() <= 8


def test_without_torchvisions_decoders_pillow_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(256, size=(9, 7, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.png")
    monkeypatch.delattr("torchvision.io.decode_image")
    assert np.array_equal(read(tmp_path / "x.png").permute(1, 2, 0).numpy(), picture)


def test_a_truncated_large_jpeg_is_still_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(400, 400, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"unreadable image .*x\.jpg: "):
        read(path, 50)


@pytest.mark.gpu
def test_pinned_batches_reach_the_gpu(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    break_files(classes, "ant/1")
    images = load(classes, skip_corrupt=True)
    index, pixels, labels = (torch.cat(parts) for parts in zip(*batches(images, 4, device="cuda", workers=2)))
    assert pixels.device.type == "cuda"
    assert index.tolist() == [0, 2, 2, 3, 4, 5, 6, 7, 8, 9]
    assert (pixels == (10 * index)[:, None, None, None]).all()
    assert labels.tolist() == [0] * 5 + [1] * 5
