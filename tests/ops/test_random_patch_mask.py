"""ops.random_patch_mask against two argsorts, its own numbers, and what makes a choice random."""

from __future__ import annotations

import pytest
import torch
from patches import EVERY_FLOAT

from sslfast import ops
from sslfast.kernels import reference_mae as reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def uniform(*shape, device="cpu", dtype=torch.float32, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(device, dtype)


def ratio_that_keeps(k: int, n: int) -> float:
    return max(0.0, 1 - (k + 0.5) / n)


def assert_equal(actual, expected):
    for name, a, b in zip(ops.PatchMask._fields, actual, expected):
        assert a.dtype == b.dtype
        assert a.is_contiguous()
        assert torch.equal(a, b), name


@pytest.mark.parametrize("dtype", EVERY_FLOAT, ids=str)
@pytest.mark.parametrize(("b", "n", "k"), [(1, 1, 1), (3, 7, 2), (64, 196, 49), (5, 1000, 999), (2, 16384, 4096)])
def test_noise_is_sorted_as_argsort_does(b, n, k, dtype, device):
    """bfloat16 and float16 noise has many ties: they go by index."""
    noise = uniform(b, n, device=device, dtype=dtype)
    actual = ops.random_patch_mask(b, n, ratio_that_keeps(k, n), noise=noise)
    assert_equal(actual, reference.random_patch_mask_from_noise(noise, k))


@pytest.mark.parametrize(("n", "k"), [(196, 50), (196, 1), (196, 196), (7, 3)])
def test_num_keep_is_kept_where_a_ratio_would_round(n, k, device):
    noise = uniform(3, n, device=device)
    assert_equal(ops.random_patch_mask(3, n, num_keep=k, noise=noise), reference.random_patch_mask_from_noise(noise, k))
    assert ops.random_patch_mask(3, n, num_keep=k, seed=1, device=device).keep.shape == (3, k)
    assert int(196 * (1 - (1 - 50 / 196))) == 49


@pytest.mark.parametrize("k", [1, 9, 36])
def test_masked_patches_follow_the_kept_in_the_order_of_noise(k, device):
    noise = uniform(4, 36, device=device)
    drawn = ops.random_patch_mask(4, 36, num_keep=k, noise=noise)
    assert torch.equal(torch.cat([drawn.keep, drawn.masked], dim=1), noise.argsort(dim=1))
    assert drawn.mask.gather(1, drawn.masked).all()


def test_masked_patches_compile_as_one_graph():
    def masked(noise):
        return ops.random_patch_mask(3, 8, num_keep=2, noise=noise).masked

    noise = uniform(3, 8)
    assert torch.equal(torch.compile(masked, fullgraph=True, backend="aot_eager")(noise), masked(noise))


def test_is_the_choice_of_facebookresearch(device):
    noise = uniform(4, 36, device=device)
    ids_shuffle = torch.argsort(noise, dim=1)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    mask = torch.ones(4, 36, device=device)
    mask[:, :9] = 0
    mask = torch.gather(mask, dim=1, index=ids_restore)
    actual = ops.random_patch_mask(4, 36, 0.75, noise=noise)
    assert torch.equal(actual.keep, ids_shuffle[:, :9])
    assert torch.equal(actual.restore, ids_restore)
    assert torch.equal(actual.mask.float(), mask)


@pytest.mark.parametrize("dtype", EVERY_FLOAT, ids=str)
def test_order_of_zeros_infinities_and_nan(dtype, device):
    nan, inf = float("nan"), float("inf")
    row = [0.0, -0.0, nan, 1e-40, -inf, inf, -1.0, 0.0, -nan, 2.0, 1e-7, -1e-7]
    noise = torch.tensor([row, row[::-1]], device=device, dtype=dtype)
    assert_equal(
        ops.random_patch_mask(2, 12, 0.5, noise=noise),
        reference.random_patch_mask_from_noise(noise, 6),
    )


@pytest.mark.parametrize("outlier", [0.0, 1e30, -3e38, float("inf"), float("nan")])
@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-44, 3e38])
def test_noise_that_is_not_spread_evenly(scale, outlier, device):
    """Far from each other, or so near that their range is no number to divide by."""
    noise = (uniform(3, 500, device=device) - 0.5) * scale
    noise[1, ::7] = noise[1, 3]
    noise[:, 5] = outlier
    noise[2] = noise[2].sort(descending=True).values
    assert_equal(ops.random_patch_mask(3, 500, 0.5, noise=noise), reference.random_patch_mask_from_noise(noise, 250))


