"""ops.info_nce against the float64 reference: values, every gradient, edge cases, contracts."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference

HALVES_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def inputs(n: int, d: int, queue: int | None, device: str, dtype=torch.float32, noise: float = 1.0, seed: int = 0):
    """Queries, noisy keys of the same images, and unit rows of a queue."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(n, d, generator=generator, dtype=torch.float32)
    key = query + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)
    rows = (
        None
        if queue is None
        else F.normalize(torch.randn(queue, d, generator=generator, dtype=torch.float32).double()).to(device, dtype)
    )
    return query.to(device, dtype), key.to(device, dtype), rows


def run(function, query, key, queue, temperature, weights, dtype=None):
    """Losses of all queries, and the gradients of their weighted sum to query, key and temperature."""
    query, key = (x.detach().to(dtype or x.dtype).requires_grad_() for x in (query, key))
    queue = None if queue is None else queue.to(query.dtype)
    tau = torch.tensor(temperature, device=query.device).to(dtype or torch.float32).requires_grad_()
    losses = function(query, key, queue, tau, reduction="none")
    (losses * weights.to(losses.dtype)).sum().backward()
    return {"loss": losses.detach(), "dquery": query.grad, "dkey": key.grad, "dtau": tau.grad}


def check_against_float64(query, key, queue, temperature):
    """The numeric bar over four draws of the weights: one number, as dτ is, could be right by luck."""
    actual, eager, exact = [], [], []
    for seed in range(4):
        weights = torch.rand(len(query), generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(
            query.device
        )
        actual.append(run(ops.info_nce, query, key, queue, temperature, weights))
        eager.append(run(reference.info_nce, query, key, queue, temperature, weights))
        exact.append(run(reference.info_nce, query, key, queue, temperature, weights, torch.float64))
    assert actual[0]["loss"].dtype == torch.float32
    for name in actual[0]:
        draws = [torch.stack([result[name] for result in results]) for results in (actual, eager, exact)]
        assert_as_accurate(*draws, name, dtype=query.dtype)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("queue", [None, 1, 130, 1500])
@pytest.mark.parametrize(("n", "d"), [(1, 60), (3, 1), (63, 129), (257, 128)])
def test_values_and_gradients_ragged_shapes(n, d, queue, dtype, device):
    check_against_float64(*inputs(n, d, queue, device, dtype), temperature=0.5)


@pytest.mark.parametrize("noise", [0.6, 3.0])  # positives that dominate, and that drown
@pytest.mark.parametrize("queue", [None, 900])
@pytest.mark.parametrize("temperature", [0.01, 0.024, 0.025, 0.07, 1.0, 100.0])
def test_temperatures(temperature, queue, noise, device):
    check_against_float64(*inputs(300, 64, queue, device, noise=noise), temperature=temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("queue", [None, 2500])
def test_several_tiles_of_rows_and_columns(queue, temperature, device):
    check_against_float64(*inputs(1100, 32, queue, device, noise=2.0), temperature=temperature)


@pytest.mark.parametrize("queue", [None, 40])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_and_a_number_as_temperature(reduction, queue, device):
    query, key, rows = (None if x is None else x.double() for x in inputs(17, 8, queue, device))
    singles = [x if x is None else x.float().requires_grad_(x is not rows) for x in (query, key, rows)]
    doubles = [x if x is None else x.clone().requires_grad_(x is not rows) for x in (query, key, rows)]
    actual = ops.info_nce(*singles, 0.2, reduction=reduction)
    expected = reference.info_nce(*doubles, 0.2, reduction=reduction)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)
    actual.sum().backward()
    expected.sum().backward()
    for single, double in zip(singles[:2], doubles[:2]):
        torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("queue", [None, 7])
def test_float64_gradcheck(queue):
    query, key, rows = inputs(6, 5, queue, "cpu", torch.float64)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    function = functools.partial(ops.info_nce, queue=rows, reduction="none")
    assert torch.autograd.gradcheck(
        lambda q, k, t: function(q, k, temperature=t), (query.requires_grad_(), key.requires_grad_(), tau)
    )


@pytest.mark.parametrize("queue", [None, 7])
def test_is_the_formula_of_the_docstring(queue, device):
    """An independent spelling: softmax and pick, image by image."""
    query, key, rows = inputs(5, 4, queue, device, torch.float64)
    expected = []
    for i in range(5):
        others = rows if queue else torch.cat([key[:i], key[i + 1 :]])
        cosines = F.cosine_similarity(query[i], torch.cat([key[i : i + 1], others]), dim=1)
        expected.append(-torch.log_softmax(cosines / 0.1, dim=0)[0])
    torch.testing.assert_close(ops.info_nce(query, key, rows, 0.1, reduction="none"), torch.stack(expected))


@pytest.mark.parametrize("asked", ["query", "key", "temperature"])
@pytest.mark.parametrize("queue", [None, 100])
def test_each_gradient_alone_is_as_among_all(asked, queue, device):
    names = ("query", "key", "temperature")
    query, key, rows = inputs(40, 16, queue, device)
    tau = torch.tensor(0.1, device=device)
    gradients = []
    for wanted in (names, (asked,)):
        leaves = {name: x.clone().requires_grad_(name in wanted) for name, x in zip(names, (query, key, tau))}
        ops.info_nce(leaves["query"], leaves["key"], rows, leaves["temperature"]).backward()
        gradients.append(leaves[asked].grad)
        assert all(leaves[name].grad is None for name in names if name not in wanted)
    assert torch.equal(*gradients)


def test_queue_of_another_dtype_is_converted(device):
    query, key, rows = inputs(9, 8, 30, device, torch.bfloat16)
    expected = ops.info_nce(query, key, rows, 0.1)
    assert torch.equal(ops.info_nce(query, key, rows.float(), 0.1), expected)


def test_queue_may_change_before_the_backward(device):
    """MoCo enqueues between the loss and its backward."""
    query, key, rows = inputs(9, 8, 30, device)
    gradients = []
    for change in (False, True):
        leaf, queue = query.clone().requires_grad_(), rows.clone()
        loss = ops.info_nce(leaf, key, queue, 0.1)
        if change:
            queue.zero_()
        loss.backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_non_contiguous_inputs(device):
    query, key, rows = inputs(40, 24, 60, device)
    dense = [x[:, ::2].contiguous() for x in (query, key, rows)]
    expected = ops.info_nce(*dense, reduction="none")
    actual = ops.info_nce(query[:, ::2], key.T.contiguous().T[:, ::2], rows[:, ::2], reduction="none")
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("queue", [None, 50])
def test_zero_row_has_zero_gradient(queue, device):
    query, key, rows = inputs(30, 16, queue, device)
    query[4] = key[7] = 0
    check_against_float64(query, key, rows, 0.5)
    query.requires_grad_()
    key.requires_grad_()
    ops.info_nce(query, key, rows).backward()
    assert (query.grad[4] == 0).all()
    assert (key.grad[7] == 0).all()


@pytest.mark.parametrize("queue", [None, 50])
def test_nan_in_nan_out(queue, device):
    query, key, rows = inputs(30, 16, queue, device)
    for senseless in (0.0, -1.0, float("nan")):
        assert ops.info_nce(query, key, rows, torch.tensor(senseless, device=device)).isnan()
    query[3, 2] = float("nan")
    losses = ops.info_nce(query, key, rows, reduction="none")
    assert losses[3].isnan()
    assert losses[:3].isfinite().all()
    negatives = key if queue is None else rows
    negatives[5, 1] = float("inf")
    assert ops.info_nce(query, key, rows, reduction="none").isnan().all()


def test_tiny_losses_are_exact(device):
    """Where positives dominate, log-sum-exp minus positive would cancel to noise."""
    query, key, rows = inputs(50, 64, 500, device, noise=0.05)
    losses = ops.info_nce(query, key, rows, 0.03, reduction="none").double()
    q, k = (F.normalize(x.double()) for x in (query, key))
    exact = torch.log1p(torch.exp((q @ rows.double().T - (q * k).sum(1, keepdim=True)) / 0.03).sum(dim=1))
    assert exact.max() < 1e-4
    torch.testing.assert_close(losses, exact, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize("queue", [None, 3000])
def test_deterministic(queue, device):
    query, key, rows = inputs(600, 128, queue, device)
    runs = []
    for _ in range(2):
        leaves = [x.clone().requires_grad_() for x in (query, key)]
        loss = ops.info_nce(*leaves, rows, 0.1)
        loss.backward()
        runs.append((loss.detach(), *(x.grad for x in leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_loss_is_float32_and_as_exact_under_autocast(dtype, device):
    query, key, rows = inputs(40, 16, 80, device, dtype)
    with torch.autocast(device, torch.bfloat16):
        inside = ops.info_nce(query, key, rows)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ops.info_nce(query, key, rows))


@pytest.mark.parametrize("queue", [None, 11])
def test_opcheck(queue, device):
    forward, backward = torch.ops.sslfast.info_nce_forward.default, torch.ops.sslfast.info_nce_backward.default
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        query, key, rows = inputs(7, 5, queue, device, dtype)
        losses, shift, inverse_sum, mean, u, scale, cosines, _ = forward(query, key, rows, 0.5, None, True, True)
        for with_mean in (False, True):
            torch.library.opcheck(forward, (query, key, rows, 0.5, None, with_mean, not with_mean))
        for with_key in (False, True):
            saved = (torch.rand_like(losses), u, scale, losses, shift, inverse_sum, mean, cosines)
            torch.library.opcheck(backward, (*saved, 0.5, None, queue is None, with_key))
    torch.library.opcheck(forward, (*inputs(100, 200, queue, device), 0.5, None, True, True))


@pytest.mark.parametrize("queue", [None, 11])
def test_compiles_as_one_graph(queue, device):
    query, key, rows = inputs(12, 8, queue, device)
    tau = torch.tensor(0.2, device=device, requires_grad=True)
    results = []
    for function in (ops.info_nce, torch.compile(ops.info_nce, fullgraph=True)):
        leaves = [query.clone().requires_grad_(), key.clone().requires_grad_(), rows, tau]
        tau.grad = None
        loss = function(*leaves)
        loss.backward()
        results.append([loss.detach(), leaves[0].grad, leaves[1].grad, tau.grad])
    for expected, actual in zip(*results):
        torch.testing.assert_close(actual, expected)


@pytest.mark.gpu
def test_cuda_graph():
    query, key, rows = inputs(64, 32, 1000, "cuda")
    query.requires_grad_()

    def step():
        loss = ops.info_nce(query, key, rows, 0.1)
        return loss, torch.autograd.grad(loss, query)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        query.copy_(torch.randn_like(query))
    graph.replay()
    for actual, expected in zip(captured, step()):
        assert torch.equal(actual, expected)


Z, Q = torch.ones(4, 3), torch.ones(9, 3)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((Z, Z[:2]), {}, ValueError, r"key must have 3 columns and at least 4 rows, got shape \(2, 3\)"),
        ((Z, Z.double()), {}, TypeError, "key must have the dtype of query"),
        ((Z[:0], Z[:0]), {}, ValueError, "query must be a non-empty matrix"),
        ((Z, Z, [1.0]), {}, TypeError, r"queue must be a tensor \(K, D\) or None, got list"),
        ((Z, Z, Q.int()), {}, TypeError, "queue must be float32.*int32"),
        ((Z, Z, Q[:, :2]), {}, ValueError, r"queue must be a non-empty matrix \(K, 3\).*\(9, 2\)"),
        ((Z, Z, Q[:0]), {}, ValueError, r"queue must be a non-empty matrix \(K, 3\).*\(0, 3\)"),
        ((Z, Z, Q.to("meta")), {}, ValueError, "queue must be on the device of query, cpu, got meta"),
        ((Z, Z, Q.clone().requires_grad_()), {}, ValueError, "queue must not require grad"),
        ((Z, Z, Q, 0.0), {}, ValueError, "temperature must be positive and finite in float32, got 0.0"),
        ((Z, Z, Q), {"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none, got 'max'"),
        ((Z, Z), {"group": "all"}, TypeError, "group must be a process group, 'world' or None, got 'all'"),
        ((Z, Z), {"gather": "tree"}, ValueError, "gather must be one of all, ring, got 'tree'"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        ops.info_nce(*arguments, **keywords)
