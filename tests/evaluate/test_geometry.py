from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslfast.evaluate import alignment, geometry, uniformity


def test_alignment_is_the_mean_squared_distance_on_the_sphere() -> None:
    z1, z2 = torch.randn(2, 37, 12).unbind()
    a, b = (F.normalize(z.double(), dim=1) for z in (z1, z2))
    assert alignment(z1, z2) == pytest.approx((a - b).norm(dim=1).pow(2).mean().item(), rel=1e-5)
    assert alignment(z1, 7 * z1) == pytest.approx(0, abs=1e-10)  # lengths play no part
    assert alignment(z1, -z1) == pytest.approx(4)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_the_published_formula(t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(53, 9)
    pairs = torch.pdist(F.normalize(z.double(), dim=1)).square()
    wanted = pairs.mul(-t).exp().mean().log().item()
    assert uniformity(z, t) == pytest.approx(wanted, rel=1e-5)
    monkeypatch.setattr(geometry, "CELLS", 3 * 53)  # some rows at a time
    assert uniformity(z, t) == pytest.approx(wanted, rel=1e-5)


def test_uniformity_of_a_point_and_of_opposite_points() -> None:
    assert uniformity(torch.ones(8, 5)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-8)
    around = torch.linspace(0, 2 * math.pi, 101)[:-1]
    circle = torch.stack([around.cos(), around.sin()], dim=1)
    assert uniformity(circle) < uniformity(circle + 1) < -0.1  # spread evenly, and bunched


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"z1 and z2 must be \(N, D\), alike.*\(3, 2\) and \(4, 2\)"):
        alignment(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"alike and not empty"):
        alignment(torch.ones(0, 2), torch.ones(0, 2))
    with pytest.raises(ValueError, match=r"z must be \(N, D\) with at least two rows, got \(1, 2\)"):
        uniformity(torch.ones(1, 2))
    with pytest.raises(ValueError, match="t must be above 0, got 0"):
        uniformity(torch.ones(3, 2), 0)
