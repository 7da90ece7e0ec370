"""What no library would take is refused by the name of the face and of the argument, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sslfast.compat import ema_pytorch, lightly, open_clip, pytorch_metric_learning, sentence_transformers, solo, timm
from sslfast.compat.sup_contrast import SupConLoss
from sslfast.compat.torch import get_ema_multi_avg_fn

X, UNIT, MODEL = torch.ones(4, 2), torch.eye(4), nn.Linear(2, 2)
QUANTISED = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)
labelled = pytorch_metric_learning.NTXentLoss()
ranking = sentence_transformers.MultipleNegativesRankingLoss


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: timm.ModelEmaV3(1.0), "ModelEmaV3: model must be a module, got float"),
        (lambda: timm.ModelEmaV3(MODEL, decay=None), "ModelEmaV3: decay must be a number, got NoneType"),
        (lambda: timm.ModelEmaV3(MODEL, stochastic_rounding_seed=0.5), "ModelEmaV3: stochastic_rounding_seed must be"),
        (lambda: ema_pytorch.EMA("model"), "EMA: model must be a module, got str"),
        (lambda: ema_pytorch.EMA(MODEL, power="2"), "EMA: power must be a number, got str"),
        (lambda: ema_pytorch.EMA(MODEL, update_every=0), "EMA: update_every must be at least 1, got 0"),
        (lambda: ranking(0.5), "MultipleNegativesRankingLoss: model must be a module, got float"),
        (lambda: ranking(MODEL, "20"), "MultipleNegativesRankingLoss: scale must be a number, got str"),
        (
            lambda: lightly.update_momentum(MODEL, None, 0.9),
            "update_momentum: model_ema must be a module, got NoneType",
        ),
        (lambda: lightly.get_at_index("x", X), r"get_at_index: tokens must be a tensor \(B, L, D\)"),
        (lambda: lightly.get_at_index(X[None], [0]), r"get_at_index: index must be a tensor \(B, K\), got list"),
        (lambda: lightly.random_token_mask(4), r"random_token_mask: size must be \(B, L\), got 4"),
        (lambda: lightly.random_token_mask((2, -4)), "random_token_mask: size must not be negative"),
        (lambda: lightly.random_token_mask((2, 4), float("nan")), r"random_token_mask: mask_ratio must be in \[0, 1\]"),
        (lambda: SupConLoss()("features"), r"SupConLoss: features must be a tensor \(B, V, ...\), got str"),
        (lambda: SupConLoss()(X[None], "01"), r"SupConLoss: labels must be a tensor \(B,\), got str"),
        (lambda: pytorch_metric_learning.SupConLoss()(X, "01"), r"SupConLoss: labels must be a tensor \(N,\), got str"),
        (lambda: solo.byol_loss_func(X, [1.0]), r"simsiam_loss_func: z must be a tensor \(N, D\), got list"),
        (
            lambda: open_clip.ClipLoss()(UNIT, UNIT, 10.0, "0"),
            "ClipLoss: logit_bias must be a tensor, a number or None",
        ),
        (lambda: get_ema_multi_avg_fn()([X], [X.numpy()], 1), "get_ema_multi_avg_fn: current must be a tensor, got nd"),
        (lambda: get_ema_multi_avg_fn()([X], [QUANTISED], 1), "current must be a dense tensor, got a quantised one"),
        (lambda: lightly.NegativeCosineSimilarity()(X, QUANTISED), "x1 must be a dense tensor, got a quantised one"),
        (lambda: lightly.NTXentLoss(-1.0)(X, X[:0]), r"NTXentLoss: out1 must be a non-empty matrix \(N, D\)"),
        (lambda: lightly.NTXentLoss(-1.0)(X, X.to_mkldnn()), "NTXentLoss: out1 must be a dense tensor"),
        (lambda: labelled(X, [0, 0, 1, 1]), r"NTXentLoss: labels must be a tensor \(N,\), got list"),
        (lambda: labelled(X, torch.arange(3)), r"NTXentLoss: labels must be \(N,\) for embeddings \(N, D\)"),
        (lambda: labelled(X, X[:, 0].to(torch.complex64)), "NTXentLoss: labels must be real numbers"),
        (lambda: labelled(X, torch.arange(4), None, X, "0123"), r"NTXentLoss: ref_labels must be a tensor \(N,\)"),
    ],
)
def test_named(call: Callable, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
