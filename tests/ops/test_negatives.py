"""The streaming softmax over a block of negatives, as the contrastive losses use it across processes."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast import _C
from sslfast.kernels import reference
from sslfast.kernels.cpu import contrastive
from sslfast.ops import negatives
from sslfast.ops.registry import IMPLS

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def unit_rows(count: int, d: int, device: str, dtype=torch.float32, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, d, generator=generator, dtype=torch.float32)).to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize(("rows", "columns", "skip"), [(1, 1, True), (7, 300, False), (65, 65, True), (600, 40, False)])
def test_sums_and_weighted_sums(rows, columns, skip, temperature, dtype, device):
    x, y = unit_rows(rows, 40, device, dtype), unit_rows(columns, 40, device, dtype, seed=1)
    shift, total, weighted, _ = negatives.forward(x, y, skip, temperature, None, True)
    _, total_alone, nothing, _ = negatives.forward(x, y, skip, temperature, None, False)
    assert nothing.shape == (0, 40)
    assert torch.equal(total, total_alone)
    if columns == 1 and skip:
        assert not total.any()
        assert not weighted.any()
        return
    exact_shift, *exact, _ = reference.negatives_forward(x.double(), y.double(), skip, temperature, True)
    eager_shift, *eager, _ = reference.negatives_forward(x.float(), y.float(), skip, temperature, True)
    for actual, single, double in zip((total, weighted), eager, exact):
        # What the parts mean together: sums relative to the same shift, their logarithms being the exponents.
        scale, single_scale = (torch.exp((s.double() - exact_shift) / temperature) for s in (shift, eager_shift))
        shape = (-1,) + (1,) * (actual.dim() - 1)
        assert_as_accurate(
            actual.double() * scale.view(shape), single.double() * single_scale.view(shape), double, dtype=dtype
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize(
    ("rows", "columns", "skip"), [(1, 3, False), (65, 65, True), (600, 40, False), (9, 1200, False)]
)
def test_weighted_columns(rows, columns, skip, temperature, dtype, device):
    """Of few numbers several draws: one of them could be right by luck."""
    seeds = range(0, 24, 3) if rows == 1 else [0]
    draws = [weighted_columns(rows, columns, skip, temperature, dtype, device, seed) for seed in seeds]
    for results in zip(*draws):
        actual, eager, exact = (torch.stack(result) for result in zip(*results))
        assert actual.dtype == torch.float32
        assert_as_accurate(actual, eager, exact, dtype=dtype)


def weighted_columns(rows, columns, skip, temperature, dtype, device, seed):
    """With factors of both sides and of either: the op's result, that of eager PyTorch and the exact one."""
    x, y = unit_rows(rows, 40, device, dtype, seed), unit_rows(columns, 40, device, dtype, seed + 1)
    generator = torch.Generator().manual_seed(seed + 2)
    a, b = ((torch.rand(k, generator=generator, dtype=torch.float32) - 0.3).to(device) for k in (rows, columns))
    m, n = (
        reference.negatives_forward(*pair, skip, temperature, False)[0]
        for pair in ((x.float(), y.float()), (y.float(), x.float()))
    )
    for row, column in (((a, m), (b, n)), ((a, m), (None, None)), ((None, None), (b, n))):
        actual = negatives.backward(x, y, skip, *row, *column, temperature, None)
        eager, exact = (
            reference.negatives_backward(
                *(z.to(kind) for z in (x, y)),
                skip,
                *(z if z is None else z.to(kind) for z in (*row, *column)),
                temperature,
            )
            for kind in (torch.float32, torch.float64)
        )
        yield actual, eager, exact


