"""The C++ core of the contrastive losses: widths, kept cosines, any number of threads, values outside the contract."""

from __future__ import annotations

import struct

import pytest
import test_info_nce
import test_nt_xent
import torch
import torch.nn.functional as F

from sslfast import ops
from sslfast.kernels import reference
from sslfast.kernels.cpu import contrastive, negatives

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize(
    ("n", "d", "dtype"), [(3, 4096, torch.float32), (100, 192, torch.bfloat16), (157, 300, torch.float32)], ids=str
)
def test_wide_rows(n, d, dtype, temperature):
    test_nt_xent.check_against_float64(*test_nt_xent.views(n, d, "cpu", dtype, noise=3.0), temperature)
    for queue in (None, 300):
        test_info_nce.check_against_float64(*test_info_nce.inputs(n, d, queue, "cpu", dtype, noise=3.0), temperature)


def gradients(function, z1, z2, temperature) -> tuple[torch.Tensor, ...]:
    """The loss, and the gradients to both rows and to the temperature."""
    leaves = [z1.clone().requires_grad_(), z2.clone().requires_grad_(), torch.tensor(temperature).requires_grad_()]
    loss = function(*leaves)
    return loss.detach(), *torch.autograd.grad(loss, leaves)


def in_the_batch(query, key, temperature):
    return ops.info_nce(query, key, None, temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.3])
@pytest.mark.parametrize("function", [ops.nt_xent, in_the_batch])
def test_kept_cosines_are_those_that_would_be_computed_again(function, temperature, monkeypatch):
    results = []
    for tiles in (10**6, 2, 0):
        monkeypatch.setattr(contrastive, "KEPT_TILES", tiles)
        results.append(gradients(function, *test_nt_xent.views(250, 200, "cpu"), temperature))
    for result in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], result))


def test_kept_cosines_are_bounded():
    meta, z = torch.empty(10**9, 256, device="meta"), torch.empty(1, 256).expand(10**9, 256)
    assert 2**25 < 4 * contrastive.cosines(z, 10**12, True) <= 2**26
    assert contrastive.cosines(meta, 10**12, True) == 0  # no CPU kernel
    assert contrastive.cosines(z, 10**12, False) == 0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        z, least = torch.empty(1, 512, dtype=dtype).expand(10**9, 512), contrastive.kept_from(dtype)
        assert contrastive.cosines(z[:, : least - 1], 10**12, True) == 0  # sooner computed again
        assert contrastive.cosines(z[:, :least], 10**12, True) > 0


def sigmoid(image, text, temperature):
    return ops.siglip_loss(image, text, 1 / temperature, torch.tensor(-1.0))


@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize(("n", "d"), [(700, 40), (700, 256), (1300, 40)])
def test_same_bits_for_any_number_of_threads(n, d, temperature, threads):
    """Threads that are few take many tiles at a time, threads that are many one each."""
    z1, z2 = test_nt_xent.views(n, d, "cpu")
    queue = F.normalize(torch.randn(5000, d, generator=torch.Generator().manual_seed(1)))
    for function in (ops.nt_xent, in_the_batch, lambda q, k, t: ops.info_nce(q, k, queue, t), ops.clip_loss, sigmoid):
        results = []
        for count in (1, 2, 3, 24, 2):
            threads(count)
            results.append(gradients(function, z1, z2, temperature))
        for result in results[1:]:
            assert all(torch.equal(*pair) for pair in zip(results[0], result))


@pytest.mark.parametrize("temperature", [0.025, 0.1])
def test_exponentials_have_the_same_bits_in_both_passes(temperature):
    """Two rows of one feature: the sum is the exponential of their cosine, and the gradient is it times the other row.
    Were one rounded otherwise, probabilities would not sum to 1, and the gradient of the temperature would show it."""
    for cosine in torch.linspace(-0.9, 0.99, 25):
        rows = torch.stack([cosine, torch.ones(())])[:, None]
        shift, total, _, kept, _ = negatives.among_forward(rows, None, None, temperature, None, True)
        factor = torch.tensor([1.0, 0.0])
        du = negatives.among_backward(rows, None, None, factor, shift, None, kept, temperature, None)
        assert torch.equal(total, du[0].expand(2))


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7FC12345, 0x7FFFFFFF, 0x7F800001, 0xFF812345])
def test_nan_of_any_bits_is_nan(bits):
    nan = torch.tensor(struct.unpack("i", struct.pack("I", bits))[0], dtype=torch.int32).view(torch.float32)
    assert nan.isnan()
    for temperature in (0.01, 0.07, 100.0):
        query, key, queue = test_info_nce.inputs(20, 16, 120, "cpu")
        queue[101, 3] = nan
        assert ops.info_nce(query, key, queue, temperature, reduction="none").isnan().all()
        z1, z2 = test_nt_xent.views(150, 16, "cpu")
        z2[120, 5] = nan
        assert ops.nt_xent(z1, z2, temperature, reduction="none").isnan().all()
        key[7, 2] = nan
        assert ops.info_nce(query, key, None, temperature, reduction="none").isnan().all()


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("length", [0.0, 1e-3, 8.0, 1e4])
def test_queue_rows_of_any_length_are_the_formula(length, temperature):
    """Some rows only, in one tile of several, so that the maximum is first taken for granted and then found."""
    query, key, queue = test_info_nce.inputs(60, 24, 500, "cpu", noise=3.0)
    queue[210:230] *= length
    test_info_nce.check_against_float64(query, key, queue, temperature)
    test_info_nce.check_against_float64(query, key, queue * length, temperature)


@pytest.mark.parametrize("temperature", [1.2e-38, 1e-30, 1e-8, 1e36, 3.4e38])
def test_extreme_temperatures_have_the_limit_of_the_formula(temperature):
    z1, z2 = (z.requires_grad_() for z in test_nt_xent.views(30, 16, "cpu"))
    exact = [z.detach().double().requires_grad_() for z in (z1, z2)]
    pairs = [
        (ops.nt_xent(z1, z2, temperature, reduction="none"), reference.nt_xent(*exact, temperature, reduction="none"))
    ]
    pairs.append(
        (
            ops.info_nce(z1, z2, None, temperature, reduction="none"),
            reference.info_nce(*exact, None, temperature, reduction="none"),
        )
    )
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected.float(), rtol=1e-4, atol=1e-6)
        gradients = torch.autograd.grad(actual.clamp(max=1e30).sum(), (z1, z2))
        assert not any(g.isnan().any() for g in gradients)
