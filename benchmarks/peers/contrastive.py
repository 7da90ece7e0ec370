"""The contrastive losses and SimSiam's, as people compute them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.make import Peer, compiled, plain, sslfast
from sslfast import ops
from sslfast.kernels import reference, reference_image_text, reference_sup_con

NT_XENT_TEMPERATURE = 0.5
INFO_NCE_TEMPERATURE = 0.07
SUP_CON_TEMPERATURE = 0.1


# --- nt_xent ---


def nt_xent_eager(z1: Tensor, z2: Tensor) -> Tensor:
    u = F.normalize(torch.cat([z1, z2]))
    similarity = (u @ u.T / NT_XENT_TEMPERATURE).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(u), device=u.device).roll(len(z1))
    return F.cross_entropy(similarity, partner)


def nt_xent_lightly(inputs: dict[str, Tensor]) -> Peer:
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=NT_XENT_TEMPERATURE)


def nt_xent_views_eager(z: Tensor) -> Tensor:
    """Every view with each other view of its image, against the views of the other images."""
    views, n, _ = z.shape
    u = F.normalize(z, dim=2).flatten(0, 1)
    similarity = u @ u.T / NT_XENT_TEMPERATURE
    image = torch.arange(n, device=u.device).repeat(views)
    alike = image[:, None] == image
    negatives = similarity.masked_fill(alike, -torch.inf).logsumexp(dim=1, keepdim=True)
    others = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
    positives = similarity[alike & others].view(views * n, views - 1)
    return F.softplus(negatives - positives).mean()


# --- info_nce ---


def info_nce_logits(query: Tensor, key: Tensor, queue: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits and the index of the positive in each row, the first with a queue, else the diagonal."""
    q, k = F.normalize(query), F.normalize(key)
    if queue is None:
        return q @ k.T / INFO_NCE_TEMPERATURE, torch.arange(len(q), device=q.device)
    positive = torch.einsum("nd,nd->n", q, k)[:, None]
    logits = torch.cat([positive, q @ queue.T], dim=1) / INFO_NCE_TEMPERATURE
    return logits, torch.zeros(len(q), dtype=torch.int64, device=q.device)


def info_nce_eager(query: Tensor, key: Tensor, queue: Tensor | None = None) -> Tensor:
    return F.cross_entropy(*info_nce_logits(query, key, queue))


def info_nce_lightly(inputs: dict[str, Tensor]) -> Peer | None:
    """With its memory bank, which also stores the keys at every call; without one its negatives are all 2N views."""
    if "queue" not in inputs:
        return None
    from lightly.loss import NTXentLoss

    queue = inputs["queue"]
    loss = NTXentLoss(temperature=INFO_NCE_TEMPERATURE, memory_bank_size=tuple(queue.shape)).to(queue.device)
    loss.memory_bank.bank = queue.clone()
    return lambda query, key, queue: loss(query, key)


def info_nce_inf_cl(inputs: dict[str, Tensor]) -> Peer | None:
    """Its flash kernels take normalised float32 rows with D = 16, 32, …, 256, and as many keys."""
    if "queue" in inputs or not inputs["query"].is_cuda or len(inputs["query"]) != len(inputs["key"]):
        return None
    from inf_cl import cal_flash_loss

    def peer(query: Tensor, key: Tensor) -> Tensor:
        q, k = F.normalize(query.float()), F.normalize(key.float())
        return cal_flash_loss(q, k, scale=1 / INFO_NCE_TEMPERATURE, head_dim=q.shape[1]).mean()

    return peer


def info_nce_liger(inputs: dict[str, Tensor]) -> Peer | None:
    """Keys of the batch are the classes of its fused linear cross entropy; with a queue, its loss is given logits."""
    if not inputs["query"].is_cuda:
        return None
    from liger_kernel.transformers import LigerCrossEntropyLoss, LigerFusedLinearCrossEntropyLoss

    if "queue" in inputs:
        loss = LigerCrossEntropyLoss()
        return lambda query, key, queue: loss(*info_nce_logits(query, key, queue))
    fused = LigerFusedLinearCrossEntropyLoss()

    def peer(query: Tensor, key: Tensor) -> Tensor:
        q, k = F.normalize(query) / INFO_NCE_TEMPERATURE, F.normalize(key)
        return fused(k.to(query.dtype), q.to(query.dtype), torch.arange(len(q), device=q.device))

    return peer


def info_nce_sentence_transformers(inputs: dict[str, Tensor]) -> Peer | None:
    """Its columns are the anchors, the positives, and one of hard negatives."""
    if "queue" in inputs or len(inputs["key"]) != 2 * len(inputs["query"]):
        return None
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(torch.nn.Module(), scale=1 / INFO_NCE_TEMPERATURE)
    return lambda query, key: loss.compute_loss_from_embeddings([query, *key.chunk(2)], None)


# --- clip_loss ---


def clip_loss_eager(image: Tensor, text: Tensor) -> Tensor:
    logits = F.normalize(image) @ F.normalize(text).T / INFO_NCE_TEMPERATURE
    own = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def clip_loss_open_clip(inputs: dict[str, Tensor]) -> Peer:
    """Its model normalises the rows."""
    from open_clip.loss import ClipLoss

    loss = ClipLoss(cache_labels=True)
    return lambda image, text: loss(F.normalize(image), F.normalize(text), 1 / INFO_NCE_TEMPERATURE)


# --- siglip_loss ---


