"""Images a second of SimCLR training, with the augmentation in plain PyTorch and with the fused one.

    python benchmarks/train_speed.py --data folder:cifar10 --recipe simclr-cifar10-cpu --rounds 10

Whole training steps of one network in one process: the same loop, data and loss, only what makes the views takes turns.
"eager" is the reference in PyTorch, "sslfast" the op, and "none" hands the same two views to every step: what a step
costs without augmentation, which no augmentation can beat. A round is --steps steps of each. The rows go to
benchmarks/results/train_speed-DEVICE.csv; `note` has the images a second.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from benchmarks.measure import RESULTS, machine, refusal  # noqa: E402
from benchmarks.report import read, table, write  # noqa: E402
from sslfast import __version__  # noqa: E402
from sslfast.data import batches  # noqa: E402
from sslfast.ops import registry  # noqa: E402
from sslfast.recipes import RECIPES  # noqa: E402
from sslfast.train.launch import epoch_order, launch  # noqa: E402
from sslfast.train.log import RunLog  # noqa: E402
from sslfast.train.loop import Training  # noqa: E402

Views = Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
ABOUT = {"eager": "PyTorch", "sslfast": "the op", "none": "the same views at every step"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="another data set than the recipe's")
    parser.add_argument("--data-root", help="folder of the downloaded sets")
    parser.add_argument("--recipe", choices=RECIPES, default="simclr-cifar10-cpu", help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, help="the recipe's when not given")
    parser.add_argument("--precision", choices=["32", "bf16-mixed", "16-mixed"], help="the recipe's when not given")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps of each in a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the CSV (benchmarks/results)")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.rounds < 2:
        parser.error("--steps must be at least 1 and --rounds at least 2")
    if why := refusal(arguments.output):
        parser.error(why)
    given = {name: getattr(arguments, name) for name in ("data", "data_root", "batch_size", "precision")}
    given = {name: value for name, value in given.items() if value is not None}
    config = replace(
        RECIPES[arguments.recipe].config, **given, accelerator=arguments.device, knn_every=0, epochs=10_000
    )
    with TemporaryDirectory() as folder:
        training = Training(launch(config), config, Path(folder))
        training.log = RunLog(Path(folder), total=training.total, enabled=False)
        training.method.train()
        times = measure(training, arguments.steps, arguments.rounds)
    made = rows(training, times)
    path = arguments.output / f"train_speed-{arguments.device}.csv"
    earlier = read(path) if path.is_file() else []
    write(path, [row for row in earlier if row["case"] != made[0]["case"]] + made)
    print(table(made), *(f"{row['peer']}: {row['note']}" for row in made), sep="\n")
    return 0


def measure(training: Training, steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds a step of every way to make views, a number a round; the first round is not counted."""
    stream = endless(training)
    times: dict[str, list[float]] = {name: [] for name in ABOUT}
    ways = ways_to_make_views(training.method.views)
    for _ in range(rounds + 1):
        for name, views in ways.items():
            training.method.views = views
            synchronize(training)
            start = time.perf_counter()
            for _ in range(steps):
                training._train_step(stream)
            synchronize(training)
            times[name].append((time.perf_counter() - start) / steps)
            training._fetch_losses()  # refuses to go on with a broken one
    return {name: seconds[1:] for name, seconds in times.items()}


def ways_to_make_views(fused: Views) -> dict[str, Views]:
    kept: list[tuple[Tensor, ...]] = []

    def eager(images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        registry.USE_REFERENCE = True
        try:
            return fused(images, generator)
        finally:
            registry.USE_REFERENCE = False

    def none(images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        if not kept:
            kept.append(fused(images, generator))
        return kept[0]

    return {"eager": eager, "sslfast": fused, "none": none}


def endless(training: Training) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    config, epoch = training.config, 0
    while True:
        order = epoch_order(training.train_set, seed=config.seed, epoch=epoch)
        options = {"device": training.fabric.device, "order": order, "drop_last": True, "workers": config.workers}
        yield from batches(training.train_set, config.batch_size, **options)
        epoch += 1


def synchronize(training: Training) -> None:
    if training.fabric.device.type == "cuda":
        torch.cuda.synchronize()


def rows(training: Training, times: dict[str, list[float]]) -> list[dict]:
    config = training.config
    data = "folder" if config.data.startswith("folder:") else config.data
    case = f"SimCLR {data} {config.backbone} {config.image_size} px {config.preset} B={training.batch}"
    eager = statistics.median(times["eager"])
    made = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, n=4)
        made.append({
            "op": "train_speed", "case": case, "peer": name, "dtype": config.precision, "rounds": len(seconds),
            "version": __version__ if name == "sslfast" else torch.__version__, "median_ms": f"{median * 1e3:.4g}",
            "spread_percent": f"{100 * (high - low) / median:.0f}", "times_eager": f"{eager / median:.2f}",
            "note": f"{training.batch / median:.0f} images/s, views by {ABOUT[name]}",
            **machine(training.fabric.device.type),
        })  # fmt: skip
    return made


if __name__ == "__main__":
    sys.exit(main())
