"""The C++ of the CPU kernels by itself: other compilers, and another architecture in an emulator."""

from __future__ import annotations

import shutil
import struct
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from numerics import assert_as_accurate
from torch import Tensor

from sslfast.kernels import reference, reference_image_text, reference_mae

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.glob("csrc/cpu/*.cpp"))
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-Wall", "-Wextra", "-Werror",
         f"-I{ROOT / 'csrc'}"]  # fmt: skip


def need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: clang g++-aarch64-linux-gnu qemu-user-static)")


@pytest.mark.long
@pytest.mark.parametrize("openmp", [False, True])
@pytest.mark.parametrize("compiler", ["g++", "clang++", "aarch64-linux-gnu-g++"])
def test_compiles_without_warnings(compiler, openmp, tmp_path):
    need(compiler)
    command = [compiler, *FLAGS, *["-fopenmp"] * openmp, "-c", *SOURCES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def pack(arrays: list[Tensor]) -> bytes:
    raw = [x.detach().contiguous().numpy().tobytes() for x in arrays]
    return b"".join(struct.pack("<q", len(part)) + part for part in raw)


def unpack(data: bytes) -> list[bytes]:
    parts = []
    while data:
        (size,) = struct.unpack_from("<q", data)
        parts.append(data[8 : 8 + size])
        data = data[8 + size :]
    return parts


@pytest.mark.slow
def test_arm64_gives_what_the_reference_gives(tmp_path):
    need("aarch64-linux-gnu-g++", "qemu-aarch64-static")
    batch, channels, height, width, patch, dim, kept = 3, 3, 20, 24, 4, 37, 7
    patches, elements = height // patch * (width // patch), patch * patch * channels
    torch.manual_seed(0)
    noise, tokens = torch.rand(batch, patches), torch.randn(batch, patches, dim)
    mask_token, position = torch.randn(dim), torch.randn(patches, dim)
    target, source = torch.randn(1001), torch.randn(1001)
    p, z = torch.randn(19, dim), torch.randn(19, dim)
    images, pred = torch.rand(batch, channels, height, width), torch.randn(batch, patches, elements)

    wide, temperatures = 130, torch.tensor([0.01, 0.3], dtype=torch.float64)
    first, second = torch.randn(2, 70, wide) + torch.randn(70, wide)
    queue = torch.nn.functional.normalize(torch.randn(110, wide))

    program, given, found = tmp_path / "kernels", tmp_path / "given", tmp_path / "found"
    compiled = [ROOT / "tests/csrc/kernels.cpp", *SOURCES]
    subprocess.run(["aarch64-linux-gnu-g++", *FLAGS, "-static", *compiled, "-o", program], check=True)
    sizes = torch.tensor([batch, patches, kept, dim, channels, height, width, patch, wide])
    given.write_bytes(
        pack(
            [sizes, noise, tokens, mask_token, position, target, source, p, z, images, pred]
            + [first, second, queue, temperatures]
        )
    )
    subprocess.run(["qemu-aarch64-static", program, given, found], check=True)
    parts = iter(unpack(found.read_bytes()))

    def floats(*shape: int) -> Tensor:
        return torch.frombuffer(bytearray(next(parts)), dtype=torch.float32).view(shape)

    keep, restore, mask = reference_mae.random_patch_mask_from_noise(noise, kept)
    for wanted in (keep, restore, mask):
        assert next(parts) == wanted.contiguous().numpy().tobytes()
    visible = reference_mae.gather_tokens_forward(tokens, keep)
    assert torch.equal(floats(*visible.shape), visible)
    decoded = reference_mae.restore_tokens_forward(visible, restore, mask_token, position)
    assert torch.equal(floats(*decoded.shape), decoded)

    def checked(what: str, actual: Tensor, exact: Tensor, eager: Tensor) -> None:
        assert_as_accurate(actual, eager, exact, what)

    averaged = [0.99 * t + (1 - 0.99) * s for t, s in ((target.double(), source.double()), (target, source))]
    checked("ema", floats(1001), *averaged)
    cosine = partial(reference.negative_cosine_similarity, reduction="none")
    cosines = [gradients(cosine, p.to(d), z.to(d)) for d in DTYPES]
    for what, exact, eager in zip(("losses", "dp", "dz"), *cosines, strict=True):
        checked(what, floats(*exact.shape), exact, eager)

    def masked(prediction: Tensor) -> Tensor:
        return reference_mae.masked_patch_loss_forward(prediction, images.to(prediction), mask, patch, True, [], [])[0]

    for what, exact, eager in zip(("loss", "dpred"), *(gradients(masked, pred.to(d)) for d in DTYPES), strict=True):
        checked(what, floats(*exact.shape), exact, eager)

    for tau in temperatures.tolist():
        for loss in (reference.nt_xent, reference_image_text.clip_loss):
            losses = [
                gradients(partial(loss, temperature=tau, reduction="none"), *pair) for pair in kinds(first, second)
            ]
            (exact, *exact_gradients), (eager, *eager_gradients) = losses
            checked(loss.__name__, floats(140), exact, eager)
            checked("dz", floats(140, wide), torch.cat(exact_gradients), torch.cat(eager_gradients))
        for negatives in (None, queue):
            results = [
                gradients(lambda q, k: reference.info_nce(q, k, like(negatives, q), tau, reduction="none"), *pair)  # noqa: B023
                for pair in kinds(first, second)
            ]
            for what, exact, eager in zip(("info_nce", "dquery", "dkey"), *results, strict=True):
                checked(what, floats(*exact.shape), exact, eager)
    assert next(parts, None) is None


def kinds(*tensors: Tensor) -> list[list[Tensor]]:
    return [[x.detach().to(dtype) for x in tensors] for dtype in DTYPES]


def like(x: Tensor | None, other: Tensor) -> Tensor | None:
    return None if x is None else x.to(other)


DTYPES = (torch.float64, torch.float32)


def gradients(function, *inputs: Tensor) -> list[Tensor]:
    """The value, then the gradient of its sum to every input."""
    leaves = [x.requires_grad_() for x in inputs]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad(value.sum(), leaves)]
