"""Pixels arrive as they are in the file."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from sslfast.augment import ViewSampler
from sslfast.data import folder, load_images
from sslfast.data.decode import Unreadable, converted, read
from sslfast.data.registry import own_normalization
from sslfast.modality.images import to_inputs

RNG = np.random.default_rng(0)
DEEP = RNG.integers(65536, size=(9, 12), dtype=np.uint16)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack")
    elif path.suffix == ".pgm":
        path.write_bytes(b"P5 12 9 65535\n" + pixels.astype(">u2").tobytes())
    elif path.suffix == ".jp2":
        Image.fromarray(pixels).save(path, irreversible=False)
    else:
        Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2", "npy"])
def test_sixteen_bit_gray_is_not_cut_off(tmp_path: Path, suffix: str) -> None:
    image = read(write(tmp_path / f"x.{suffix}", DEEP))
    assert image.dtype == torch.uint16
    assert image.shape == (3, 9, 12)
    for plane in image:
        assert torch.equal(plane, torch.from_numpy(DEEP))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_floats_in_range_are_taken_and_others_are_named(tmp_path: Path, kind: type, suffix: str) -> None:
    pixels = RNG.random((9, 12)).astype(kind)
    image = read(write(tmp_path / f"x.{suffix}", pixels))
    assert image.dtype == torch.float32
    assert torch.equal(image[0], torch.from_numpy(pixels.astype(np.float32)))
    pixels[3, 3] = 255
    with pytest.raises(Unreadable, match=rf"x\.{suffix}: floats must be in \[0, 1\], got .* to 255"):
        read(write(tmp_path / f"x.{suffix}", pixels))
    pixels[3, 3] = np.nan
    with pytest.raises(Unreadable, match="got nan to nan"):
        read(write(tmp_path / f"x.{suffix}", pixels))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[-1, 5]], dtype=np.int32), "integers must be in 0 to 65535, got -1 to 5"),
        (np.array([[True, False]]), "pixels must be 8 or 16 bits or floats, got bool"),
        (np.zeros((2, 3, 4, 5), dtype=np.uint8), r"must be \(H, W\), \(H, W, C\) or \(C, H, W\), got \(2, 3, 4, 5\)"),
        (np.array([None]), "Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        read(write(tmp_path / "x.npy", pixels))


@pytest.mark.parametrize("channels", [4, 5, 12])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_any_number_of_channels(tmp_path: Path, channels: int, first: bool, suffix: str) -> None:
    pixels = RNG.integers(256, size=(channels, 20, 30), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, pixels if first else pixels.transpose(1, 2, 0))
    else:
        options = {"photometric": "minisblack", "planarconfig": "separate" if first else "contig"}
        tifffile.imwrite(path, pixels if first else np.ascontiguousarray(pixels.transpose(1, 2, 0)), **options)
    image = read(path)
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(pixels))
    assert read(path, 10).shape == (channels, 10, 15)


def test_alpha_is_left_out(tmp_path: Path) -> None:
    pixels = RNG.integers(256, size=(9, 12, 4), dtype=np.uint8)
    for suffix in ("png", "tiff"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(pixels).save(path)
        assert torch.equal(read(path), torch.from_numpy(pixels[..., :3]).permute(2, 0, 1))


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_is_applied(tmp_path: Path, suffix: str, size: int | None) -> None:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:20] = 250  # bright above, which is to the right when turned clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    image = read(path, size).float()
    height, width = image.shape[1:]
    assert height * 2 == width * 3
    assert image[..., : width // 2 - 1].mean() < 20
    assert image[..., width // 2 + 1 :].mean() > 230


def test_one_set_has_one_kind_of_pixels(tmp_path: Path) -> None:
    write(tmp_path / "0.png", np.full((9, 12, 3), 100, dtype=np.uint8))
    write(tmp_path / "1.png", np.full((9, 12), 257 * 30, dtype=np.uint16))
    images = load_images(f"folder:{tmp_path}", "train").images
    assert images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == [100, 30]
    deep = converted(images[0], 3, torch.uint16)
    assert deep.dtype == torch.uint16
    assert int(deep[0, 0, 0]) == 257 * 100
    torch.testing.assert_close(converted(images[0], 3, torch.float32)[0, 0, 0].item(), 100 / 255, rtol=1e-6, atol=0)
    write(tmp_path / "2.tif", np.zeros((8, 12, 9), dtype=np.uint8))  # as eight pages
    with pytest.raises(Unreadable, match=r"2\.tif: it has 8 channels, and others 3"):
        load_images(f"folder:{tmp_path}", "train")


def test_the_normalisation_is_the_datas_own_where_imagenet_has_none(tmp_path: Path) -> None:
    write(tmp_path / "8" / "0.png", np.full((9, 12, 3), 100, dtype=np.uint8))
    assert own_normalization(f"folder:{tmp_path / '8'}")[0] == (0.485, 0.456, 0.406)
    deep = (DEEP // 16).astype(np.uint16)  # 12 bits of 16
    write(tmp_path / "16" / "0.png", deep)
    write(tmp_path / "16" / "1.png", deep.T.copy())
    mean, std = own_normalization(f"folder:{tmp_path / '16'}")
    assert mean == pytest.approx([deep.mean() / 65535] * 3, abs=1e-6)
    assert std == pytest.approx([deep.std() / 65535] * 3, abs=1e-6)
    write(tmp_path / "c" / "0.npy", np.zeros((5, 9, 12), dtype=np.uint8))
    assert own_normalization(f"folder:{tmp_path / 'c'}") == ((0.0,) * 5, (1.5e-5,) * 5)


def test_views_are_cut_from_the_whole_image(tmp_path: Path) -> None:
    """A wide image whose ends are red and blue: the middle square that was taken before has neither."""
    pixels = np.zeros((30, 90, 3), dtype=np.uint8)
    pixels[:, :20], pixels[:, 70:] = (255, 0, 0), (0, 0, 255)
    write(tmp_path / "0.png", pixels)
    images = load_images(f"folder:{tmp_path}", "train", source_size=30)
    generator = torch.Generator().manual_seed(0)
    views = ViewSampler("mae", 16).view(images.images.expand(64, -1, -1, -1), generator=generator)
    assert (views[:, 0].amax(dim=(1, 2)) > 0.9).sum() > 5
    assert (views[:, 2].amax(dim=(1, 2)) > 0.9).sum() > 5


def test_sources_have_enough_pixels_for_the_view(tmp_path: Path) -> None:
    write(tmp_path / "0.png", np.zeros((600, 1200, 3), dtype=np.uint8))
    assert load_images(f"folder:{tmp_path}", "train", source_size=1024).shape == (3, 600, 1200)
    assert load_images(f"folder:{tmp_path}", "train", source_size=300).shape == (3, 300, 600)


def test_evaluation_looks_at_the_centre_of_every_image(tmp_path: Path) -> None:
    for i, shape in enumerate([(20, 40), (40, 20), (20, 20)]):
        pixels = np.zeros((*shape, 3), dtype=np.uint8)
        top, left = (shape[0] - 20) // 2, (shape[1] - 20) // 2
        pixels[top : top + 20, left : left + 20] = 40 * (i + 1)
        write(tmp_path / f"{i}.png", pixels)
    images = load_images(f"folder:{tmp_path}", "train").images
    inputs = to_inputs(images, size=10, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert inputs.shape == (3, 3, 10, 10)
    for i, image in enumerate(inputs):
        torch.testing.assert_close(image, torch.full_like(image, 40 * (i + 1) / 255), rtol=0, atol=1e-6)


def test_no_shape_fills_the_memory(tmp_path: Path) -> None:
    """Images of 1 x 20,000 in a process of their own, whose peak is told."""
    for i in range(8):
        buffer = io.BytesIO()
        Image.new("RGB", (20_000, 1) if i % 2 else (1, 20_000), (i, i, i)).save(buffer, "PNG")
        (tmp_path / f"{i}.png").write_bytes(buffer.getvalue())
    code = f"""
import resource, torch
from sslfast.data import load_images
from sslfast.modality.images import to_inputs
from sslfast.augment import ViewSampler
load_images("digits", "train")
ViewSampler("simclr", 224).view(torch.zeros(8, 3, 9, 9, dtype=torch.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = load_images("folder:{tmp_path}", "train", source_size=448).images
to_inputs(images, size=224, mean=(0.5,) * 3, std=(1.0,) * 3)
ViewSampler("simclr", 224).view(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250 * 1024  # KiB


def test_twelve_channels_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        write(tmp_path / f"{i}.npy", RNG.integers(65536, size=(12, 20, 20 + i), dtype=np.uint16))
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    images = load_images(f"folder:{tmp_path}", "train", source_size=16)
    assert images.shape == (12, 16, 16)
    assert "uint16, 12 channels; saturation, hue and grayscale are left out" in images.notes[-1]
