"""ops.info_nce of more candidates than queries, in any order, with ids, as dot products, and the ranks it counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def inputs(n: int, m: int, d: int, device: str = "cpu", dtype=torch.float32, choice: str = ""):
    """Queries and candidates; with "targets" in another order, with "ids" some are alike."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(rows, d, generator=generator, dtype=torch.float32) for rows in (n, m))
    own = torch.arange(n) % m
    options = {}
    if "targets" in choice:
        own = torch.randint(0, m, (n,), generator=generator)
        options["targets"] = own.to(device)
    if "ids" in choice:
        options["ids"] = torch.randint(-5, m // 3, (m,), generator=generator).to(device)
    if "dot" in choice:
        options["normalize"] = False
    query = query + key[own]
    return query.to(device, dtype), key.to(device, dtype), options


def formula(query, key, temperature, normalize=True, **options):
    return reference.info_nce(query, key, None, temperature, unit=normalize, **options)


def op(query, key, temperature, **options):
    return ops.info_nce(query, key, None, temperature, **options)


def run(function, query, key, options, temperature, weights, dtype=None):
    """The losses, and the gradients of their weighted sum."""
    query, key = (x.detach().to(dtype or x.dtype).requires_grad_() for x in (query, key))
    tau = torch.tensor(temperature, device=query.device, dtype=dtype or torch.float32, requires_grad=True)
    losses = function(query, key, tau, reduction="none", **options)
    (losses * weights.to(losses.dtype)).sum().backward()
    return [losses.detach(), query.grad, key.grad, tau.grad]


def check_against_float64(query, key, options, temperature):
    draws = []
    for seed in range(4):  # one number, as dτ is, could be right by luck
        weights = torch.rand(len(query), generator=torch.Generator().manual_seed(seed)).to(query.device)
        rest = query, key, options, temperature, weights
        draws.append([run(op, *rest), run(formula, *rest), run(formula, *rest, torch.float64)])
    for name, results in zip(("loss", "dquery", "dkey", "dtau"), zip(*(zip(*draw) for draw in draws))):
        assert_as_accurate(*(torch.stack(x) for x in zip(*results)), name, dtype=query.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("choice", ["", "targets", "ids", "targets ids dot", "dot"])
@pytest.mark.parametrize("shape", [(1, 3, 1), (130, 301, 200), (63, 64, 129)])
def test_values_and_gradients(shape, choice, dtype, device):
    """Of several tiles in both ways, with cosines that are kept, and of less than one."""
    check_against_float64(*inputs(*shape, device, dtype, choice), 0.3)


@pytest.mark.parametrize("temperature", [0.01, 50.0])
@pytest.mark.parametrize("choice", ["targets ids", "targets dot"])
def test_temperatures(choice, temperature, device):
    check_against_float64(*inputs(40, 100, 24, device, choice=choice), temperature)


def test_fewer_candidates_than_queries_and_dot_products_of_any_size(device):
    query, key, _ = inputs(90, 7, 16, device)
    options = {"targets": torch.arange(90, device=device) % 7, "normalize": False}
    for size in (1e-3, 30.0):
        check_against_float64(query * size, key * size, options, 0.5)
    check_against_float64(30 * query.abs(), -30 * key.abs(), options, 0.5)  # far below every cosine


@pytest.mark.parametrize("choice", ["", "targets ids", "targets dot"])
def test_is_the_formula_of_the_docstring(choice):
    """An independent spelling: softmax and pick, query by query."""
    query, key, options = inputs(6, 11, 5, dtype=torch.float64, choice=choice)
    ids = options.get("ids", torch.arange(11))
    expected = []
    for i, target in enumerate(options.get("targets", torch.arange(6)).tolist()):
        counts = [j for j in range(11) if j == target or ids[j] != ids[target]]
        s = key @ query[i] if "dot" in choice else F.cosine_similarity(query[i], key, dim=1)
        expected.append(-torch.log_softmax(s[counts] / 0.1, dim=0)[counts.index(target)])
    torch.testing.assert_close(op(query, key, 0.1, reduction="none", **options), torch.stack(expected))


def test_dot_products_with_a_queue(device):
    query, key, _ = inputs(20, 20, 8, device)
    queue = 3 * torch.randn(50, 8, generator=torch.Generator().manual_seed(1)).to(device)
    results = []
    for function, unit in ((ops.info_nce, "normalize"), (reference.info_nce, "unit")):
        leaves = [x.clone().requires_grad_() for x in (query, key)]
        loss = function(*leaves, queue, 0.5, **{unit: False})
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("with_queue", [False, True])
def test_rows_too_long_for_dot_products_give_nan(with_queue, dtype, device):
    """To those that see them, and whatever their products would add up to; rows just short enough are the formula."""
    query, key, _ = inputs(7, 7, 8, device, torch.float64)
    queue = query.flip(0).to(dtype) if with_queue else None
    seen_by = {"query": {2}, "key": {4} if with_queue else set(range(7))}
    for long, factor in (((), 1), (("query",), 1.05), (("key",), 1.05), (("query", "key"), 3e22)):
        q, k = (0.99 * reference.LONGEST * F.normalize(x) for x in (query, key))
        q[2] *= factor if "query" in long else 1
        k[4] *= factor if "key" in long else 1
        q, k = (x.to(dtype).requires_grad_() for x in (q, k))
        losses = ops.info_nce(q, k, queue, 0.004, reduction="none", normalize=False)
        assert set(losses.isnan().nonzero().flatten().tolist()) == set().union(*(seen_by[name] for name in long))
        exact = [x.detach().double().requires_grad_() for x in (q, k)]
        rows = None if queue is None else queue.double()
        expected = reference.info_nce(*exact, rows, 0.004, reduction="none", unit=False)
        torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e24, equal_nan=True)
        wanted = torch.autograd.grad(expected.sum(), exact)
        for actual, of_formula in zip(torch.autograd.grad(losses.sum(), (q, k)), wanted):
            torch.testing.assert_close(actual.double(), of_formula, rtol=1e-2, atol=1e16, equal_nan=True)


def closer(query, key, options, queue=None, margin=0.0):
    """How many negatives are closer than the positive, by the margin, in float64."""
    targets = options.get("targets", torch.arange(len(query), device=query.device))
    q, k = (x.double() if options.get("normalize") is False else F.normalize(x.double()) for x in (query, key))
    positive = (q * k[targets]).sum(dim=1, keepdim=True)
    if queue is not None:
        return (q @ queue.double().T > positive + margin).sum(dim=1)
    ids = options.get("ids", torch.arange(len(key), device=key.device))
    return ((q @ k.T > positive + margin) & (ids[targets][:, None] != ids)).sum(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("choice", ["", "targets ids", "dot", "queue"])
def test_rank_of_the_positive(choice, temperature, dtype, device):
    query, key, options = inputs(130, 130 if choice == "queue" else 301, 140, device, dtype, choice)
    query = query + 5 * inputs(130, 1, 140, device, dtype)[0].flip(0)
    queue = F.normalize(key.flip(1)).repeat(3, 1) if choice == "queue" else None
    loss, rank = ops.info_nce(query, key, queue, temperature, return_rank=True, reduction="none", **options)
    assert torch.equal(loss, ops.info_nce(query, key, queue, temperature, reduction="none", **options))
    assert rank.dtype == torch.int64
    assert (rank <= closer(query, key, options, queue, -1e-5)).all()
    assert (rank >= closer(query, key, options, queue, 1e-5)).all()
    assert rank.max() > 20  # some are far from first
    assert (rank[:60] == closer(query, key, options, queue)[:60]).sum() > 55


def test_of_equal_candidates_none_is_closer():
    query, key, _ = inputs(40, 40, 200)
    for normalize in (True, False):
        _, rank = ops.info_nce(query, key.repeat(3, 1), return_rank=True, normalize=normalize)
        assert torch.equal(rank, ops.info_nce(query, key, return_rank=True, normalize=normalize)[1] * 3)
        _, rank = ops.info_nce(query, key[:1].expand(90, -1), return_rank=True, normalize=normalize)
        assert not rank.any()


def test_two_threads_give_the_bits_of_one(device):
    query, key, options = inputs(300, 900, 64, device, choice="targets ids")
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [x.clone().requires_grad_() for x in (query, key)]
            loss, rank = ops.info_nce(*leaves, return_rank=True, **options)
            results.append([loss.detach(), rank, *torch.autograd.grad(loss, leaves)])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], result))


