from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from train.toys import assert_resumes_exactly
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from sslfast.methods import MAE
from sslfast.models import build_backbone, encode_visible
from sslfast.ops import random_patch_mask
from sslfast.recipes import RECIPES
from sslfast.train.optim import parameter_groups

CONFIG = MAE.Config(
    data="photos", image_size=32, backbone="vit_micro_patch8", decoder_width=32, decoder_depth=2, decoder_heads=2
)
IMAGES = torch.randint(0, 256, (4, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build(channels: int = 3, **changes: object) -> MAE:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)
    return MAE(build_backbone(config.backbone, in_channels=channels, image_size=config.image_size), config)


def batch(method: MAE, seed: int = 1) -> tuple[Tensor, Tensor]:
    return method.views(IMAGES, torch.Generator().manual_seed(seed))


def test_views_are_a_crop_and_the_noise_of_the_mask_from_the_generator_alone() -> None:
    method = build()
    view, noise = batch(method)
    torch.rand(5)  # the global generator plays no part
    again = batch(method)
    assert view.shape == (4, 3, 32, 32)
    assert noise.shape == (4, 16)
    assert torch.equal(view, again[0])
    assert torch.equal(noise, again[1])
    assert not torch.equal(noise, batch(method, 2)[1])


def plain_loss(method: MAE, images: Tensor, noise: Tensor) -> Tensor:
    """The paper's loss with timm's own patch embedding, of all patches, and argsort."""
    vit, decoder, p = method.backbone, method.decoder, method.patch_size
    order = noise.argsort(dim=1)
    restore, kept = order.argsort(dim=1), noise.shape[1] // 4
    tokens = vit.patch_embed(images) + vit.pos_embed[:, 1:]
    tokens = torch.stack([row[index] for row, index in zip(tokens, order[:, :kept])])
    cls = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(images), -1, -1)
    x = decoder.embed(vit.norm(vit.blocks(torch.cat([cls, tokens], dim=1))))
    filled = torch.cat([x[:, 1:], decoder.mask_token.expand(len(x), noise.shape[1] - kept, -1)], dim=1)
    patches = torch.stack([row[index] for row, index in zip(filled, restore)]) + decoder.positions
    pred = decoder.predict(decoder.norm(decoder.blocks(torch.cat([x[:, :1], patches], dim=1))))[:, 1:]
    target = F.unfold(images, p, stride=p).unflatten(1, (-1, p * p)).permute(0, 3, 2, 1).flatten(2)
    target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    return (pred - target).square().mean(2)[restore >= kept].mean()


