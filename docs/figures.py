"""Draws the pictures of docs/augmentation.md by the op itself: `python docs/figures.py`.

The photographs are those that scikit-learn and scikit-image ship.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import skimage.data
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from sslfast.augment import PRESETS, Preset, ViewParams, ViewSampler
from sslfast.cli import main as sslfast
from sslfast.ops import augment

IMAGES = Path(__file__).resolve().parent / "images"
SOURCE, VIEW = 256, 224  # px
INK = "#1c2126"


def photograph(pixels: object) -> Tensor:
    """The middle square of a photograph (H, W, 3), as a batch of one, (1, 3, SOURCE, SOURCE) uint8."""
    image = torch.as_tensor(pixels).permute(2, 0, 1)[None]
    height, width = image.shape[-2:]
    side = min(height, width)
    whole = ViewParams.identity(1, (height, width))
    square = torch.tensor([[(height - side) // 2, (width - side) // 2, side, side]], dtype=torch.int32)
    view = augment(image, replace(whole, crop=square, interpolation="bicubic"), SOURCE)
    return (255 * view).round().to(torch.uint8)


PHOTOS = {
    "cat": photograph(skimage.data.chelsea()),
    "coffee": photograph(skimage.data.coffee()),
    "astronaut": photograph(skimage.data.astronaut()),
    "china": photograph(load_sample_image("china.jpg").copy()),
    "flower": photograph(load_sample_image("flower.jpg").copy()),
    "rocket": photograph(skimage.data.rocket()),
}


def altered(photo: str, size: int = VIEW, **fields: object) -> Tensor:
    """A photograph (h, w, 3) with some of `ViewParams`' fields set; a name in `jitter` stands for its column."""
    image = PHOTOS[photo]
    steps = tuple(fields.pop("steps", ()))
    params = ViewParams.identity(1, image.shape[-2:])
    for k, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        if name in fields:
            jitter = params.jitter.clone()
            jitter[0, k] = fields.pop(name)
            params, steps = replace(params, jitter=jitter), (*steps, name)
    tensors = {
        name: torch.tensor([value], dtype=getattr(params, name).dtype) if hasattr(params, name) else value
        for name, value in fields.items()
        if name in ("crop", "flip", "grayscale", "blur", "solarize")
    }
    steps += tuple(name for name in ("grayscale", "blur", "solarize") if name in tensors)
    rest = {name: value for name, value in fields.items() if name not in tensors}
    params = replace(params, **tensors, **{"steps": steps, "interpolation": "bicubic", **rest})
    return augment(image, params, size)[0].permute(1, 2, 0)


