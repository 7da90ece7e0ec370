"""The Triton kernels that gather and restore tokens and patches, called directly: on a GPU, and on the CPU under
Triton's interpreter in a process of its own."""

from __future__ import annotations

import pytest
import torch
from patches import HALVES_AND_SINGLE, OFFSET, PATCHED, SCALE, check_each, constants, patch_mask, photographs, randn

from sslfast.kernels import reference_mae as reference
from sslfast.ops.checks import INTEGERS

triton = pytest.importorskip("triton")

from triton_kernels import DEVICE, compiles, run_interpreted, runs  # noqa: E402

from sslfast.kernels.triton import gather_patches, gather_tokens, restore_tokens, rows  # noqa: E402

# --- gather_tokens ---


@runs
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(
    ("b", "n", "k", "d"), [(1, 1, 1, 1), (3, 7, 2, 5), (2, 63, 63, 129), (2, 20, 5, 768), (20, 12, 3, 64)]
)
def test_gather_tokens(b, n, k, d, dtype):
    check_gather_tokens(b, n, k, d, dtype)


def check_gather_tokens(b, n, k, d, dtype):
    keep = patch_mask(b, n, k, DEVICE).keep
    tokens, grad = randn(b, n, d, device=DEVICE, dtype=dtype), randn(b, k, d, device=DEVICE, dtype=dtype)
    assert torch.equal(gather_tokens.forward(tokens, keep), reference.gather_tokens_forward(tokens, keep))
    assert torch.equal(gather_tokens.backward(grad, keep, n), reference.gather_tokens_backward(grad, keep, n))


@runs
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_gather_tokens_of_integers(dtype):
    keep = patch_mask(3, 9, 4, DEVICE).keep
    tokens = torch.randint(0, 100, (3, 9, 20), generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    for x in (tokens, tokens[:, :, ::2]):
        assert torch.equal(gather_tokens.forward(x, keep), reference.gather_tokens_forward(x, keep))
    keep[1, 2] = 9
    least = False if dtype == torch.bool else torch.iinfo(dtype).min
    assert (gather_tokens.forward(tokens, keep)[1, 2] == least).all()


@runs
def test_gather_tokens_of_any_strides():
    keep = patch_mask(3, 9, 4, DEVICE).keep
    for tokens in (
        randn(3, 10, 20, device=DEVICE)[:, 1:],
        randn(20, 9, 3, device=DEVICE).permute(2, 1, 0),
        randn(3, 1, 20, device=DEVICE).expand(3, 9, 20),
    ):
        for indices in (keep, keep.T.contiguous().T):
            assert torch.equal(gather_tokens.forward(tokens, indices), reference.gather_tokens_forward(tokens, keep))
    grad = randn(1, 1, 20, device=DEVICE).expand(3, 4, 20)
    assert torch.equal(gather_tokens.backward(grad, keep, 9), reference.gather_tokens_backward(grad, keep, 9))


# --- gather_patches ---


@runs
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "c", "h", "w", "p", "k"), PATCHED)
def test_gather_patches(b, c, h, w, p, k, dtype):
    check_gather_patches(b, c, h, w, p, k, dtype)


