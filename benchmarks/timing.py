"""Seconds a call, and the rates of the machine that a floor is made of."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sslfast import _C

Timer = Callable[[Callable[[], object]], list[float]]


def alternate(
    calls: dict[str, Callable[[], object]], seconds: float, timer: Timer, most: int = 1000
) -> dict[str, list]:
    """Times of all calls by turns, until about `seconds` are spent on each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.perf_counter() + seconds * len(calls)
    gc.disable()
    while calls and (min(map(len, times.values())) < 5 or time.perf_counter() < deadline):
        for name, call in calls.items():
            times[name] += timer(call)
        if min(map(len, times.values())) >= most:
            break
    gc.enable()
    return times


def timer_for(device: str, overhead: bool) -> Timer:
    if device == "cuda":
        return enqueueing if overhead else CudaTimer()
    return repeatedly if overhead else once


def once(call: Callable[[], object]) -> list[float]:
    start = time.perf_counter()
    call()
    return [time.perf_counter() - start]


def repeatedly(call: Callable[[], object]) -> list[float]:
    """Of small calls ten at a time, so that nobody pays for another's caches."""
    return [once(call)[0] for _ in range(10)]


def enqueueing(call: Callable[[], object]) -> list[float]:
    """What the host needs for a call on CUDA: it is not waited for."""
    torch.cuda.synchronize()
    times = repeatedly(call)
    torch.cuda.synchronize()
    return times


class CudaTimer:
    """CUDA events around calls, with a cold L2. The GPU sleeps until the host has enqueued them, so never waits."""

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(0)
        self.flush = torch.empty(4 * max(properties.L2_cache_size, 2**25), dtype=torch.uint8, device="cuda")
        self.cycles = 2.5e9  # a second, at least
        self.plans: dict[Callable, tuple[int, float]] = {}

    def __call__(self, call: Callable[[], object]) -> list[float]:
        if call not in self.plans:
            self.plans[call] = self.plan(call)
        repeats, host = self.plans[call]
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        torch.cuda._sleep(int(host * repeats * self.cycles))
        for start, stop in events:
            self.flush.zero_()
            start.record()
            call()
            stop.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) / 1e3 for start, stop in events]

    def plan(self, call: Callable[[], object]) -> tuple[int, float]:
        """(calls at a time, seconds of the host for each); a call that waits for the GPU itself is not slept for."""
        host, total = min(self.host_and_total(call) for _ in range(3))
        return max(1, min(20, int(5e-3 / total))), 0.0 if host > 5e-3 else host + 3e-5

    @staticmethod
    def host_and_total(call: Callable[[], object]) -> tuple[float, float]:
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        enqueued = time.perf_counter()
        torch.cuda.synchronize()
        return enqueued - start, time.perf_counter() - start


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many other processes want a core each, as the workers of a DataLoader do."""
    code = "print(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        for other in others:
            other.stdout.readline()
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


def peak_rate(threads: int) -> float:
    """Operations a second that the arithmetic units of so many cores can do in float32: multiply-adds in registers."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rounds = 10**7
    operations = _C.multiply_and_add(rounds)
    rate = operations / best_of(lambda: _C.multiply_and_add(rounds), "cpu")
    torch.set_num_threads(before)
    return rate


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second: the roof of the compute-bound ops. A CPU may have faster units for 16 bits than for 32."""
    if device == "cpu":
        peak = peak_rate(torch.get_num_threads())
        return peak if dtype == torch.float32 else max(peak, matrix_rate(device, dtype))
    return matrix_rate(device, dtype)


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """That of a large matrix product."""
    n = 8192 if device == "cuda" else 1536
    a = torch.randn(n, n, device=device).to(dtype)
    out = a @ a
    return 2 * n**3 / best_of(lambda: torch.mm(a, a, out=out), device)


def stream_rate(device: str) -> float:
    """Bytes a second of a large copy on CUDA, of a += b on a CPU (a copy there reads what it is about to write)."""
    a, b = torch.zeros(2, 2**28 if device == "cuda" else 2**25, device=device)
    if device == "cuda":
        return 2 * a.nbytes / best_of(lambda: a.copy_(b), device)
    return 3 * a.nbytes / best_of(lambda: a.add_(b), device)


def best_of(call: Callable[[], object], device: str) -> float:
    """The fewest seconds: a roof is what the machine can do."""
    timer = timer_for(device, overhead=False)
    call()
    return min(seconds for _ in range(10) for seconds in timer(call))
