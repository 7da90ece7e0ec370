"""Whether the ops are right on this device, and how fast: the cases of the benchmarks, without their peers.

    python benchmarks/gpu/smoke.py check nt_xent            every case against float64; ends at the first error
    python benchmarks/gpu/smoke.py check nt_xent --tiny     only the tiny one, as a sanitizer has time for
    python benchmarks/gpu/smoke.py time --output FOLDER     sslfast's times of all, and the rates of the machine

Exit code 1 where an error is above the gate. A CUDA error ends the process: nothing after it could be believed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import sslfast  # before the folder of the sources is on the path: what is installed is meant  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.calls import GATE, alike, error, exact_results, make_call
from benchmarks.cases import OPS, Case, cases
from benchmarks.measure import Settings, about, figures, rate
from benchmarks.report import write
from benchmarks.timing import alternate, timer_for


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "time"])
    parser.add_argument("ops", nargs="*", metavar="OP", help="all when not given")
    parser.add_argument("--tiny", action="store_true", help="only the cases that show the overhead of a call")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="to spend on a case, about (%(default)s)")
    parser.add_argument("--output", type=Path, help="folder for smoke-DEVICE.csv")
    arguments = parser.parse_args()
    unknown = set(arguments.ops) - set(OPS)
    if unknown:
        parser.error(f"no such op: {', '.join(sorted(unknown))}; there are {', '.join(OPS)}")
    chosen = [
        case
        for op in arguments.ops or OPS
        for case in cases(op, arguments.device)
        if case.overhead or not arguments.tiny
    ]
    if arguments.what == "check":
        right = [check(case, arguments.device) for case in chosen]
        return int(not all(right))
    times(chosen, arguments.device, arguments.seconds, arguments.output)
    return 0


def check(case: Case, device: str) -> bool:
    """Twice: the second time in memory that the first has filled with numbers."""
    exact = exact_results(case, device)
    errors = [deviation(case, device, exact) for _ in range(2)]
    right = max(errors) <= GATE[case.dtype]
    print(f"{'ok' if right else 'WRONG'}  {errors[0]:.1e} {errors[1]:.1e}  {case.op} {case.name}", flush=True)
    return right


def deviation(case: Case, device: str, exact: list[torch.Tensor]) -> float:
    call = make_call(case, "sslfast", device, gate=True)
    results = call()
    if call.draws:
        return 0.0 if alike(results, exact) else float("inf")
    found = error(results, exact)
    return found if found == found else float("inf")  # NaN is no small error


def times(chosen: list[Case], device: str, seconds: float, output: Path | None) -> None:
    for dtype in {case.dtype: None for case in chosen}:
        print(f"{str(dtype).removeprefix('torch.')} products: {rate(device, dtype) / 1e12:.4g} TFLOP/s")
    print(f"copy: {rate(device) / 1e12:.4g} TB/s", flush=True)
    rows = []
    for case in sorted(chosen, key=lambda case: case.flops):  # the longest last: the time may be limited
        call = make_call(case, "sslfast", device)
        call()
        taken = alternate({"sslfast": call}, seconds, timer_for(device, case.overhead))
        row = about(case, Settings(device)) | {"peer": "sslfast"} | figures(taken, "sslfast", case, device)
        rows.append(row)
        share = row.get("fraction_of_floor", "-")
        print(f"{row['median_ms']:>8} ms  {share:>5} of the floor  {case.op} {row['case']}", flush=True)
        if output:
            write(output / f"smoke-{device}.csv", rows)


if __name__ == "__main__":
    sys.exit(main())
