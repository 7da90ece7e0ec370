"""ops.siglip_loss against the float64 reference: values, every gradient, edge cases, contracts."""

from __future__ import annotations

import itertools

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


def run(function, image, text, scale, bias, weights, dtype=None):
    """Losses of all images, and the gradients of their weighted sum; without weights the mean loss and its."""
    image, text = (x.detach().to(dtype or x.dtype).requires_grad_() for x in (image, text))
    numbers = [
        torch.tensor(x, device=image.device, dtype=torch.float32).to(dtype or torch.float32).requires_grad_()
        for x in (scale, bias)
    ]
    losses = function(image, text, *numbers, reduction="mean" if weights is None else "none")
    (losses if weights is None else (losses * weights.to(losses.dtype)).sum()).backward()
    found = {"loss": losses.detach(), "dimage": image.grad, "dtext": text.grad}
    return found | {"dscale": numbers[0].grad, "dbias": numbers[1].grad}


def check_against_float64(image, text, scale=10.0, bias=-10.0):
    """The numeric bar: from one pass, and over four draws of weights: single numbers could be right by luck."""
    draws = [None]
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        draws.append(torch.rand(len(image), generator=generator, dtype=torch.float32).to(image.device))
    actual, eager, exact = (
        [run(function, image, text, scale, bias, draw, dtype) for draw in draws]
        for function, dtype in (
            (ops.siglip_loss, None),
            (reference.siglip_loss, None),
            (reference.siglip_loss, torch.float64),
        )
    )
    assert actual[0]["loss"].dtype == torch.float32
    for name in actual[0]:
        if name in ("dimage", "dtext"):
            assert_as_accurate(*(results[0][name] for results in (actual, eager, exact)), name, dtype=image.dtype)
        several = [torch.stack([result[name] for result in results[1:]]) for results in (actual, eager, exact)]
        assert_as_accurate(*several, name, dtype=image.dtype)
    torch.testing.assert_close(
        actual[0]["loss"].double(), exact[0]["loss"], rtol=2e-6 if image.dtype == torch.float32 else 1e-2, atol=0
    )


@pytest.mark.parametrize(
    ("n", "d", "dtype"),
    [
        (257, 256, torch.float32),
        *itertools.product((1, 63), (60, 129), (torch.float32, torch.bfloat16, torch.float16)),
        (96, 1, torch.float32),
    ],
    ids=str,
)
def test_values_and_gradients_ragged_shapes(n, d, dtype, device):
    check_against_float64(*embeddings(n, d, device, dtype))


@pytest.mark.parametrize(
    ("scale", "bias"), [(1.0, 0.0), (10.0, -10.0), (117.0, -13.0), (-5.0, 2.0), (0.0, 90.0), (30.0, -110.0)]
)
def test_scales_and_biases(scale, bias, device):
    """Logits of any sign and size: of probabilities near one half, and of some that float32 can hardly hold."""
    check_against_float64(*embeddings(200, 64, device, noise=0.6), scale, bias)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_formula_of_the_docstring(reduction, normalize, device):
    """Value and gradients, in float64 by the reference and in float32 by the kernels."""
    found = []
    for dtype, by_hand in itertools.product((torch.float64, torch.float32), (True, False)):
        image, text = (x.requires_grad_() for x in embeddings(17, 8, device, dtype))
        numbers = [torch.tensor(x, device=device, dtype=dtype, requires_grad=True) for x in (3.0, -2.0)]
        if by_hand:
            v, w = (F.normalize(image), F.normalize(text)) if normalize else (image, text)
            logits = numbers[0] * v @ w.T + numbers[1]
            losses = -F.logsigmoid((2 * torch.eye(17, device=device, dtype=dtype) - 1) * logits).sum(dim=1)
            loss = {"mean": losses.sum() / 17, "sum": losses.sum(), "none": losses}[reduction]
        else:
            loss = ops.siglip_loss(image, text, *numbers, normalize=normalize, reduction=reduction)
        weights = torch.arange(1, 1 + loss.numel(), device=device, dtype=dtype).view(loss.shape)
        gradients = torch.autograd.grad((weights * loss).sum(), (image, text, *numbers))
        found.append([x.detach().double() for x in (loss, *gradients)])
    exact, by_reference, eager, actual = found
    torch.testing.assert_close(by_reference, exact)
    for name, *results in zip(("loss", "dimage", "dtext", "dscale", "dbias"), actual, eager, exact):
        assert_as_accurate(*results, name, dtype=torch.float32)


def test_numbers_and_tensors_give_the_same_bits(device):
    image, text = embeddings(40, 16, device)
    tensors = [torch.tensor(x, device=device) for x in (10.0, -10.0)]
    assert torch.equal(ops.siglip_loss(image, text, 10.0, -10), ops.siglip_loss(image, text, *tensors))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("asked", [0, 1, 2, 3])
def test_each_gradient_alone_is_as_among_all(asked, reduction, device):
    leaves = [*embeddings(40, 16, device), *(torch.tensor(x, device=device) for x in (5.0, -3.0))]
    found = []
    for wanted in ((0, 1, 2, 3), (asked,)):
        xs = [x.clone().requires_grad_(i in wanted) for i, x in enumerate(leaves)]
        ops.siglip_loss(*xs, reduction=reduction).sum().backward()
        found.append(xs[asked].grad)
        assert all(x.grad is None for i, x in enumerate(xs) if i not in wanted)
    assert torch.equal(*found)