def check_gather_patches(b, c, h, w, p, k, dtype):
    keep = patch_mask(b, h // p * (w // p), k, DEVICE).keep
    for image_dtype, (scale, offset) in ((torch.uint8, constants(c)), (dtype, ([], []))):
        images = photographs(b, c, h, w, device=DEVICE, dtype=image_dtype)
        result = gather_patches.forward(images, keep, p, scale, offset, dtype)
        eager = reference.gather_patches_forward(images, keep, p, scale, offset, dtype)
        exact = reference.gather_patches_forward(images.double(), keep, p, scale, offset, torch.float64)
        check_each([result], [eager], [exact], dtype, "patches")
    grad = randn(b, k, p * p * c, device=DEVICE, dtype=torch.float32)
    for scale in (constants(c)[0], []):
        result = gather_patches.backward(grad, keep, c, h, w, p, scale, dtype)
        eager = reference.gather_patches_backward(grad, keep, c, h, w, p, scale, dtype)
        exact = reference.gather_patches_backward(grad, keep, c, h, w, p, scale, torch.float64)
        check_each([result], [eager], [exact], dtype, "dimages")


@runs
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_gather_patches_of_any_strides(dtype):
    images, keep = photographs(2, 3, 16, 24, device=DEVICE, dtype=dtype), patch_mask(2, 24, 5, DEVICE).keep
    expected = reference.gather_patches_forward(images, keep, 4, SCALE, OFFSET, torch.float32)
    wide = torch.stack([images, images], dim=4)
    for layout in (images.contiguous(memory_format=torch.channels_last), wide[..., 1], images.mT.contiguous().mT):
        actual = gather_patches.forward(layout, keep, 4, SCALE, OFFSET, torch.float32)
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    grad = randn(2, 1, 48, device=DEVICE).expand(2, 5, 48)
    actual = gather_patches.backward(grad, keep, 3, 16, 24, 4, [], torch.float32)
    assert torch.equal(actual, reference.gather_patches_backward(grad, keep, 3, 16, 24, 4, [], torch.float32))


@runs
def test_indices_out_of_range_give_nan_and_no_gradient():
    keep = torch.tensor([[0, 6, 3], [-1, 2, 2**40]], device=DEVICE)
    known = torch.tensor([[True, False, True], [False, True, False]], device=DEVICE)
    tokens, images = randn(2, 6, 48, device=DEVICE), photographs(2, 3, 8, 12, device=DEVICE)
    for rows_of in (
        gather_tokens.forward(tokens, keep),
        gather_patches.forward(images, keep, 4, SCALE, OFFSET, torch.float32),
    ):
        assert torch.equal(rows_of.isnan(), ~known[:, :, None].expand_as(rows_of))
    grad, safe = randn(2, 3, 48, device=DEVICE), keep.where(known, torch.tensor([[5, 5, 5], [4, 5, 5]], device=DEVICE))
    expected = reference.gather_tokens_backward(grad * known[:, :, None], safe, 6)
    assert torch.equal(gather_tokens.backward(grad, keep, 6), expected)
    dimages = gather_patches.backward(grad, keep, 3, 8, 12, 4, [], torch.float32)
    assert torch.equal(reference.patchify(dimages, 4), expected)


# --- restore_tokens ---


def check_restore(b, n, k, d, dtype, parameter_dtype, with_pos=True):
    restore = patch_mask(b, n, k, DEVICE).restore
    visible, grad = randn(b, k, d, device=DEVICE, dtype=dtype), randn(b, n, d, device=DEVICE, dtype=dtype, seed=3)
    mask_token = randn(d, device=DEVICE, dtype=parameter_dtype, seed=1)
    pos_embed = randn(n, d, device=DEVICE, dtype=parameter_dtype, seed=2) if with_pos else None
    double = [None if x is None else x.double() for x in (mask_token, pos_embed)]
    result = restore_tokens.forward(visible, restore, mask_token, pos_embed)
    eager = reference.restore_tokens_forward(visible, restore, mask_token, pos_embed)
    exact = reference.restore_tokens_forward(visible.double(), restore, *double)
    check_each([result], [eager], [exact], dtype, "tokens")
    result = restore_tokens.backward(grad, restore, k, with_pos)
    eager = reference.restore_tokens_backward(grad, restore, k, with_pos)
    exact = reference.restore_tokens_backward(grad.double(), restore, k, with_pos)
    check_each(result, eager, exact, dtype, "dvisible", "dmask_token", "dpos")


@runs
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "n", "k", "d"), [(1, 1, 1, 1), (3, 7, 2, 5), (5, 6, 6, 129), (70, 6, 1, 64)])
def test_restore_tokens(b, n, k, d, dtype):
    check_restore(b, n, k, d, dtype, dtype)


