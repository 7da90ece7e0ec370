"""The CUDA C++ kernels without a GPU: compiled for the host by tests/cuda_on_host, as threads under ThreadSanitizer.

They give the bits of the CPU's kernels, no access races another, and a barrier that is left out is seen.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from ema_pairs import HALVES_AND_SINGLE, KINDS

from sslfast import ops
from sslfast.kernels.cuda.ema import chunk_map
from sslfast.kernels.pair_table import pair_table

ROOT = Path(__file__).parents[2]
KERNELS, HOST = ROOT / "csrc" / "cuda", ROOT / "tests" / "cuda_on_host"
RACE = 66  # ThreadSanitizer's exit code


def compiled(name: str, folder: Path) -> Path:
    program = folder / name
    flags = ["-std=c++20", "-O1", "-g", "-pthread", "-fsanitize=thread", "-Wno-unknown-pragmas"]
    command = [os.environ.get("CXX", "c++"), *flags, f"-I{HOST}", f"-I{ROOT / 'csrc'}", HOST / f"{name}.cpp"]
    done = subprocess.run([*command, "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """Where the programs are; a compiler without ThreadSanitizer is no failure of the kernels."""
    folder = tmp_path_factory.mktemp("cuda_on_host")
    (folder / "empty.cpp").write_text("int main() {}")
    command = [
        os.environ.get("CXX", "c++"),
        "-std=c++20",
        "-fsanitize=thread",
        folder / "empty.cpp",
        "-o",
        folder / "empty",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no C++ compiler")
    if done.returncode or subprocess.run([folder / "empty"], capture_output=True).returncode:
        pytest.skip("the compiler has no ThreadSanitizer that runs here")
    return folder


@pytest.fixture(scope="session")
def patch_mask_program(programs) -> Path:
    return compiled("random_patch_mask", programs)


@pytest.fixture(scope="session")
def ema_program(programs) -> Path:
    return compiled("ema", programs)


def run(program: Path, *arguments, given: bytes) -> subprocess.CompletedProcess:
    return subprocess.run([program, *map(str, arguments)], input=given, capture_output=True)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def test_every_kernel_has_its_program():
    assert {path.stem for path in KERNELS.glob("*.cu")} == {path.stem for path in HOST.glob("*.cpp")}


def assert_equal(done: subprocess.CompletedProcess, expected: ops.PatchMask) -> None:
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"".join(map(raw, (expected.keep, expected.restore, expected.mask)))


@pytest.mark.parametrize("patches", [4, 7, 64, 65, 197, 500, pytest.param(2500, marks=pytest.mark.slow)])
def test_random_patch_mask_from_seed(patches, patch_mask_program):
    """Those of 2500 are more than a block has threads for."""
    batch = 2 if patches < 1000 else 1
    expected = ops.random_patch_mask(batch, patches, 0.7, seed=7)
    arguments = -1, 0, 0, batch, patches, expected.keep.shape[1]
    assert_equal(run(patch_mask_program, 0, *arguments, given=raw(torch.tensor([7]))), expected)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("patches", [4, 65, 196])
def test_random_patch_mask_from_noise(patches, dtype, patch_mask_program):
    """Of few values, so that many tie, with both zeros and NaN, and in the order of its transpose."""
    noise = torch.randint(-9, 9, (patches, 3), generator=torch.Generator().manual_seed(0)).to(dtype)
    noise[noise == 0] *= -1.0
    noise[patches // 2, 1] = float("nan")
    expected = ops.random_patch_mask(3, patches, 0.7, noise=noise.T)
    arguments = HALVES_AND_SINGLE.index(dtype), 1, 3, 3, patches, expected.keep.shape[1]
    assert_equal(run(patch_mask_program, 0, *arguments, given=raw(noise)), expected)


BARRIERS = [
    number
    for number, line in enumerate((KERNELS / "random_patch_mask.cu").read_text().splitlines(), start=1)
    if re.search(r"__sync\w+\(\)", line)
]


@pytest.mark.parametrize("line", BARRIERS)
def test_every_barrier_of_random_patch_mask_is_needed(line, patch_mask_program):
    """197 patches end within a group of four."""
    done = run(patch_mask_program, line, -1, 0, 0, 2, 197, 49, given=raw(torch.tensor([7])))
    assert done.returncode == RACE
    assert b"data race" in done.stderr


CHUNK = int(re.search(r"kEmaChunk = (\d+)", (KERNELS / "ema.h").read_text())[1])
SIZES = [1, 7, 8, 300, CHUNK, 2 * CHUNK + 1]


def parameters(kinds: list[tuple[torch.dtype, torch.dtype]], shift: int = 0):
    """A stretch of memory; in it targets and sources of these kinds, `shift` elements beyond where vectors may lie;
    their table, of offsets into the memory; their chunks."""
    memory = torch.randint(0, 256, (16 * len(kinds) * (sum(SIZES) + 8 * len(SIZES)),), dtype=torch.uint8)
    generator, lists, at = torch.Generator().manual_seed(shift), ([], []), 0
    for kind in kinds:
        for size in SIZES:
            for dtype, tensors in zip(kind, lists):
                start = at + shift * dtype.itemsize
                at = start + size * dtype.itemsize
                tensors.append(
                    memory[start:at].view(dtype).copy_(torch.randn(size, generator=generator, dtype=torch.float32))
                )
                at += -at % 16
    table = torch.frombuffer(bytearray(pair_table(*lists).tobytes()), dtype=torch.int64).view(-1, 4)
    table[:, :2] -= memory.data_ptr()
    return memory, *lists, table, chunk_map(table[:, 2], CHUNK)


def update(program: Path, memory, table, chunks, momentum=0.99, step=5, at=0) -> subprocess.CompletedProcess:
    given = raw(table) + raw(chunks) + raw(memory)
    return run(program, len(table), len(chunks), momentum, step, at, given=given)


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_ema_update(shift, ema_program):
    memory, targets, sources, table, chunks = parameters(KINDS, shift)
    done = update(ema_program, memory, table, chunks)
    assert done.returncode == 0, done.stderr.decode()
    ops.ema_update_(targets, sources, 0.99, step=5)
    assert done.stdout == raw(memory)  # also what lies between the targets


@pytest.mark.parametrize(("at", "dtype"), [(4, torch.float32), (8, torch.float64)])
def test_ema_update_reads_momentum_and_step_from_memory(at, dtype, ema_program):
    memory, targets, sources, table, chunks = parameters([(torch.bfloat16, torch.float32)])
    done = update(ema_program, memory, table, chunks, 0.99, 2**40 + 1, at)
    assert done.returncode == 0, done.stderr.decode()
    ops.ema_update_(targets, sources, torch.tensor(0.99, dtype=dtype), step=2**40 + 1)
    assert done.stdout == raw(memory)


def test_a_chunk_that_two_blocks_update_is_a_race(ema_program):
    memory, _, _, table, chunks = parameters([(torch.float32, torch.float32)])
    done = update(ema_program, memory, table, torch.cat([chunks, chunks[-1:]]))
    assert done.returncode == RACE
    assert b"data race" in done.stderr
