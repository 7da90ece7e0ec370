"""The Triton kernels of negatives, called directly: on a GPU, and on the CPU under Triton's interpreter in a process of
its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_as_accurate

from sslfast.kernels import reference

pytest.importorskip("triton")

from triton_compile import recorded_launches
from triton_kernels import (
    DEVICE,
    DTYPES,
    VARIANTS,
    assert_fit,
    compiles,
    gradient,
    number_and_tensor,
    planned_for,
    run_interpreted,
    runs,
    shrink_tiles,
    unit_rows,
)

from sslfast.kernels.triton import negatives


@pytest.fixture
def small_tiles(monkeypatch):
    shrink_tiles(monkeypatch, multiprocessors=20)


def run_negatives(function, rows, columns, skip, temperature, *tau):
    """Sums as their logarithm, and the weighted sum relative to it; `function` is a kernel or the reference."""
    shift, total, weighted, _ = function(rows, columns, skip, temperature, *tau, True)
    return {"lse": shift / temperature + total.log(), "mean": weighted / total[:, None]}


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize(("r", "c", "d", "skip"), [(1, 1, 1, False), (37, 90, 40, False), (40, 40, 70, True)])
def test_sums_over_negatives(r, c, d, skip, temperature, dtype, small_tiles):
    rows, columns = unit_rows(r, d, dtype, 0), unit_rows(c, d, dtype, 1)
    actual = run_negatives(negatives.forward, rows, columns, skip, temperature, None)
    eager = run_negatives(reference.negatives_forward, rows, columns, skip, temperature)
    exact = run_negatives(reference.negatives_forward, rows.double(), columns.double(), skip, temperature)
    for name in actual:
        assert_as_accurate(actual[name], eager[name], exact[name], name, dtype=dtype)


@runs
@pytest.mark.parametrize("temperature", [0.01, 1 / 64, 0.2])
def test_no_negatives_at_all(temperature, small_tiles):
    row = unit_rows(1, 20, torch.float32, 0)
    shift, total, weighted, _ = negatives.forward(row, row, True, temperature, None, True)
    assert shift.isfinite()
    assert total == 0
    assert (weighted == 0).all()


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("parts", ["row", "column", "both"])
@pytest.mark.parametrize(("r", "c", "d", "skip"), [(37, 60, 40, False), (33, 33, 70, True)])
def test_weighted_sums_of_negatives(r, c, d, skip, parts, temperature, dtype, small_tiles):
    """Factors as the losses make them: a gradient over a sum that is relative to the shift."""
    rows, columns = unit_rows(r, d, dtype, 0), unit_rows(c, d, dtype, 1)
    exact_rows, exact_columns = rows.double(), columns.double()
    factors = []
    for part, (a, b) in (("row", (exact_rows, exact_columns)), ("column", (exact_columns, exact_rows))):
        if parts in (part, "both"):
            shift, total, *_ = reference.negatives_forward(a, b, skip, temperature, False)
            factors += [(gradient(len(a), 1 / len(a)) / (total + 1)).float(), shift.float()]
        else:
            factors += [None, None]
    actual = negatives.backward(rows, columns, skip, *factors, temperature, None)
    assert actual.dtype == torch.float32
    in_dtype, in_double = ([None if x is None else x.to(t) for x in factors] for t in (dtype, torch.float64))
    eager = reference.negatives_backward(rows, columns, skip, *in_dtype, temperature)
    exact = reference.negatives_backward(exact_rows, exact_columns, skip, *in_double, temperature)
    assert_as_accurate(actual, eager, exact, dtype=dtype)


@runs
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_pieces_of_the_negatives_make_the_whole(temperature, small_tiles):
    """What a loss over several processes does: sums of pieces by their shifts, and the keys' gradient from each."""
    rows, columns = unit_rows(33, 24, torch.float32, 0), unit_rows(80, 24, torch.float32, 1)
    pieces = [negatives.forward(rows, piece, False, temperature, None, True) for piece in columns.split(30)]
    whole_shift, whole_total, whole_weighted, _ = negatives.forward(rows, columns, False, temperature, None, True)
    shift = torch.stack([piece[0] for piece in pieces]).amax(dim=0)
    relative = [torch.exp((piece[0] - shift) / temperature) for piece in pieces]
    total = sum(piece[1] * factor for piece, factor in zip(pieces, relative))
    weighted = sum(piece[2] * factor[:, None] for piece, factor in zip(pieces, relative))
    back = torch.exp((whole_shift - shift) / temperature)
    torch.testing.assert_close(total, whole_total * back, rtol=1e-5, atol=0)
    torch.testing.assert_close(weighted, whole_weighted * back[:, None], rtol=1e-5, atol=1e-6)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_pairs_of_one_id_are_left_out(temperature, dtype, small_tiles):
    rows, columns = unit_rows(37, 40, dtype, 0), unit_rows(60, 40, dtype, 1)
    ids = [torch.arange(k, dtype=torch.int32, device=DEVICE) // part for k, part in ((37, 2), (60, 3))]
    exact_rows, exact_columns = rows.double(), columns.double()
    shift, total, weighted, _ = negatives.forward(rows, columns, False, temperature, None, True, *ids)
    exact_shift, *exact, _ = reference.negatives_forward(exact_rows, exact_columns, False, temperature, True, *ids)
    eager_shift, *eager, _ = reference.negatives_forward(rows, columns, False, temperature, True, *ids)
    for name, actual, low, high in zip(("sum", "mean"), (total, weighted), eager, exact):
        actual_scale, low_scale = (torch.exp((x.double() - exact_shift) / temperature) for x in (shift, eager_shift))
        view = (-1,) + (1,) * (actual.dim() - 1)
        found = (actual.double() * actual_scale.view(view), low.double() * low_scale.view(view))
        assert_as_accurate(*found, high, name, dtype=dtype)
    factors = [(1 / (total + 1)).float(), shift.float(), None, None]
    actual = negatives.backward(rows, columns, False, *factors, temperature, None, *ids)
    in_dtype, in_double = ([None if x is None else x.to(t) for x in factors] for t in (dtype, torch.float64))
    eager = reference.negatives_backward(rows, columns, False, *in_dtype, temperature, *ids)
    exact = reference.negatives_backward(exact_rows, exact_columns, False, *in_double, temperature, *ids)
    assert_as_accurate(actual, eager, exact, dtype=dtype)


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_among_themselves(dtype, small_tiles):
    """Positives by the sums of their classes, rows without one among them."""
    rows = unit_rows(45, 40, dtype, 0)
    labels = torch.arange(45, dtype=torch.int32, device=DEVICE) % 20
    shift, total, positive, cosines, _ = negatives.among_forward(rows, None, labels, 0.2, None, True)
    exact = rows.double()
    same = (labels[:, None] == labels).fill_diagonal_(False)
    torch.testing.assert_close(positive.double(), (same * (exact @ exact.T)).sum(dim=1), rtol=1e-5, atol=1e-5)
    factor, pull = 1 / total, torch.rand(45, dtype=torch.float32).to(DEVICE)
    actual = negatives.among_backward(rows, None, labels, factor, shift, pull, cosines, 0.2, None)
    both = (factor.double(), shift.double())
    expected = reference.negatives_backward(exact, exact, True, *both, *both, 0.2)
    expected -= (same * (pull[:, None] + pull)).double() @ exact
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


@compiles
@pytest.mark.parametrize(("d", "dtype", "capability"), VARIANTS)
@pytest.mark.parametrize(("r", "c"), [(4096, 4096), (256, 65536)])
def test_every_variant_compiles_without_spills(r, c, d, dtype, capability, monkeypatch):
    """Of a backward with both factors, and of both ways with ids."""
    temperature = number_and_tensor(0.01 if dtype == torch.float32 else torch.tensor(0.2))
    rows, columns = (torch.empty(k, d, dtype=dtype) for k in (r, c))
    ids = [torch.empty(k, dtype=torch.int32) for k in (r, c)]
    factors = [torch.empty(k, dtype=torch.float32) for k in (r, r, c, c)]
    with planned_for(monkeypatch, capability):
        for function, arguments in (
            (negatives.backward, (*factors, *temperature)),
            (negatives.forward, (*temperature, True, *ids)),
            (negatives.backward, (*factors, *temperature, *ids)),
        ):
            launches, _ = recorded_launches(monkeypatch, function, rows, columns, False, *arguments)
            assert_fit(launches, capability)
