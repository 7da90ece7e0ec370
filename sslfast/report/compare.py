"""Several runs' results in one table and one picture."""

from __future__ import annotations

import csv
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslfast._extras import require
from sslfast._files import printable, replacing, write_text
from sslfast._words import aligned
from sslfast.evaluate.results import read_results
from sslfast.evaluate.run import Run
from sslfast.report import figures
from sslfast.report.differences import by_seed, differing, word
from sslfast.report.figures import TEN
from sslfast.report.names import BASELINES, METHOD_NAMES, PROTOCOL_NAMES, headline
from sslfast.report.sections import CURVES
from sslfast.report.templates import render
from sslfast.report.verdict import spread_of

PICTURES = (".png", ".svg", ".pdf")
FIELDS = ("run", "method", "backbone", "trained_on", "epoch", "protocol", "data", "metric", "value", "std",
          *BASELINES, "random_init_std", "C", "train_examples", "test_examples", "seed", "run_seed")  # fmt: skip
NOTHING = "–"
INK = "#1c2126"


class Comparison:
    """The results of runs, a row a run and a column a protocol and data set; what a run lacks is a dash.

    What their configurations differ in has a column each; runs that differ in their seeds alone, a row of their mean.

        print(Comparison(["runs/simclr", "runs/moco"]).text())

    Args:
        runs: run folders, in the order of the rows; other files and folders among them are passed over.

    Raises:
        FileNotFoundError: none is a run folder. ValueError: a file of one is damaged; no run has a result.
    """

    def __init__(self, runs: Sequence[str | Path]) -> None:
        if not runs:
            raise ValueError("runs must name at least one run folder, got none")
        self.runs, self.passed_over = _runs(runs)
        self.differing = differing([run.config for run in self.runs])
        self.results = [self._of(run) for run in self.runs]
        self.columns = list(dict.fromkeys(column for results in self.results for column in results))
        if not self.columns:
            raise ValueError(f"none of {', '.join(str(run.folder) for run in self.runs)} has been evaluated")
        names = [printable(run.folder.resolve().name) for run in self.runs]
        self.labels = [name if names.count(name) == 1 else printable(run.folder) for name, run in zip(names, self.runs)]
        self.usual = {
            column: _most([_terms(r[column]) for r in self.results if column in r]) for column in self.columns
        }

    def text(self) -> str:
        """The table for a terminal, with what its marks mean below it."""
        return "\n".join([aligned(self._table()), *self._notes()])

    def markdown(self) -> str:
        """The same in Markdown."""
        head, *rows = ([cell.replace("|", r"\|") for cell in row] for row in self._table())
        lines = [head, ["---"] * len(head), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([table, *self._notes()]) + "\n"

    def records(self) -> list[dict[str, Any]]:
        """One record a result, with the columns of the CSV file."""
        found = []
        for label, run, results in zip(self.labels, self.runs, self.results):
            for result in results.values():
                metric = result.get("metric", "accuracy")
                found.append(
                    {
                        **{field: result.get(field, "") for field in FIELDS},
                        "run": label,
                        "trained_on": run.config["data"],
                        "metric": metric,
                        "value": result[metric],
                        **{name: result["baselines"].get(name, "") for name in BASELINES},
                        "random_init_std": "" if (spread := spread_of(result, "random_init")) is None else spread,
                    }
                )
        return found

    def write(self, path: Path) -> None:
        """Write the table (.csv, .md) or the picture (.png, .svg, .pdf) to a file, by its ending; makes its folder."""
        self.check(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            text = {"newline": "", "encoding": "utf-8", "errors": "replace"}
            with replacing(path) as temporary, open(temporary, "w", **text) as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(self.records())
        elif path.suffix == ".md":
            write_text(path, self.markdown())
        elif path.suffix == ".html":
            write_text(path, self.page())
        else:
            self._draw(path)

    @staticmethod
    def check(path: Path) -> None:
        """Raise ValueError if `write` does not know this kind of file."""
        if path.suffix not in (".csv", ".md", ".html", *PICTURES):
            raise ValueError(f"output must end in .csv, .md, .html, .png, .svg or .pdf, got {path}")

    @staticmethod
    def _of(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
        """A run's results by (protocol, data)."""
        return {(name.partition("@")[0], result["data"]): result for name, result in read_results(run.folder).items()}

    def _title(self, column: tuple[str, str], between: str = ", ") -> str:
        """The protocol, and its data if there are several."""
        protocol, data = column
        several = len({data for _, data in self.columns}) > 1
        return PROTOCOL_NAMES.get(protocol, protocol) + (f"{between}{data}" if several else "")

    def _table(self) -> list[list[str]]:
        rows = [["run", "method", "backbone", "epochs", *self.differing, *map(self._title, self.columns)]]
        for label, run, results in zip(self.labels, self.runs, self.results):
            config = run.config
            method = METHOD_NAMES.get(config["method"], config["method"])
            cells = [self._cell(results.get(column), column) for column in self.columns]
            own = [word(config[name]) for name in self.differing]
            rows.append([label, method, config["backbone"], _epochs(run, results), *own, *cells])
        for members in by_seed([run.config for run in self.runs]):
            first = rows[1 + members[0]]
            means = [self._mean([self.results[k].get(column) for k in members]) for column in self.columns]
            rows.append([f"mean of {len(members)} seeds", *first[1 : 4 + len(self.differing)], *means])
        return rows

    @staticmethod
    def _mean(results: list[dict[str, Any] | None]) -> str:
        """The mean over runs ± their standard deviation; a dash if one of them has no such result."""
        if None in results:
            return NOTHING
        metric = results[0].get("metric", "accuracy")
        values = [result[metric] for result in results]
        spread = statistics.stdev(values)
        return f"{headline(metric, statistics.mean(values))} ± " + (
            f"{100 * spread:.1f}" if metric == "accuracy" else f"{spread:.2g}"
        )

    def page(self) -> str:
        """One HTML page, with nothing outside it: the table, its notes, and the runs' curves over one another."""
        pictures, strokes = {}, self._strokes()
        for name, factor in (("loss", 1), ("knn_accuracy", 100)):
            lines = {
                label: ([line["epoch"] for line in run.metrics if name in line], values)
                for label, run in zip(self.labels, self.runs)
                if (values := [factor * line[name] for line in run.metrics if name in line])
            }
            title, axis = CURVES[name]
            if lines:
                pictures[title] = figures.curves(lines, label=axis, strokes=strokes)
        return render("compare.html.j2", rows=self._table(), notes=self._notes(), pictures=pictures)

    def _strokes(self) -> dict[str, tuple[int, int]]:
        """By run a colour and dashes, as numbers: runs that differ in their seeds alone have one colour."""
        seeds = by_seed([run.config for run in self.runs])
        alone = [[k] for k in range(len(self.runs)) if not any(k in places for places in seeds)]
        return {
            self.labels[place]: (colour, dashes)
            for colour, places in enumerate(sorted([*seeds, *alone]))
            for dashes, place in enumerate(places)
        }

    def _cell(self, result: dict[str, Any] | None, column: tuple[str, str]) -> str:
        """As 55.5% ± 0.3 (35.4% ± 2.1)*: the value, its deviation, random init's, a star for other terms."""
        if result is None:
            return NOTHING
        metric = result.get("metric", "accuracy")
        text = headline(metric, result[metric])
        text += f" ± {100 * result['std']:.1f}" if "std" in result else ""
        if "random_init" in result["baselines"]:
            spread = spread_of(result, "random_init")
            deviation = "" if spread is None else f" ± {100 * spread:.1f}"
            text += f" ({headline(metric, result['baselines']['random_init'])}{deviation})"
        return text + ("" if _terms(result) == self.usual[column] else "*")

    def _notes(self) -> list[str]:
        notes = [f"Passed over, being no run: {', '.join(self.passed_over)}."] if self.passed_over else []
        notes += [f"In parentheses: {BASELINES['random_init']}, the same network before training."]
        for column in self.columns:
            there = {label: results[column] for label, results in zip(self.labels, self.results) if column in results}
            for key in (key for key in BASELINES if key != "random_init"):
                if found := {result["baselines"].get(key) for result in there.values()} - {None}:
                    values = ", ".join(headline("accuracy", value) for value in sorted(found))
                    notes.append(f"{BASELINES[key].capitalize()}, {self._title(column)}: {values}.")
            usual = self.usual[column]
            for label, terms in ((label, _terms(result)) for label, result in there.items()):
                names = [name for name in {**usual, **terms} if terms.get(name) != usual.get(name)]
                other = [f"{name} {_word(terms.get(name))}, not {_word(usual.get(name))}" for name in names]
                notes += [f"* {self._title(column)}, {label}: {'; '.join(other)}."] if other else []
        return notes

    def _draw(self, path: Path) -> None:
        """Bars grouped by protocol, a colour a run; the baselines as marks on each bar."""
        columns = [
            column
            for column in self.columns
            if all(r[column].get("metric", "accuracy") == "accuracy" for r in self.results if column in r)
        ]
        if not columns:
            raise ValueError(f"output {path} would be empty: no result is an accuracy")
        width = 0.8 / len(self.runs)
        style = {"font.size": 9, "text.parse_math": False, "text.color": INK, "svg.fonttype": "none"}
        with require("matplotlib", extra="train").rc_context(style):
            size = (max(5.0, 3.2 + 0.34 * len(columns) * (len(self.runs) + 1)), 3.6)
            figure = require("matplotlib.figure", extra="train").Figure(figsize=size, dpi=140, layout="constrained")
            axes = figure.subplots()
            unnamed = dict(BASELINES)
            marks = {"random_init": ("_", 1.6), "pixels": ("x", 1.0), "bag_of_words": ("+", 1.0)}
            for k, (label, results) in enumerate(zip(self.labels, self.results)):
                there = [(i, results[column]) for i, column in enumerate(columns) if column in results]
                x = [i + (k - (len(self.runs) - 1) / 2) * width for i, _ in there]
                values = [100 * result["accuracy"] for _, result in there]
                spread = [100 * result.get("std", 0) for _, result in there]
                axes.bar(x, values, 0.92 * width, color=TEN[k % len(TEN)], label=label)
                if any(spread):
                    axes.errorbar(x, values, spread, fmt="none", ecolor=INK, elinewidth=0.8, capsize=2)
                for name, (marker, thickness) in marks.items():
                    points = [(p, 100 * r["baselines"][name]) for p, (_, r) in zip(x, there) if name in r["baselines"]]
                    if points:
                        options = {"color": INK, "s": 45, "linewidths": thickness, "zorder": 3}
                        axes.scatter(*zip(*points), marker=marker, label=unnamed.pop(name, None), **options)
            axes.set_xticks(range(len(columns)), [self._title(column, "\n") for column in columns])
            axes.set(ylabel="test accuracy (%)", ylim=(0, 100))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#d9dee5", linewidth=0.6)
            axes.set_axisbelow(True)
            figure.legend(loc="outside right upper", frameon=False, fontsize=8)
            with replacing(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:])


def _terms(result: dict[str, Any]) -> dict[str, Any]:
    """What two results of a protocol must share to be comparable; the seed where the protocol draws something."""
    names = ["train_examples", "test_examples"]
    if result["limit"] is not None or result["protocol"] not in ("linear", "knn"):
        names.append("seed")
    return {name: result[name] for name in names} | result["settings"]


def _word(value: Any) -> str:
    return "the default" if value is None else str(value)


def _most(terms: list[dict[str, Any]]) -> dict[str, Any]:
    """The terms that are there most often."""
    counts = Counter(json.dumps(own, sort_keys=True) for own in terms)
    return json.loads(counts.most_common(1)[0][0])


def _runs(paths: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """The runs among some paths, and the names of the others.

    Raises:
        FileNotFoundError: there is no such path, or none is a run.
    """
    runs, others = [], []
    for path in map(Path, paths):
        if path.is_dir() and (path / "config.json").is_file():
            runs.append(Run(path))
        elif path.exists():
            others.append(printable(path.name))
        else:
            raise FileNotFoundError(f"there is no run folder {path}")
    if not runs:
        raise FileNotFoundError(f"none of {', '.join(map(str, paths))} is a run")
    return runs, others


def _epochs(run: Run, results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The epochs of training, as 3/100 if the weights judged are those after the third."""
    whole = run.config["epochs"]
    judged = sorted({result["epoch"] for result in results.values()}) or [whole]
    return ", ".join(str(whole) if epoch == whole else f"{epoch}/{whole}" for epoch in judged)
