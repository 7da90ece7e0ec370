from __future__ import annotations

import math

import pytest
import torch
from skimage import color

from sslfast.methods import lab

RGB = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EXTREMES = torch.cartesian_prod(*[torch.tensor([0.0, 0.001, 1.0], dtype=torch.float64)] * 3).T.reshape(1, 3, 3, 9)


@pytest.mark.parametrize("rgb", [RGB, EXTREMES], ids=["random", "extremes"])
def test_lab_is_scikit_images(rgb: torch.Tensor) -> None:
    found = lab.rgb_to_lab(rgb)
    assert torch.allclose(found, torch.from_numpy(color.rgb2lab(rgb.numpy(), channel_axis=1)), atol=1e-6)
    back = torch.from_numpy(color.lab2rgb(found.numpy(), channel_axis=1))
    assert torch.allclose(lab.lab_to_rgb(found), back, atol=1e-6)
    assert torch.allclose(lab.lab_to_rgb(found), rgb, atol=1e-4)


def test_colours_out_of_gamut_are_clamped_as_scikit_image_does() -> None:
    wild = torch.tensor([[50.0, 120, 0], [10, -90, 90], [99, 0, -110], [5, 0, 100]], dtype=torch.float64).T
    wild = wild.reshape(1, 3, 2, 2)
    with pytest.warns(UserWarning, match="negative Z"):
        want = torch.from_numpy(color.lab2rgb(wild.numpy(), channel_axis=1))
    assert torch.allclose(lab.lab_to_rgb(wild), want, atol=1e-6)


def test_there_are_313_colours_that_surround_the_gamut() -> None:
    bins = lab.colour_bins()
    assert bins.shape == (313, 2)
    assert len(bins.unique(dim=0)) == 313
    assert (bins % 10 == 0).all()
    assert bins.amin(0).tolist() == [-90, -110]
    assert bins.amax(0).tolist() == [100, 100]
    levels = torch.linspace(0, 1, 18)
    every = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, -1, 1)
    ab = lab.rgb_to_lab(every)[0, 1:, :, 0].T
    distance = torch.cdist(ab, bins)
    assert distance.amin(1).max() < 5 * math.sqrt(2) + 0.5  # no colour is far from a bin
    assert distance.amin(0).max() < 15.5  # no bin is far from a colour


def test_soft_encoding_is_a_gaussian_over_the_five_nearest() -> None:
    bins = lab.colour_bins()
    ab = torch.tensor([[3.0, -4.0], [42.0, 7.0]])
    nearest, share = lab.soft_encode(ab, bins)
    assert nearest.shape == share.shape == (2, 5)
    for k, colour in enumerate(ab):
        distance = (bins - colour).square().sum(1).sqrt()
        order = distance.argsort()[:5]
        weight = torch.exp(-distance[order].square() / 50)
        assert nearest[k].tolist() == order.tolist()
        assert torch.allclose(share[k], weight / weight.sum(), atol=1e-6)


def test_a_colour_of_the_grid_is_mostly_its_own_bin() -> None:
    bins = lab.colour_bins()
    nearest, share = lab.soft_encode(bins, bins)
    assert nearest[:, 0].tolist() == list(range(313))
    assert share[:, 0].min() > 0.6  # 1 / (1 + 4·exp(−2)) = 0.65 inside the gamut


def test_rebalancing_has_expectation_one_and_favours_what_is_rare() -> None:
    prior = torch.tensor([0.7, 0.2, 0.1, 0.0])
    weight = lab.rebalancing(prior, 0.5)
    assert (prior * weight).sum().item() == pytest.approx(1)
    assert weight.diff().gt(0).all()
    assert (weight[3] / weight[0]).item() == pytest.approx((0.35 + 0.125) / 0.125)
    assert torch.allclose(lab.rebalancing(prior, 1.0), torch.ones(4))


def test_annealed_mean_lies_between_mean_and_mode() -> None:
    bins = torch.tensor([[0.0, 0.0], [100.0, 50.0]])
    logits = torch.tensor([0.6, 0.4]).log()

    def decoded(temperature: float) -> float:
        return lab.annealed_mean(logits, bins, temperature)[0].item()

    assert decoded(1.0) == pytest.approx(40)
    assert decoded(0.38) == pytest.approx(100 * 0.4 ** (1 / 0.38) / (0.4 ** (1 / 0.38) + 0.6 ** (1 / 0.38)), rel=1e-5)
    assert decoded(0.01) == pytest.approx(0, abs=1e-6)
