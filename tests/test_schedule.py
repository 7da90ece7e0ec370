from __future__ import annotations

import pytest

from sslfast.schedule import scaled_learning_rate, warmup_cosine


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    rates = [warmup_cosine(step, peak=0.4, total=20, warmup=4) for step in range(5)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_cosine_falls_by_half_in_the_middle_and_ends_near_zero() -> None:
    assert warmup_cosine(12, peak=0.4, total=20, warmup=4) == pytest.approx(0.2)
    rates = [warmup_cosine(step, peak=0.4, total=20, warmup=4) for step in range(4, 20)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01
    assert warmup_cosine(20, peak=0.4, total=20, warmup=4) == 0


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (3, 3)])
def test_runs_of_warm_up_alone_end_at_the_peak(total: int, warmup: int) -> None:
    assert warmup_cosine(total - 1, peak=0.4, total=total, warmup=warmup) == pytest.approx(0.4)


def test_scaling_rules() -> None:
    assert scaled_learning_rate(0.3, 4096, "linear") == pytest.approx(4.8)  # SimCLR's default
    assert scaled_learning_rate(0.075, 4096, "sqrt") == pytest.approx(4.8)  # and its rule for small batches
    assert scaled_learning_rate(0.3, 4096, "none") == 0.3
    with pytest.raises(ValueError, match="scaling"):
        scaled_learning_rate(0.3, 4096, "cubic")
