"""ops.sup_con against the float64 reference: values, every gradient, edge cases, contracts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference_sup_con as reference

HALVES_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def inputs(n: int, d: int, classes: int, device: str, dtype=torch.float32, noise: float = 1.0):
    """Rows around a centre for each class, and labels that are neither small nor in order."""
    generator = torch.Generator().manual_seed(n + d)
    labels = torch.randint(0, classes, (n,), generator=generator)
    centres = torch.randn(classes, d, generator=generator, dtype=torch.float32)
    z = centres[labels] + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)
    return z.to(device, dtype), (labels * -(10**12) + 3).to(device)


def run(function, z, labels, temperature, weights, dtype=None):
    """Losses of all rows, and the gradients of their weighted sum to rows and temperature."""
    z = z.detach().to(dtype or z.dtype).requires_grad_()
    tau = torch.tensor(temperature, device=z.device).to(dtype or torch.float32).requires_grad_()
    losses = function(z, labels, tau, reduction="none")
    (losses * weights.to(losses.dtype)).sum().backward()
    return {"loss": losses.detach(), "dz": z.grad, "dtau": tau.grad}


def check_against_float64(z, labels, temperature):
    """The numeric bar over four draws of the weights, and orders of the columns, which round otherwise: one number, as
    dτ is, could be right by luck; so it may also err by what an ulp of the inputs changes it by."""
    actual, eager, exact, one_ulp_on = [], [], [], []
    signs = torch.randint(0, 2, z.shape, generator=torch.Generator().manual_seed(9)).to(z.device) * 2 - 1
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        weights = torch.rand(len(z), generator=generator, dtype=torch.float32).to(z.device)
        z = z[:, torch.randperm(z.shape[1], generator=generator).to(z.device)]
        nudged = z.double() * (1 + torch.finfo(torch.float32).eps * signs), temperature * (1 + 2**-23)
        actual.append(run(ops.sup_con, z, labels, temperature, weights))
        eager.append(run(reference.sup_con, z, labels, temperature, weights))
        exact.append(run(reference.sup_con, z, labels, temperature, weights, torch.float64))
        one_ulp_on.append(run(reference.sup_con, nudged[0], labels, nudged[1], weights, torch.float64)["dtau"])
    assert actual[0]["loss"].dtype == torch.float32
    for name in actual[0]:
        draws = [torch.stack([result[name] for result in results]) for results in (actual, eager, exact)]
        inherent = (torch.stack(one_ulp_on) - draws[2]).norm().item() if name == "dtau" else 0.0
        assert_as_accurate(*draws, name, dtype=z.dtype, inherent=inherent)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("classes", [1, 2, 40])
@pytest.mark.parametrize(("n", "d"), [(2, 60), (3, 1), (63, 129), (257, 128)])
def test_values_and_gradients_ragged_shapes(n, d, classes, dtype, device):
    check_against_float64(*inputs(n, d, classes, device, dtype), temperature=0.5)


@pytest.mark.parametrize("noise", [0.6, 3.0])  # positives that dominate, and that drown
@pytest.mark.parametrize("temperature", [0.01, 0.024, 0.025, 0.1, 1.0, 100.0])
def test_temperatures(temperature, noise, device):
    check_against_float64(*inputs(300, 64, 30, device, noise=noise), temperature=temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("d", [32, 200])  # cosines computed again, and kept
def test_several_tiles(d, temperature, device):
    check_against_float64(*inputs(500, d, 50, device, noise=2.0), temperature=temperature)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_formula_of_the_docstring(reduction, device):
    """Row by row, and by cross entropy; rows 4 and 6 have no positive."""
    z = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    labels = torch.tensor([2, 2, 9, 2, 5, 9, 7], device=device)
    losses = torch.zeros(7, dtype=torch.float64, device=device)
    for i in (0, 1, 2, 3, 5):
        others = torch.arange(7, device=device) != i
        cosines = F.cosine_similarity(z[i], z[others], dim=1)
        log_p = torch.log_softmax(cosines / 0.1, dim=0)
        losses[i] = -log_p[labels[others] == labels[i]].mean()
    expected = {"mean": losses.sum() / 5, "sum": losses.sum(), "none": losses}[reduction]
    torch.testing.assert_close(ops.sup_con(z, labels, 0.1, reduction=reduction), expected)
    torch.testing.assert_close(ops.sup_con(z.float(), labels, 0.1, reduction=reduction), expected.float())


def test_two_views_of_every_image_are_nt_xent(device):
    z1, z2 = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(40, device=device).repeat(2)
    torch.testing.assert_close(ops.sup_con(torch.cat([z1, z2]), labels, 0.2), ops.nt_xent(z1, z2, 0.2))


def test_rows_without_a_positive_are_negatives_only(device):
    """They have no loss, but a gradient from those of others; their number changes no mean."""
    z, _ = inputs(6, 8, 1, device)
    labels = torch.tensor([1, 1, 2, 2, 3, 4], device=device)
    leaf = z.clone().requires_grad_()
    losses = ops.sup_con(leaf, labels, 0.2, reduction="none")
    losses.sum().backward()
    assert (losses[4:] == 0).all()
    assert (losses[:4] > 0).all()
    assert (leaf.grad[4:] != 0).any(dim=1).all()
    torch.testing.assert_close(ops.sup_con(z, labels, 0.2), losses[:4].mean().detach())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("n", [1, 5])
def test_no_positive_at_all(n, reduction, device):
    leaf = inputs(n, 8, 1, device)[0].requires_grad_()
    loss = ops.sup_con(leaf, torch.arange(n, device=device), 0.2, reduction=reduction)
    loss.sum().backward()
    assert (loss == 0).all()
    assert (leaf.grad == 0).all()


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_zero_rows_and_identical_rows(temperature, device):
    z, labels = inputs(30, 8, 3, device)
    z[4] = 0
    z[5:9] = z[5].clone()
    check_against_float64(z, labels, temperature)
    leaf = z.clone().requires_grad_()
    ops.sup_con(leaf, labels, temperature).backward()
    assert (leaf.grad[4] == 0).all()


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_nan_in_nan_out(temperature, device):
    """Through the denominators into every row that has a loss."""
    z, labels = inputs(30, 8, 3, device)
    z[3, 2] = float("nan")
    leaf = z.requires_grad_()
    losses = ops.sup_con(leaf, labels, temperature, reduction="none")
    losses.sum().backward()
    assert losses.isnan().all()
    assert leaf.grad.isnan().all()


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan")])
def test_a_senseless_temperature_in_a_tensor_gives_nan(value, device):
    z, labels = inputs(30, 8, 3, device)
    assert ops.sup_con(z, labels, torch.tensor(value, device=device)).isnan()


def test_number_and_tensor_any_integers_any_strides(device):
    z, labels = inputs(30, 8, 3, device)
    small = (labels - 3) // -(10**12)
    expected = ops.sup_con(z, small, 0.2)
    assert torch.equal(ops.sup_con(z, labels, 0.2), expected)
    for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
        assert torch.equal(ops.sup_con(z, small.to(dtype), 0.2), expected)
    tau = torch.tensor(0.2, dtype=torch.float64, device=device)
    strided = z.T.contiguous().T
    torch.testing.assert_close(ops.sup_con(strided, labels.repeat_interleave(2)[::2], tau), expected, rtol=1e-6, atol=0)


def test_gradcheck_in_float64():
    z, labels = inputs(6, 5, 2, "cpu", torch.float64)
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(
            lambda z, t, r=reduction: ops.sup_con(z, labels, t, reduction=r), (z.requires_grad_(), tau)
        )


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_loss_is_float32_and_the_same_under_autocast(dtype, device):
    z, labels = inputs(30, 8, 3, device, dtype)
    leaves = [z.clone().requires_grad_() for _ in range(2)]
    for leaf, enabled in zip(leaves, (False, True)):
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            loss = ops.sup_con(leaf, labels, 0.2)
        assert loss.dtype == torch.float32
        loss.backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_same_bits_for_any_number_of_threads():
    z, labels = inputs(700, 200, 50, "cpu")
    results = []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        leaf = z.clone().requires_grad_()
        loss = ops.sup_con(leaf, labels, 0.1)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    torch.set_num_threads(threads)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": [[1.0]]}, TypeError, "sup_con: z must be a tensor"),
        ({"z": torch.zeros(3)}, ValueError, r"sup_con: z must be a non-empty matrix \(N, D\)"),
        ({"z": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "sup_con: z must be float32"),
        ({"labels": [0, 0, 1]}, TypeError, "sup_con: labels must be a tensor"),
        ({"labels": torch.zeros(3)}, TypeError, "sup_con: labels must be integers, got torch.float32"),
        (
            {"labels": torch.zeros(4, dtype=torch.int64)},
            ValueError,
            r"sup_con: labels must be \(3,\).*got shape \(4,\)",
        ),
        ({"labels": torch.zeros(3, dtype=torch.int64, device="meta")}, ValueError, "sup_con: labels must be on cpu"),
        ({"temperature": 0.0}, ValueError, "sup_con: temperature must be positive"),
        ({"reduction": "max"}, ValueError, "sup_con: reduction must be one of"),
        ({"group": "nobody"}, TypeError, "sup_con: group must be a process group"),
        ({"gather": "some"}, ValueError, "sup_con: gather must be one of"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"z": torch.zeros(3, 2), "labels": torch.zeros(3, dtype=torch.int64)} | change
    with pytest.raises(error, match=message):
        ops.sup_con(**arguments)
