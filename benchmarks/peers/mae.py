"""The steps of a masked autoencoder, as facebookresearch/mae and the libraries after it compute them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cases.mae import KEEP, PATCH
from benchmarks.peers.make import Peer, compiled, plain, sslfast
from sslfast import ops
from sslfast.kernels import reference_mae as reference

RATIO = 1 - KEEP
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# --- the mask, and the visible tokens ---


def mask_eager(noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, patches = noise.shape
    kept = int(patches * KEEP)
    order = torch.argsort(noise, dim=1)
    restore = torch.argsort(order, dim=1)
    mask = torch.ones(batch, patches, device=noise.device)
    mask[:, :kept] = 0
    return order[:, :kept], restore, torch.gather(mask, 1, restore)


def mask_sslfast(noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    drawn = ops.random_patch_mask(*noise.shape, RATIO, noise=noise)
    return drawn.keep, drawn.restore, drawn.mask


def gather_eager(tokens: Tensor, keep: Tensor) -> Tensor:
    return torch.gather(tokens, 1, keep[:, :, None].repeat(1, 1, tokens.shape[2]))


def gather_lightly(inputs: dict[str, Tensor]) -> Peer:
    from lightly.models.utils import get_at_index

    return get_at_index


def masking_eager(tokens: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    keep, restore, mask = mask_eager(noise)
    return gather_eager(tokens, keep), mask, restore


def masking_hugging_face(inputs: dict[str, Tensor]) -> Peer:
    from transformers import ViTMAEConfig
    from transformers.models.vit_mae.modeling_vit_mae import ViTMAEEmbeddings

    return ViTMAEEmbeddings(ViTMAEConfig(hidden_size=16, mask_ratio=RATIO)).random_masking


def masking_sslfast(tokens: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    keep, restore, mask = mask_sslfast(noise)
    return ops.gather_tokens(tokens, keep), mask, restore


# --- the decoder's input ---


def restore_eager(visible: Tensor, restore: Tensor, keep: Tensor, mask_token: Tensor, pos_embed: Tensor) -> Tensor:
    batch, patches = restore.shape
    masked = mask_token.repeat(batch, patches - visible.shape[1], 1)
    return gather_eager(torch.cat([visible, masked], dim=1), restore) + pos_embed


def restore_lightly(inputs: dict[str, Tensor]) -> Peer:
    from lightly.models.utils import repeat_token, set_at_index

    def peer(visible: Tensor, restore: Tensor, keep: Tensor, mask_token: Tensor, pos_embed: Tensor) -> Tensor:
        return set_at_index(repeat_token(mask_token[None, None], restore.shape), keep, visible) + pos_embed

    return peer


# --- the loss ---


def patchify(images: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    blocks = images.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return torch.einsum("nchpwq->nhwpqc", blocks).reshape(batch, -1, PATCH * PATCH * channels)


def to_unit(images: Tensor) -> Tensor:
    return images / 255 if images.dtype == torch.uint8 else images


def loss_eager(pred: Tensor, images: Tensor, mask: Tensor, masked: Tensor) -> Tensor:
    target = patchify(to_unit(images))
    mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
    target = (target - mean) / (variance + 1e-6) ** 0.5
    loss = ((pred - target) ** 2).mean(dim=-1)
    return (loss * mask).sum() / mask.sum()


def loss_lightly(inputs: dict[str, Tensor]) -> Peer:
    from lightly.models import utils

    def peer(pred: Tensor, images: Tensor, mask: Tensor, masked: Tensor) -> Tensor:
        target = utils.get_at_index(utils.patchify(to_unit(images), PATCH), masked)
        return F.mse_loss(utils.get_at_index(pred, masked), utils.normalize_mean_var(target, dim=-1))

    return peer


def loss_hugging_face(inputs: dict[str, Tensor]) -> Peer:
    """`ViTMAEForPreTraining` with an encoder and a decoder that give what is given to them."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining
    from transformers.models.vit_mae.modeling_vit_mae import ViTMAEDecoderOutput, ViTMAEModelOutput

    class Given(nn.Module):
        def forward(self, *_: object, **__: object) -> object:
            return self.output

    small = {"hidden_size": 16, "num_hidden_layers": 0, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 0}
    model = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True, patch_size=PATCH, **small))
    model.vit, model.decoder = Given(), Given()

    def peer(pred: Tensor, images: Tensor, mask: Tensor, masked: Tensor) -> Tensor:
        model.vit.output, model.decoder.output = ViTMAEModelOutput(mask=mask), ViTMAEDecoderOutput(logits=pred)
        return model(to_unit(images)).loss

    return peer


# --- the patches of an image, and their embedding ---


