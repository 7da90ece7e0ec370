"""ops.clip_loss against the float64 reference: values, every gradient, edge cases, contracts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference_image_text as reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def embeddings(n: int, d: int, device: str, dtype=torch.float32, noise: float = 1.0, seed: int = 0):
    """Images and noisy texts of n random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=generator, dtype=torch.float32)
    return tuple(
        (base + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)).to(device, dtype) for _ in range(2)
    )


def run(function, image, text, temperature, weights, dtype=None):
    """Losses of all rows, and the gradients of their weighted sum to image, text and temperature."""
    image, text = (x.detach().to(dtype or x.dtype).requires_grad_() for x in (image, text))
    tau = torch.tensor(temperature, device=image.device).to(dtype or torch.float32).requires_grad_()
    losses = function(image, text, tau, reduction="none")
    (losses * weights.to(losses.dtype)).sum().backward()
    return {"loss": losses.detach(), "dimage": image.grad, "dtext": text.grad, "dtau": tau.grad}


def check_against_float64(image, text, temperature):
    """The numeric bar over four draws of the weights: one number, as dτ is, could be right by luck."""
    actual, eager, exact = [], [], []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        weights = torch.rand(2 * len(image), generator=generator, dtype=torch.float32).to(image.device)
        actual.append(run(ops.clip_loss, image, text, temperature, weights))
        eager.append(run(reference.clip_loss, image, text, temperature, weights))
        exact.append(run(reference.clip_loss, image, text, temperature, weights, torch.float64))
    assert actual[0]["loss"].dtype == torch.float32
    for name in actual[0]:
        draws = [torch.stack([result[name] for result in results]) for results in (actual, eager, exact)]
        assert_as_accurate(*draws, name, dtype=image.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 60), (3, 1), (63, 129), (96, 200), (257, 256)])
def test_values_and_gradients_ragged_shapes(n, d, dtype, device):
    check_against_float64(*embeddings(n, d, device, dtype), temperature=0.5)


@pytest.mark.parametrize("noise", [0.6, 3.0])  # positives that dominate, and that drown
@pytest.mark.parametrize("temperature", [0.01, 0.024, 0.025, 0.07, 100.0])
def test_temperatures(temperature, noise, device):
    check_against_float64(*embeddings(300, 64, device, noise=noise), temperature=temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_more_tiles_than_groups(temperature, device):
    """From 64 tiles of rows on several share a group of the forward pass; beside each direction by itself."""
    image, text = (x.requires_grad_() for x in embeddings(6200, 4, device, noise=0.1))
    both = ops.clip_loss(image, text, temperature, reduction="none")
    each = torch.cat([ops.info_nce(*x, None, temperature, reduction="none") for x in ((image, text), (text, image))])
    torch.testing.assert_close(both, each, rtol=1e-5, atol=1e-6)
    found, expected = (torch.autograd.grad(losses.mean(), (image, text)) for losses in (both, each))
    for actual, wanted in zip(found, expected):
        assert (actual - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_formula_of_the_docstring(reduction, device):
    """Two independent cross entropies, and the gradients of their mean."""
    actual, expected = ([x.requires_grad_() for x in embeddings(17, 8, device, torch.float64)] for _ in range(2))
    logits = F.normalize(expected[0]) @ F.normalize(expected[1]).T / 0.2
    own = torch.arange(17, device=device)
    losses = torch.cat([F.cross_entropy(x, own, reduction="none") for x in (logits, logits.T)])
    wanted = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    found = ops.clip_loss(*actual, 0.2, reduction=reduction)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), actual), torch.autograd.grad(wanted.sum(), expected))
    single = ops.clip_loss(*(x.float() for x in actual), 0.2, reduction=reduction)
    torch.testing.assert_close(single.double(), wanted, rtol=1e-6, atol=1e-6)


def test_logit_scale_is_the_inverse_of_the_temperature(device):
    image, text = embeddings(40, 16, device)
    assert torch.equal(ops.clip_loss(image, text), ops.clip_loss(image, text, 0.07))
    assert torch.equal(ops.clip_loss(image, text, logit_scale=1 / 0.25), ops.clip_loss(image, text, 0.25))
    found = []
    for dtype in (torch.float32, torch.float64):
        scale = torch.tensor(20.0, device=device, dtype=dtype, requires_grad=True)
        loss = ops.clip_loss(image.to(dtype), text.to(dtype), logit_scale=scale)
        loss.backward()
        found.append((loss.detach().double(), scale.grad.double()))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-8)
    scale = torch.tensor(20.0, device=device, dtype=torch.float64, requires_grad=True)
    function = lambda s: ops.clip_loss(image.double(), text.double(), logit_scale=s)  # noqa: E731
    assert torch.autograd.gradcheck(function, (scale,))


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_each_gradient_alone_is_as_among_all(asked, device):
    leaves = [*embeddings(40, 16, device), torch.tensor(0.1, device=device)]
    found = []
    for wanted in ((0, 1, 2), (asked,)):
        xs = [x.clone().requires_grad_(i in wanted) for i, x in enumerate(leaves)]
        ops.clip_loss(*xs).backward()
        found.append(xs[asked].grad)
        assert all(x.grad is None for i, x in enumerate(xs) if i not in wanted)
    assert torch.equal(*found)


