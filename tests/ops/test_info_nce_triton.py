"""The Triton kernels of info_nce and of negatives, called directly: on a GPU, and on the CPU under Triton's interpreter
in a process of its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast.kernels import reference

pytest.importorskip("triton")

from triton_compile import recorded_launches
from triton_kernels import (
    DEVICE,
    DTYPES,
    WIDTHS,
    WIDTHS_ON_CHIPS,
    assert_fit,
    compiles,
    planned_for,
    run_interpreted,
    runs,
    shrink_tiles,
)

from sslfast.kernels.triton import info_nce, negatives, plans


@pytest.fixture
def small_tiles(monkeypatch):
    """With 20 multiprocessors a few rows get many splits of the columns."""
    shrink_tiles(monkeypatch)
    monkeypatch.setattr(plans, "chip", lambda device: (90, 20))


def embeddings(n, k, d, dtype=torch.float32, noise=1.0, seed=0):
    """Queries and keys of n images, and a queue of k unit rows, None if zero."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=generator, dtype=torch.float32)
    query, key = (
        (base + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)).to(DEVICE, dtype) for _ in range(2)
    )
    return query, key, unit_rows(k, d, dtype, seed + 1) if k else None


def unit_rows(k, d, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(k, d, generator=generator, dtype=torch.float32)).to(DEVICE, dtype)


def split(temperature):
    return (0.0, temperature) if isinstance(temperature, torch.Tensor) else (temperature, None)


def summary(outputs, gradients, tau):
    """Everything by name; the logarithm of the sum of exponentials is what shift and inverse_sum stand for."""
    losses, shift, inverse_sum, mean, u, *_ = outputs
    lse = shift.double() / tau - inverse_sum.double().log()
    return {"loss": losses, "lse": lse, "mean": mean, "u": u} | dict(zip(("dq", "dk", "dtau"), gradients))


def run(query, key, queue, temperature, grad=None, with_key=True):
    number, tau = split(temperature)
    outputs = info_nce.forward(query, key, queue, number, tau, True)
    losses, shift, inverse_sum, mean, u, scale, _ = outputs
    grad = torch.full_like(losses, 1 / len(losses)) if grad is None else grad
    saved = (grad, u, scale, losses, shift, inverse_sum, mean)
    outputs = summary(outputs, info_nce.backward(*saved, number, tau, queue is None, with_key), float(temperature))
    if tau is None:
        del outputs["dtau"]  # undefined
    return outputs


def run_reference(query, key, queue, temperature, grad, dtype):
    query, key, queue = (None if x is None else x.to(dtype) for x in (query, key, queue))
    outputs = reference.info_nce_forward(query, key, queue, temperature, True)
    losses, shift, inverse_sum, mean, u, scale, _ = outputs
    saved = (grad.to(dtype), u, scale, losses, shift, inverse_sum, mean)
    return summary(outputs, reference.info_nce_backward(*saved, temperature, queue is None, True), temperature)


def check(query, key, queue, temperature):
    grad = (torch.rand(len(query), generator=torch.Generator().manual_seed(1), dtype=torch.float32) / len(query)).to(
        DEVICE
    )
    actual = run(query, key, queue, torch.tensor(temperature, device=DEVICE, dtype=torch.float32), grad)
    eager = run_reference(query, key, queue, temperature, grad, query.dtype)
    exact = run_reference(query, key, queue, temperature, grad, torch.float64)
    one_ulp_on = run_reference(query, key, queue, temperature * (1 + 2**-23), grad, torch.float64)
    inherent = {"dtau": abs(one_ulp_on["dtau"] - exact["dtau"]).item()}
    for name in actual:
        assert_as_accurate(
            actual[name], eager[name], exact[name], name, dtype=query.dtype, inherent=inherent.get(name, 0.0)
        )


SHAPES = [(1, 0, 1), (1, 1, 1), (2, 1, 60), (3, 40, 128), (20, 0, 129), (40, 70, 60), (9, 7, 257)]


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "k", "d"), SHAPES)
def test_ragged_shapes(n, k, d, dtype, small_tiles):
    check(*embeddings(n, k, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "k", "d"), [(30, 20, 60), (33, 300, 128), (130, 0, 40), (10, 140, 300)])
