"""ops.augment: the whole chain against torchvision, image by image with the same parameters, and the op's contract."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from numerics import assert_as_accurate
from views import EVERYTHING, assert_like_torchvision, pictures

from sslfast.augment import PRESETS, Preset, ViewParams, ViewSampler
from sslfast.kernels import reference_augment
from sslfast.ops.augment import augment
from sslfast.ops.registry import IMPLS
from sslfast.ops.view_params import LAYOUT, STEPS

LIKE_TORCHVISION = {name: preset for name, preset in PRESETS.items() if preset.mode == "torchvision"}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("preset", [*LIKE_TORCHVISION.values(), EVERYTHING], ids=[*LIKE_TORCHVISION, "everything"])
@pytest.mark.parametrize(
    ("channels", "source", "size"), [(3, (32, 32), (32, 32)), (3, (90, 61), (48, 40)), (1, (8, 8), (8, 8))]
)
def test_the_chain(
    preset: Preset,
    channels: int,
    source: tuple[int, int],
    size: tuple[int, int],
    generator: torch.Generator,
    poisoned_memory: None,
) -> None:
    images = pictures(40, channels, *source, generator)
    params = ViewSampler(preset, size).sample(40, source, generator=generator)
    assert_like_torchvision(images, params, size)


def test_steps_that_are_left_out_change_nothing(generator: torch.Generator) -> None:
    images = pictures(16, 3, 32, 32, generator)
    params = ViewSampler("simclr-cifar", 32).sample(16, (32, 32), generator=generator)
    assert "blur" not in params.steps
    all_steps = augment(images, replace(params, steps=STEPS, blur_radius=3), 32)
    torch.testing.assert_close(augment(images, params, 32), all_steps, rtol=0, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(9, 3, 40, 30, generator)
    params = ViewSampler(EVERYTHING, 24).sample(9, (40, 30), generator=generator)
    together = augment(images, params, 24)
    alone = torch.cat([augment(images[i : i + 1], params[i], 24) for i in range(9)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    monkeypatch.setitem(reference_augment.WORKSPACE, "cpu", 100_000)  # several chunks, the last one not full
    torch.testing.assert_close(augment(images, params, 24), together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_kernel_agrees_with_the_reference(channels: int, generator: torch.Generator, poisoned_memory: None) -> None:
    """A reference in float64 is dispatched by the dtype of the views."""
    images = pictures(60, channels, 45, 70, generator)
    params = ViewSampler(EVERYTHING, (33, 41)).sample(60, (45, 70), generator=generator)
    normalized = {"mean": (0.4,) * channels, "std": (0.2,) * channels}
    exact = augment(images, params, (33, 41), dtype=torch.float64, **normalized)
    torch.testing.assert_close(augment(images, params, (33, 41), **normalized).double(), exact, rtol=0, atol=5e-4)


@pytest.mark.parametrize("mode", ["torchvision", "simclr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_as_accurate_as_eager(dtype: torch.dtype, mode: str, generator: torch.Generator) -> None:
    """Without hue and solarization, whose jumps turn any rounding into a whole step."""
    images = pictures(12, 3, 50, 70, generator)
    smooth = replace(EVERYTHING, mode=mode, hue=0.0, solarize=0.0)
    params = ViewSampler(smooth, (33, 41)).sample(12, (50, 70), generator=generator)
    rows = [getattr(params, name) for name in LAYOUT]
    rest = ((33, 41), list(params.steps), True, mode, params.blur_radius, [0.5] * 3, [0.2] * 3)
    eager = IMPLS["augment"]["reference"](images, None, *rows, *rest, dtype)
    exact = IMPLS["augment"]["reference"](images, None, *rows, *rest, torch.float64)
    assert_as_accurate(torch.ops.sslfast.augment(images, None, *rows, *rest, dtype), eager, exact)


def test_opcheck(generator: torch.Generator) -> None:
    params = ViewSampler(EVERYTHING, 16).sample(4, (20, 20), generator=generator)
    rows = [getattr(params, name) for name in LAYOUT]
    images = pictures(4, 3, 20, 20, generator)
    rest = ([16, 16], list(params.steps), True, params.mode, params.blur_radius, [0.5] * 3, [0.2] * 3)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        torch.library.opcheck(torch.ops.sslfast.augment.default, (images, None, *rows, *rest, dtype))


def test_same_input_same_bits(generator: torch.Generator) -> None:
    images = pictures(16, 3, 40, 40, generator)
    before = images.clone()
    params = ViewSampler(EVERYTHING, 32).sample(16, (40, 40), generator=generator)
    assert torch.equal(augment(images, params, 32), augment(images, params, 32))
    assert torch.equal(images, before)


def test_same_bits_by_any_number_of_threads(generator: torch.Generator) -> None:
    images = pictures(16, 3, 40, 40, generator)
    params = ViewSampler(EVERYTHING, 32).sample(16, (40, 40), generator=generator)
    threads, views = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            views.append(augment(images, params, 32))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])


def test_replay_from_a_file(generator: torch.Generator, tmp_path) -> None:
    images = pictures(8, 3, 32, 32, generator)
    params = ViewSampler("simclr", 32).sample(8, (32, 32), generator=generator)
    params.save(tmp_path / "views.pt")
    assert torch.equal(augment(images, ViewParams.load(tmp_path / "views.pt"), 32), augment(images, params, 32))


def test_any_memory_layout(generator: torch.Generator) -> None:
    images = pictures(6, 3, 20, 20, generator)
    params = ViewSampler("simclr-cifar", 16).sample(6, (20, 20), generator=generator)
    expected = augment(images, params, 16)
    assert torch.equal(augment(images.to(memory_format=torch.channels_last), params, 16), expected)
    assert torch.equal(augment(images.repeat_interleave(2, dim=0)[::2], params, 16), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype: torch.dtype, generator: torch.Generator) -> None:
    images = pictures(8, 3, 32, 32, generator)
    params = ViewSampler(EVERYTHING, 32).sample(8, (32, 32), generator=generator)
    views, single = augment(images, params, 32, dtype=dtype), augment(images, params, 32)
    assert views.dtype == dtype
    if dtype == torch.float64:  # computed in it, hence a measure of what float32 loses
        torch.testing.assert_close(single, views.float(), rtol=0, atol=1e-4)
    else:  # computed in float32 and rounded once
        assert torch.equal(views, single.to(dtype))


def test_autocast_does_not_touch_it(generator: torch.Generator) -> None:
    images = pictures(4, 3, 32, 32, generator)
    params = ViewSampler(EVERYTHING, 32).sample(4, (32, 32), generator=generator)
    expected = augment(images, params, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images, params, 32), expected)


def test_compiles_without_graph_breaks(generator: torch.Generator) -> None:
    images = pictures(4, 3, 16, 16, generator)
    params = ViewSampler("simclr-cifar", 16).sample(4, (16, 16), generator=generator)
    compiled = torch.compile(augment, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images, params, 16), augment(images, params, 16), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: a | {"images": a["images"].int()}, TypeError, "images must be uint8, uint16 or floats in"),
        (lambda a: a | {"images": a["images"][0]}, ValueError, r"images must be \(B, C, H, W\)"),
        (lambda a: a | {"images": a["images"][:, :0]}, ValueError, r"got \(4, 0, 8, 8\)"),
        (lambda a: a | {"images": a["images"][:0]}, ValueError, "not empty"),
        (lambda a: a | {"params": None}, TypeError, "params must be ViewParams, got NoneType"),
        (lambda a: a | {"params": a["params"][:3]}, ValueError, "one row for each of the 4 images, got 3"),
        (lambda a: a | {"params": a["params"].to("meta")}, ValueError, "params must be on cpu"),
        (lambda a: a | {"size": 0}, ValueError, "size must be positive, got 0"),
        (lambda a: a | {"size": (8, -1)}, ValueError, "size must be positive"),
        (lambda a: a | {"size": 8.0}, TypeError, r"size must be an int or \(h, w\), got float"),
        (lambda a: a | {"dtype": torch.int32}, TypeError, "dtype must be one of torch.float32"),
        (lambda a: a | {"mean": (0.5,) * 3}, ValueError, "mean and std go together"),
        (
            lambda a: a | {"mean": (0.5,), "std": (0.5,)},
            ValueError,
            "mean must be a number or 3 numbers, one a channel, got 1",
        ),
        (lambda a: a | {"mean": (0.5,) * 3, "std": (1, 0, 1)}, ValueError, "std must be at least"),
        (
            lambda a: a | {"params": replace(a["params"], steps=("blur",), blur_radius=8)},
            ValueError,
            "blur_radius must be below the size",
        ),
    ],
)
def test_wrong_arguments_are_named(change, error: type[Exception], message: str) -> None:
    arguments = {
        "images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
        "params": ViewParams.identity(4, (8, 8)),
        "size": 8,
    }
    augment(**arguments)
    with pytest.raises(error, match=message):
        augment(**change(arguments))


@pytest.mark.gpu
def test_on_the_gpu(generator: torch.Generator) -> None:
    images = pictures(32, 3, 40, 40, generator)
    params = ViewSampler(EVERYTHING, 32).sample(32, (40, 40), generator=generator)
    on_gpu, on_cpu = augment(images.cuda(), params.to("cuda"), 32), augment(images, params, 32)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_the_gpu_is_not_waited_for(generator: torch.Generator) -> None:
    images = pictures(32, 3, 40, 40, generator).cuda()
    sampler, draws = ViewSampler(EVERYTHING, 32), torch.Generator("cuda").manual_seed(0)
    augment(images, sampler.sample(32, (40, 40), generator=draws), 32)
    torch.cuda.set_sync_debug_mode("error")
    try:
        params = sampler.sample(32, (40, 40), generator=draws)
        expected = augment(images, params, 32, mean=(0.5,) * 3, std=(0.2,) * 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = augment(images, params, 32, mean=(0.5,) * 3, std=(0.2,) * 3)
    graph.replay()
    torch.testing.assert_close(captured, expected, rtol=0, atol=1e-5)
