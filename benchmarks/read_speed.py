"""Images a second from JPEG files, beside the loaders of torchvision and lightly.

    python benchmarks/read_speed.py               # decoded only; decoded and made two SimCLR views of
    python benchmarks/read_speed.py --epochs 3    # sslfast alone, through all images, and the memory of its workers

The files are random windows of 500x400 pixels of the photographs that come with scikit-learn and scikit-image,
--distinct of them; the others are links to these. Every loader has --workers processes and takes turns in one run, a
turn being --turn images; the first is not counted. Each decodes and augments in its own way: torchvision and lightly in
the workers, image by image; sslfast decodes there, and makes the views of a batch in the main process. The rows go to
benchmarks/results/read_speed-cpu.csv; `note` has the images a second.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from benchmarks.measure import RESULTS, machine, refusal  # noqa: E402
from benchmarks.peers import version  # noqa: E402
from benchmarks.report import table, write  # noqa: E402
from sslfast.augment import PRESETS, ViewSampler  # noqa: E402
from sslfast.data import batches  # noqa: E402
from sslfast.data.embedded import photographs  # noqa: E402
from sslfast.data.folder import list_folder  # noqa: E402

WIDTH, HEIGHT, QUALITY, BATCH = 500, 400, 90, 32
Loader = Callable[[Tensor], Iterator[Any]]  # indices of images -> their batches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="files (%(default)s)")
    parser.add_argument("--distinct", type=int, default=2000, help="different ones among them (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a view (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--turn", type=int, default=512, help="images of a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, help="instead, so many times through all, sslfast alone")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the CSV (benchmarks/results)")
    arguments = parser.parse_args()
    if not 1 <= arguments.distinct <= arguments.images or not 1 <= arguments.turn <= arguments.images:
        parser.error("--distinct and --turn must be at least 1 and at most --images")
    if arguments.rounds < 2 or arguments.workers < 1:
        parser.error("--rounds must be at least 2 and --workers at least 1")
    if not arguments.epochs and (why := refusal(arguments.output)):
        parser.error(why)
    with TemporaryDirectory() as folder:
        make_files(Path(folder), arguments.images, arguments.distinct)
        if arguments.epochs:
            return go_through(Path(folder), arguments)
        made = compare(Path(folder), arguments, views=False)
        gc.collect()  # or the next workers would inherit these
        made += compare(Path(folder), arguments, views=True)
    write(arguments.output / "read_speed-cpu.csv", made)
    print(table(made), *(f"{row['case']}, {row['peer']}: {row['note']}" for row in made), sep="\n")
    return 0


def make_files(folder: Path, count: int, distinct: int) -> None:
    """A folder by class, as torchvision's loader wants it."""
    (folder / "all").mkdir()
    draw = np.random.default_rng(0)
    sources = [photo for photo in photographs().values() if photo.shape[0] >= HEIGHT and photo.shape[1] >= WIDTH]
    for k in range(distinct):
        photo = sources[k % len(sources)]
        top, left = (draw.integers(photo.shape[axis] - side + 1) for axis, side in enumerate((HEIGHT, WIDTH)))
        window = photo[top : top + HEIGHT, left : left + WIDTH]
        Image.fromarray(window).save(folder / f"all/{k:06}.jpg", quality=QUALITY)
    for k in range(distinct, count):
        os.link(folder / f"all/{k % distinct:06}.jpg", folder / f"all/{k:06}.jpg")


def sslfast(folder: Path, size: int, workers: int, *, views: bool) -> Loader:
    files = list_folder(folder, "train", source_size=2 * size)
    sampler, generator = ViewSampler("simclr", size), torch.Generator().manual_seed(0)

    def loader(order: Tensor) -> Iterator[Any]:
        for _, images, _ in batches(files, BATCH, order=order, workers=workers):
            yield [sampler.view(images, generator=generator) for _ in range(2)] if views else images

    return loader


class Turn(Sampler):
    """The indices of the present turn."""

    def __init__(self) -> None:
        self.order: list[int] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


