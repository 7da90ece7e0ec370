"""Every method on CIFAR-10 within minutes of one CPU core: trained by its recipe, judged, and timed.

    python benchmarks/cifar10.py --data folder:PATH --output runs/cifar10  # all recipes *-cifar10-cpu
    python benchmarks/cifar10.py --only simclr-cifar10-cpu moco-cifar10-cpu --data cifar10 -- --epochs 2
    python benchmarks/cifar10.py --table                                   # Markdown, beside published figures

What follows a lone `--` is handed to `sslfast pretrain`. A recipe is a run folder in --output and a row of
benchmarks/results/cifar10.csv. Stopped, the script goes on where it was: an unfinished run is resumed, a finished
one not trained again, a row not written twice. `--again` does all of it anew.

cpu_minutes and wall_minutes are those of the training processes, start and data loading included, evaluation not; they
are left out for a run that was once killed without a chance to say its time. Accuracies are those of the test images
in percent, by the last epoch.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from benchmarks.measure import processor  # noqa: E402
from sslfast.cli.pretrain import read as pretrain  # noqa: E402
from sslfast.config import differences  # noqa: E402
from sslfast.evaluate import Run, read_results, standard_result  # noqa: E402
from sslfast.recipes import RECIPES  # noqa: E402

RESULTS = HERE / "results" / "cifar10.csv"
COST = "cost.json"  # in the run folder
MINUTES = {"cpu_minutes": "cpu_seconds", "wall_minutes": "wall_seconds"}  # a column, and what COST calls it
PROTOCOLS = ("linear", "knn")
COLUMNS = [
    "recipe", "method", "data", "backbone", "epochs", "batch", "precision", "threads", "cpu_minutes", "wall_minutes",
    "seed", "linear", "knn", "linear_random", "knn_random", "linear_pixels", "knn_pixels", "last_loss", "commit",
    "device", "processor",
]  # fmt: skip

LIGHTLY = "docs.lightly.ai, CIFAR-10 benchmark, ResNet-18"
SOLO = "vturrisi/solo-learn, ResNet-18"
# Method -> (figure, source): far longer trainings of larger networks, to see what the minutes here leave out.
PUBLISHED: dict[str, tuple[tuple[str, str], ...]] = {
    "simclr": (("kNN 84.8 (200 epochs), 87.9 (800)", LIGHTLY), ("linear 90.7 (1000 epochs)", SOLO)),
    "moco": (("kNN 84.7 (200 epochs), 89.9 (800)", LIGHTLY), ("linear 92.9 (1000 epochs, MoCo v2+)", SOLO)),
    "byol": (("kNN 86.8 (200 epochs), 91.0 (800)", LIGHTLY), ("linear 92.6 (1000 epochs)", SOLO)),
    "simsiam": (("kNN 76.4 (200 epochs), 90.4 (800)", LIGHTLY), ("linear 90.5 (1000 epochs)", SOLO)),
    "mae": (("fine-tuned 89.8 (2000 epochs)", "Kedreamix/MAE-for-CIFAR, ViT-Tiny"),),
}


def main() -> int:
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    known = [name for name, recipe in RECIPES.items() if recipe.config.modality == "images"]
    recipes = [name for name in known if name.endswith("-cifar10-cpu")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="cifar10, or folder:PATH with its images (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=known, default=recipes, metavar="RECIPE", help="(all)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of training and evaluation (1)")
    parser.add_argument("--output", type=Path, default=Path("runs", "cifar10"), help="folder of the runs (%(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the CSV (benchmarks/results/cifar10.csv)")
    parser.add_argument("--again", action="store_true", help="train and judge anew what is there already")
    parser.add_argument("--table", action="store_true", help="print the CSV as a Markdown table, and do nothing else")
    arguments = parser.parse_args(words[:end])
    if arguments.table:
        print(table(read(arguments.results)))
        return 0
    failed = []
    for recipe in arguments.only:
        folder = arguments.output / (recipe if arguments.seed == 0 else f"{recipe}-seed{arguments.seed}")
        options = ["--data", arguments.data, "--seed", str(arguments.seed), *words[end + 1 :]]
        if not arguments.again:
            if changed := other_options(recipe, folder, options):
                parser.error(f"{folder} was trained otherwise ({changed}): choose another --output, or --again")
            if recorded(read(arguments.results), recipe, arguments.seed, folder):
                print(f"{recipe}: has its row already", flush=True)
                continue
        environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
        try:
            train(recipe, folder, options, environment, again=arguments.again)
            judge(folder, environment)
        except subprocess.CalledProcessError as error:
            if error.returncode == 130:
                return 130
            failed.append(recipe)
            continue
        found = row(recipe, folder, arguments.threads)
        append(arguments.results, found)
        print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def train(recipe: str, folder: Path, options: list[str], environment: dict[str, str], *, again: bool) -> None:
    """Train in a process of its own, or what is left of it, and add its time to the run's cost.

    Raises:
        CalledProcessError: it failed, or was interrupted (130).
    """
    begun = (folder / "checkpoints" / "last.ckpt").is_file() and not again
    if begun and Run(folder).finished:
        return
    earlier = json.loads((folder / COST).read_text()) if begun and (folder / COST).is_file() else {}
    spent = earlier if begun else {"cpu_seconds": 0.0, "wall_seconds": 0.0}
    (folder / COST).unlink(missing_ok=True)  # if this process is killed, nobody knows the time
    command = [sys.executable, "-m", "sslfast", "pretrain", recipe, *options, "--output", str(folder)]
    command += ["--resume"] if begun else ["--overwrite"] if (folder / "config.json").is_file() else []
    cpu, wall = children(), time.monotonic()
    code = subprocess.call(command, env=environment)
    took = {"cpu_seconds": children() - cpu, "wall_seconds": time.monotonic() - wall}
    if spent and folder.is_dir():
        (folder / COST).write_text(json.dumps({name: spent[name] + took[name] for name in took}) + "\n")
    if code:
        raise subprocess.CalledProcessError(code, command)


def other_options(recipe: str, folder: Path, options: list[str]) -> str:
    """What a finished run in this folder was trained by that these options would change; empty if nothing."""
    if not (folder / "config.json").is_file() or not Run(folder).finished:
        return ""
    return "; ".join(differences(Run(folder).settings.to_dict(), pretrain([recipe, *options]).training.to_dict()))


def judge(folder: Path, environment: dict[str, str]) -> None:
    """Evaluate the run by every protocol that results.json does not have yet, its baselines once for all runs."""
    if missing := [protocol for protocol in PROTOCOLS if not standard_result(folder, protocol)]:
        command = [sys.executable, "-m", "sslfast", "evaluate", str(folder), "--protocol", *missing]
        others = sorted(str(path.parent) for path in folder.parent.glob("*/results.json") if path.parent != folder)
        command += ["--baselines-from", *others] if others else []
        subprocess.run(command, env=environment, check=True)


def children() -> float:
    """Seconds of CPU that ended child processes, and theirs, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(recipe: str, folder: Path, threads: int) -> dict[str, object]:
    """What the run folder says, as a row of the CSV."""
    run, results = Run(folder), read_results(folder)
    config, trained_on = run.config, run.environment["device"]
    device, threads = trained_on["type"], trained_on.get("threads", threads)
    cost = json.loads((folder / COST).read_text()) if (folder / COST).is_file() else {}
    minutes = {name: f"{cost[key] / 60:.1f}" if cost else "" for name, key in MINUTES.items()}
    percent = {
        **{protocol: results[protocol]["accuracy"] for protocol in PROTOCOLS},
        **{f"{protocol}_random": results[protocol]["baselines"]["random_init"] for protocol in PROTOCOLS},
        **{f"{protocol}_pixels": results[protocol]["baselines"]["pixels"] for protocol in PROTOCOLS},
    }
    losses = [line["loss"] for line in run.metrics if "loss" in line]
    found = {
        "recipe": recipe, "method": config["method"], "data": config["data"].partition(":")[0],
        "backbone": config["backbone"], "epochs": config["epochs"],
        "batch": config["batch_size"] * config["accumulate"] * trained_on["processes"],
        "precision": config["precision"], "threads": threads, **minutes, "seed": config["seed"],
        **{name: f"{100 * value:.2f}" for name, value in percent.items()}, "last_loss": f"{losses[-1]:.4f}",
        "commit": (run.environment["commit"] or "")[:9], "device": device, "processor": processor(device),
    }  # fmt: skip
    return {name: found[name] for name in COLUMNS}