def test_default_tiles(n, k, d, dtype):
    """The first is smaller than a tile in both ways, the second in one."""
    check(*embeddings(n, k, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [0, 90])
@pytest.mark.parametrize("temperature", [0.01, 1 / 64, 0.07, 100.0])
def test_temperatures(temperature, k, dtype, small_tiles):
    check(*embeddings(37, k, 24, dtype, noise=2.0), temperature)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_tensor_and_number_give_the_same_bits(temperature, dtype, small_tiles):
    for k in (0, 40):
        inputs = embeddings(10, k, 24, dtype)
        expected = run(*inputs, temperature)
        actual = run(*inputs, torch.tensor(temperature, device=DEVICE))
        assert set(actual) - set(expected) == {"dtau"}
        for name in expected.keys() - {"lse"}:
            assert torch.equal(actual[name], expected[name]), name


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_wanted_is_not_made(dtype, small_tiles):
    """Without mean and without a gradient to the keys the rest is the same."""
    query, key, queue = embeddings(20, 50, 24, dtype)
    full, bare = (info_nce.forward(query, key, queue, 0.2, None, with_mean) for with_mean in (True, False))
    assert bare[3].shape == (0, 24)
    torch.testing.assert_close(bare[0], full[0], rtol=1e-5, atol=1e-6)
    got, expected = (shift / 0.2 - inverse_sum.log() for _, shift, inverse_sum, *_ in (bare, full))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    tau = torch.tensor(0.2, device=DEVICE)
    for k in (0, 50):
        queue = queue if k else None
        expected, got = (run(query, key, queue, tau, with_key=with_key) for with_key in (True, False))
        assert got["dk"].shape == (0, 24)
        assert torch.equal(got["dq"], expected["dq"])
        assert torch.equal(got["dtau"], expected["dtau"])


@runs
def test_strided_inputs_and_an_expanded_gradient(small_tiles):
    query, key, queue = embeddings(40, 60, 24)
    expected = run(query, key, queue, 0.2)
    wide = torch.stack([query, key], dim=-1)
    actual = run(wide[..., 0], key.T.contiguous().T, queue, 0.2, torch.tensor(1 / 40, device=DEVICE).expand(40))
    for name in expected:  # other strides may be summed in another order
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-7)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_input_same_bits(dtype, small_tiles):
    for k in (0, 60):
        inputs = embeddings(10, k, 70, dtype)
        first, second = run(*inputs, 0.2), run(*inputs, 0.2)
        for name in first:
            assert torch.equal(first[name], second[name]), name


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [0, 60])
def test_zero_and_short_rows(k, dtype, small_tiles):
    """Zero rows have gradient zero; those shorter than 1e-12 are divided by that, a constant, as F.normalize does."""
    query, key, queue = embeddings(30, k, 20, dtype)
    query[4], key[7] = 0, 0
    if dtype != torch.float16:
        query[5] *= 1e-14
    check(query, key, queue, 0.2)
    outputs = run(query, key, queue, 0.2)
    assert (outputs["dq"][4] == 0).all()
    assert (outputs["dk"][7] == 0).all()


@runs
@pytest.mark.parametrize("k", [0, 40])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_in_nan_out(dtype, temperature, k, small_tiles):
    """A NaN reaches every loss through a negative, and its own through the query."""
    query, key, queue = embeddings(10, k, 24, dtype)
    query[3, 2] = float("nan")
    temperature = torch.tensor(temperature, device=DEVICE)
    outputs = run(query, key, queue, temperature)
    for name in ("loss", "dq"):
        assert outputs[name][3].isnan().all(), name
        assert outputs[name][:3].isfinite().all(), name
    assert outputs["dk"][3].isnan().all()
    assert outputs["dtau"].isnan()
    query, key, queue = embeddings(10, k, 24, dtype)
    (key if queue is None else queue)[3, 2] = float("nan")
    outputs = run(query, key, queue, temperature)
    for name in ("loss", "dq", "dk", "dtau"):
        assert outputs[name].isnan().all(), name


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("length", [1e-3, 8.0, 1e4])
def test_queue_rows_of_any_length_are_the_formula_or_nan(length, temperature, dtype, small_tiles):
    """NaN only where a plain sum of exponentials overflows; float16 has none. Halves round what is compared."""
    query, key, queue = embeddings(40, 90, 24, dtype, noise=3.0)
    queue[20:50] *= length
    grad = torch.ones(40, device=DEVICE)
    actual = run(query, key, queue, temperature, grad)
    exact = run_reference(query, key, queue, temperature, grad, torch.float64)
    highest = (F.normalize(query.double()) @ queue.double().T).amax(dim=1) / temperature
    overflows = (highest > 88.7) & (temperature > 1 / 64) & (dtype != torch.float16)
    for name in ("loss", "dq"):
        assert torch.equal(actual[name].reshape(40, -1).isnan().any(dim=1), overflows), name
        if dtype == torch.float32:
            torch.testing.assert_close(
                actual[name][~overflows].double(), exact[name][~overflows], rtol=1e-3, atol=1e-4 * max(1, length)
            )