@pytest.mark.parametrize("ratio", [0, 0.0, 0.1, 0.5, 0.75, 0.9, 0.94])
def test_ratios(ratio, device):
    keep, restore, mask = ops.random_patch_mask(3, 50, ratio, seed=1, device=device)
    assert keep.shape == (3, int(50 * (1 - ratio)))
    assert torch.equal(mask.sum(1), torch.full((3,), 50 - keep.shape[1], device=device))
    assert torch.equal(restore.sort(1).values, torch.arange(50, device=device).expand(3, 50))
    assert torch.equal(restore.gather(1, keep), torch.arange(keep.shape[1], device=device).expand_as(keep))
    assert torch.equal(mask, restore >= keep.shape[1])


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**32, 2**40 + 3, 2**63 - 1])
@pytest.mark.parametrize(("b", "n"), [(1, 1), (3, 7), (5, 196), (2, 16384)])
def test_seeds_have_the_numbers_of_the_reference(b, n, seed, device):
    k = int(n * 0.5) or 1
    actual = ops.random_patch_mask(b, n, ratio_that_keeps(k, n), seed=seed, device=device)
    expected = reference.random_patch_mask_from_seed(torch.tensor(seed), b, n, k)
    assert_equal([x.cpu() for x in actual], expected)
    at = ops.random_patch_mask(b, n, ratio_that_keeps(k, n), seed=torch.tensor(seed, device=device))
    assert_equal(at, actual)


def test_fixed_bits():
    """These numbers never change: a run must repeat with later versions."""
    assert ops.random_patch_mask(2, 8, 0.5, seed=7).keep.tolist() == [[3, 2, 6, 4], [5, 1, 0, 4]]


def test_images_do_not_depend_on_the_batch(device):
    small, large = (ops.random_patch_mask(b, 49, seed=3, device=device).restore for b in (2, 9))
    assert torch.equal(large[:2], small)


def test_every_patch_is_kept_equally_often(device):
    mask = ops.random_patch_mask(4000, 49, 0.75, seed=5, device=device).mask
    kept = (~mask).double()
    expected = 12 / 49
    deviation = (expected * (1 - expected) / 4000) ** 0.5
    assert ((kept.mean(0) - expected).abs() < 5 * deviation).all()
    together = (kept.T @ kept / 4000)[~torch.eye(49, dtype=torch.bool, device=device)]
    assert ((together - 12 * 11 / (49 * 48)).abs() < 6 * deviation).all()


def test_order_of_the_kept_is_random(device):
    first = ops.random_patch_mask(7000, 7, 0.5, seed=5, device=device).keep[:, 0]
    assert ((torch.bincount(first, minlength=7) - 1000).abs() < 5 * 1000**0.5).all()


def test_seeds_differ(device):
    masks = [ops.random_patch_mask(8, 196, seed=seed, device=device).mask for seed in (0, 1, 2**32)]
    for i in range(3):
        for j in range(i):
            agree = (masks[i] == masks[j]).double().mean()
            assert 0.55 < agree < 0.70  # 0.625 by chance


def test_torch_manual_seed_rules_what_has_no_seed(device):
    torch.manual_seed(3)
    first, second = (ops.random_patch_mask(2, 64, device=device) for _ in range(2))
    torch.manual_seed(3)
    assert_equal(ops.random_patch_mask(2, 64, device=device), first)
    assert not torch.equal(first.restore, second.restore)


def test_any_strides_and_noise_that_requires_grad(device):
    noise = uniform(6, 20, device=device)
    expected = ops.random_patch_mask(6, 20, noise=noise)
    assert_equal(ops.random_patch_mask(6, 20, noise=noise.T.contiguous().T.requires_grad_()), expected)
    assert_equal(ops.random_patch_mask(6, 20, noise=torch.stack([noise, -noise], dim=2)[..., 0]), expected)
    alike = ops.random_patch_mask(3, 20, noise=noise[:1].expand(3, 20))
    assert torch.equal(alike.restore, expected.restore[:1].expand(3, 20))


def test_device_is_that_of_the_tensor(device):
    assert ops.random_patch_mask(1, 4, noise=uniform(1, 4, device=device)).keep.device.type == device
    assert ops.random_patch_mask(1, 4, seed=torch.tensor(1, device=device)).mask.device.type == device
    assert ops.random_patch_mask(1, 4, seed=1, device=device).restore.device.type == device


def test_independent_of_threads(device):
    """Of so many patches that they are sorted on several."""
    threads = torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(ops.random_patch_mask(1000, 196, seed=2, device=device))
    torch.set_num_threads(threads)
    assert_equal(*results)