def test_loss_and_gradients_are_those_of_a_plain_spelling() -> None:
    method = build()
    images, noise = batch(method)
    method(batch(method))["loss"].backward()
    found = {name: p.grad.clone() for name, p in method.named_parameters() if p.requires_grad}
    method.zero_grad()
    loss = plain_loss(method, images, noise)
    loss.backward()
    assert method((images, noise))["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


NAMES = {
    "backbone.blocks": "vit.layers", "decoder.blocks": "decoder.decoder_layers", "attn.proj": "attention.o_proj",
    "norm1": "layernorm_before", "norm2": "layernorm_after", "backbone.norm": "vit.layernorm",
    "backbone.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "backbone.cls_token": "vit.embeddings.cls_token", "backbone.pos_embed": "vit.embeddings.position_embeddings",
    "decoder.embed": "decoder.decoder_embed", "decoder.norm": "decoder.decoder_norm",
    "decoder.predict": "decoder.decoder_pred",
}  # fmt: skip


def in_transformers(method: MAE) -> dict[str, Tensor]:
    """The method's weights by the names that ViTMAEForPreTraining gives them."""
    positions = F.pad(method.decoder.positions, (0, 0, 1, 0))[None]  # the class token's is zero
    weights = {"decoder.decoder_pos_embed": positions, "decoder.mask_token": method.decoder.mask_token[None, None]}
    for name, tensor in method.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        if "attn.qkv" in name:
            weights |= {name.replace("attn.qkv", f"attention.{k}_proj"): t for k, t in zip("qkv", tensor.chunk(3))}
        else:
            weights.setdefault(name, tensor)
    return weights


def test_loss_is_that_of_transformers_with_the_same_weights_and_noise() -> None:
    method = build().eval()
    theirs = ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, layer_norm_eps=1e-6,
            image_size=32, patch_size=8, decoder_hidden_size=32, decoder_num_hidden_layers=2, norm_pix_loss=True,
            decoder_num_attention_heads=2, decoder_intermediate_size=128, mask_ratio=0.75,
        )
    ).eval()  # fmt: skip
    theirs.load_state_dict(in_transformers(method))
    images, noise = batch(method)
    with torch.no_grad():
        loss = theirs(images, noise=noise).loss
        assert method((images, noise))["loss"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_every_trained_parameter_gets_a_gradient_and_positions_are_fixed() -> None:
    method = build()
    method(batch(method))["loss"].backward()
    frozen = {name for name, p in method.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.pos_embed"}
    for name, parameter in method.named_parameters():
        if name not in frozen:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_masked_patches_do_not_reach_the_encoder_and_visible_ones_not_the_loss() -> None:
    method = build().eval()
    images, noise = batch(method)
    keep, _, mask = random_patch_mask(*noise.shape, 0.75, noise=noise)
    pixels = mask.unflatten(1, (4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]  # (B, 1, 32, 32)
    other = torch.where(pixels, torch.rand_like(images), images)
    with torch.no_grad():
        tokens = encode_visible(method.backbone, images, keep)
        assert tokens.shape == (4, 1 + 4, 128)
        assert torch.equal(tokens, encode_visible(method.backbone, other, keep))
        assert method((images, noise))["loss"] != method((other, noise))["loss"]
        nothing_hidden = torch.arange(16).expand(4, -1)
        whole = method.backbone.forward_features(images)
        torch.testing.assert_close(encode_visible(method.backbone, images, nothing_hidden), whole)


def test_three_quarters_are_hidden_whatever_the_noise() -> None:
    _, noise = batch(build())
    mask = random_patch_mask(*noise.shape, CONFIG.mask_ratio, noise=noise).mask
    assert (mask.sum(dim=1) == 12).all()
    assert len(mask.unique(dim=0)) == 4


def test_norms_biases_positions_and_tokens_are_not_decayed() -> None:
    groups = parameter_groups(build(), 0.05)
    plain = {name for group in groups if group["weight_decay"] == 0 for name in group["names"]}
    decayed = {name for group in groups if group["weight_decay"] for name in group["names"]}
    assert {"backbone.cls_token", "decoder.mask_token", "decoder.norm.weight", "backbone.norm.bias"} <= plain
    assert {"backbone.patch_embed.proj.weight", "decoder.predict.weight", "decoder.embed.weight"} <= decayed
    assert all(name.endswith("weight") for name in decayed)


def test_half_precision_keeps_the_loss() -> None:
    method = build()
    views = batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(views)
    assert output["loss"].dtype == torch.float32
    assert output["loss"].item() == pytest.approx(method(views)["loss"].item(), rel=0.02)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_illustration_keeps_the_visible_patches_and_is_exact_for_a_perfect_decoder(norm_pix: bool) -> None:
    method = build(norm_pix=norm_pix).eval()
    view, noise = batch(method)
    p = method.patch_size
    target = F.unfold(view, p, stride=p).unflatten(1, (-1, p * p)).permute(0, 3, 2, 1).flatten(2)
    if norm_pix:
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    method.decoder.forward = lambda tokens, restore: target
    rows = method.illustrate(IMAGES, torch.Generator().manual_seed(1))
    assert len(rows) == 4
    mean, std = (torch.tensor(values)[:, None, None] for values in (method.mean, method.std))
    mask = random_patch_mask(*noise.shape, 0.75, noise=noise).mask.unflatten(1, (4, 4))
    for k, (seen, painted, whole) in enumerate(rows):
        assert [seen.caption, painted.caption, whole.caption] == ["75% masked", "reconstruction", "original"]
        torch.testing.assert_close(whole.content, (view[k] * std + mean).clamp(0, 1))
        torch.testing.assert_close(painted.content, whole.content, rtol=0, atol=1e-4)
        visible = ~mask[k].repeat_interleave(p, 0).repeat_interleave(p, 1)
        assert torch.equal(seen.content[:, visible], whole.content[:, visible])
        assert torch.allclose(seen.content[:, ~visible], mean[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("mask_ratio", {"mask_ratio": 1.0}),
        ("mask_ratio", {"mask_ratio": 0.0}),
        ("decoder_width", {"decoder_width": 33}),
        ("decoder_width", {"decoder_heads": 3}),
        ("decoder_depth", {"decoder_depth": 0}),
    ],
)
def test_wrong_configuration_is_named(field: str, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("backbone", {"backbone": "resnet20"}),
        ("image_size", {"backbone": "vit_tiny_patch16_224", "image_size": 40}),
        ("mask_ratio", {"mask_ratio": 0.95}),  # none of 16 visible
        ("mask_ratio", {"mask_ratio": 0.01, "backbone": "vit_micro_patch32"}),
    ],
)
def test_what_does_not_fit_the_network_is_named(argument: str, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=argument):
        build(**changes)


def test_a_transformer_without_class_token_is_refused() -> None:
    options = {"img_size": 32, "num_classes": 0, "class_token": False, "global_pool": "avg", "depth": 1}
    with pytest.raises(ValueError, match="with a class token"):
        MAE(timm.create_model("vit_tiny_patch16_224", **options), CONFIG)


def test_a_hybrid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone must be .* of patches of pixels .*got vit_tiny_r_s16_p8_224"):
        build(backbone="vit_tiny_r_s16_p8_224", image_size=64)


TRAINED = dataclasses.replace(
    RECIPES["mae"].config, backbone="vit_micro_patch8", image_size=16, decoder_width=32, decoder_heads=2, epochs=1,
    batch_size=100, warmup_epochs=0.1, learning_rate=2e-3, log_every=1, knn_every=0, accelerator="cpu", workers=0,
)  # fmt: skip


def test_an_interrupted_run_has_the_bits_of_a_whole_one_and_learns(tmp_path: Path) -> None:
    assert_resumes_exactly(TRAINED, tmp_path, step=7)  # of 24
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("mae")])
def test_recipes_fit_their_networks(name: str) -> None:
    config = RECIPES[name].config
    with torch.device("meta"):
        backbone = build_backbone(config.backbone, in_channels=1, image_size=config.image_size)
        assert isinstance(MAE(backbone, config), MAE)