def siglip_loss_eager(image: Tensor, text: Tensor, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    logits = logit_scale * F.normalize(image) @ F.normalize(text).T + logit_bias
    labels = 2 * torch.eye(len(image), device=image.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(labels * logits).sum() / len(image)


def siglip_loss_open_clip(inputs: dict[str, Tensor]) -> Peer:
    """Its model normalises the rows."""
    from open_clip.loss import SigLipLoss

    loss = SigLipLoss()
    return lambda image, text, scale, bias: loss(F.normalize(image), F.normalize(text), scale, bias)


def siglip_loss_siglip_kernel(inputs: dict[str, Tensor]) -> Peer | None:
    """Its kernels are Triton's, and take unit rows and the logarithm of the scale."""
    if not inputs["image"].is_cuda:
        return None
    from siglip_kernel import fused_siglip_loss

    return lambda image, text, scale, bias: fused_siglip_loss(F.normalize(image), F.normalize(text), scale.log(), bias)


# --- sup_con ---


def sup_con_eager(z: Tensor, labels: Tensor) -> Tensor:
    """SupContrast's steps, with contrast_mode "all" and a base temperature equal to the temperature."""
    u = F.normalize(z)
    logits = u @ u.T / SUP_CON_TEMPERATURE
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    others = 1 - torch.eye(len(u), dtype=u.dtype, device=u.device)
    positives = (labels[:, None] == labels) * others
    log_p = logits - (logits.exp() * others).sum(dim=1, keepdim=True).log()
    count = positives.sum(dim=1)
    count = torch.where(count < 1e-6, 1, count)
    return -((positives * log_p).sum(dim=1) / count).mean()


def sup_con_pytorch_metric_learning(inputs: dict[str, Tensor]) -> Peer | None:
    """It holds some ten matrices of pairs: no more than 2048 rows are asked of it."""
    if len(inputs["z"]) > 2048:
        return None
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=SUP_CON_TEMPERATURE)


# --- negative_cosine_similarity ---


def cosine_eager(p: Tensor, z: Tensor) -> Tensor:
    return -F.cosine_similarity(p, z).mean()


def cosine_lightly(inputs: dict[str, Tensor]) -> Peer:
    from lightly.loss import NegativeCosineSimilarity

    return NegativeCosineSimilarity()


EXACT = {
    "nt_xent": lambda z1, z2: reference.nt_xent(z1, z2, NT_XENT_TEMPERATURE),
    "nt_xent_views": lambda z: reference.nt_xent_views(z, NT_XENT_TEMPERATURE),
    "info_nce": lambda query, key, queue=None: reference.info_nce(query, key, queue, INFO_NCE_TEMPERATURE),
    "clip_loss": lambda image, text: reference_image_text.clip_loss(image, text, INFO_NCE_TEMPERATURE),
    "siglip_loss": reference_image_text.siglip_loss,
    "sup_con": lambda z, labels: reference_sup_con.sup_con(z, labels, SUP_CON_TEMPERATURE),
    "negative_cosine_similarity": reference.negative_cosine_similarity,
}
PEERS = {
    "nt_xent": {
        "eager": plain(nt_xent_eager),
        "torch.compile": compiled(nt_xent_eager),
        "lightly": nt_xent_lightly,
        "sslfast": sslfast(lambda z1, z2: ops.nt_xent(z1, z2, NT_XENT_TEMPERATURE), "nt_xent"),
    },
    "nt_xent_views": {
        "eager": plain(nt_xent_views_eager),
        "torch.compile": compiled(nt_xent_views_eager),
        "sslfast": sslfast(lambda z: ops.nt_xent_views(z, NT_XENT_TEMPERATURE), "nt_xent_views"),
    },
    "info_nce": {
        "eager": plain(info_nce_eager),
        "torch.compile": compiled(info_nce_eager),
        "lightly": info_nce_lightly,
        "Inf-CL": info_nce_inf_cl,
        "Liger": info_nce_liger,
        "sentence-transformers": info_nce_sentence_transformers,
        "sslfast": sslfast(
            lambda query, key, queue=None: ops.info_nce(query, key, queue, INFO_NCE_TEMPERATURE), "info_nce"
        ),
    },
    "clip_loss": {
        "eager": plain(clip_loss_eager),
        "torch.compile": compiled(clip_loss_eager),
        "open_clip": clip_loss_open_clip,
        "sslfast": sslfast(lambda image, text: ops.clip_loss(image, text, INFO_NCE_TEMPERATURE), "clip_loss"),
    },
    "siglip_loss": {
        "eager": plain(siglip_loss_eager),
        "torch.compile": compiled(siglip_loss_eager),
        "open_clip": siglip_loss_open_clip,
        "siglip-kernel": siglip_loss_siglip_kernel,
        "sslfast": sslfast(lambda *inputs: ops.siglip_loss(*inputs), "siglip_loss"),
    },
    "sup_con": {
        "eager": plain(sup_con_eager),
        "torch.compile": compiled(sup_con_eager),
        "pytorch-metric-learning": sup_con_pytorch_metric_learning,
        "sslfast": sslfast(lambda z, labels: ops.sup_con(z, labels, SUP_CON_TEMPERATURE), "sup_con"),
    },
    "negative_cosine_similarity": {
        "eager": plain(cosine_eager),
        "torch.compile": compiled(cosine_eager),
        "lightly": cosine_lightly,
        "sslfast": sslfast(lambda p, z: ops.negative_cosine_similarity(p, z), "negative_cosine_similarity"),
    },
}
