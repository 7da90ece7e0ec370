"""Times every op beside its peers, or this tree beside another revision.

    python benchmarks/run.py --op nt_xent --seconds 2
    python benchmarks/run.py --base HEAD~1 --op ema_update_

A case first passes a correctness gate against float64, or gets no time. Then the peers alternate, round by round, in
one process. A row holds the median, the spread between the quartiles, the peak of memory above the inputs, and the
floor (the operations at the measured peak of the machine, or the bytes at the rate of a large copy, whichever takes
longer) as a fraction of the median. Rows are written to OUTPUT/OP-DEVICE.csv after every case; a run of all ops
ends with tables and plots beside them (benchmarks/report.py makes them anew). benchmarks/README.md tells how to read
them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import sslfast  # before the folder of the sources is on the path: another revision may be installed  # noqa: F401

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from benchmarks.cases import OPS, cases  # noqa: E402
from benchmarks.compare import compare  # noqa: E402
from benchmarks.measure import RESULTS, Settings, measure, refusal  # noqa: E402
from benchmarks.peers import PEERS  # noqa: E402
from benchmarks.report import place, render, table, write  # noqa: E402


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = made.add_argument_group("what to measure")
    what.add_argument("--op", choices=OPS, action="append", metavar="OP", help="a task of --list; all when not given")
    what.add_argument("--case", default="", help="only cases whose name contains this, such as M=8192; writes nothing")
    what.add_argument("--peer", action="append", help="only these peers, besides eager and sslfast; writes nothing")
    what.add_argument("--without", action="append", default=[], metavar="PEER", help="leave out a peer")
    what.add_argument("--base", metavar="REV", help="compare this tree with a revision, which is built aside, instead")
    what.add_argument("--list", action="store_true", help="show the cases and peers, measure nothing")
    how = made.add_argument_group("how")
    how.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(%(default)s)")
    how.add_argument("--seconds", type=float, default=5, help="to spend on a case and peer, about (%(default)s)")
    how.add_argument(
        "--quick", action="store_true", help="half a second each, no torch.compile, no memory; writes nothing"
    )
    how.add_argument("--busy", type=int, default=0, metavar="N", help="beside N processes that want a core each")
    how.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (benchmarks/results)")
    return made


def main() -> int:
    arguments = parser().parse_args()
    device, ops = arguments.device, arguments.op or OPS
    if arguments.busy < 0:
        parser().error(f"--busy must be at least 0, got {arguments.busy}")
    if arguments.list:
        show(ops, device)
        return 0
    if device == "cuda" and not torch.cuda.is_available():
        parser().error("--device cuda: torch sees no CUDA device")
    selected = {op: cases(op, device, arguments.case) for op in ops}
    if not any(selected.values()):
        parser().error(f"no case contains {arguments.case!r}; --list shows them")
    if arguments.base:
        return compare(arguments.base, [case for op in ops for case in selected[op]], device, arguments.seconds)
    whole = not (arguments.case or arguments.peer or arguments.quick)
    if whole and (why := refusal(arguments.output)):
        parser().error(why)
    settings = Settings(
        device,
        0.5 if arguments.quick else arguments.seconds,
        tuple(arguments.peer or ()),
        (*arguments.without, "torch.compile") if arguments.quick else tuple(arguments.without),
        memory=not (arguments.quick or arguments.busy),
        busy=arguments.busy,
    )
    where = place(device, arguments.busy)
    for op, group in selected.items():
        rows = []
        for case in group:
            new = measure(case, settings)
            print(f"{op}\n\n{table(new)}\n", flush=True)
            rows += new
            if whole:
                write(arguments.output / f"{op.rstrip('_')}-{where}.csv", rows)
    if whole and not arguments.op:
        print(*render(arguments.output, where), sep="\n")
    return 0


def show(ops: list[str], device: str) -> None:
    for op in ops:
        print(f"{op}: {', '.join(PEERS[op])}")
        for case in cases(op, device):
            print(f"    {case.name}{' (overhead)' * case.overhead}")


if __name__ == "__main__":
    sys.exit(main())
