"""Differentiable fused ops: checked arguments, one dispatcher entry each, CPU and GPU kernels behind."""

from sslfast.ops.augment import augment
from sslfast.ops.clip_loss import clip_loss
from sslfast.ops.ema import ema_update_
from sslfast.ops.gather_patches import gather_patches
from sslfast.ops.gather_tokens import gather_tokens
from sslfast.ops.info_nce import info_nce
from sslfast.ops.masked_patch_loss import masked_patch_loss
from sslfast.ops.negative_cosine_similarity import negative_cosine_similarity
from sslfast.ops.nt_xent import nt_xent
from sslfast.ops.nt_xent_views import nt_xent_views
from sslfast.ops.random_patch_mask import PatchMask, random_patch_mask
from sslfast.ops.restore_tokens import restore_tokens
from sslfast.ops.siglip_loss import siglip_loss
from sslfast.ops.sup_con import sup_con

__all__ = [
    "PatchMask",
    "augment",
    "clip_loss",
    "ema_update_",
    "gather_patches",
    "gather_tokens",
    "info_nce",
    "masked_patch_loss",
    "negative_cosine_similarity",
    "nt_xent",
    "nt_xent_views",
    "random_patch_mask",
    "restore_tokens",
    "siglip_loss",
    "sup_con",
]