def test_non_contiguous_inputs(device):
    image, text = embeddings(40, 24, device)
    expected = ops.siglip_loss(image[:, ::2].contiguous(), text[:, ::2].contiguous(), 10, -10, reduction="none")
    actual = ops.siglip_loss(image[:, ::2], text.T.contiguous().T[:, ::2], 10, -10, reduction="none")
    assert torch.equal(actual, expected)


def test_zero_row_has_zero_gradient(device):
    image, text = embeddings(30, 16, device)
    image[4] = text[7] = 0
    check_against_float64(image, text)
    leaves = image.requires_grad_(), text.requires_grad_()
    dimage, dtext = torch.autograd.grad(ops.siglip_loss(*leaves, 10, -10), leaves)
    assert (dimage[4] == 0).all()
    assert (dtext[7] == 0).all()


def test_nan_in_nan_out(device):
    """A NaN among the images reaches its own loss alone, and all texts' gradients."""
    image, text = embeddings(120, 16, device)
    assert ops.siglip_loss(image, text, torch.tensor(float("nan"), device=device), -10).isnan()
    image[3, 2] = float("nan")
    text.requires_grad_()
    losses = ops.siglip_loss(image, text, 10, -10, reduction="none")
    assert losses[3].isnan()
    assert losses.isnan().sum() == 1
    assert torch.autograd.grad(losses.sum(), text)[0].isnan().all()


def test_logits_of_any_size(device):
    """Of long rows with normalize=False: a loss is the logit where that is large, infinite with it, never NaN."""
    image, text = embeddings(20, 16, device)
    for size, scale in ((1e3, 1.0), (1e15, 1.0), (1e15, 1e25)):
        losses = ops.siglip_loss(size * image, size * text, scale, 0.0, normalize=False, reduction="none").double()
        exact = reference.siglip_loss(
            (size * image).double(), (size * text).double(), scale, 0.0, unit=False, reduction="none"
        )
        torch.testing.assert_close(losses, torch.where(exact > 3e38, torch.inf, exact), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("d", "reduction"), [(64, "none"), (200, "mean")])
def test_the_same_bits_for_any_number_of_threads(d, reduction):
    runs = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        leaves = [*embeddings(400, d, "cpu"), torch.tensor(10.0), torch.tensor(-8.0)]
        leaves = [x.requires_grad_() for x in leaves]
        loss = ops.siglip_loss(*leaves, reduction=reduction)
        runs.append((loss.detach(), *torch.autograd.grad(loss.sum(), leaves)))
    torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


def test_autocast_leaves_the_loss_in_float32_and_promotes_mixed_dtypes(device):
    image, text = embeddings(40, 16, device, torch.bfloat16)
    with torch.autocast(device, torch.bfloat16):
        inside = ops.siglip_loss(image, text, 10, -10)
        mixed = ops.siglip_loss(image, text.float(), 10, -10)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ops.siglip_loss(image, text, 10, -10))
    assert torch.equal(mixed, ops.siglip_loss(image.float(), text.float(), 10, -10))


def test_opcheck(device):
    sums = torch.ops.sslfast.siglip_sums.default
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        inputs = embeddings(7, 5, device, dtype)
        factor = torch.ones(7, device=device, dtype=torch.promote_types(dtype, torch.float32))
        torch.library.opcheck(
            sums, (*inputs, factor, True, 10.0, -10.0, None, None, dtype != torch.bfloat16, False, True)
        )


def test_memory_does_not_grow_with_the_square():
    z = torch.empty(100_000, 128, device="meta")
    outputs = torch.ops.sslfast.siglip_sums.default(z, z, None, True, 10.0, -10.0, None, None, True, True, True)
    assert sum(x.numel() for x in outputs) < 3 * z.numel()


Z = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((Z, Z[:2], 10, -10), {}, ValueError, r"text must have the shape of image, \(4, 3\), got \(2, 3\)"),
        ((Z, Z.double(), 10, -10), {}, TypeError, "text must have the dtype of image"),
        ((Z[:0], Z[:0], 10, -10), {}, ValueError, "image must be a non-empty matrix"),
        ((Z, Z, float("inf"), -10), {}, ValueError, "logit_scale must be finite in float32, got inf"),
        ((Z, Z, 10, Z), {}, ValueError, "logit_bias must be a number or a float tensor of one element"),
        ((Z, Z, 10, None), {}, TypeError, "logit_bias must be a number or a tensor of one element, got NoneType"),
        ((Z, Z, 10, -10), {"normalize": 1}, TypeError, "normalize must be True or False, got 1"),
        ((Z, Z, 10, -10), {"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none, got 'max'"),
        ((Z, Z, 10, -10), {"group": "all"}, TypeError, "group must be a process group, 'world' or None, got 'all'"),
        ((Z, Z, 10, -10), {"gather": "tree"}, ValueError, "gather must be one of all, ring, got 'tree'"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=f"siglip_loss: {message}"):
        ops.siglip_loss(*arguments, **keywords)