def patches_eager(images: Tensor, keep: Tensor) -> Tensor:
    mean, std = (torch.tensor(x, device=images.device)[:, None, None] for x in (MEAN, STD))
    return gather_eager(patchify((images / 255 - mean) / std), keep)


def embed_eager(images: Tensor, keep: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return gather_eager(F.conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2), keep)


def embed_timm(inputs: dict[str, Tensor]) -> Peer:
    from timm.layers import PatchEmbed

    size, dim = inputs["images"].shape[-1], len(inputs["bias"])
    module = PatchEmbed(img_size=size, patch_size=PATCH, embed_dim=dim).to(inputs["images"].device)

    def peer(images: Tensor, keep: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        tokens = torch.func.functional_call(module, {"proj.weight": weight, "proj.bias": bias}, (images,))
        return gather_eager(tokens, keep)

    return peer


def embed_sslfast(images: Tensor, keep: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(ops.gather_patches(images, keep, PATCH), rows(weight), bias)


def rows(weight: Tensor) -> Tensor:
    """Of a convolution (D, C, P, P) -> (D, P·P·C), elements in the order (row, column, channel)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


# --- the gate ---


def loss_exact(pred: Tensor, images: Tensor, mask: Tensor, masked: Tensor) -> Tensor:
    scale, offset = ([1 / 255] * 3, [0.0] * 3) if images.dtype == torch.uint8 else ([], [])
    return reference.masked_patch_loss_forward(pred, images.double(), mask, PATCH, True, scale, offset)[0]


def mask_exact(noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return reference.random_patch_mask_from_noise(noise, int(noise.shape[1] * KEEP))


def masking_exact(tokens: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    keep, restore, mask = mask_exact(noise)
    return reference.gather_tokens_forward(tokens, keep), mask, restore


def restore_exact(visible: Tensor, restore: Tensor, keep: Tensor, mask_token: Tensor, pos_embed: Tensor) -> Tensor:
    return reference.restore_tokens_forward(visible, restore, mask_token, pos_embed)


def patches_exact(images: Tensor, keep: Tensor) -> Tensor:
    scale, offset = [1 / (255 * s) for s in STD], [-m / s for m, s in zip(MEAN, STD)]
    return reference.gather_patches_forward(images.double(), keep, PATCH, scale, offset, torch.float64)


def embed_exact(images: Tensor, keep: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(reference.gather_patches_forward(images, keep, PATCH, [], [], images.dtype), rows(weight), bias)


EXACT = {
    "random_patch_mask": mask_exact,
    "masking": masking_exact,
    "gather_tokens": reference.gather_tokens_forward,
    "restore_tokens": restore_exact,
    "masked_patch_loss": loss_exact,
    "gather_patches": patches_exact,
    "patch_embed": embed_exact,
}
PEERS = {
    "random_patch_mask": {
        "eager": plain(mask_eager),
        "torch.compile": compiled(mask_eager),
        "sslfast": sslfast(mask_sslfast, "random_patch_mask"),
    },
    "masking": {
        "eager": plain(masking_eager),
        "torch.compile": compiled(masking_eager),
        "Hugging Face": masking_hugging_face,
        "sslfast": sslfast(masking_sslfast, "random_patch_mask", "gather_tokens"),
    },
    "gather_tokens": {
        "eager": plain(gather_eager),
        "torch.compile": compiled(gather_eager),
        "lightly": gather_lightly,
        "sslfast": sslfast(lambda tokens, keep: ops.gather_tokens(tokens, keep), "gather_tokens"),
    },
    "restore_tokens": {
        "eager": plain(restore_eager),
        "torch.compile": compiled(restore_eager),
        "lightly": restore_lightly,
        "sslfast": sslfast(
            lambda visible, restore, keep, mask_token, pos_embed: ops.restore_tokens(
                visible, restore, mask_token, pos_embed
            ),
            "restore_tokens",
        ),
    },
    "masked_patch_loss": {
        "eager": plain(loss_eager),
        "torch.compile": compiled(loss_eager),
        "lightly": loss_lightly,
        "Hugging Face": loss_hugging_face,
        "sslfast": sslfast(
            lambda pred, images, mask, masked: ops.masked_patch_loss(pred, images, mask, PATCH), "masked_patch_loss"
        ),
    },
    "gather_patches": {
        "eager": plain(patches_eager),
        "torch.compile": compiled(patches_eager),
        "sslfast": sslfast(
            lambda images, keep: ops.gather_patches(images, keep, PATCH, mean=MEAN, std=STD), "gather_patches"
        ),
    },
    "patch_embed": {
        "eager": plain(embed_eager),
        "torch.compile": compiled(embed_eager),
        "timm": embed_timm,
        "sslfast": sslfast(embed_sslfast, "gather_patches"),
    },
}
