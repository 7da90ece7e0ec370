"""sslfast.compat.mae, and the ops of a masked autoencoder inside Hugging Face's `ViTMAEForPreTraining`."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import transformers
from torch import Tensor, nn

from sslfast import ops
from sslfast.compat.mae import random_masking

PATCH = 4


# --- facebookresearch/mae ---


def theirs(x: Tensor, mask_ratio: float, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`MaskedAutoencoderViT.random_masking` of facebookresearch/mae, the noise given."""
    n, length, d = x.shape
    len_keep = int(length * (1 - mask_ratio))
    ids_shuffle = torch.argsort(noise, dim=1)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    x_masked = torch.gather(x, dim=1, index=ids_shuffle[:, :len_keep].unsqueeze(-1).repeat(1, 1, d))
    mask = torch.ones([n, length], device=x.device)
    mask[:, :len_keep] = 0
    return x_masked, torch.gather(mask, dim=1, index=ids_restore), ids_restore


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.75, 0.9])
def test_random_masking_is_that_of_facebookresearch(ratio, dtype, device):
    torch.manual_seed(0)
    noise = torch.rand(3, 49).to(device)
    results = []
    for masking in (theirs, random_masking):
        x = torch.arange(3 * 49 * 8.0).reshape(3, 49, 8).to(device, dtype).requires_grad_()
        x_masked, mask, ids_restore = masking(x, ratio, noise=noise)
        x_masked.square().sum().backward()
        results.append((x_masked.detach(), mask, ids_restore, x.grad))
    for expected, actual in zip(*results):
        assert actual.dtype == expected.dtype
        assert torch.equal(actual, expected)


def test_random_masking_draws_its_noise(device):
    x = torch.randn(2, 16, 3, device=device)
    torch.manual_seed(1)
    x_masked, mask, ids_restore = random_masking(x, 0.75)
    assert torch.equal(
        ops.restore_tokens(x_masked, ids_restore, torch.zeros(3, device=device)), x * (1 - mask)[..., None]
    )
    assert not torch.equal(random_masking(x, 0.75)[2], ids_restore)
    torch.manual_seed(1)
    assert torch.equal(random_masking(x, 0.75)[2], ids_restore)


def test_random_masking_names_bad_arguments():
    with pytest.raises(ValueError, match=r"random_masking: x must be \(N, L, D\) and not empty, got shape \(4, 3\)"):
        random_masking(torch.ones(4, 3), 0.5)
    with pytest.raises(ValueError, match=r"mask_ratio must be in \[0, 1\)"):
        random_masking(torch.ones(2, 4, 3), 1.0)
    with pytest.raises(ValueError, match=r"noise must have shape \(2, 4\)"):
        random_masking(torch.ones(2, 4, 3), 0.5, noise=torch.ones(2, 3))


# --- Hugging Face ---


class Pass(NamedTuple):
    """What a forward pass of `ViTMAEForPreTraining` shows."""

    output: object  # loss, logits, mask, ids_restore
    embedded: Tensor  # (B, 1 + K, D) of the decoder: class token and visible tokens
    decoder_input: Tensor  # (B, 1 + L, D)


def vit_mae(device: str, norm_pix: bool) -> nn.Module:
    """A tiny one with random weights, positions of the decoder included."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    sizes |= {f"decoder_{name}": size for name, size in sizes.items()}
    config = transformers.ViTMAEConfig(
        **sizes, image_size=6 * PATCH, patch_size=PATCH, mask_ratio=0.75, norm_pix_loss=norm_pix
    )
    model = transformers.ViTMAEForPreTraining(config)
    model.decoder.mask_token.data.normal_()
    model.decoder.decoder_pos_embed.data.normal_()
    return model.to(device)


def inputs(device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(3, 3, 6 * PATCH, 6 * PATCH, generator=generator)
    return pixels.to(device), torch.rand(3, 36, generator=generator).to(device)


def driven(model: nn.Module, pixels: Tensor, noise: Tensor) -> Pass:
    seen = {}
    decoder = model.decoder
    handles = [
        decoder.decoder_embed.register_forward_hook(lambda module, args, output: seen.update(embedded=output)),
        decoder.decoder_layers[0].register_forward_pre_hook(lambda module, args: seen.update(decoder_input=args[0])),
    ]
    output = model(pixels, noise=noise)
    for handle in handles:
        handle.remove()
    return Pass(output, **seen)


def test_same_mask_and_order_as_hugging_face(device):
    pixels, noise = inputs(device)
    output = driven(vit_mae(device, norm_pix=True), pixels, noise).output
    drawn = ops.random_patch_mask(3, 36, 0.75, noise=noise)
    assert torch.equal(drawn.mask.float(), output.mask)
    assert torch.equal(drawn.restore, output.ids_restore)


def test_same_decoder_input_as_hugging_face(device):
    model = vit_mae(device, norm_pix=True)
    seen = driven(model, *inputs(device))
    decoder = model.decoder
    restored = ops.restore_tokens(
        seen.embedded[:, 1:], seen.output.ids_restore, decoder.mask_token, decoder.decoder_pos_embed[:, 1:]
    )
    expected = seen.decoder_input[:, 1:]
    assert torch.equal(restored, expected)
    grad = torch.randn_like(expected)
    leaves = (seen.embedded, decoder.mask_token)
    gradients = [torch.autograd.grad(x, leaves, grad, retain_graph=True) for x in (restored, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_same_loss_as_hugging_face(norm_pix, device):
    pixels, noise = inputs(device)
    output = driven(vit_mae(device, norm_pix), pixels, noise).output
    loss = ops.masked_patch_loss(output.logits, pixels, output.mask.bool(), PATCH, norm_pix=norm_pix)
    torch.testing.assert_close(loss, output.loss)
    actual, expected = (torch.autograd.grad(x, output.logits, retain_graph=True)[0] for x in (loss, output.loss))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-9)


def test_same_embedding_of_the_visible_patches_as_hugging_face(device):
    pixels, noise = inputs(device)
    embeddings = vit_mae(device, norm_pix=True).vit.embeddings
    projection, positions = embeddings.patch_embeddings.projection, embeddings.position_embeddings[:, 1:]
    keep = ops.random_patch_mask(3, 36, 0.75, noise=noise).keep
    weight = projection.weight.permute(0, 2, 3, 1).flatten(1)
    visible = nn.functional.linear(ops.gather_patches(pixels, keep, PATCH), weight, projection.bias)
    visible = visible + ops.gather_tokens(positions.expand(3, -1, -1), keep)
    torch.testing.assert_close(visible, embeddings(pixels, noise=noise)[0][:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_same_gradients_of_a_whole_model_as_hugging_face(norm_pix, device):
    """The masking and the loss replaced by ours."""
    pixels, noise = inputs(device)
    model = vit_mae(device, norm_pix)
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(model(pixels, noise=noise).loss, parameters)
    model.vit.embeddings.random_masking = lambda x, noise: random_masking(x, model.config.mask_ratio, noise=noise)
    output = model(pixels, noise=noise)
    loss = ops.masked_patch_loss(output.logits, pixels, output.mask.bool(), PATCH, norm_pix=norm_pix)
    for actual, wanted in zip(torch.autograd.grad(loss, parameters), expected):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-6)
