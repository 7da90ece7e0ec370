"""What the host does for each op's Triton kernels, without a GPU: launches, and the time of all but the launch itself.

    python benchmarks/host.py     # each op's forward and backward, their launches, microseconds

The kernels are neither compiled nor run: a launch ends where the driver would be called. Tensors are on the CPU, so
that torch's own part, mostly `empty`, costs about what it does on CUDA.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from sslfast.kernels.triton import (
    augment,
    clip_loss,
    gather_patches,
    gather_tokens,
    info_nce,
    masked_patch_loss,
    negative_cosine_similarity,
    negatives,
    nt_xent,
    plans,
    restore_tokens,
    siglip_loss,
    unit_rows,
)

DEVICE = "none"  # what the driver calls its device; no other driver's kernels are found under it
PROCESSORS = 132


class Driver:
    """A Hopper chip that is not there."""

    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: DEVICE)
    get_current_stream = staticmethod(lambda device: 0)


class Compiled:
    """In the place of a kernel that was compiled: counts its launches."""

    function = packed_metadata = None

    def __init__(self):
        self.launches = 0

    def launch_metadata(self, *_) -> None:
        return None

    def run(self, *_) -> None:
        self.launches += 1


@contextmanager
def without_gpu() -> Iterator[list[Compiled]]:
    """Launches go nowhere; the kernels so far."""
    everything: list[Compiled] = []

    def do_compile(kernel: JITFunction, key: str, *_) -> Compiled:
        kernel.cache_key  # noqa: B018 collects the global variables that every launch compares
        everything.append(Compiled())
        kernel.device_caches[DEVICE][0][key] = everything[-1]
        return everything[-1]

    original, chip = JITFunction._do_compile, plans.chip
    active = driver._active
    driver.set_active(Driver())
    JITFunction._do_compile, plans.chip = do_compile, lambda device: (90, PROCESSORS)
    plans.plan.cache_clear()
    try:
        yield everything
    finally:
        JITFunction._do_compile, plans.chip, driver._active = original, chip, active
        plans.plan.cache_clear()
        for kernel in kernels():
            kernel.device_caches.pop(DEVICE, None)


def kernels() -> list[JITFunction]:
    """All of the project."""
    modules = [module for name, module in sys.modules.items() if name.startswith("sslfast.kernels.triton.")]
    return list({f for module in modules for f in vars(module).values() if isinstance(f, JITFunction)})


class TorchLaunches(TorchDispatchMode):
    """Counts torch's own kernels: whatever does more than describe memory."""

    FREE = (
        "empty",
        "empty_like",
        "new_empty",
        "view",
        "expand",
        "slice",
        "select",
        "alias",
        "as_strided",
        "t",
        "detach",
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        self.count += name.split(".")[0] not in self.FREE
        return function(*args, **kwargs or {})


def _two_views(
    kernels: ModuleType, z: Tensor, grad: Tensor, temperature: float, tau: Tensor | None
) -> tuple[Callable, Callable]:
    losses, shift, inverse_sum, u, scale, _ = kernels.forward(z, z, temperature, tau)
    return (
        lambda: kernels.forward(z, z, temperature, tau),
        lambda: kernels.backward(grad, u, scale, losses, shift, inverse_sum, temperature, tau),
    )


def _info_nce(
    z: Tensor, queue: Tensor | None, grad: Tensor, temperature: float, tau: Tensor | None
) -> tuple[Callable, Callable]:
    *saved, u, scale, _ = info_nce.forward(z, z, queue, temperature, tau, True)
    with_key = queue is None
    return (
        lambda: info_nce.forward(z, z, queue, temperature, tau, True),
        lambda: info_nce.backward(grad, u, scale, *saved, temperature, tau, with_key, with_key),
    )


def calls() -> dict[str, tuple[Callable[[], object], ...]]:
    """Forward and backward of every op, of small inputs, as often as asked. Must be made under `without_gpu`."""
    ones, tau, result = torch.ones(()).expand, torch.tensor(0.2), {}
    for dtype in (torch.float32, torch.bfloat16):
        z, queue = torch.randn(16, 16, dtype=dtype), torch.randn(64, 16, dtype=dtype)
        for learned in (False, True):
            name, temperature = (
                str(dtype)[6:] + (", learned τ" if learned else ""),
                (0.0, tau) if learned else (0.2, None),
            )
            result[f"nt_xent {name}"] = _two_views(nt_xent, z, ones(32), *temperature)
            result[f"clip_loss {name}"] = _two_views(clip_loss, z, ones(32), *temperature)
            result[f"info_nce queue {name}"] = _info_nce(z, queue, ones(16), *temperature)
        result[f"info_nce batch {str(dtype)[6:]}"] = _info_nce(z, None, ones(16), 0.2, None)
    z, queue, shift = z.float(), queue.float(), torch.ones(16)
    result["negatives of other ranks"] = (
        lambda: negatives.forward(z, queue, False, 0.2, None, True),
        lambda: negatives.backward(z, queue, False, shift, shift, queue[:, 0], queue[:, 0], 0.2, None),
    )
    everything = True, True, True
    result["siglip_loss"] = (
        lambda: siglip_loss.sums(
            *unit_rows.normalize(z, z)[0].chunk(2), None, True, 10.0, -10.0, None, None, *everything
        ),
        lambda: unit_rows.project(z, z, shift, 1.0, tau),
    )
    result["negative_cosine_similarity"] = (
        lambda: negative_cosine_similarity.forward(z, z),
        lambda: negative_cosine_similarity.backward(ones(16), z, z, True, True),
    )
    tokens, few, parameters = torch.randn(2, 16, 16), torch.randn(2, 4, 16), torch.randn(16, 16)
    keep, restore = torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 16, dtype=torch.int64)
    result["gather_tokens"] = (
        lambda: gather_tokens.forward(tokens, keep),
        lambda: gather_tokens.backward(few, keep, 16),
    )
    result["restore_tokens"] = (
        lambda: restore_tokens.forward(few, restore, parameters[0], parameters),
        lambda: restore_tokens.backward(tokens, restore, 4, True),
    )
    images, patches = torch.randn(2, 3, 64, 64), torch.randn(2, 16, 768)
    mask, moments = torch.zeros(2, 16, dtype=torch.bool), (torch.randn(2, 16), torch.randn(2, 16), torch.ones(()))
    scale3, offset3 = [4.0, 4.1, 4.2], [-2.0, -2.1, -2.2]
    result["masked_patch_loss"] = (
        lambda: masked_patch_loss.forward(patches, images, mask, 16, True, scale3, offset3),
        lambda: masked_patch_loss.backward(torch.ones(()), patches, images, mask, *moments, 16, True, scale3, offset3),
    )
    result["gather_patches"] = (
        lambda: gather_patches.forward(images, keep, 16, scale3, offset3, torch.float32),
        lambda: gather_patches.backward(patches[:, :4], keep, 3, 64, 64, 16, scale3, torch.float32),
    )
    boxes = torch.tensor([[0, 0, 64, 64]] * 2, dtype=torch.int32)
    jitter, order = torch.ones(2, 4), torch.arange(4, dtype=torch.int32).repeat(2, 1)
    flags, numbers = torch.zeros(2, dtype=torch.bool), torch.ones(2)
    pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    steps = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize")
    result["augment"] = (
        lambda: augment.augment(
            pixels, None, boxes, flags, jitter, order, flags, numbers, numbers,
            (32, 32), steps, False, "torchvision", 3, (0.5,) * 3, (0.2,) * 3, torch.float32,
        ),
    )  # fmt: skip
    return result


def launches(call: Callable, compiled: list[Compiled]) -> tuple[int, int]:
    """Of Triton kernels and of torch's."""
    before = sum(kernel.launches for kernel in compiled)
    with TorchLaunches() as of_torch:
        call()
    return sum(kernel.launches for kernel in compiled) - before, of_torch.count


def microseconds(call: Callable, seconds: float) -> float:
    """The least: whatever else the machine does only adds."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1e6


def main() -> None:
    torch.set_num_threads(1)
    with without_gpu() as compiled:
        print(f"{'op':28}{'launches: Triton, torch':>28}{'forward':>10}{'backward':>10}{'sum, µs':>10}")
        for name, functions in calls().items():
            for function in functions:
                function()
            counts = [launches(function, compiled) for function in functions]
            times = [microseconds(function, 0.5) for function in functions] + [0.0] * (2 - len(functions))
            triton_count, torch_count = (sum(column) for column in zip(*counts))
            print(f"{name:28}{triton_count:>24}, {torch_count:>2}{times[0]:10.1f}{times[1]:10.1f}{sum(times):10.1f}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
