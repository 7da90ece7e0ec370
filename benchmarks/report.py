"""The CSV of an op, the table of all, and its plots: `python benchmarks/report.py [FOLDER]` makes the last two anew."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
from benchmarks.cases import OPS

COLUMNS = [
    "op", "case", "peer", "version", "device", "threads", "dtype", "median_ms", "spread_percent", "rounds",
    "times_eager", "peak_mib", "floor_ms", "fraction_of_floor", "error", "bar", "note", "busy", "torch", "commit",
    "processor", "gflops_thread", "gflops", "gb_s",
]  # fmt: skip
SHOWN = {
    "case": "case", "peer": "peer", "median_ms": "ms", "spread_percent": "spread %", "times_eager": "times eager",
    "peak_mib": "peak MiB", "fraction_of_floor": "of floor", "error": "error", "bar": "bar",
}  # fmt: skip


def write(path: Path, rows: list[dict]) -> None:
    """All rows so far, so that a run that is stopped leaves what it measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_all(folder: Path, device: str) -> list[dict]:
    rows = [row for path in sorted(folder.glob(f"*-{device}.csv")) for row in read(path)]
    order = {op: k for k, op in enumerate(OPS)}
    return sorted(rows, key=lambda row: order.get(row.get("op"), len(OPS)))


def table(rows: list[dict]) -> str:
    """Markdown; in place of figures, why there are none."""
    lines = ["| " + " | ".join(SHOWN.values()) + " |", "|" + "---|" * len(SHOWN)]
    for row in rows:
        cells = [str(row.get(column) or "") for column in SHOWN]
        cells[0] += beside(row)
        if not row.get("median_ms"):
            cells[2] = row.get("note") or "?"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(bars: dict[str, float], rows: list[dict]) -> str:
    """Whether sslfast's row meets each bar: "times PEER" and "fraction of floor" at least, the others at most."""
    by_peer = {row["peer"]: row for row in rows if row.get("median_ms")}
    if "sslfast" not in by_peer:
        return "missed: no time" if bars else ""
    own, said = by_peer["sslfast"], []
    for bar, wanted in bars.items():
        kind, _, peer = bar.partition(" ")
        if kind in ("times", "memory"):
            peer = peer.removeprefix("of ")
            column = "median_ms" if kind == "times" else "peak_mib"
            if peer not in by_peer or not own.get(column):
                said.append(f"{bar}: not measured")
                continue
            theirs, ours = float(by_peer[peer][column]), float(own[column])
            got = theirs / ours if kind == "times" else ours / theirs
        else:
            got = float(own["fraction_of_floor" if kind == "fraction" else "median_ms"])
        least = kind in ("times", "fraction")
        met = got >= wanted if least else got <= wanted
        said.append(f"{bar} {'≥' if least else '≤'} {wanted:g}: {'met' if met else 'MISSED'} ({got:.2g})")
    return "; ".join(said)


def place(device: str, busy: int) -> str:
    """What the files of the results are called by."""
    return f"{device}-busy{busy}" if busy else device


def beside(row: dict) -> str:
    busy = int(row.get("busy") or 0)
    return f", beside {busy} busy process{'es' * (busy > 1)}" if busy else ""


def roofs(row: dict) -> str:
    """What the floors of this op were made of."""
    if not row.get("gflops"):
        return ""
    thread = f" ({row['gflops_thread']} by one thread)" if row.get("gflops_thread") else ""
    return f"float32 peak {row['gflops']} GFLOP/s{thread}, memory {row['gb_s']} GB/s"


def render(folder: Path, device: str) -> list[Path]:
    """`bench-DEVICE.md` with every table, and the plots, from the CSVs in the folder; `device` as `place` calls it."""
    rows = [row for row in read_all(folder, device) if "bar" in row]
    if not rows:
        return []
    ops = dict.fromkeys(row["op"] for row in rows)
    first = rows[0]
    machine = f"{first['processor']}, {first['threads']} threads, torch {first['torch']}{beside(first)}"
    parts = [f"# Benchmarks on {machine}"]
    for op in ops:
        own = [row for row in rows if row["op"] == op]
        said = [f"commit {', '.join(dict.fromkeys(row['commit'] for row in own))}", roofs(own[-1])]
        parts.append(f"## {op}\n\n{'; '.join(filter(None, said))}\n\n{table(own)}")
    page = folder / f"bench-{device}.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    try:
        from benchmarks.plots import plot
    except ImportError as missing:
        print(f"no plots: {missing}", file=sys.stderr)
        return [page]
    return [page, *plot(rows, folder, device)]


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results"
    for where in sorted({path.stem.partition("-")[2] for path in chosen.glob("*-*.csv")}):
        for made in render(chosen, where):
            print(made)
