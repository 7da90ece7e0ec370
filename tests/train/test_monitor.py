from __future__ import annotations

import math

import pytest
import torch

from sslfast.train.monitor import collapsed, embedding_statistics


def statistics(z: torch.Tensor) -> tuple[float, float]:
    std, rank = embedding_statistics(z)
    return std.item(), rank.item()


def test_embeddings_that_fill_the_sphere_are_healthy() -> None:
    std, rank = statistics(torch.randn(1000, 32, generator=torch.Generator().manual_seed(0)))
    assert std == pytest.approx(1, abs=0.02)
    assert 31 < rank <= 32
    assert not collapsed(std, rank, 1000)


def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values() -> None:
    q = torch.linalg.qr(torch.randn(64, 3, dtype=torch.float64)).Q
    z = torch.cat([q[:32] * torch.tensor([3.0, 1.0, 0.5]), -q[:32] * torch.tensor([3.0, 1.0, 0.5])])  # centred
    z = torch.nn.functional.normalize(z, dim=1)
    p = torch.linalg.svdvals(z) / torch.linalg.svdvals(z).sum()
    assert statistics(z)[1] == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-4)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_a_point_is_a_collapse(noise: float) -> None:
    assert collapsed(*statistics(torch.ones(256, 64) + noise * torch.randn(256, 64)), 256)


def test_a_line_is_a_collapse_even_when_it_is_long() -> None:
    std, rank = statistics(torch.randn(256, 1) * torch.randn(1, 64) + 1e-4 * torch.randn(256, 64))
    assert std > 0.5
    assert collapsed(std, rank, 256)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_batches_too_small_to_tell_are_no_collapse(rows: int) -> None:
    z = torch.randn(rows, 64, generator=torch.Generator().manual_seed(0))
    assert not collapsed(*statistics(z), rows)
    assert collapsed(*statistics(torch.ones_like(z)), rows) == (rows > 1)


def test_half_precision_and_single_rows_are_fine() -> None:
    assert statistics(torch.randn(100, 16).bfloat16())[0] > 0.9
    assert statistics(torch.randn(1, 16)) == (0, 0)
