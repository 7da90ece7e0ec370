"""ops.negative_cosine_similarity against the float64 reference: values, both gradients, edge cases, contracts."""

from __future__ import annotations

import functools
import sys

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference
from sslfast.kernels.cpu import memory

HALVES_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def rows(n: int, d: int, device: str, dtype=torch.float32, noise: float = 1.0):
    """n random rows and a noisy copy of them."""
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(n, d, generator=generator, dtype=torch.float32)
    return p.to(device, dtype), (p + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)).to(
        device, dtype
    )


def run(function, p, z, dtype=None):
    """Losses, and the gradients of their weighted sum."""
    p, z = (x.detach().to(dtype or x.dtype).requires_grad_() for x in (p, z))
    losses = function(p, z, reduction="none")
    weights = torch.rand(len(p), generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(losses)
    (losses * weights).sum().backward()
    return {"loss": losses.detach(), "dp": p.grad, "dz": z.grad}


def check_against_float64(p, z):
    actual = run(ops.negative_cosine_similarity, p, z)
    eager = run(reference.negative_cosine_similarity, p, z)
    exact = run(reference.negative_cosine_similarity, p, z, torch.float64)
    assert actual["loss"].dtype == torch.float32
    for name in actual:
        assert_as_accurate(actual[name], eager[name], exact[name], name, dtype=p.dtype)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("d", [2, 60, 128, 129, 2048])
@pytest.mark.parametrize("n", [1, 3, 63, 257])
def test_values_and_gradients_ragged_shapes(n, d, dtype, device):
    check_against_float64(*rows(n, d, device, dtype))


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_one_feature_has_no_angle(dtype, device):
    """The cosine is the product of the signs; the gradient is zero, a difference of two numbers of size 1/|p|."""
    p, z = rows(63, 1, device, dtype)
    results = run(ops.negative_cosine_similarity, p, z)
    torch.testing.assert_close(results["loss"], -(p.sign() * z.sign()).float().squeeze(1), rtol=1e-6, atol=0)
    assert (results["dp"].abs() <= 3e-7 / p.abs()).all()
    assert (results["dz"].abs() <= 3e-7 / z.abs()).all()


def test_is_the_formula_of_the_docstring(device):
    p, z = (x.requires_grad_() for x in rows(30, 20, device, torch.float64))
    formula = -(F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(ops.negative_cosine_similarity(p, z), formula)
    expected = torch.autograd.grad(formula, (p, z))
    torch.testing.assert_close(torch.autograd.grad(ops.negative_cosine_similarity(p, z), (p, z)), expected)


@pytest.mark.parametrize("noise", [1e-3, 1e-6, 0.0])
def test_small_gradients_of_nearly_parallel_rows(noise, device):
    check_against_float64(*rows(50, 300, device, noise=noise))


def test_gradients_of_nearly_parallel_rows_keep_their_digits():
    """On the CPU the difference of the unit rows is taken in double: exact, though it is 1e-4 of either."""
    p, z = rows(50, 300, "cpu", noise=1e-4)
    actual = run(ops.negative_cosine_similarity, p, z)
    exact = run(reference.negative_cosine_similarity, p, z, torch.float64)
    for name in ("dp", "dz"):
        torch.testing.assert_close(actual[name].double(), exact[name], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions(reduction, device):
    p, z = rows(17, 8, device)
    q, y = (x.double().requires_grad_() for x in (p, z))
    p.requires_grad_(), z.requires_grad_()
    actual = ops.negative_cosine_similarity(p, z, reduction=reduction)
    expected = reference.negative_cosine_similarity(q, y, reduction=reduction)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)
    (actual.sum() * 3).backward()
    (expected.sum() * 3).backward()
    torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(z.grad.double(), y.grad, rtol=1e-5, atol=1e-7)


def test_only_the_gradients_asked_for(device, monkeypatch):
    p, z = rows(17, 8, device)
    both = run(ops.negative_cosine_similarity, p, z)
    module = sys.modules[ops.negative_cosine_similarity.__module__]
    original, asked = module._backward, []

    def backward(*arguments):
        asked.append(original(*arguments))
        return asked[-1]

    monkeypatch.setattr(module, "_backward", backward)
    for name, inputs in (("dp", (p.clone().requires_grad_(), z)), ("dz", (p, z.clone().requires_grad_()))):
        losses = ops.negative_cosine_similarity(*inputs, reduction="none")
        weights = torch.rand(17, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(losses)
        (losses * weights).sum().backward()
        (leaf,) = (x for x in inputs if x.requires_grad)
        assert torch.equal(leaf.grad, both[name])
    assert [[len(gradient) for gradient in pair] for pair in asked] == [[17, 0], [0, 17]]


def test_the_same_tensor_twice(device):
    p, _ = rows(9, 5, device)
    p.requires_grad_()
    loss = ops.negative_cosine_similarity(p, p)
    torch.testing.assert_close(loss, torch.full_like(loss, -1.0))
    loss.backward()
    assert p.grad.abs().max() < 1e-6


def test_float64_gradcheck():
    p, z = (x.requires_grad_() for x in rows(4, 5, "cpu", torch.float64))
    assert torch.autograd.gradcheck(functools.partial(ops.negative_cosine_similarity, reduction="none"), (p, z))


def test_non_contiguous_inputs(device):
    p, z = rows(40, 24, device)
    expected = run(ops.negative_cosine_similarity, p[:, ::2].contiguous(), z[:, ::2].contiguous())
    wide = torch.stack([p, z], dim=-1)
    for inputs in ((p[:, ::2], z[:, ::2]), (wide[:, ::2, 0], wide[:, ::2, 1]), (p.T.contiguous().T[:, ::2], z[:, ::2])):
        actual = run(ops.negative_cosine_similarity, *inputs)
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-6, atol=1e-7)
    row = p[:1].expand(40, 24)
    assert torch.equal(ops.negative_cosine_similarity(row, z), ops.negative_cosine_similarity(row.contiguous(), z))


def test_zero_rows_have_zero_gradient(device):
    p, z = rows(30, 16, device)
    p[4], z[7], p[9], z[9] = 0, 0, 0, 0
    check_against_float64(p, z)
    results = run(ops.negative_cosine_similarity, p, z)
    assert (results["loss"][[4, 7, 9]] == 0).all()
    assert (results["dp"][[4, 7, 9]] == 0).all()
    assert (results["dz"][[4, 7, 9]] == 0).all()


@pytest.mark.parametrize("size", [1e30, 2e38, 1e-10, 1e-20, 1e-37])
@pytest.mark.parametrize("which", ["p", "z", "both"])
def test_huge_and_tiny_values(which, size, device):
    """Neither overflow nor loss; a row shorter than 1e-12 is divided by that, as F.normalize does."""
    p, z = (x / x.abs().max() for x in rows(30, 16, device))
    p, z = (x * (size if which in (name, "both") else 1) for name, x in (("p", p), ("z", z)))
    actual = run(ops.negative_cosine_similarity, p, z)
    exact = run(reference.negative_cosine_similarity, p, z, torch.float64)
    for name in actual:
        wanted = exact[name].float()  # may be subnormal
        tolerance = 1e-6 * wanted.abs().max().item() + 1e-44
        torch.testing.assert_close(actual[name], wanted, rtol=1e-5, atol=tolerance, msg=lambda m: f"{name}: {m}")  # noqa: B023


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_nan_out(value, dtype, device):
    for which in (0, 1):
        inputs = rows(30, 16, device, dtype)
        inputs[which][3, 2] = value
        inputs[1 - which][3] *= which  # once beside a zero row
        for name, result in run(ops.negative_cosine_similarity, *inputs).items():
            broken = result.isnan().view(30, -1)
            assert broken[3].all(), name
            assert broken.any(dim=1).sum() == 1, name
        assert ops.negative_cosine_similarity(*inputs).isnan()


def test_deterministic_and_independent_of_threads(device):
    p, z = rows(300, 128, device)
    threads, results = torch.get_num_threads(), []
    for count in (1, 1, 3):
        torch.set_num_threads(count)
        results.append(run(ops.negative_cosine_similarity, p, z))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in other)


def test_large_gradients_in_huge_pages(monkeypatch):
    p, z = rows(210, 1024, "cpu")
    expected = run(ops.negative_cosine_similarity, p, z)
    monkeypatch.setattr(memory, "LARGE", 0)
    actual = run(ops.negative_cosine_similarity, p, z)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_loss_is_float32_and_as_exact_under_autocast(dtype, device):
    p, z = rows(40, 16, device, dtype)
    with torch.autocast(device, torch.bfloat16):
        inside = ops.negative_cosine_similarity(p, z)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ops.negative_cosine_similarity(p, z))


