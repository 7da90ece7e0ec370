"""The page: the sections in a template, one file with nothing outside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sslfast._files import write_text
from sslfast._version import __version__
from sslfast.evaluate.protocols import PROTOCOLS
from sslfast.evaluate.run import Run
from sslfast.report.illustrations import illustrations
from sslfast.report.material import Material, Unavailable
from sslfast.report.names import BASELINES, METHOD_NAMES, PROTOCOL_NAMES, headline
from sslfast.report.sections import SECTIONS, Section
from sslfast.report.templates import render
from sslfast.report.verdict import spread_of, verdict

FILE = "report.html"


def build(
    run: str | Path,
    *,
    data_root: str | Path | None = None,
    download: bool = False,
    device: torch.device | str | None = None,
) -> Path:
    """Write RUN/report.html and return its path.

    The page is one file: styles and pictures are inside it, nothing is fetched. What cannot be shown (no evaluation
    yet, images that are not there, an unfinished run) is said where it would stand.

    Args:
        run: the run folder.
        data_root: folder of the downloaded sets, where the run's own is not right any more.
        download: fetch the images if they are not there.
        device: where features are computed; CUDA if there is a device, else the CPU.

    Raises:
        FileNotFoundError: `run` is no run folder.
        ValueError: one of its files is damaged.
        ImportError: a package of sslfast[train] is not installed.
    """
    run = Path(run)
    root = None if data_root is None else Path(data_root)
    material = Material(run, data_root=root, download=download, device=device)
    made = {"What it was asked": illustrations, **SECTIONS}
    sections = {title: _section(make, material) for title, make in made.items()}
    page = render(
        "report.html.j2",
        title=_title(material.config),
        folder=run.resolve().name,
        facts=_facts(material.run),
        verdicts=[said for result in material.results.values() if (said := verdict(result))],
        results=[_accuracies(name, result) for name, result in material.results.items()],
        command=_command(run, [name for name in _possible(material) if name not in material.results]),
        sections={title: section for title, section in sections.items() if section},
        version=__version__,
    )
    write_text(run / FILE, page)
    return run / FILE


def _section(make: Callable[[Material], Section | None], material: Material) -> Section | None:
    try:
        return make(material)
    except Unavailable as why:
        return Section(f"Not shown: {why}")


def _possible(material: Material) -> list[str]:
    """The protocols that the run's data allow: without labels the pretext task, on a test split if there is one."""

    def labelled(split: str) -> bool | None:
        try:
            return getattr(material, split).labelled
        except Unavailable:
            return None

    if labelled("train") is not False:  # None: the data are not here, but may be elsewhere
        return list(PROTOCOLS)
    return [name for name, protocol in PROTOCOLS.items() if protocol.needs == "method" and labelled("test") is not None]


def _command(run: Path, protocols: list[str]) -> str | None:
    """What evaluates the run by these protocols."""
    return f"sslfast evaluate {shlex.quote(str(run))} --protocol {' '.join(protocols)}" if protocols else None


def _title(config: dict[str, Any]) -> str:
    return f"{METHOD_NAMES.get(config['method'], config['method'])} on {config['data']}"


def _facts(run: Run) -> list[tuple[str, str]]:
    """What the run is, in a few words each."""
    config = run.config
    facts = [("backbone", config["backbone"])]
    if "image_size" in config:
        facts.append(("image size", f"{config['image_size']} px"))
    epochs = config.get("epochs")
    done = run.metrics[-1]["epoch"] if run.metrics else 0
    finished = run.finished or done == epochs
    facts.append(("epochs", str(epochs) if finished else f"{done:.3g} of {epochs} (unfinished)"))
    devices = run.environment.get("device", {})
    images = config.get("batch_size", 0) * config.get("accumulate", 1) * devices.get("processes", 1)
    facts.append(("batch", str(images)))
    if seconds := _training_seconds(run, images):
        facts.append(("training time", _duration(seconds)))
    if speeds := sorted(line["examples_per_second"] for line in run.metrics if "examples_per_second" in line):
        facts.append(("speed", f"{speeds[len(speeds) // 2]:,.0f} {run.modality.unit}/s"))
    if devices:
        facts.append(("device", f"{devices.get('name')} ({devices.get('type')})"))
    return facts


def _training_seconds(run: Run, batch: int) -> float:
    """Time in optimizer steps, without evaluation: steps between two lines of metrics times their speed."""
    seconds, before = 0.0, 0
    for line in run.metrics:
        if line.get("examples_per_second"):
            seconds += (line["step"] - before) * batch / line["examples_per_second"]
            before = line["step"]
    return seconds


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if hours:
        return f"{hours} h {minutes - 60 * hours} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.0f} s"


def _accuracies(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """One protocol's headline beside its baselines, for the bars at the head of the page."""
    protocol, _, data = name.partition("@")
    metric = result.get("metric", "accuracy")
    values = [("this run", result[metric], True)]
    values += [(BASELINES.get(key, key), value, False) for key, value in result.get("baselines", {}).items()]
    best = -1 if metric == "accuracy" else 1  # comes first, below the run's own
    values.sort(key=lambda value: (not value[2], best * value[1]))
    # Without bars where lower is better: the worse value would have the longer one.
    bars = [
        (who, headline(metric, value), 100 * value if metric == "accuracy" else None, own) for who, value, own in values
    ]
    title = PROTOCOL_NAMES.get(protocol, protocol) + (f" on {data}" if data else "")
    title += "" if metric == "accuracy" else f": {metric}, lower is better"
    return {"title": title, "bars": bars, "notes": ", ".join(_notes(protocol, metric, result))}


def _notes(protocol: str, metric: str, result: dict[str, Any]) -> list[str]:
    """How it came about, in a few words each."""
    shown = {"knn": ("k", "temperature"), "linear": ("C", "iterations"), "finetune": ("updates", "layer_decay")}
    notes = [f"{key} {result[key]}" for key in shown.get(protocol, ()) if key in result]
    if "shots" in result:
        draws = len(next(iter(result["shots"].values()))["accuracies"])
        notes.append(f"{max(map(int, result['shots']))} labels a class, {draws} draws, ± {100 * result['std']:.1f}")
    notes += [f"{key} {value:.4g}" for key, value in result.get("metrics", {}).items() if key != metric]
    notes.append(f"{result.get('examples', result['test_examples'])} test examples")
    details = {"this run": result, **{BASELINES.get(k, k): v for k, v in result.get("baseline_details", {}).items()}}
    notes += [f"{who} not converged" for who, detail in details.items() if detail.get("converged") is False]
    if (spread := spread_of(result, "random_init")) is not None:
        notes.append(f"random init ± {100 * spread:.1f} over seeds")
    if "baselines_from" in result:
        notes.append(f"baselines of {Path(result['baselines_from']).name}")
    if result.get("epoch") != result.get("epochs"):
        notes.append(f"after epoch {result.get('epoch')} of {result.get('epochs')}")
    return notes