def centred(area: float) -> list[int]:
    """The box around the middle that has this share of the area."""
    side = round(SOURCE * area**0.5)
    return [(SOURCE - side) // 2, (SOURCE - side) // 2, side, side]


# step -> the photograph, and three captions with what is set
STEPS: dict[str, tuple[str, list[tuple[str, dict[str, object]]]]] = {
    "crop": ("cat", [(f"{100 * a:.0f}% of the area", {"crop": centred(a)}) for a in (0.8, 0.25, 0.02)]),
    "flip": ("rocket", [("mirrored", {"flip": True})]),
    "brightness": ("coffee", [(f"factor {f}", {"brightness": f}) for f in (0.85, 0.45, 0.1)]),
    "contrast": ("china", [(f"factor {f}", {"contrast": f}) for f in (0.8, 0.35, 0.05)]),
    "saturation": ("flower", [(f"factor {f}", {"saturation": f}) for f in (0.8, 0.3, 4.0)]),
    "hue": ("flower", [(f"shift {f}", {"hue": f}) for f in (0.03, 0.15, 0.5)]),
    "grayscale": ("coffee", [("no colour", {"grayscale": True})]),
    "blur": ("cat", [(f"σ {s} px", {"blur": s, "blur_radius": r}) for s, r in ((0.5, 11), (2.0, 11), (10.0, 33))]),
    "solarize": ("astronaut", [(f"from {t}", {"solarize": t}) for t in (0.9, 0.5, 0.0)]),
}
GRADES = ("weak", "right", "strong")


def sheet(
    path: Path,
    rows: Sequence[Sequence[Tensor]],
    captions: Sequence[Sequence[str]] = (),
    *,
    names: Sequence[str] = (),
    inches: float = 1.5,
    quality: int = 85,
) -> None:
    """Rows of pictures (h, w, 3) with a caption above each, and the name of each row on its left."""
    left, text = (1.0 if names else 0.03), 0.2 if captions else 0.06
    columns = max(map(len, rows))
    width, height = left + columns * (inches + 0.06), len(rows) * (inches + text)
    with rc_context({"font.size": 8, "text.color": INK, "text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=140, facecolor="white")
        for r, row in enumerate(rows):
            bottom = 1 - ((r + 1) * (inches + text) - 0.02) / height
            for c, picture in enumerate(row):
                box = ((left + c * (inches + 0.06)) / width, bottom, inches / width, inches / height)
                axes = figure.add_axes(box)
                axes.imshow(picture.clamp(0, 1).numpy(), interpolation="nearest" if len(picture) < 100 else "auto")
                axes.set_axis_off()
                if captions:
                    axes.set_title(captions[r][c], pad=2.5, fontsize=8)
            if names:
                figure.text(0.04 / width, bottom + inches / height / 2, names[r], va="center", weight="bold")
        figure.savefig(path, pil_kwargs={"quality": quality, "optimize": True})


@contextmanager
def chdir(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def steps() -> None:
    """One strip a step: source, weak, right, strong."""
    for name, (photo, grades) in STEPS.items():
        row = [altered(photo), *(altered(photo, **fields) for _, fields in grades)]
        said = [f"{grade}: {text}" for grade, (text, _) in zip(GRADES, grades)] if len(grades) > 1 else [grades[0][0]]
        sheet(IMAGES / f"{name}.jpg", [row], [["source", *said]])


def views(photo: str, sampler: ViewSampler, count: int, generator: torch.Generator) -> list[Tensor]:
    image = PHOTOS[photo].expand(count, -1, -1, -1)
    params = sampler.sample(count, image.shape[-2:], generator=generator)
    return list(augment(image, params, sampler.size).permute(0, 2, 3, 1))


def presets() -> None:
    """A row of views for every preset, all drawn from the same numbers; those that are the same share a row."""
    names: dict[Preset, list[str]] = {}
    for name, preset in PRESETS.items():
        names.setdefault(preset, []).append(name)
    rows = [views("astronaut", ViewSampler(preset, VIEW), 6, torch.Generator().manual_seed(4)) for preset in names]
    sheet(IMAGES / "presets.jpg", rows, names=["\n".join(same) for same in names.values()], inches=1.15, quality=65)


def strengths() -> None:
    """Pairs of views of three photographs at three strengths."""
    photos, grades = ("cat", "coffee", "flower"), {"too weak": 0.1, "right": 1.0, "too strong": 2.5}
    rows = []
    for strength in grades.values():
        generator = torch.Generator().manual_seed(681)
        sampler = ViewSampler("simclr", VIEW, strength=strength)
        rows.append([view for photo in photos for view in views(photo, sampler, 2, generator)])
    captions = [[f"{photo}, view {k}" for photo in photos for k in (1, 2)]] * len(rows)
    names = [f"{name}\nstrength {strength:g}" for name, strength in grades.items()]
    sheet(IMAGES / "strength.jpg", rows, captions, names=names, inches=1.15)


def modes() -> None:
    """The four steps in which the modes differ: the same parameters in both."""
    cases = {
        "resize to 48 px": ("china", {"size": 48}),
        "contrast 0.3": ("flower", {"contrast": 0.3}),
        "saturation 1.8": ("coffee", {"saturation": 1.8}),
        "blur σ 8 px": ("rocket", {"blur": 8.0, "blur_radius": 24}),
    }
    names = ("torchvision", "simclr")
    rows = [[altered(photo, mode=mode, **fields) for photo, fields in cases.values()] for mode in names]
    sheet(IMAGES / "modes.jpg", rows, [list(cases)] * 2, names=names)


def show_views() -> None:
    """What the command draws of a folder with these photographs."""
    with TemporaryDirectory() as folder:
        for split in ("train", "test"):
            for name, image in PHOTOS.items():
                path = Path(folder, "photographs", split, name, "0.png")
                path.parent.mkdir(parents=True)
                Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(path)
        with chdir(folder):
            options = "--data folder:photographs --preset simclr --images 3 --seed 1"
            sslfast(["show-views", *options.split(), "--output", str(IMAGES / "show-views.jpg")])


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    steps()
    presets()
    strengths()
    modes()
    show_views()