def test_nan_reaches_those_that_see_it(device):
    query, key, _ = inputs(5, 9, 8, device)
    targets = torch.tensor([0, 1, 1, 3, 8], device=device)
    query[3, 2] = float("nan")
    losses = ops.info_nce(query, key, targets=targets, reduction="none")
    assert losses[3].isnan()
    assert losses[[0, 1, 2, 4]].isfinite().all()
    key[7] = float("nan")
    assert ops.info_nce(query, key, targets=targets, normalize=False, reduction="none").isnan().all()
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 7], device=device)  # the last query does not see it
    losses = ops.info_nce(query, key, targets=targets, ids=ids, reduction="none")
    assert losses[:4].isnan().all()
    assert losses[4].isfinite()


def test_all_others_may_have_the_id_of_the_query(device):
    query, key, _ = inputs(5, 9, 8, device)
    query.requires_grad_()
    loss, rank = ops.info_nce(query, key, ids=torch.zeros(9, dtype=torch.int64, device=device), return_rank=True)
    loss.backward()
    assert loss == 0
    assert not query.grad.any()
    assert not rank.any()


def test_float64_gradcheck():
    query, key, options = inputs(4, 6, 3, dtype=torch.float64, choice="targets ids dot")
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    function = lambda q, k, t: op(q, k, t, reduction="none", **options)  # noqa: E731
    assert torch.autograd.gradcheck(function, (query.requires_grad_(), key.requires_grad_(), tau))