@runs
@pytest.mark.parametrize("parameter_dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_restore_tokens_with_parameters_of_another_dtype(dtype, parameter_dtype):
    check_restore(3, 5, 2, 24, dtype, parameter_dtype, with_pos=dtype != torch.float16)


@runs
@pytest.mark.parametrize(("batch", "with_pos"), [(15, False), (33, True)])
def test_restore_tokens_in_groups_of_images(batch, with_pos, monkeypatch):
    """Tiles of 2 images, and programs that sum one or two of them."""
    monkeypatch.setattr(rows, "TILE", 32)
    check_restore(batch, 5, 2, 16, torch.float32, torch.float32, with_pos)


@runs
def test_restore_tokens_of_any_strides():
    restore = patch_mask(3, 9, 4, DEVICE).restore
    visible, mask_token = randn(20, 5, 3, device=DEVICE).permute(2, 1, 0)[:, 1:], randn(20, 2, device=DEVICE)[:, 1]
    pos_embed, grad = randn(20, 9, device=DEVICE).T, randn(1, 9, 1, device=DEVICE).expand(3, 9, 20)
    actual = restore_tokens.forward(visible, restore.T.contiguous().T, mask_token, pos_embed)
    assert torch.equal(actual, reference.restore_tokens_forward(visible, restore, mask_token, pos_embed))
    actual = restore_tokens.backward(grad, restore, 4, True)
    assert all(map(torch.equal, actual, restore_tokens.backward(grad.contiguous(), restore, 4, True)))


@runs
def test_a_negative_place_gives_nan_and_no_gradient():
    restore = torch.tensor([[1, -1, 0, 2]], device=DEVICE)
    result = restore_tokens.forward(
        randn(1, 2, 3, device=DEVICE), restore, torch.ones(3, device=DEVICE), torch.ones(4, 3, device=DEVICE)
    )
    assert torch.equal(result.isnan()[0, :, 0], torch.tensor([False, True, False, False], device=DEVICE))
    grad = randn(1, 4, 3, device=DEVICE)
    dvisible, dmask_token, _ = restore_tokens.backward(grad, restore, 2, True)
    assert torch.equal(dvisible, grad[:, [2, 0]])
    assert torch.equal(dmask_token, grad[0, 3])


# --- all of them ---


@runs
def test_same_input_same_bits():
    keep, restore, _ = patch_mask(5, 12, 5, DEVICE)
    tokens, patches = randn(5, 12, 40, device=DEVICE), randn(5, 5, 48, device=DEVICE)

    def everything():
        yield gather_tokens.backward(tokens[:, :5], keep, 12)
        yield gather_patches.backward(patches, keep, 3, 12, 16, 4, SCALE, torch.bfloat16)
        yield from restore_tokens.backward(tokens, restore, 5, True)

    assert all(map(torch.equal, everything(), everything()))


@compiles
@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("size", "p"), [(224, 16), (224, 14), (96, 8)])
def test_real_sizes(size, p, dtype):
    n = (size // p) ** 2
    check_gather_tokens(256, n, n // 4, 768, dtype)
    check_gather_patches(64, 3, size, size, p, n // 4, dtype)
    check_restore(300, n, n // 4, 512, dtype, torch.float32)


@compiles
@pytest.mark.gpu
def test_offsets_beyond_32_bits():
    if torch.cuda.mem_get_info()[0] < 2**34:
        pytest.skip("needs 16 GiB of GPU memory")
    n, d = 2**21 + 2, 1024
    tokens = torch.zeros(1, n, d, dtype=torch.bfloat16, device="cuda")
    tokens[0, -1] = 1
    keep = torch.tensor([[n - 1]], device="cuda")
    rows_of = gather_tokens.forward(tokens, keep)
    assert (rows_of == 1).all()
    assert torch.equal(gather_tokens.backward(rows_of, keep, n), tokens)
    images = tokens.view(-1, 2**22).T.contiguous().T.view(torch.uint8).view(1, 1, -1, 2**23)[:, :, :512]
    patches = gather_patches.forward(images, torch.tensor([[2**19 * 31]], device="cuda"), 16, [], [], torch.float32)
    assert torch.equal(patches[0, 0].view(16, 16), images[0, 0, -16:, :16].float())


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)
