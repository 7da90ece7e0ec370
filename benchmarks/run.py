"""Times every op beside its peers: `python benchmarks/run.py --op nt_xent`.

Each case first passes a correctness gate against float64, or gets no time. Then the peers alternate, round by round, in
one process; the row holds the median, the spread between the quartiles, the peak of memory above the inputs, and the
time of the floor (the operations at the measured rate of a large matrix product, or the bytes at that of a large
in-place sum, whichever takes longer) as a fraction of the median.
"""

from __future__ import annotations

import argparse
import csv
import gc
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from cases import CASES, Case
from peers import EXACT, PEERS, version

HERE = Path(__file__).parent
GATE = 1e-4  # relative error of the loss and of every gradient, in the 2-norm, at float32
COLUMNS = [
    "op",
    "case",
    "peer",
    "version",
    "device",
    "threads",
    "dtype",
    "median_ms",
    "spread_percent",
    "times_eager",
    "peak_mib",
    "floor_ms",
    "fraction_of_floor",
    "error",
    "torch",
    "commit",
    "processor",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", choices=sorted(PEERS), action="append", help="op to measure; all when not given")
    parser.add_argument("--case", default="", help="only cases whose name contains this, such as M=8192")
    parser.add_argument("--peer", action="append", help="only these peers (eager is always measured)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="to spend on a case and peer, about (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the CSV (%(default)s)")
    parser.add_argument("--memory-of", nargs=3, metavar=("OP", "CASE", "PEER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak_bytes(*arguments.memory_of, arguments.device))
        return 0
    for op in arguments.op or sorted(PEERS):
        rates = product_rate(arguments.device), stream_rate(arguments.device)
        rows = []
        for case in CASES:
            if case.op == op and arguments.case in case.name:
                rows += measure(case, arguments, rates)
                print(markdown(rows[-len(PEERS[op]) :]), end="\n\n", flush=True)
                if not (arguments.case or arguments.peer):
                    write(arguments.output / f"{op}-{arguments.device}.csv", rows)
        if not rows:
            parser.error(f"no case of {op} contains {arguments.case!r}")
    return 0


def write(path: Path, rows: list[dict]) -> None:
    """All rows so far, so that a run that is stopped leaves what it measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def measure(case: Case, arguments: argparse.Namespace, rates: tuple[float, float]) -> list[dict]:
    """The rows of one case."""
    device = arguments.device
    torch.manual_seed(0)
    inputs = {name: x.to(device).requires_grad_() for name, x in case.make().items()}
    exact = results(EXACT[case.op](), copies(inputs, torch.float64))
    peers, errors = {}, {}
    for name, make in PEERS[case.op].items():
        if arguments.peer and name not in (*arguments.peer, "eager"):
            continue
        try:
            peer = make()
        except ImportError as missing:
            print(f"{name}: {missing}", file=sys.stderr)
            continue
        errors[name] = max(
            float((x.double() - y).norm() / y.norm()) for x, y in zip(results(peer, copies(inputs)), exact, strict=True)
        )
        if errors[name] <= GATE:
            peers[name] = peer
    del exact
    times = alternate(peers, inputs, arguments.seconds, device)
    floor = max(case.flops / rates[0], case.bytes / rates[1])
    rows = []
    for name in errors:
        row = {
            "op": case.op, "case": case.name, "peer": name, "version": version(name), "device": device,
            "threads": torch.get_num_threads(), "dtype": "float32", "error": f"{errors[name]:.1e}",
            "torch": torch.__version__, "commit": commit(), "processor": processor(device),
        }  # fmt: skip
        if name in times:
            median = statistics.median(times[name])
            low, _, high = statistics.quantiles(times[name], n=4)
            row |= {
                "median_ms": f"{median * 1e3:.3f}",
                "spread_percent": f"{100 * (high - low) / median:.0f}",
                "times_eager": f"{statistics.median(times['eager']) / median:.2f}" if "eager" in times else "",
                "peak_mib": f"{peak_in_own_process(case, name, device) / 2**20:.1f}",
                "floor_ms": f"{floor * 1e3:.3f}",
                "fraction_of_floor": f"{floor / median:.2f}",
            }
        rows.append(row)
    return rows


def results(peer, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The loss and every gradient; of an op that returns nothing, the inputs as it left them."""
    for x in inputs.values():
        x.grad = None
    loss = peer(*inputs.values())
    if loss is None:
        return [x.detach() for x in inputs.values()]
    loss.backward()
    return [loss.detach()] + [x.grad for x in inputs.values()]


def copies(inputs: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    return {name: x.detach().to(dtype or x.dtype, copy=True).requires_grad_() for name, x in inputs.items()}


def alternate(peers: dict, inputs: dict[str, Tensor], seconds: float, device: str) -> dict[str, list[float]]:
    """Seconds of forward and backward, the peers by turns, until about `seconds` are spent on each."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    gc.disable()
    while peers and (min(map(len, times.values())) < 5 or sum(map(sum, times.values())) < seconds * len(peers)):
        for name, peer in peers.items():
            synchronize(device)
            start = time.perf_counter()
            results(peer, inputs)
            synchronize(device)
            times[name].append(time.perf_counter() - start)
        if min(map(len, times.values())) >= 1000:
            break
    gc.enable()
    return times


def product_rate(device: str) -> float:
    """Operations a second of a large float32 matrix product: the roof of the compute-bound ops."""
    a = torch.randn(2048, 2048, device=device)
    out, times = a @ a, []
    for _ in range(15):
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times)


def stream_rate(device: str) -> float:
    """Bytes a second of a += b over large vectors, all of them counted: the roof of the memory-bound ops."""
    a, b = torch.zeros(2, 2**25, device=device)
    times = []
    for _ in range(15):
        synchronize(device)
        start = time.perf_counter()
        a.add_(b)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 3 * a.nbytes / statistics.median(times)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_in_own_process(case: Case, peer: str, device: str) -> int:
    command = [sys.executable, __file__, "--device", device, "--memory-of", case.op, case.name, peer]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_bytes(op: str, name: str, peer: str, device: str) -> int:
    """Peak of memory during forward and backward, above what is held before; a small call has loaded everything."""
    case = next(case for case in CASES if (case.op, case.name) == (op, name))
    function = PEERS[op][peer]()
    inputs = {name: x.to(device).requires_grad_() for name, x in case.make().items()}
    if device == "cuda":
        results(function, inputs)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results(function, inputs)
        return torch.cuda.max_memory_allocated() - before
    small = {name: x[:32].detach().requires_grad_() for name, x in inputs.items()}
    results(function, inputs if peer == "torch.compile" else small)  # a compiled function is made for one shape
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    results(function, inputs)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def commit() -> str:
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    models = [x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    return f"{models[0] if models else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def markdown(rows: list[dict]) -> str:
    """A table of the figures; what failed the gate says so."""
    shown = ["case", "peer", "median_ms", "spread_percent", "times_eager", "peak_mib", "fraction_of_floor", "error"]
    head = "| " + " | ".join(shown) + " |\n|" + "---|" * len(shown)
    body = ["| " + " | ".join(str(row.get(column, "failed the gate")) for column in shown) + " |" for row in rows]
    return "\n".join([head, *body])


if __name__ == "__main__":
    sys.exit(main())