def test_non_contiguous_inputs(device):
    image, text = embeddings(40, 24, device)
    expected = ops.clip_loss(image[:, ::2].contiguous(), text[:, ::2].contiguous(), reduction="none")
    actual = ops.clip_loss(image[:, ::2], text.T.contiguous().T[:, ::2], reduction="none")
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


def test_zero_row_has_zero_gradient(device):
    image, text = embeddings(30, 16, device)
    image[4] = text[7] = 0
    check_against_float64(image, text, 0.5)
    image.requires_grad_()
    text.requires_grad_()
    ops.clip_loss(image, text).backward()
    assert (image.grad[4] == 0).all()
    assert (text.grad[7] == 0).all()


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_nan_in_nan_out(temperature, device):
    """A NaN among the images reaches its own loss and those of all texts."""
    image, text = embeddings(120, 16, device)
    for senseless in (0.0, -1.0, float("nan")):
        assert ops.clip_loss(image, text, torch.tensor(senseless, device=device)).isnan()
    image[3, 2] = float("nan")
    losses = ops.clip_loss(image, text, temperature, reduction="none")
    assert losses[3].isnan()
    assert losses[120:].isnan().all()
    assert losses[4:120].isfinite().all()


def test_tiny_losses_are_exact(device):
    """Where positives dominate, log-sum-exp minus positive would cancel to noise."""
    image, text = embeddings(50, 64, device, noise=0.05)
    losses = ops.clip_loss(image, text, 0.03, reduction="none").double()
    cosine = F.normalize(image.double()) @ F.normalize(text.double()).T
    above = (torch.cat([cosine, cosine.T]) - cosine.diagonal().repeat(2)[:, None]) / 0.03
    exact = torch.log1p(torch.exp(above).sum(dim=1) - 1)
    assert exact.max() < 1e-4
    torch.testing.assert_close(losses, exact, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("d", [64, 200])
def test_the_same_bits_for_any_number_of_threads(d):
    runs = []
    threads = torch.get_num_threads()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        leaves = [x.requires_grad_() for x in embeddings(500, d, "cpu")]
        loss = ops.clip_loss(*leaves, 0.1)
        loss.backward()
        runs.append((loss.detach(), *(x.grad for x in leaves)))
    torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


def test_autocast_leaves_the_loss_in_float32_and_promotes_mixed_dtypes(device):
    image, text = embeddings(40, 16, device, torch.bfloat16)
    with torch.autocast(device, torch.bfloat16):
        inside = ops.clip_loss(image, text)
        mixed = ops.clip_loss(image, text.float())
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ops.clip_loss(image, text))
    assert torch.equal(mixed, ops.clip_loss(image.float(), text.float()))


def test_opcheck(device):
    forward, backward = torch.ops.sslfast.clip_loss_forward.default, torch.ops.sslfast.clip_loss_backward.default
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        inputs = embeddings(7, 5, device, dtype)
        losses, shift, inverse_sum, u, scale, cosines, _ = forward(*inputs, 0.5, None, True)
        torch.library.opcheck(forward, (*inputs, 0.5, None, True, True))
        saved = (torch.rand_like(losses), u, scale, losses, shift, inverse_sum, cosines)
        torch.library.opcheck(backward, (*saved, 0.5, None))
    torch.library.opcheck(forward, (*embeddings(100, 200, device), 0.5, None, True))


def test_memory_does_not_grow_with_the_square(device):
    """What is kept for the backward pass of wide rows has an upper limit; of narrow ones nothing is."""
    forward = torch.ops.sslfast.clip_loss_forward.default
    meta = [torch.empty(100_000, d, device="meta") for d in (128, 512)]
    sizes = [sum(x.numel() for x in forward(z, z, 0.5, None, True)) for z in meta]
    assert sizes[0] < 3 * meta[0].numel()
    assert sizes[1] < 3 * meta[1].numel() + 2**24


Z = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((Z, Z[:2]), {}, ValueError, r"text must have the shape of image, \(4, 3\), got \(2, 3\)"),
        ((Z, Z.double()), {}, TypeError, "text must have the dtype of image"),
        ((Z[:0], Z[:0]), {}, ValueError, "image must be a non-empty matrix"),
        ((Z, Z, 0.0), {}, ValueError, "temperature must be positive and finite in float32, got 0.0"),
        ((Z, Z), {"logit_scale": -1.0}, ValueError, "logit_scale must be positive and finite in float32, got -1.0"),
        ((Z, Z), {"logit_scale": Z}, ValueError, "logit_scale must be a number or a float tensor of one element"),
        ((Z, Z, 0.1), {"logit_scale": 10.0}, ValueError, "temperature must be None with a logit_scale"),
        ((Z, Z), {"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none, got 'max'"),
        ((Z, Z), {"group": "all"}, TypeError, "group must be a process group, 'world' or None, got 'all'"),
        ((Z, Z), {"gather": "tree"}, ValueError, "gather must be one of all, ring, got 'tree'"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=f"clip_loss: {message}"):
        ops.clip_loss(*arguments, **keywords)
