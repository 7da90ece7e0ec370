"""The Triton kernels of info_nce with candidates, targets, ids and dot products, and the ranks of all losses: on a GPU,
and on the CPU under Triton's interpreter in a process of its own."""

from __future__ import annotations

import pytest
import torch

from sslfast.kernels import reference, reference_image_text

pytest.importorskip("triton")

from triton_compile import recorded_launches
from triton_kernels import (
    DEVICE,
    DTYPES,
    WIDTHS_ON_CHIPS,
    assert_all_as_accurate,
    assert_fit,
    compiles,
    planned_for,
    run_interpreted,
    runs,
    shrink_tiles,
    unit_rows,
)

from sslfast.kernels.triton import clip_loss, info_nce, negatives, nt_xent


@pytest.fixture
def small_tiles(monkeypatch):
    shrink_tiles(monkeypatch, multiprocessors=20)


def run(forward, backward, query, key, temperature, targets, ids, unit, grads):
    """Everything that is computed, gradients of several losses, ranks included."""
    rest, choice = temperature if isinstance(temperature, tuple) else (temperature,), (targets, ids, unit)
    losses, shift, inverse_sum, mean, u, scale, rank = forward(query, key, None, *rest, True, *choice, True)
    saved = u, scale, losses, shift, inverse_sum, mean
    found = [backward(grad.to(losses.dtype), *saved, *rest, True, True, *choice) for grad in grads]
    return {"loss": losses, "mean": mean} | dict(zip(("dq", "dk", "dtau"), map(torch.stack, zip(*found)))), rank


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n", "m", "d", "temperature", "choice"),
    [(5, 40, 60, 0.25, ""), (33, 70, 20, 0.0078125, "targets ids"), (40, 7, 129, 0.25, "targets dot")],
)
def test_values_gradients_and_ranks(n, m, d, temperature, choice, dtype, small_tiles):
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(rows, d, generator=generator, dtype=torch.float32) for rows in (n, m))
    targets = torch.randint(0, m, (n,), generator=generator) if choice else None
    ids = torch.randint(0, m // 2, (m,), generator=generator, dtype=torch.int32) if "ids" in choice else None
    unit = "dot" not in choice
    query = 8 * query + key[torch.arange(n) if targets is None else targets]
    query, key = ((x if unit else 3 * x).to(DEVICE, dtype) for x in (query, key))
    targets, ids = (None if x is None else x.to(DEVICE) for x in (targets, ids))
    grads = torch.rand(3, n, generator=generator, dtype=torch.float32).to(DEVICE) / n
    tau = torch.tensor(temperature, device=DEVICE)
    actual, rank = run(info_nce.forward, info_nce.backward, query, key, (0.0, tau), targets, ids, unit, grads)

    def formula(dtype, temperature):
        rows = query.to(dtype), key.to(dtype)
        rest = temperature, targets, ids, unit, grads
        return run(reference.info_nce_forward, reference.info_nce_backward, *rows, *rest)[0]

    assert_all_as_accurate(actual, formula, dtype, temperature)
    rounded = [reference.rows_and_scale(x.double(), unit)[0].to(dtype).double() for x in (query, key)]
    *_, exactly = reference.info_nce_forward(*rounded, None, temperature, False, targets, ids, False, True)
    assert (rank != exactly).sum() <= n // 20  # those of two candidates that are as close but for rounding
    assert rank.any()


@runs
def test_a_target_that_is_no_candidate_gives_nan(small_tiles):
    query, key = torch.ones(4, 8, device=DEVICE), torch.eye(6, 8, device=DEVICE)
    targets = torch.tensor([0, 6, -1, 5], device=DEVICE)
    losses, *_ = info_nce.forward(query, key, None, 0.2, None, True, targets)
    assert losses.isnan().tolist() == [False, True, True, False]


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_too_long_for_dot_products_give_nan(dtype, small_tiles):
    query, key = torch.ones(4, 8, device=DEVICE, dtype=dtype), torch.eye(6, 8, device=DEVICE, dtype=dtype)
    query[1, 0] = 1.01 * reference.LONGEST
    ids = torch.tensor([0, 1, 2, 3, 4, 3], device=DEVICE, dtype=torch.int32)
    key[5] = 3e38  # infinite and no number in products; the last query alone does not see it
    for unit, expected in ((True, []), (False, [0, 1, 2])):
        losses, *_ = info_nce.forward(query, key, None, 0.2, None, True, None, ids, unit)
        assert losses.isnan().nonzero().flatten().tolist() == expected


@runs
@pytest.mark.parametrize(
    ("n", "d", "temperature", "dtype"),
    [(1, 3, 0.25, torch.float32), (40, 20, 0.01, torch.float16), (33, 70, 0.25, torch.bfloat16)],
)
def test_ranks_of_pairs(n, d, temperature, dtype, small_tiles):
    """Of nt_xent and clip_loss, from a pass other than that without ranks."""
    z1, z2 = unit_rows(n, d, dtype, 0), unit_rows(n, d, dtype, 1)
    for forward, formula in (
        (nt_xent.forward, reference.nt_xent_forward),
        (clip_loss.forward, reference_image_text.clip_loss_forward),
    ):
        losses, *_, u, _, rank = forward(z1, z2, 0.0, torch.tensor(temperature, device=DEVICE), True)
        exact, *_, exactly = formula(*u.double().chunk(2), temperature, True)
        torch.testing.assert_close(losses.double(), exact, rtol=1e-3, atol=1e-3)
        assert rank.dtype == torch.int64
        assert (rank != exactly).sum() <= n // 20  # those of two candidates that are as close but for rounding
        assert n == 1 or rank.any()


@runs
def test_ranks_over_negatives(small_tiles):
    """Of pieces, as several processes have them, and of rows among themselves, of which some have one id."""
    rows, columns, positives = (unit_rows(n, 30, torch.float32, seed) for seed, n in enumerate((44, 70, 44)))
    ids = [torch.arange(n, dtype=torch.int32, device=DEVICE) // 3 for n in (44, 70)]
    own = torch.arange(44, dtype=torch.int32, device=DEVICE) % 22 // 2
    x, y, exact_positives, partners = (z.double() for z in (rows, columns, positives, rows.roll(22, 0)))
    for (*_, rank), (*_, exact) in (
        (
            negatives.forward(rows, columns, False, 0.2, None, False, *ids, positives),
            reference.negatives_forward(x, y, False, 0.2, False, *ids, exact_positives),
        ),
        (
            negatives.among_forward(rows, own, None, 0.2, None, False, True),
            reference.negatives_forward(x, x, True, 0.2, False, own, own, partners),
        ),
    ):
        assert (rank != exact).sum() <= 2
        assert rank.any()


def ranked_launches(monkeypatch, forward, capability, d, dtype):
    z = torch.empty(4096, d, dtype=dtype)
    with planned_for(monkeypatch, capability):
        return recorded_launches(monkeypatch, forward, z, z, 0.0, torch.tensor(0.2), True)[0]


@compiles
@pytest.mark.slow
def test_ranks_compile_without_spills(monkeypatch):
    assert_fit(ranked_launches(monkeypatch, nt_xent.forward, 90, 256, torch.bfloat16), 90)


@compiles
@pytest.mark.long
@pytest.mark.parametrize("forward", [nt_xent.forward, clip_loss.forward], ids=["nt_xent", "clip_loss"])
@pytest.mark.parametrize(("d", "dtype", "capability"), WIDTHS_ON_CHIPS)
def test_ranks_of_every_width_compile_without_spills(d, dtype, capability, forward, monkeypatch):
    assert_fit(ranked_launches(monkeypatch, forward, capability, d, dtype), capability)


@compiles
@pytest.mark.slow
def test_compiles_without_spills(monkeypatch):
    query, key = (torch.empty(rows, 128, dtype=torch.bfloat16) for rows in (2048, 4096))
    tau, choice = torch.tensor(0.2), (torch.zeros(2048, dtype=torch.int64), None, False)
    with planned_for(monkeypatch, 90):
        forward, outputs = recorded_launches(
            monkeypatch, info_nce.forward, query, key, None, 0.0, tau, True, *choice, True
        )
        losses, shift, inverse_sum, mean, u, scale, _ = outputs
        saved = losses, u, scale, losses, shift, inverse_sum, mean, 0.0, tau, True, True
        backward, _ = recorded_launches(monkeypatch, info_nce.backward, *saved, *choice)
    assert_fit(forward + backward, 90)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("capability", [90, *(pytest.param(chip, marks=pytest.mark.long) for chip in (80, 100))])
def test_ranks_with_ids_compile_without_spills(capability, monkeypatch):
    z, tau, ids = torch.empty(4096, 256, dtype=torch.float16), torch.tensor(0.2), torch.empty(4096, dtype=torch.int32)
    with planned_for(monkeypatch, capability):
        forward, _ = recorded_launches(monkeypatch, info_nce.forward, z, z, None, 0.0, tau, True, None, ids, True, True)
    assert_fit(forward, capability)


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)
