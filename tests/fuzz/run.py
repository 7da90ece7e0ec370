"""Runs odd calls in child processes, beside the reference, and counts what came of them.

    python tests/fuzz/run.py --seconds 60 --seed 0

Every call is made by the kernels and, in another process, by the reference: "silent wrong" is an answer that the
reference does not give. A child that dies is a crash, and the calls go on behind it.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

OUTCOMES = ("answered", "refused by name", "internal error", "silent wrong", "crash")
CHUNK = 250  # calls of a child
TOLERANCE = 0.05  # of the largest element: bfloat16 is among the inputs


def child(first: int, count: int, path: Path) -> None:
    """One line a call: begun, and what came of it."""
    import torch
    from calls import odd_call

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with path.open("a") as file:
        for seed in range(first, first + count):
            words, call = odd_call(seed)
            file.write(json.dumps({"seed": seed, "words": words}) + "\n")
            file.flush()
            torch.manual_seed(seed)
            try:
                result = call()
            except Exception as error:
                outcome = {"error": type(error).__name__, "message": str(error)[:300]}
            else:
                tensors = [
                    x for x in (result if isinstance(result, tuple) else (result,)) if isinstance(x, torch.Tensor)
                ]
                outcome = {"values": [x.detach().double().flatten()[:200].tolist() for x in tensors if not x.is_meta]}
            file.write(json.dumps({"seed": seed, **outcome}) + "\n")
            file.flush()


def run(first: int, count: int, reference: bool, folder: Path) -> dict[int, dict]:
    """Seed -> what was called and what came of it; of the call in which the child died, nothing came."""
    path = folder / f"{first}-{reference}.jsonl"
    path.touch()
    environment = os.environ | {"SSLFAST_REFERENCE": "1" if reference else "0"}
    next_seed = first
    while next_seed < first + count:
        subprocess.run(
            [sys.executable, __file__, "--child", str(next_seed), str(first + count - next_seed), str(path)],
            env=environment, check=False, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        next_seed = max((line["seed"] for line in lines), default=next_seed) + 1
    calls: dict[int, dict] = collections.defaultdict(dict)
    for line in lines:
        calls[line["seed"]] |= line
    return calls


def verdict(actual: dict, expected: dict) -> str:
    if "error" not in actual and "values" not in actual:
        return "crash"
    if "error" in actual:
        named = actual["error"] in ("TypeError", "ValueError") and re.match(r"[\w.]+: ", actual["message"])
        return "refused by name" if named else "internal error"
    return "answered" if "values" in expected and alike(actual["values"], expected["values"]) else "silent wrong"


def alike(a: list[list[float]], b: list[list[float]]) -> bool:
    if [len(x) for x in a] != [len(x) for x in b]:
        return False
    for x, y in zip(a, b):
        largest = max((abs(v) for v in y if math.isfinite(v)), default=0.0)
        for v, w in zip(x, y):
            both = math.isfinite(v) and math.isfinite(w)
            if both and abs(v - w) > TOLERANCE * largest + 1e-6:
                return False
            if not both and not (math.isnan(v) and math.isnan(w)) and v != w:
                return False
    return True


def fuzz(seconds: float, seed: int, least: int = CHUNK) -> tuple[collections.Counter, list[str]]:
    """Outcome -> how many, and the calls that are faults; at least so many calls, then until the time is over."""
    end, count, faults = time.monotonic() + seconds, collections.Counter(dict.fromkeys(OUTCOMES, 0)), []
    first = seed * 10**6
    with tempfile.TemporaryDirectory() as folder:
        while count.total() < least or time.monotonic() < end:
            actual, expected = (run(first, CHUNK, reference, Path(folder)) for reference in (False, True))
            for number, call in actual.items():
                outcome = verdict(call, expected[number])
                count[outcome] += 1
                if outcome in OUTCOMES[2:]:
                    faults.append(
                        f"{outcome}, seed {number}: {call['words']}: {call.get('message', call.get('values'))}"
                    )
            first += CHUNK
    return count, faults


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
        sys.exit()
    parser = argparse.ArgumentParser(description="odd calls of everything public")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count, faults = fuzz(options.seconds, options.seed)
    print("\n".join(faults))
    print("\n".join(f"{outcome:16} {number:6}" for outcome, number in count.items()))
    sys.exit(bool(faults))
