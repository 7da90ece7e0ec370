"""The draws of ViewSampler against the distributions of the papers and of torchvision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torch import Tensor
from torchvision.transforms.v2 import RandomResizedCrop

from sslfast.augment import PAIRS, PRESETS, Preset, ViewParams, ViewSampler, preset
from sslfast.ops.view_params import LAYOUT

MANY = 4000
LIKELY = 1e-3  # p-values below this are taken for a wrong distribution; the draws are seeded


def draw(sampler: ViewSampler, batch: int = MANY, source_size=(256, 256), seed: int = 0) -> ViewParams:
    return sampler.sample(batch, source_size, generator=torch.Generator().manual_seed(seed))


def same(a: ViewParams, b: ViewParams) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in LAYOUT)


def rate(events: Tensor) -> float:
    return events.float().mean().item()


@pytest.mark.parametrize("name", PRESETS)
def test_the_generator_determines_the_draw(name: str) -> None:
    sampler = ViewSampler(name, 32)
    assert same(draw(sampler, 64), draw(sampler, 64))
    assert not same(draw(sampler, 64), draw(sampler, 64, seed=1))
    generator = torch.Generator().manual_seed(0)
    first, second = (sampler.sample(64, (256, 256), generator=generator) for _ in range(2))
    assert same(first, draw(sampler, 64))
    assert not same(first, second)


def test_without_a_generator_the_default_one_is_used() -> None:
    sampler = ViewSampler("simclr", 32)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = sampler.sample(8, (32, 32))
        torch.manual_seed(3)
        assert same(first, sampler.sample(8, (32, 32)))
    state = torch.get_rng_state()
    draw(sampler, 8)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_preset_takes_as_much_from_the_generator_as_another() -> None:
    generators = [torch.Generator().manual_seed(0) for _ in PRESETS]
    for name, generator in zip(PRESETS, generators):
        ViewSampler(name, 32).sample(5, (32, 32), generator=generator)
    assert len({tuple(generator.get_state().tolist()) for generator in generators}) == 1


def test_every_image_has_its_own_draw() -> None:
    params = draw(ViewSampler("simclr", 224), 200)
    assert len(params.crop.unique(dim=0)) > 190
    jittered = params.jitter[(params.jitter != torch.tensor([1.0, 1.0, 1.0, 0.0])).all(dim=1)]
    assert len(jittered.unique(dim=0)) == len(jittered) > 120
    assert len(params.order.unique(dim=0)) == 24
    for both in (params.flip, params.grayscale, params.blur > 0):
        assert both.any()
        assert not both.all()


@pytest.mark.parametrize("source", [(32, 32), (256, 256), (100, 350), (500, 120)])
def test_crops_are_distributed_as_torchvisions(source: tuple[int, int]) -> None:
    scale, ratio = (0.3, 1.0), (3 / 4, 4 / 3)
    crop = draw(ViewSampler(Preset(crop_scale=scale, crop_ratio=ratio), 32), source_size=source).crop.double()
    image = torch.empty(1, *source)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = RandomResizedCrop(32, scale=scale, ratio=ratio)
        boxes = [theirs.make_params([image]) for _ in range(MANY)]
    expected = torch.tensor([[box[name] for name in ("top", "left", "height", "width")] for box in boxes]).double()
    for k in range(4):
        assert ks_2samp(crop[:, k], expected[:, k], method="asymp").pvalue > LIKELY
    for derived in (lambda box: box[:, 2] * box[:, 3], lambda box: box[:, 3] / box[:, 2]):
        assert ks_2samp(derived(crop), derived(expected), method="asymp").pvalue > LIKELY


def test_area_and_aspect_follow_the_paper() -> None:
    """SimCLR, appendix A: area uniform in 8% to 100%, aspect log-uniform in 3/4 to 4/3 where the box fits."""
    crop = draw(ViewSampler("simclr", 224), source_size=(2000, 2000)).crop.double()
    area, aspect = crop[:, 2] * crop[:, 3] / 2000**2, crop[:, 3] / crop[:, 2]
    assert area.min() >= 0.0799
    assert area.max() <= 1
    assert aspect.min() >= 0.748
    assert aspect.max() <= 1.337
    fits = area < 0.7  # such a box fits at any aspect, so nothing was drawn again
    assert kstest(area[fits], "uniform", (0.08, 0.62)).pvalue > LIKELY
    low, high = torch.tensor([3 / 4, 4 / 3]).log().tolist()
    assert kstest(aspect[fits].log(), "uniform", (low, high - low)).pvalue > LIKELY


@pytest.mark.parametrize("source", [(1, 1), (1, 500), (300, 2), (8, 8), (33, 1000)])
def test_boxes_lie_within_the_source(source: tuple[int, int]) -> None:
    top, left, height, width = draw(ViewSampler("simclr", 32), 500, source).crop.unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height).max() <= source[0]
    assert (left + width).max() <= source[1]


def test_a_source_without_a_fitting_box_is_cut_in_the_centre() -> None:
    """torchvision's fallback: the largest box of an allowed aspect, in the middle."""
    whole = Preset(crop_scale=(1.0, 1.0))
    assert (draw(ViewSampler(whole, 32), 50, (100, 400)).crop == torch.tensor([0, 133, 100, 133])).all()
    assert (draw(ViewSampler(whole, 32), 50, (401, 90)).crop == torch.tensor([140, 0, 120, 90])).all()