def test_opcheck(device):
    forward, backward = torch.ops.sslfast.info_nce_forward.default, torch.ops.sslfast.info_nce_backward.default
    for dtype in (torch.float32, torch.float64):
        query, key, options = inputs(7, 12, 5, device, dtype, "targets ids")
        choice = options["targets"], options["ids"].to(torch.int32), False
        *saved, rank = forward(query, key, None, 0.5, None, True, True, *choice, True)
        torch.library.opcheck(forward, (query, key, None, 0.5, None, True, True, *choice, True))
        losses, shift, inverse_sum, mean, u, scale, cosines = saved
        saved = torch.rand_like(losses), u, scale, losses, shift, inverse_sum, mean, cosines
        torch.library.opcheck(backward, (*saved, 0.5, None, True, True, *choice))
        assert rank.shape == (7,)


def test_compiles_as_one_graph(device):
    query, key, options = inputs(12, 30, 8, device, choice="targets ids")
    results = []
    for function in (ops.info_nce, torch.compile(ops.info_nce, fullgraph=True, backend="aot_eager")):
        leaves = [x.clone().requires_grad_() for x in (query, key)]
        loss, rank = function(*leaves, return_rank=True, **options)
        results.append([loss.detach(), rank, *torch.autograd.grad(loss, leaves)])
    for expected, actual in zip(*results):
        torch.testing.assert_close(actual, expected)


Z, MORE, QUEUE = torch.ones(4, 3), torch.ones(9, 3), torch.ones(5, 3)
T = torch.tensor([0, 8, 3, 3])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Z, Z[:3]), {}, ValueError, r"key must have 3 columns and at least 4 rows, got shape \(3, 3\)"),
        ((Z, MORE[:, :2]), {"targets": T}, ValueError, r"at least 1 rows, got shape \(9, 2\)"),
        ((Z, MORE, QUEUE), {}, ValueError, r"key must have the shape of query, \(4, 3\), got \(9, 3\)"),
        ((Z, MORE.double()), {}, TypeError, "key must have the dtype of query"),
        ((Z, MORE), {"targets": T[:3]}, ValueError, r"targets must be \(4,\), one a row, got shape \(3,\)"),
        ((Z, MORE), {"targets": T.float()}, TypeError, "targets must be integers, got torch.float32"),
        ((Z, MORE), {"targets": T + 1}, ValueError, r"targets must hold indices in \[0, 9\), got 1 to 9"),
        ((Z, MORE), {"targets": T - 1}, ValueError, r"targets must hold indices in \[0, 9\), got -1 to 7"),
        ((Z, MORE), {"ids": T}, ValueError, r"ids must be \(9,\), one a row, got shape \(4,\)"),
        ((Z, Z, QUEUE), {"targets": T}, ValueError, "targets must be None with a queue"),
        ((Z, Z, QUEUE), {"ids": T}, ValueError, "ids must be None with a queue"),
        ((Z, MORE), {"normalize": []}, TypeError, r"normalize must be True or False, got \[\]"),
        ((Z, MORE), {"return_rank": 1}, TypeError, "return_rank must be True or False, got 1"),
    ],
)
def test_bad_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=f"info_nce: .*{message}"):
        ops.info_nce(*arguments, **options)
