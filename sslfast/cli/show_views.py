"""`sslfast show-views`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sslfast._files import printable
from sslfast.cli.parse import parse

FORMATS = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
LARGEST = 224  # px; of views whose size is not given


@dataclass
class ShowViews:
    """What to draw."""

    data: str
    """Images to take: digits, photos, cifar10, cifar100, stl10, stl10-unlabeled, folder:PATH, wds:SHARDS or
    module:name."""
    preset: str = "simclr"
    """Augmentation: simclr, simclr-tf, simclr-cifar, moco-v1, moco-v2, simsiam, byol (by turns), mae, mnist-like."""
    strength: float = 1.0
    """Scales the augmentation: 0 is none, 1 the published one."""
    images: int = 4
    """Training images, one a row."""
    views: int = 4
    """Views of each."""
    size: int | None = None
    """Side of the views, in pixels; that of the images, up to 224, if not given."""
    seed: int = 0
    """Seed of the images and of the augmentation."""
    output: Path | None = None
    """The picture, .png, .jpg, .pdf or .svg; views-DATA-PRESET-STRENGTH.png if not given."""
    data_root: Path | None = None
    """Folder of the downloaded sets; the data sets' own default if not given."""
    download: bool = False
    """Fetch the images if they are not there yet."""
    skip_corrupt: bool = False
    """Go on without image files that cannot be read."""

    def __post_init__(self) -> None:
        for name in ("images", "views", "size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.output is not None and self.output.suffix.lower() not in FORMATS:
            raise ValueError(f"output must end in {', '.join(FORMATS)}, got {self.output}")


def show_views(arguments: Sequence[str]) -> int:
    """Run `sslfast show-views`; returns the exit code."""
    about = "Draw training images, random views of them by a preset, and under each view what was done to it."
    chosen = parse(ShowViews, arguments, command="show-views", about=about)
    from sslfast.augment import ViewSampler
    from sslfast.data import batches, load_images
    from sslfast.report.views import draw_views

    ViewSampler.pair(chosen.preset, 1, strength=chosen.strength)  # wrong names show before anything is read
    images = load_images(
        chosen.data, "train", root=chosen.data_root, download=chosen.download, skip_corrupt=chosen.skip_corrupt
    )
    generator = torch.Generator().manual_seed(chosen.seed)
    order = torch.randperm(len(images), generator=generator)[: chosen.images]
    index, pixels, _ = next(batches(images, chosen.images, order=order))
    size = chosen.size or min(*images.shape[1:], LARGEST)
    samplers = ViewSampler.pair(chosen.preset, size, strength=chosen.strength)
    turns = (samplers[k % 2] for k in range(chosen.views))  # those of a pair take turns
    params = [sampler.draw(pixels, generator=generator) for sampler in turns]
    names = [images.title("image", i) for i in index.tolist()]
    title = f"{printable(chosen.data)}, preset {chosen.preset}, strength {chosen.strength:g}, views of {size} px"
    output = chosen.output or Path(default_name(chosen))
    output.parent.mkdir(parents=True, exist_ok=True)
    draw_views(output, pixels, params, size, labels=names, title=title)
    for path, reason in images.corrupt.items():
        print(f"skipped unreadable image {path}: {reason}")
    print(output)
    return 0


def default_name(chosen: ShowViews) -> str:
    """A file name of letters, digits, dots and dashes; of a folder its last part."""
    data = Path(chosen.data.removeprefix("folder:")).absolute().name
    return re.sub(r"[^\w.-]+", "-", f"views-{data}-{chosen.preset}-{chosen.strength:g}.png")
