"""This tree beside another revision of it: `python benchmarks/run.py --base REV`.

The revision is built in a temporary git worktree, its sslfast runs under these same cases in a process of its own, and
the two processes are timed by turns; the one that is not asked waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    import sslfast  # the one on PYTHONPATH, before the sources are on the path

    sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.calls import make_call
from benchmarks.cases import Case, cases
from benchmarks.timing import alternate, timer_for

ROOT = Path(__file__).parents[1]


def compare(revision: str, selected: list[Case], device: str, seconds: float) -> int:
    """Prints the median of both and their ratio, case by case."""
    with built(revision) as folder, contextlib.ExitStack() as stack:
        sides = {"base": Side(folder, device), "this": Side(None, device)}
        for side in sides.values():
            stack.callback(side.close)
        print(f"base: {revision} ({sides['base'].where})\nthis: {sides['this'].where}\n")
        print("| op | case | base ms | this ms | base / this |\n|---|---|---|---|---|")
        for case in selected:
            head = f"| {case.op} | {case.name}{' (overhead)' * case.overhead} |"
            lacking = {name: reason for name, side in sides.items() if (reason := side.prepare(case))}
            if lacking:
                print(head, "; ".join(f"{name}: {reason}" for name, reason in lacking.items()), "| | |", flush=True)
                continue
            times = alternate({name: side.times for name, side in sides.items()}, seconds, lambda ask: ask())
            base, this = (statistics.median(times[name]) * 1e3 for name in sides)
            print(head, f"{base:.4g} | {this:.4g} | {base / this:.2f} |", flush=True)
    return 0


@contextlib.contextmanager
def built(revision: str) -> Iterator[Path]:
    """A folder with the sslfast of a revision, to put on PYTHONPATH."""
    with tempfile.TemporaryDirectory(prefix="sslfast-base-") as folder:
        sources, target = Path(folder, "sources"), Path(folder, "site")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", sources, revision], check=True)
        try:
            install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", target, sources]
            subprocess.run([sys.executable, "-m", "pip", *install], check=True)
            yield target
        finally:
            subprocess.run([*git, "remove", "--force", sources], check=True)


class Side:
    """A process that times one sslfast when it is asked to."""

    def __init__(self, folder: Path | None, device: str):
        path = os.pathsep.join(filter(None, [str(folder or ""), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, __file__, device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        self.where = self.answer()

    def answer(self) -> object:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side of the comparison ended with exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, question: object) -> object:
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return self.answer()

    def prepare(self, case: Case) -> str:
        """Why the case cannot be timed, or nothing."""
        return self.ask([case.op, case.name])

    def times(self) -> list[float]:
        return self.ask("go")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve(device: str) -> None:
    """One side: a case readies it, "go" times it."""
    out, sys.stdout = sys.stdout, sys.stderr
    call = timer = None

    def say(answer: object) -> None:
        print(json.dumps(answer), file=out, flush=True)

    say(str(Path(sslfast.__file__).parent))
    for line in sys.stdin:
        question = json.loads(line)
        if question == "go":
            say(timer(call))
            continue
        case = next(case for case in cases(question[0], device) if case.name == question[1])
        try:
            call, timer = make_call(case, "sslfast", device), timer_for(device, case.overhead)
            call()
            call()
            say("")
        except Exception as failure:
            say(f"{type(failure).__name__}: {failure}"[:120])


if __name__ == "__main__":
    serve(sys.argv[1])