def test_opcheck(device):
    seed = torch.tensor(3, device=device)
    torch.library.opcheck(torch.ops.sslfast.random_patch_mask_from_seed.default, (seed, 2, 9, 4))
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        noise = uniform(2, 9, device=device, dtype=dtype)
        torch.library.opcheck(torch.ops.sslfast.random_patch_mask_from_noise.default, (noise, 4))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend, device):
    def choose(noise):
        return (
            *ops.random_patch_mask(2, 9, 0.5, noise=noise),
            *ops.random_patch_mask(noise.shape[0], 9, 0.5, seed=4, device=noise.device),
        )

    noise = uniform(2, 9, device=device)
    compiled = torch.compile(choose, fullgraph=True, backend=backend)
    assert all(map(torch.equal, compiled(noise), choose(noise)))
    unseeded = torch.compile(lambda: ops.random_patch_mask(2, 9, device=device).keep, fullgraph=True, backend=backend)
    assert unseeded().shape == (2, 2)


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    seed, noise = torch.tensor(1, device="cuda"), uniform(3, 50, device="cuda")
    ops.random_patch_mask(3, 50, seed=seed), ops.random_patch_mask(3, 50, noise=noise)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seeded = ops.random_patch_mask(3, 50, seed=seed)
        sorted_ = ops.random_patch_mask(3, 50, noise=noise)
    seed.fill_(9)
    noise.copy_(uniform(3, 50, seed=4))
    graph.replay()
    assert_equal(seeded, ops.random_patch_mask(3, 50, seed=9, device="cuda"))
    assert_equal(sorted_, ops.random_patch_mask(3, 50, noise=noise))


N = torch.rand(2, 8)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((2.0, 8), {}, TypeError, "batch must be an int, got float"),
        ((0, 8), {}, ValueError, "batch must be at least 1, got 0"),
        ((2, True), {}, TypeError, "num_patches must be an int, got bool"),
        ((2, -1), {}, ValueError, "num_patches must be at least 1, got -1"),
        ((2, 16385), {}, ValueError, "num_patches must be at most 16384, got 16385"),
        ((2, 8, 0.5), {"num_keep": 4}, ValueError, "mask_ratio and num_keep exclude each other, got both"),
        ((2, 8), {"num_keep": 0}, ValueError, "num_keep must be from 1 to 8, got 0"),
        ((2, 8), {"num_keep": 9}, ValueError, "num_keep must be from 1 to 8, got 9"),
        ((2, 8), {"num_keep": 2.0}, TypeError, "num_keep must be an int, got float"),
        ((2, 8, "most"), {}, TypeError, "mask_ratio must be a number, got str"),
        ((2, 8, 1), {}, ValueError, r"mask_ratio must be in \[0, 1\), got 1"),
        ((2, 8, -0.1), {}, ValueError, r"mask_ratio must be in \[0, 1\), got -0.1"),
        ((2, 8, float("nan")), {}, ValueError, r"mask_ratio must be in \[0, 1\), got nan"),
        ((2, 8, 0.9), {}, ValueError, "mask_ratio must leave at least one of 8 patches visible, got 0.9"),
        ((2, 8), {"noise": N, "seed": 1}, ValueError, "noise and seed exclude each other"),
        ((2, 8), {"noise": N.tolist()}, TypeError, r"noise must be a tensor \(B, L\), got list"),
        ((2, 8), {"noise": N.int()}, TypeError, "noise must be float32.*int32"),
        ((2, 9), {"noise": N}, ValueError, r"noise must have shape \(2, 9\), got \(2, 8\)"),
        ((2, 8), {"noise": N, "device": "meta"}, ValueError, "noise must be on meta, as device says, got cpu"),
        ((2, 8), {"seed": 1.0}, TypeError, "seed must be an int or a 0-dim int64 tensor, got float"),
        ((2, 8), {"seed": -1}, ValueError, r"seed must be at least 0 and below 2\^63, got -1"),
        ((2, 8), {"seed": torch.tensor(1.0)}, ValueError, "seed must be an int or a 0-dim int64 tensor.*float32"),
        ((2, 8), {"seed": torch.tensor([1])}, ValueError, r"seed must be an int or .* got shape \(1,\)"),
        ((2, 8), {"seed": torch.tensor(1), "device": "meta"}, ValueError, "seed must be on meta, as device says"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=f"random_patch_mask: {message}"):
        ops.random_patch_mask(*arguments, **keywords)
