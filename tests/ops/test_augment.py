"""ops.augment against torchvision's functional transforms, image by image with the same parameters."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Tensor
from torchvision.transforms import InterpolationMode

from sslfast.augment import PRESETS, Preset, ViewParams, ViewSampler
from sslfast.kernels import reference_augment
from sslfast.ops.augment import augment
from sslfast.ops.view_params import LAYOUT, STEPS

EVERYTHING = Preset(
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.5,
    grayscale=0.2,
    blur=0.5,
    solarize=0.3,
    interpolation="bicubic",
)
IDENTITY = (1.0, 1.0, 1.0, 0.0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pictures(batch: int, channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Noise at three scales, some flat areas and saturated pixels: not as smooth as a photograph, not mere noise."""
    shape = (batch, channels, height, width)
    coarse = torch.rand(batch, channels, 1 + height // 8, 1 + width // 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 1.6 - 0.3
    images += 0.2 * torch.rand(shape, generator=generator) * (torch.rand(batch, 1, 1, 1, generator=generator) < 0.7)
    return (255 * images).clamp(0, 255).to(torch.uint8)


def torchvision_view(image: Tensor, params: ViewParams, i: int, size: tuple[int, int]) -> Tensor:
    """One view in float, as torchvision makes it."""
    mode = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}[params.interpolation]
    x = reference.resized_crop(image.double() / 255, *params.crop[i].tolist(), list(size), mode, antialias=True)
    x = x.clamp(0, 1)
    if params.flip[i]:
        x = reference.horizontal_flip(x)
    factors = params.jitter[i].tolist()
    for k in params.order[i].tolist():
        x = getattr(reference, f"adjust_{STEPS[k]}")(x, factors[k])
    if params.grayscale[i]:
        x = reference.rgb_to_grayscale(x, num_output_channels=x.shape[0])
    if params.blur[i] > 0:
        x = reference.gaussian_blur(x, [2 * params.blur_radius + 1] * 2, [params.blur[i].item()] * 2)
    if params.solarize[i] <= 1:
        x = reference.solarize(x, params.solarize[i].item())
    return x


def assert_like_torchvision(images: Tensor, params: ViewParams, size: tuple[int, int], worst: float = 1e-4) -> None:
    views = augment(images, params, size)
    assert views.shape == (len(images), images.shape[1], *size)
    assert views.dtype == torch.float32
    for i, view in enumerate(views):
        error = (view - torchvision_view(images[i], params, i, size)).abs()
        assert error.max() <= worst, params.describe(i)
        assert error.mean() <= worst / 10, params.describe(i)


# --- single steps ---


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (32, 32), (61, 90)])
def test_crop_resize_flip(interpolation: str, size: tuple[int, int], generator: torch.Generator) -> None:
    images = pictures(7, 3, 37, 53, generator)
    boxes = [
        (0, 0, 37, 53),
        (5, 9, 20, 30),
        (36, 52, 1, 1),
        (0, 0, 1, 53),
        (3, 50, 34, 2),
        (11, 13, 7, 5),
        (4, 0, 33, 17),
    ]
    params = replace(
        ViewParams.identity(7, (37, 53)),
        crop=torch.tensor(boxes, dtype=torch.int32),
        flip=torch.arange(7) % 2 == 0,
        interpolation=interpolation,
    )
    assert_like_torchvision(images, params, size, worst=1e-5)


def test_the_whole_source_at_its_own_size_is_the_source(generator: torch.Generator) -> None:
    images = pictures(3, 3, 19, 23, generator)
    for interpolation in ("bilinear", "bicubic"):
        params = replace(ViewParams.identity(3, (19, 23)), interpolation=interpolation)
        torch.testing.assert_close(augment(images, params, (19, 23)), images / 255)


def test_a_box_is_cut_to_the_source(generator: torch.Generator) -> None:
    images = pictures(4, 3, 20, 30, generator)
    outside = torch.tensor([(-5, -5, 15, 20), (10, 20, 100, 100), (50, 50, 3, 3), (0, -9, 20, 3)], dtype=torch.int32)
    inside = torch.tensor([(0, 0, 10, 15), (10, 20, 10, 10), (19, 29, 1, 1), (0, 0, 20, 1)], dtype=torch.int32)
    params = ViewParams.identity(4, (20, 30))
    cut = augment(images, replace(params, crop=outside), 16)
    torch.testing.assert_close(cut, augment(images, replace(params, crop=inside), 16), rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("column", "values"),
    [(0, (0.0, 0.3, 1.7)), (1, (0.0, 0.4, 1.8)), (2, (0.0, 0.5, 2.0)), (3, (-0.5, -0.1, 0.2, 0.5))],
    ids=STEPS[:4],
)
def test_each_colour_adjustment(
    column: int, values: tuple[float, ...], channels: int, generator: torch.Generator
) -> None:
    images = pictures(len(values), channels, 24, 24, generator)
    images[0, :, :8] = 0
    images[0, :, 8:12] = 255
    jitter = torch.tensor([IDENTITY] * len(values))
    jitter[:, column] = torch.tensor(values)
    params = replace(ViewParams.identity(len(values), (24, 24)), jitter=jitter, steps=(STEPS[column],))
    assert_like_torchvision(images, params, (24, 24), worst=1e-5)