def test_sources_of_different_sizes() -> None:
    sizes = torch.tensor([[20, 30], [300, 50], [64, 64]]).repeat(100, 1)
    crop = draw(ViewSampler("simclr-cifar", 32), 300, sizes).crop
    assert (crop[:, :2] + crop[:, 2:] <= sizes).all()
    assert (crop[:, 2] * crop[:, 3])[1::3].float().mean() > 2000  # larger sources have larger crops
    uniform = draw(ViewSampler("simclr-cifar", 32), 300, torch.tensor([[64, 64]]).repeat(300, 1))
    assert same(uniform, draw(ViewSampler("simclr-cifar", 32), 300, (64, 64)))


def test_probabilities_and_ranges_of_simclr() -> None:
    params = draw(ViewSampler("simclr", 224))
    applied = params.jitter[:, 0] != 1
    blurred = params.blur > 0
    for events, expected in ((params.flip, 0.5), (applied, 0.8), (params.grayscale, 0.2), (blurred, 0.5)):
        assert abs(rate(events) - expected) < 4 * (expected * (1 - expected) / MANY) ** 0.5
    assert (params.jitter[~applied] == torch.tensor([1.0, 1.0, 1.0, 0.0])).all()
    for column, (low, high) in enumerate([(0.2, 1.8)] * 3 + [(-0.2, 0.2)]):
        assert kstest(params.jitter[applied, column], "uniform", (low, high - low)).pvalue > LIKELY
    assert kstest(params.blur[blurred], "uniform", (0.1, 1.9)).pvalue > LIKELY
    _, counts = params.order.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts).pvalue > LIKELY
    assert (params.order.sort(dim=1).values == torch.arange(4)).all()
    assert params.solarize.isinf().all()
    assert (params.blur_radius, params.interpolation) == (11, "bicubic")  # 23 taps at 224 pixels
    events = torch.stack([params.flip, applied, params.grayscale, blurred, params.crop[:, 2] > 128]).float()
    assert (torch.corrcoef(events) - torch.eye(5)).abs().max() < 0.07  # drawn independently


def test_solarize_of_a_preset() -> None:
    params = draw(ViewSampler(Preset(solarize=0.2), 32))
    assert set(params.solarize.tolist()) == {0.5, torch.inf}
    assert abs(rate(params.solarize == 0.5) - 0.2) < 0.03


def test_presets_differ_as_documented() -> None:
    cifar = draw(ViewSampler("simclr-cifar", 32))
    assert cifar.steps == ("brightness", "contrast", "saturation", "hue", "grayscale")
    assert (cifar.blur == 0).all()
    assert abs(cifar.jitter[:, 0].max() - 1.4) < 0.01
    assert abs(cifar.jitter[:, 3].min() + 0.1) < 0.01
    digits = draw(ViewSampler("mnist-like", 8), source_size=(8, 8))
    assert digits.steps == ("brightness", "contrast", "blur")
    assert not digits.flip.any()
    assert (digits.jitter[:, 2:] == torch.tensor([1.0, 0.0])).all()
    assert digits.blur_radius == 1
    assert (digits.crop[:, 2] * digits.crop[:, 3]).min() >= 0.3 * 64


@pytest.mark.parametrize("name", ["moco-v2", "simsiam"])
def test_moco_and_simsiam_crop_less_and_jitter_less(name: str) -> None:
    params = draw(ViewSampler(name, 224))
    applied = params.jitter[:, 0] != 1
    assert abs(rate(applied) - 0.8) < 0.03
    for column, (low, high) in enumerate([(0.6, 1.4)] * 3 + [(-0.1, 0.1)]):
        assert kstest(params.jitter[applied, column], "uniform", (low, high - low)).pvalue > LIKELY
    assert params.crop[:, 2:].prod(dim=1).min() >= 0.19 * 256**2
    assert params.crop[:, 2:].prod(dim=1).min() <= 0.22 * 256**2
    assert abs(rate(params.blur > 0) - 0.5) < 0.04
    assert (params.interpolation, params.blur_radius) == ("bilinear", 11)