def of_torch(dataset: Any, workers: int, *, views: bool) -> Loader:
    """A DataLoader whose workers stay alive; without views a batch is a list of images."""
    turn = Turn()
    collate = None if views else list
    loader = DataLoader(dataset, BATCH, sampler=turn, num_workers=workers, persistent_workers=True, collate_fn=collate)

    def go(order: Tensor) -> Iterator[Any]:
        turn.order = order.tolist()
        return iter(loader)

    return go


def torchvision(folder: Path, size: int, workers: int, *, views: bool) -> Loader:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    p = PRESETS["simclr"]
    steps = [v2.PILToTensor()]
    if views:
        steps = [
            v2.RandomResizedCrop(size, p.crop_scale, p.crop_ratio),
            v2.RandomHorizontalFlip(p.flip),
            v2.RandomApply([v2.ColorJitter(p.brightness, p.contrast, p.saturation, p.hue)], p.jitter),
            v2.RandomGrayscale(p.grayscale),
            v2.RandomApply([v2.GaussianBlur(2 * ViewSampler(p, size).blur_radius + 1, p.blur_sigma)], p.blur),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    view = v2.Compose(steps)
    transform = (lambda image: (view(image), view(image))) if views else view
    return of_torch(ImageFolder(str(folder), transform), workers, views=views)


def lightly(folder: Path, size: int, workers: int, *, views: bool) -> Loader:
    from lightly.data import LightlyDataset
    from lightly.transforms import SimCLRTransform
    from torchvision.transforms import PILToTensor

    transform = SimCLRTransform(input_size=size, normalize=None) if views else PILToTensor()
    return of_torch(LightlyDataset(str(folder), transform=transform), workers, views=views)


PEERS = {"torchvision": torchvision, "lightly": lightly, "sslfast": sslfast}


def compare(folder: Path, arguments: argparse.Namespace, *, views: bool) -> list[dict]:
    """A row a loader."""
    options = {"views": views, "size": arguments.size, "workers": arguments.workers}
    loaders = {name: make(folder, **options) for name, make in PEERS.items()}
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    order = torch.Generator().manual_seed(0)
    for _ in range(arguments.rounds + 1):
        turn = torch.randperm(arguments.images, generator=order)[: arguments.turn]
        for name, loader in loaders.items():
            start = time.perf_counter()
            for _ in loader(turn):
                pass
            rates[name].append(len(turn) / (time.perf_counter() - start))
    case = f"JPEG {WIDTH}x{HEIGHT}" + (f", two SimCLR views of {arguments.size} px" if views else ", decoded")
    made = []
    for name, found in rates.items():
        median = statistics.median(found[1:])
        low, _, high = statistics.quantiles(found[1:], n=4)
        made.append({
            "op": "read_speed", "case": case, "peer": name, "dtype": "uint8", "rounds": len(found) - 1,
            "version": version(name), "median_ms": f"{arguments.turn / median * 1e3:.4g}",
            "spread_percent": f"{100 * (high - low) / median:.0f}",
            "note": f"{median:.0f} images/s, {arguments.workers} workers", **machine("cpu"),
        })  # fmt: skip
    return made


def go_through(folder: Path, arguments: argparse.Namespace) -> int:
    """Images a second and the memory of the workers, epoch by epoch; those that sslfast's loader keeps."""
    files = list_folder(folder, "train", source_size=2 * arguments.size)
    for epoch in range(arguments.epochs):
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(epoch))
        start = time.perf_counter()
        for _ in batches(files, BATCH, order=order, workers=arguments.workers):
            pass
        rate = len(files) / (time.perf_counter() - start)
        own = [private_mib(worker.pid) for worker in files.loader.loader._iterator._workers]
        memory = ", ".join(f"{mib:.0f}" for mib in own)
        print(
            f"epoch {epoch + 1}: {len(files)} images, {rate:.0f} images/s, workers' own memory {memory} MiB", flush=True
        )
    return 0


def private_mib(pid: int) -> float:
    """What a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    sys.exit(main())