def test_opcheck(device):
    forward = torch.ops.sslfast.negative_cosine_similarity_forward.default
    backward = torch.ops.sslfast.negative_cosine_similarity_backward.default
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        p, z = rows(7, 5, device, dtype)
        torch.library.opcheck(forward, (p, z))
        grad = torch.rand_like(forward(p, z))
        for wanted in ((True, True), (True, False), (False, True), (False, False)):
            torch.library.opcheck(backward, (grad, p, z, *wanted))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("detached", [False, True])
def test_compiles_as_one_graph(detached, backend, device):
    def step(p, z):
        z = 3 * z
        return ops.negative_cosine_similarity(2 * p, z.detach() if detached else z).exp()

    gradients = []
    for function in (step, torch.compile(step, fullgraph=True, backend=backend)):
        p, z = (x.requires_grad_() for x in rows(13, 8, device))
        function(p, z).backward()
        gradients.append([p.grad, z.grad])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert (gradients[1][1] is None) == detached


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    p, z = (x.requires_grad_() for x in rows(64, 32, "cuda"))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ops.negative_cosine_similarity(p, z).backward()
    torch.cuda.current_stream().wait_stream(stream)
    p.grad = z.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = ops.negative_cosine_similarity(p, z)
        loss.backward()
    fresh = rows(64, 32, "cuda", noise=0.3)
    with torch.no_grad():
        p.copy_(fresh[0])
        z.copy_(fresh[1])
    graph.replay()
    torch.testing.assert_close(loss.detach(), ops.negative_cosine_similarity(*fresh))


Z = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0]], Z), TypeError, "p must be a tensor"),
        ((Z, Z.int()), TypeError, "z must be float32.*int32"),
        ((Z[0], Z), ValueError, r"p must be a non-empty matrix.*\(3,\)"),
        ((Z[:0], Z[:0]), ValueError, r"p must be a non-empty matrix.*\(0, 3\)"),
        ((Z, Z[:3]), ValueError, r"z must have the shape of p, \(4, 3\), got \(3, 3\)"),
        ((Z, Z.half()), TypeError, "z must have the dtype of p.*float16"),
        ((Z, Z.to("meta")), ValueError, "z must be on the device of p, cpu, got meta"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.negative_cosine_similarity(*arguments)


def test_bad_reduction_is_named():
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        ops.negative_cosine_similarity(Z, Z, reduction="max")