def test_every_order_of_the_four_adjustments(generator: torch.Generator) -> None:
    orders = torch.tensor(list(permutations(range(4))), dtype=torch.int32)
    images = pictures(1, 3, 20, 20, generator).repeat(len(orders), 1, 1, 1)
    params = replace(
        ViewParams.identity(len(orders), (20, 20)),
        jitter=torch.tensor([1.6, 0.5, 1.9, 0.17]).repeat(len(orders), 1),
        order=orders,
        steps=STEPS[:4],
    )
    assert_like_torchvision(images, params, (20, 20))
    views = augment(images, params, 20).flatten(1)
    distance = torch.cdist(views, views) + torch.eye(len(views))
    assert distance.min() > 1e-2  # the order matters: no two of the 24 are alike


def test_hue_of_pure_colours() -> None:
    images = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [128, 128, 128], [0, 0, 0]])
    images = images.to(torch.uint8)[:, :, None, None]
    third = torch.tensor([1, 1, 1, 1 / 3]).repeat(6, 1)
    params = replace(ViewParams.identity(6, (1, 1)), jitter=third, steps=("hue",))
    turned = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1], [128 / 255] * 3, [0, 0, 0]]
    torch.testing.assert_close(augment(images, params, 1)[:, :, 0, 0], torch.tensor(turned), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_grayscale(channels: int, generator: torch.Generator) -> None:
    images = pictures(4, channels, 16, 16, generator)
    gray = torch.tensor([True, False, True, False])
    params = replace(ViewParams.identity(4, (16, 16)), grayscale=gray, steps=("grayscale",))
    assert_like_torchvision(images, params, (16, 16), worst=1e-6)


@pytest.mark.parametrize(("size", "radius"), [((24, 24), 1), ((31, 18), 5), ((12, 40), 11)])
def test_blur(size: tuple[int, int], radius: int, generator: torch.Generator) -> None:
    images = pictures(5, 3, *size, generator)
    sigma = torch.tensor([0.0, 0.1, 0.7, 2.0, 50.0])
    params = replace(ViewParams.identity(5, size), blur=sigma, blur_radius=radius, steps=("blur",))
    assert_like_torchvision(images, params, size, worst=1e-5)
    unblurred = augment(images[:1], replace(params, steps=())[0], size)
    torch.testing.assert_close(augment(images, params, size)[:1], unblurred, rtol=0, atol=0)


def test_solarize(generator: torch.Generator) -> None:
    images = pictures(4, 3, 16, 16, generator)
    threshold = torch.tensor([torch.inf, 0.0, 0.501, 1.0])  # no uint8 value lies on 0.501
    params = replace(ViewParams.identity(4, (16, 16)), solarize=threshold, steps=("solarize",))
    assert_like_torchvision(images, params, (16, 16), worst=1e-6)


def test_normalisation(generator: torch.Generator) -> None:
    images, params = pictures(2, 3, 8, 8, generator), ViewParams.identity(2, (8, 8))
    mean, std = (0.1, 0.2, 0.3), (0.5, 2.0, 0.25)
    expected = reference.normalize(augment(images, params, 8), list(mean), list(std))
    torch.testing.assert_close(augment(images, params, 8, mean=mean, std=std), expected)


# --- the whole chain ---


@pytest.mark.parametrize("preset", [*PRESETS.values(), EVERYTHING], ids=[*PRESETS, "everything"])
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


def test_opcheck(generator: torch.Generator) -> None:
    params = ViewSampler(EVERYTHING, 16).sample(4, (20, 20), generator=generator)
    rows = [getattr(params, name) for name in LAYOUT]
    images = pictures(4, 3, 20, 20, generator)
    rest = ([16, 16], list(params.steps), True, params.blur_radius, [0.5] * 3, [0.2] * 3)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        torch.library.opcheck(torch.ops.sslfast.augment.default, (images, *rows, *rest, dtype))


def test_same_input_same_bits(generator: torch.Generator) -> None:
    images = pictures(16, 3, 40, 40, generator)
    before = images.clone()
    params = ViewSampler(EVERYTHING, 32).sample(16, (40, 40), generator=generator)
    assert torch.equal(augment(images, params, 32), augment(images, params, 32))
    assert torch.equal(images, before)


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
        (lambda a: a | {"images": a["images"].float()}, TypeError, "images must be a tensor of torch.uint8"),
        (lambda a: a | {"images": a["images"][0]}, ValueError, r"images must be \(B, 1 or 3, H, W\)"),
        (lambda a: a | {"images": a["images"][:, :2]}, ValueError, r"got \(4, 2, 8, 8\)"),
        (lambda a: a | {"images": a["images"][:0]}, ValueError, "not empty"),
        (lambda a: a | {"params": None}, TypeError, "params must be ViewParams, got NoneType"),
        (lambda a: a | {"params": a["params"][:3]}, ValueError, "one row for each of the 4 images, got 3"),
        (lambda a: a | {"params": a["params"].to("meta")}, ValueError, "params must be on cpu"),
        (lambda a: a | {"size": 0}, ValueError, "size must be positive, got 0"),
        (lambda a: a | {"size": (8, -1)}, ValueError, "size must be positive"),
        (lambda a: a | {"size": 8.0}, TypeError, r"size must be an int or \(h, w\), got 8.0"),
        (lambda a: a | {"dtype": torch.int32}, TypeError, "dtype must be one of torch.float32"),
        (lambda a: a | {"mean": (0.5,) * 3}, ValueError, "mean and std go together"),
        (lambda a: a | {"mean": (0.5,), "std": (0.5,)}, ValueError, "must have 3 numbers"),
        (lambda a: a | {"mean": (0.5,) * 3, "std": (1, 0, 1)}, ValueError, "std must be positive"),
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