@runs
@pytest.mark.parametrize("value", [0.0, -0.1, float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_senseless_temperature_in_a_tensor_gives_nan(value, dtype, small_tiles):
    for k in (0, 60):
        outputs = run(*embeddings(10, k, 24, dtype), torch.tensor(value, device=DEVICE))
        for name in ("loss", "dq", "dk", "dtau"):
            assert outputs[name].isnan().all(), name


@runs
@pytest.mark.parametrize("k", [0, 300])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 6e4])
def test_float16_weights_neither_overflow_nor_vanish(size, k, small_tiles):
    """Against a tolerance of float16's own: half an ulp of the weights and of a gradient each, or a subnormal step."""
    query, key, queue = embeddings(50, k, 32, torch.float16)
    query, key = query * 8, key * 8
    grad = size * torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(DEVICE)
    actual = run(query, key, queue, 0.2, grad)
    exact = run_reference(query, key, queue, 0.2, grad, torch.float64)
    for name in ("dq", "dk"):
        tolerance = 2**-10 * exact[name].norm() + 2**-25 * exact[name].numel() ** 0.5
        assert (actual[name].double() - exact[name]).norm() <= tolerance, name


# --- negatives ---


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
            grad = torch.rand(len(a), generator=torch.Generator().manual_seed(2), dtype=torch.float32).to(DEVICE) / len(
                a
            )
            factors += [(grad / (total + 1)).float(), shift.float()]
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


# --- the interpreter and the compiler ---


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


def launches(monkeypatch, capability, n, k, d, dtype, temperature=0.2, everything=True):
    """Of a forward with mean and a backward; with everything, also without mean, to the keys, and of negatives."""
    number, tau = split(temperature)
    z, queue = torch.empty(n, d, dtype=dtype), torch.empty(k, d, dtype=dtype) if k else None
    with planned_for(monkeypatch, capability):
        forward, outputs = recorded_launches(monkeypatch, info_nce.forward, z, z, queue, number, tau, True)
        losses, shift, inverse_sum, mean, u, scale, _ = outputs
        saved = (losses, u, scale, losses, shift, inverse_sum, mean, number, tau)
        backward, _ = recorded_launches(monkeypatch, info_nce.backward, *saved, not k, everything)
        assert len(forward) == (3 if tau is None or dtype == torch.float16 else 4)
        assert len(backward) == (1 if tau is None else 2) or (everything and not k)
        if not everything:
            return forward + backward
        bare, _ = recorded_launches(monkeypatch, info_nce.forward, z, z, queue, number, tau, False)
        columns = z if queue is None else queue
        factors = losses, losses, columns[:, 0].float(), columns[:, 0].float()
        both, _ = recorded_launches(monkeypatch, negatives.backward, z, columns, False, *factors, number, tau)
        ids = [torch.empty(len(x), dtype=torch.int32) for x in (z, columns)]
        without, _ = recorded_launches(monkeypatch, negatives.forward, z, columns, False, number, tau, True, *ids)
        weights, _ = recorded_launches(monkeypatch, negatives.backward, z, columns, False, *factors, number, tau, *ids)
    assert_fit(without, capability)
    assert_fit(weights, capability)
    return forward + backward + bare + both


@compiles
@pytest.mark.parametrize(("d", "dtype", "capability"), WIDTHS_ON_CHIPS)
def test_default_configurations_compile_without_spills(d, dtype, capability, monkeypatch):
    """What is not NT-Xent's code as well."""
    temperature = torch.tensor(0.2) if dtype == torch.bfloat16 else 0.2  # a tensor launches both variants
    assert_fit(launches(monkeypatch, capability, 4096, 0, d, dtype, temperature, everything=False), capability)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize(
    "capability", [pytest.param(80, marks=pytest.mark.long), 90, pytest.param(100, marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("d", "dtype"),
    [pytest.param(*x.values, id=x.id, marks=pytest.mark.long if x.values[0] == 1024 else x.marks) for x in WIDTHS],
)
@pytest.mark.parametrize(("n", "k"), [(4096, 0), (256, 65536)])
def test_every_variant_compiles_without_spills(n, k, d, dtype, capability, monkeypatch):
    temperature = 0.01 if dtype == torch.float32 else torch.tensor(0.2)
    assert_fit(launches(monkeypatch, capability, n, k, d, dtype, temperature), capability)


@compiles
@pytest.mark.parametrize(("n", "k"), [(1, 0), (1, 1), (1, 4096)])
def test_the_smallest_and_an_unaligned_shape_compile(n, k, monkeypatch):
    assert_fit(launches(monkeypatch, 90, n, k, 129, torch.bfloat16, everything=False), 90, spills=True)