def assert_weighted_sums(actual, exact, dtype):
    """Where products take pairs of bfloat16, the weights are rounded to it, as those of eager PyTorch are."""
    pairs = _C.has_core and contrastive.kept_from(torch.bfloat16) > contrastive.kept_from(torch.float32)
    if dtype == torch.bfloat16 and (pairs or actual.is_cuda):
        assert_as_accurate(actual, exact.float(), exact, dtype=dtype)
    else:
        torch.testing.assert_close(actual.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_pairs_of_one_id_are_left_out(temperature, dtype, device):
    """In some tiles, in one place only, and nearly everywhere."""
    x, y = unit_rows(210, 40, device, dtype), unit_rows(300, 40, device, dtype, seed=1)
    rows = torch.arange(210, dtype=torch.int32, device=device)
    columns = torch.arange(300, dtype=torch.int32, device=device) + 50
    columns[:40] = 205
    for row_ids, column_ids in ((rows, columns), (rows, 150 - columns), (rows // 200, columns // 200)):
        ids = row_ids, column_ids
        shift, total, weighted, _ = negatives.forward(x, y, False, temperature, None, True, *ids)
        exact_shift, *exact, _ = reference.negatives_forward(x.double(), y.double(), False, temperature, True, *ids)
        scale = torch.exp((shift.double() - exact_shift) / temperature)
        torch.testing.assert_close(total.double() * scale, exact[0], rtol=1e-4, atol=1e-6)
        assert_weighted_sums(weighted.double() * scale[:, None], exact[1], dtype)
        factors = [1 / (total + 1), shift]
        above = reference.negatives_forward(y.float(), x.float(), False, temperature, False)[0]
        for more in ([None, None], [torch.ones_like(above), above]):
            actual = negatives.backward(x, y, False, *factors, *more, temperature, None, *ids)
            factors_ = [z if z is None else z.double() for z in (*factors, *more)]
            exact = reference.negatives_backward(x.double(), y.double(), False, *factors_, temperature, *ids)
            assert_weighted_sums(actual, exact, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize(("count", "d"), [(1, 8), (97, 40), (400, 200)])
def test_rows_among_themselves(count, d, temperature, dtype, device):
    """As the reference's pairs, with and without ids and labels."""
    x = unit_rows(count, d, device, dtype)
    numbers = torch.arange(count, dtype=torch.int32, device=device)
    for ids, labels in ((None, None), (numbers // 3, None), (None, numbers % 7), (numbers // 2, numbers // 2)):
        shift, total, positive, cosines, _ = negatives.among_forward(x, ids, labels, temperature, None, True)
        name = "negatives_among_forward"
        exact_shift, exact_total, exact_positive, *_ = IMPLS[name]["reference"](
            x.double(), ids, labels, temperature, None, True
        )
        scale = torch.exp((shift.double() - exact_shift) / temperature)
        torch.testing.assert_close(total.double() * scale, exact_total, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(positive.double(), exact_positive, rtol=1e-4, atol=1e-4)
        factor, pull = 1 / (total + 1), torch.rand(count, dtype=torch.float32, device=device)
        actual = negatives.among_backward(x, ids, labels, factor, shift, pull, cosines, temperature, None)
        vectors = [v.double() for v in (factor, shift, pull)]
        exact = IMPLS["negatives_among_backward"]["reference"](
            x.double(), ids, labels, *vectors, cosines, temperature, None
        )
        assert_weighted_sums(actual, exact, dtype)


def test_tensor_and_number_give_the_same_bits(device):
    x, y = unit_rows(20, 8, device), unit_rows(50, 8, device, seed=1)
    for temperature in (0.01, 0.2):
        tau = torch.tensor(temperature, dtype=torch.float64, device=device)
        expected = negatives.forward(x, y, False, temperature, None, True)
        assert all(map(torch.equal, negatives.forward(x, y, False, 0.0, tau, True), expected))


def test_opcheck(device):
    forward = torch.ops.sslfast.negatives_forward.default
    backward = torch.ops.sslfast.negatives_backward.default
    for dtype, skip in itertools.product((torch.float32, torch.bfloat16, torch.float64), (False, True)):
        x, y = unit_rows(6, 5, device, dtype), unit_rows(6, 5, device, dtype, seed=1)
        shift, total, *_ = forward(x, y, skip, 0.5, None, False)
        torch.library.opcheck(forward, (x, y, skip, 0.5, None, True))
        torch.library.opcheck(backward, (x, y, skip, total, shift, total, shift, 0.5, None))
        torch.library.opcheck(backward, (x, y, skip, None, None, total, shift, 0.5, None))
        ids = torch.arange(6, dtype=torch.int32, device=device) // 2
        torch.library.opcheck(forward, (x, y, skip, 0.5, None, True, ids, ids, y))
        torch.library.opcheck(backward, (x, y, skip, total, shift, None, None, 0.5, None, ids, ids))
        among = torch.ops.sslfast.negatives_among_forward.default, torch.ops.sslfast.negatives_among_backward.default
        for labels in (None, ids):
            torch.library.opcheck(among[0], (x, ids, labels, 0.5, None, True, labels is None))
            cosines = among[0](x, ids, labels, 0.5, None, True)[3]
            torch.library.opcheck(among[1], (x, ids, labels, total, shift, total, cosines, 0.5, None))