def recorded(rows: list[dict[str, str]], recipe: str, seed: int, folder: Path) -> bool:
    """Whether there is a row for this recipe and seed by the commit of its run, or by this one if it has no run."""
    trained = folder / "environment.json"
    commit = json.loads(trained.read_text())["commit"] if trained.is_file() else head()
    wanted = (recipe, str(seed), (commit or "")[:9])
    return any((row["recipe"], row["seed"], row["commit"]) == wanted for row in rows)


def head() -> str:
    git = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: list[dict[str, str]]) -> str:
    """The last row of every recipe and seed, as Markdown, and what was published under it."""
    latest = {(row["recipe"], row["seed"]): row for row in rows}.values()
    names = [
        "recipe", "network", "epochs", "CPU min", "linear %", "random init", "pixels", "kNN %", "random init", "pixels",
    ]  # fmt: skip
    lines = ["| " + " | ".join(names) + " |", "|---|---|" + "---:|" * (len(names) - 2)]
    for row in latest:
        name = row["recipe"] if row["seed"] == "0" else f"{row['recipe']} (seed {row['seed']})"
        accuracies = [
            f"**{float(row[protocol]):.1f}**" if suffix == "" else f"{float(row[protocol + suffix]):.1f}"
            for protocol in PROTOCOLS
            for suffix in ("", "_random", "_pixels")
        ]
        cells = [name, row["backbone"], row["epochs"], row["cpu_minutes"] or "?", *accuracies]
        lines.append("| " + " | ".join(cells) + " |")
    methods = dict.fromkeys(row["method"] for row in latest)
    published = [
        f"- {method}: " + "; ".join(f"{figure} ({source})" for figure, source in PUBLISHED[method])
        for method in methods
        if method in PUBLISHED
    ]
    return "\n".join([*lines, *(["", "Published, of far longer trainings:", "", *published] if published else [])])


if __name__ == "__main__":
    sys.exit(main())