def test_the_views_of_byol_are_asymmetric() -> None:
    """Grill et al. 2020, table 6: blur 1 and 0.1, solarization 0 and 0.2, otherwise alike."""
    first, second = (draw(sampler) for sampler in ViewSampler.pair("byol", 224))
    assert (first.blur > 0).all()
    assert abs(rate(second.blur > 0) - 0.1) < 0.02
    assert first.solarize.isinf().all()
    assert abs(rate(second.solarize == 0.5) - 0.2) < 0.03
    for name in ("crop", "flip", "jitter", "order", "grayscale"):
        assert torch.equal(getattr(first, name), getattr(second, name))  # the same seed
    assert abs(first.jitter[:, 2].max() - 1.2) < 0.01
    assert abs(first.jitter[:, 0].max() - 1.4) < 0.01
    assert first.crop[:, 2:].prod(dim=1).min() < 0.1 * 256**2


def test_mae_crops_and_flips_only() -> None:
    params = draw(ViewSampler("mae", 224))
    assert (params.steps, params.interpolation) == ((), "bicubic")
    assert abs(rate(params.flip) - 0.5) < 0.04
    assert params.crop[:, 2:].prod(dim=1).min() >= 0.19 * 256**2


def test_a_symmetric_preset_makes_a_pair_too() -> None:
    first, second = ViewSampler.pair("simclr", (32, 24), strength=0.5)
    assert first is second
    assert (first.preset, first.size) == (preset("simclr").scaled(0.5), (32, 24))
    assert all(name in PRESETS for pair in PAIRS.values() for name in pair)
    assert [s.preset for s in ViewSampler.pair("byol", 8, strength=2)] == [
        preset(name).scaled(2) for name in PAIRS["byol"]
    ]


def test_strength_scales_jitter_and_crop() -> None:
    full, half, none, more = (draw(ViewSampler("simclr", 32, strength=s)) for s in (1, 0.5, 0, 3))
    torch.testing.assert_close(half.jitter - 1, (full.jitter - 1) / 2 - torch.tensor([0, 0, 0, 0.5]))
    assert torch.equal(half.flip, full.flip)
    assert half.crop[:, 2:].prod(dim=1).min() >= 0.53 * 256**2
    assert (none.crop == torch.tensor([0, 0, 256, 256])).all()
    assert (none.jitter == torch.tensor([1.0, 1.0, 1.0, 0.0])).all()
    assert none.steps == ("grayscale", "blur")
    assert more.jitter[:, :3].min() >= 0
    assert more.jitter[:, 0].max() > 3
    assert more.jitter[:, 3].abs().max() <= 0.5
    assert more.crop[:, 2:].prod(dim=1).min() < 0.05 * 256**2


def test_a_preset_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="preset must be a name or a Preset, got int"):
        ViewSampler(3, 32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("imagenet"), "preset must be one of simclr, .*, got 'imagenet'"),
        (lambda: ViewSampler("imagenet", 32), "preset must be one of"),
        (lambda: ViewSampler.pair("imagenet", 32), "preset must be one of"),
        (lambda: ViewSampler("byol", 32), "'byol' is a pair, byol-1 and byol-2: ViewSampler.pair makes both views"),
        (lambda: ViewSampler("simclr", 0), "size must be positive"),
        (lambda: ViewSampler("simclr", 32, strength=-0.1), r"strength must be >= 0, got -0\.1"),
        (lambda: draw(ViewSampler("simclr", 32), 0), "batch must be at least 1, got 0"),
        (lambda: draw(ViewSampler("simclr", 32), 4, (0, 5)), "source_size must be"),
        (lambda: draw(ViewSampler("simclr", 32), 4, torch.ones(3, 2)), r"source_size must be .* tensor \(4, 2\)"),
        (lambda: replace(PRESETS["simclr"], flip=1.5), "flip is a probability"),
        (lambda: replace(PRESETS["simclr"], hue=0.6), r"hue must be in \[0, 0.5\]"),
        (lambda: replace(PRESETS["simclr"], contrast=-1), "contrast must be >= 0"),
        (lambda: replace(PRESETS["simclr"], crop_scale=(0.5, 0.2)), "crop_scale must be"),
        (lambda: replace(PRESETS["simclr"], crop_ratio=(0, 1)), "crop_ratio must be"),
        (lambda: replace(PRESETS["simclr"], blur_window=0), "blur_window must be"),
        (lambda: replace(PRESETS["simclr"], interpolation="cubic"), "interpolation must be"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
