"""The rows of one case: the gate, the times, the memory, the floor."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.calls import GATE, Call, alike, error, exact_results, make_call
from benchmarks.cases import Case
from benchmarks.memory import peak_bytes
from benchmarks.peers import PEERS, version
from benchmarks.report import verdict
from benchmarks.timing import alternate, busy, peak_rate, product_rate, stream_rate, timer_for


@dataclass(frozen=True)
class Settings:
    device: str = "cpu"
    seconds: float = 5.0  # to spend on a case and peer
    peers: tuple[str, ...] = ()  # besides eager and sslfast; all when empty
    without: tuple[str, ...] = ()
    memory: bool = True
    busy: int = 0  # processes beside that want a core each


def measure(case: Case, settings: Settings) -> list[dict]:
    """One row a peer, those included that fail; a peer whose package is missing is told about and left out."""
    calls, errors, notes = gate(case, settings)
    common = about(case, settings)  # measures the roofs, before the machine gets busy
    with busy(settings.busy):
        times = alternate(calls, settings.seconds, timer_for(settings.device, case.overhead))
    rows = []
    for name in errors | notes:
        row = common | {"peer": name, "version": version(name), "note": notes.get(name, "")}
        if name in errors:
            row["error"] = f"{errors[name]:.1e}"
        if name in calls and calls[name].draws:
            row |= {"error": "", "note": "random numbers of its own"}
        if name in times:
            row |= figures(times, name, case, settings.device)
            if settings.memory and not case.overhead:
                row["peak_mib"] = f"{peak_bytes(case, name, settings.device) / 2**20:.1f}"
        rows.append(row)
    for row in rows:
        if row["peer"] == "sslfast":
            row["bar"] = verdict(case.beside_busy if settings.busy else case.bars, rows)
    return rows


def gate(case: Case, settings: Settings) -> tuple[dict[str, Call], dict[str, float], dict[str, str]]:
    """(calls that may be timed, errors, why not). Where float64 is too large, eager is the measure at full size."""
    device = settings.device
    exact = exact_results(case, device)
    calls, errors, notes = {}, {}, {}
    full = None
    for name in chosen(case, settings):
        try:
            call = make_call(case, name, device, gate=True)
            if call is None:
                continue
            results, drawn = call(), call.draws
            errors[name] = (0.0 if alike(results, exact) else float("inf")) if drawn else error(results, exact)
            call = make_call(case, name, device)
            if case.gate:
                results = call()
                full = full or results
                errors[name] = max(errors[name], error(results, full))
            call()
        except ImportError as missing:
            print(f"{case.op}: {name} is left out: {missing}", file=sys.stderr)
            continue
        except Exception as failure:  # a peer's failure is its own row, not the end of the run
            notes[name] = f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0][:120]}"
            continue
        if errors[name] <= GATE[case.dtype]:
            calls[name] = call
        else:
            notes[name] = "failed the gate"
    return calls, errors, notes


def chosen(case: Case, settings: Settings) -> list[str]:
    names = [name for name in PEERS[case.op] if name not in settings.without]
    if case.overhead:  # not worth compiling
        names = [name for name in names if name != "torch.compile"]
    wanted = {*settings.peers, "eager", "sslfast"}
    return [name for name in names if not settings.peers or name in wanted]


def figures(times: dict[str, list[float]], name: str, case: Case, device: str) -> dict[str, str]:
    median = statistics.median(times[name])
    low, _, high = statistics.quantiles(times[name], n=4)
    row = {"median_ms": f"{median * 1e3:.4g}", "spread_percent": f"{100 * (high - low) / median:.0f}"}
    row["rounds"] = len(times[name])
    if "eager" in times:
        row["times_eager"] = f"{statistics.median(times['eager']) / median:.2f}"
    if not case.overhead:
        floor = max(case.flops / rate(device, case.dtype), case.bytes / rate(device))
        row |= {"floor_ms": f"{floor * 1e3:.4g}", "fraction_of_floor": f"{floor / median:.2f}"}
    return row


@cache
def rate(device: str, dtype: torch.dtype | None = None) -> float:
    """Operations a second of matrix products of a dtype; without one, bytes a second of large copies."""
    return product_rate(device, dtype) if dtype else stream_rate(device)


@cache
def machine(device: str) -> dict[str, object]:
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "processor": processor(device),
    } | roofs(device)


def roofs(device: str) -> dict[str, str]:
    """Of the arithmetic in float32, by one thread and by all, and of the memory."""
    if device == "cuda":
        return {"gflops": f"{rate(device, torch.float32) / 1e9:.4g}", "gb_s": f"{rate(device) / 1e9:.4g}"}
    return {
        "gflops_thread": f"{peak_rate(1) / 1e9:.4g}",
        "gflops": f"{rate(device, torch.float32) / 1e9:.4g}",
        "gb_s": f"{rate(device) / 1e9:.4g}",
    }


def about(case: Case, settings: Settings) -> dict[str, object]:
    dtype = str(case.dtype).removeprefix("torch.")
    named = {"op": case.op, "case": f"{case.name}{' (overhead)' * case.overhead}", "dtype": dtype}
    return named | machine(settings.device) | {"busy": settings.busy}


RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """What was measured; with "-dirty" if the tree, results left aside, is not what was committed."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(RESULTS.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS}")
    return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(changed)


def refusal(output: Path) -> str:
    """Why no results may be written there, or nothing: those that are kept belong to a commit."""
    if output.resolve() == RESULTS.resolve() and commit().endswith("-dirty"):
        return "benchmarks/results is for committed trees: commit your changes, or give another --output"
    return ""


def processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    models = [x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    return f"{models[0] if models else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"
