from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslfast.augment import apart
from sslfast.data import FolderImages, TensorImages, batches, folder, load_images


def write(path: Path, height: int = 10, width: int = 10, *, value: int | None = None, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.name.encode()))
    pixels = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).convert(mode).save(path)


def pixels_of(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """train/{ant,bee} with 6 images each, test/{ant,bee} with 2 each, all 10x10."""
    for name in ("ant", "bee"):
        for i in range(6):
            write(tmp_path / "train" / name / f"{i}.png")
        for i in range(2):
            write(tmp_path / "test" / name / f"t{i}.png")
    return tmp_path


def test_train_and_test_folders(splits: Path) -> None:
    train, test = (load_images(f"folder:{splits}", split) for split in ("train", "test"))
    assert isinstance(train, TensorImages)
    assert train.shape == test.shape == (3, 10, 10)
    assert train.classes == test.classes == ["ant", "bee"]
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(train.images[7], pixels_of(splits / "train" / "bee" / "1.png"))


def test_val_serves_as_test(splits: Path) -> None:
    (splits / "test").rename(splits / "val")
    assert len(load_images(f"folder:{splits}", "test")) == 4


def test_a_test_split_may_lack_a_class(splits: Path) -> None:
    for path in (splits / "test" / "ant").iterdir():
        path.unlink()
    (splits / "test" / "ant").rmdir()
    test = load_images(f"folder:{splits}", "test")
    assert test.classes == ["ant", "bee"]
    assert test.labels.tolist() == [1, 1]


def test_one_folder_is_split_by_class(tmp_path: Path) -> None:
    for name, count in (("ant", 10), ("bee", 20)):
        for i in range(count):
            write(tmp_path / name / f"{i}.png", 4, 4, value=i + (100 if name == "bee" else 0))
    train, test, again, other = (
        load_images(f"folder:{tmp_path}", split, seed=seed)
        for split, seed in (("train", 0), ("test", 0), ("test", 0), ("test", 1))
    )
    assert train.labels.bincount().tolist() == [8, 16]
    assert test.labels.bincount().tolist() == [2, 4]
    together = torch.cat([train.images, test.images])[:, 0, 0, 0]
    assert sorted(together.tolist()) == [*range(10), *range(100, 120)]  # disjoint and complete
    assert torch.equal(test.images, again.images)
    assert not torch.equal(test.images, other.images)


@pytest.mark.parametrize("images", [1, 2])
def test_classes_too_small_to_hold_any_out_are_left_aside(images: int, tmp_path: Path) -> None:
    for i in range(4 * images):
        write(tmp_path / f"object{i % 4}" / f"{i}.png", value=i)
    train = load_images(f"folder:{tmp_path}", "train")
    assert (len(train), train.labelled, train.labels.unique().tolist()) == (4 * images, False, [0])
    assert "too few images a class to hold a fifth out for testing: the classes are left aside" in train.notes
    write(tmp_path / "object0" / "another.png", value=200)  # one class is enough for a test split
    write(tmp_path / "object0" / "and another.png", value=201)
    assert load_images(f"folder:{tmp_path}", "train").labelled
    assert len(load_images(f"folder:{tmp_path}", "test")) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tiff", "gif"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "a" / f"x.{suffix}", 12, 9)
    images = load_images(f"folder:{tmp_path}", "train").images
    difference = images[0].int() - pixels_of(tmp_path / "train" / "a" / f"x.{suffix}").int()
    assert images.shape == (1, 3, 12, 9)
    assert difference.abs().max() <= 2  # decoders of JPEG may round differently


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "train" / "a" / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    (tmp_path / "test" / "a").mkdir(parents=True)
    write(tmp_path / "test" / "a" / "x.png")
    if mode == "I;16":
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((10, 10), 40_000, dtype=np.uint16)).save(path)
    else:
        write(path, mode=mode)
    images = load_images(f"folder:{tmp_path}", "train").images
    assert images.shape == (1, 3, 10, 10)
    assert images.dtype == (torch.uint16 if mode == "I;16" else torch.uint8)
    if mode == "L":
        assert torch.equal(images[:, 0], images[:, 2])


def test_nested_folders_belong_to_their_class_and_hidden_files_do_not(splits: Path) -> None:
    write(splits / "train" / "ant" / "summer" / "deep" / "x.png")
    (splits / "train" / "ant" / ".DS_Store").write_bytes(b"\0")
    (splits / "train" / "README.txt").write_text("ants and bees")
    assert load_images(f"folder:{splits}", "train").labels.bincount().tolist() == [7, 6]


def test_images_keep_their_shape(splits: Path) -> None:
    write(splits / "train" / "ant" / "wide.png", 20, 60, value=77)
    write(splits / "train" / "bee" / "small.png", 5, 8, value=99)
    train = load_images(f"folder:{splits}", "train", source_size=16)
    assert train.shape == (3, 16, 48)
    assert train.images.sizes[[0, 6, 13]].tolist() == [[10, 10], [16, 48], [5, 8]]
    assert (train.images.pixels[6] == 77).all()
    assert (train.images.pixels[13, :, :5, :8] == 99).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_large_set_is_read_from_its_files(splits: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write(splits / "train" / "bee" / "wide.png", 30, 50)
    in_memory = load_images(f"folder:{splits}", "train", source_size=12)
    monkeypatch.setattr(folder, "IN_MEMORY", 1000)
    images = load_images(f"folder:{splits}", "train", source_size=12)
    assert isinstance(images, FolderImages)
    assert images.shape == (3, 12, 12)
    assert in_memory.shape == (3, 12, 20)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    found = list(batches(images, 4, order=order, start=1, workers=workers))
    assert torch.equal(torch.get_rng_state(), state)  # else a resumed run would draw other numbers
    assert torch.equal(torch.cat([index for index, _, _ in found]), order[4:])
    for indices, pixels, _ in found:
        for place, index in enumerate(indices):
            own, size = apart(pixels[torch.tensor([place])])
            wanted, wanted_size = apart(in_memory.images[index[None]])
            height, width = wanted_size[0].tolist()
            assert size is None or size.tolist() == wanted_size.tolist()
            assert torch.equal(own[..., :height, :width], wanted[..., :height, :width])
    assert torch.equal(torch.cat([labels for _, _, labels in found]), in_memory.labels[order[4:]])


BROKEN = {"truncated.jpg": "jpg", "text.png": "txt", "empty.jpg": "empty"}


def write_broken(path: Path) -> None:
    if path.stem == "truncated":
        write(path, 60, 60)
        path.write_bytes(path.read_bytes()[:500])
    else:
        path.write_bytes(b"" if path.stem == "empty" else b"no image at all")


@pytest.mark.parametrize("name", BROKEN)
def test_an_unreadable_image_is_named(splits: Path, name: str) -> None:
    write_broken(splits / "train" / "bee" / name)
    with pytest.raises(ValueError, match=rf"unreadable image .*bee/{name}: "):
        load_images(f"folder:{splits}", "train")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_in_a_large_set_is_named_when_it_is_due(
    splits: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_broken(splits / "train" / "bee" / "truncated.jpg")
    monkeypatch.setattr(folder, "IN_MEMORY", 1000)
    visited = batches(load_images(f"folder:{splits}", "train", source_size=8), 6, workers=workers)
    next(visited)
    next(visited)
    with pytest.raises(ValueError, match=r"^unreadable image .*truncated\.jpg: [^\n]*$"):
        next(visited)


def test_what_is_missing_is_named(splits: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def refused(path: Path, message: str, split: str = "train") -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            load_images(f"folder:{path}", split)

    refused(splits / "nowhere", f"there is no folder {splits / 'nowhere'}")
    empty = tmp_path_factory.mktemp("empty")
    (empty / "cat").mkdir()
    refused(empty, f"{empty} has no images")
    write(empty / "cat" / "0.png")
    refused(empty, f"{empty} has no labels and no test split", "test")
    write(empty / "dog" / "0.png", value=3)
    refused(empty, f"{empty} has too few images a class", "test")
    write(splits / "test" / "cow" / "0.png")
    refused(splits, "test/ has classes that train/ has not: cow", "test")
