"""pytorch-metric-learning's losses (https://github.com/KevinMusgrave/pytorch-metric-learning, 2.9), by their names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslfast import ops
from sslfast.ops.checks import check_dense, check_temperature


class _LabelledLoss(nn.Module):
    """Cosines over a temperature, and the arguments of a call."""

    def __init__(self, temperature: float, kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.name = type(self).__name__
        check_temperature(self.name, temperature, torch.device("cpu"))
        self._refuse(**kwargs)
        self.temperature = temperature

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """embeddings (N, D) with labels (N,); ref_emb, ref_labels: the other side of the pairs, instead of the same.

        Raises:
            ValueError: there are no labels, or others than are served; indices_tuple is given.
        """
        self._refuse(indices_tuple=indices_tuple)
        if labels is None:
            raise ValueError(f"{self.name}: labels must be given")
        _check_labelled(self.name, "embeddings", embeddings, "labels", labels)
        return self._loss(embeddings, labels, ref_emb, ref_labels)

    def _loss(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _refuse(self, **arguments: Any) -> None:
        if given := [name for name, value in arguments.items() if value is not None]:
            raise ValueError(
                f"{self.name}: {', '.join(given)} is not served; use pytorch-metric-learning's own {self.name} for it"
            )


class NTXentLoss(_LabelledLoss):
    """NT-Xent of pairs that labels tell, over cosines: the mean over all positive pairs.

    Labels that all come equally often are served, or with `ref_emb` once on each side: the views of every example. What
    it cannot serve raises: classes of several sizes, mined pairs, other distances and reducers. The result is float32
    also for bfloat16 and float16. On CUDA the labels are read by the host; `SelfSupervisedLoss` needs none.

    Args:
        temperature: positive.

    Raises:
        TypeError, ValueError: the temperature is not a positive number; another argument of pytorch-metric-learning is
            given.
    """

    def __init__(self, temperature: float = 0.07, **kwargs: Any) -> None:
        super().__init__(temperature, kwargs)

    def _loss(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None) -> Tensor:
        if ref_emb is None:
            order = labels.argsort(stable=True)
            sizes = labels.unique(return_counts=True)[1]
            if len(sizes) == 0 or sizes[0] < 2 or (sizes != sizes[0]).any():
                raise ValueError(
                    "NTXentLoss: labels must come equally often, twice each at least, or once in labels and once in "
                    "ref_labels; for others use SupConLoss, or pytorch-metric-learning's own NTXentLoss"
                )
            views = [_rows(embeddings, places) for places in order.view(len(sizes), -1).T]
            return ops.nt_xent_views(torch.stack(views), self.temperature) if len(views) > 2 else self.symmetric(*views)
        if ref_labels is None:
            raise ValueError("NTXentLoss: labels must be given, and ref_labels with ref_emb")
        _check_labelled("NTXentLoss", "ref_emb", ref_emb, "ref_labels", ref_labels)
        first, second = labels.argsort(), ref_labels.argsort()
        here, there = labels[first], ref_labels[second].to(labels.device)
        if not torch.equal(here, there) or (here[1:] == here[:-1]).any():
            raise ValueError(
                "NTXentLoss: labels must come once in labels and once in ref_labels; for larger classes use "
                "pytorch-metric-learning's own NTXentLoss"
            )
        return self.one_way(_rows(embeddings, first), _rows(ref_emb, second))

    def symmetric(self, embeddings: Tensor, ref_emb: Tensor) -> Tensor:
        """Row i of both are one example; all 2N rows are anchors."""
        return ops.nt_xent(embeddings, ref_emb, self.temperature)

    def one_way(self, embeddings: Tensor, ref_emb: Tensor) -> Tensor:
        """Row i of both are one example; embeddings are the anchors, and ref_emb what they are compared with."""
        return ops.info_nce(embeddings, ref_emb, None, self.temperature)


class SupConLoss(_LabelledLoss):
    """Supervised contrastive loss over cosines: the mean of the rows' losses that are above 0, as AvgNonZeroReducer.

    It is 0 where all labels are equal, or all differ. What it cannot serve raises: mined pairs, another side of the
    pairs, other distances and reducers. The result is float32 also for bfloat16 and float16.

    Args:
        temperature: positive.

    Raises:
        TypeError, ValueError: the temperature is not a positive number; another argument of pytorch-metric-learning is
            given.
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(temperature, kwargs)

    def _loss(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None) -> Tensor:
        self._refuse(ref_emb=ref_emb, ref_labels=ref_labels)
        labels = labels.to(embeddings.device)
        losses = ops.sup_con(embeddings, labels, self.temperature, reduction="none")
        counted = losses > 0
        mean = torch.where(counted, losses, 0 * losses).sum() / counted.sum().clamp(min=1)
        return torch.where((labels != labels[0]).any(), mean, 0 * mean)

    def symmetric(self, embeddings: Tensor, ref_emb: Tensor) -> Tensor:
        """Row i of both are one example; all 2N rows are anchors."""
        labels = torch.arange(embeddings.shape[0], device=embeddings.device).repeat(2)
        return self(torch.cat([embeddings, ref_emb]), labels)

    def one_way(self, embeddings: Tensor, ref_emb: Tensor) -> Tensor:
        raise ValueError("SupConLoss: symmetric must be True; use NTXentLoss, or pytorch-metric-learning's own losses")


class SelfSupervisedLoss(nn.Module):
    """A loss of two views of every example, without labels.

    Args:
        loss: an `NTXentLoss` or `SupConLoss` of this module.
        symmetric: both views are anchors, and compared with all rows; else embeddings with the rows of ref_emb.

    Raises:
        TypeError: loss is another one.
    """

    def __init__(self, loss: nn.Module, symmetric: bool = True) -> None:
        super().__init__()
        if not isinstance(loss, (NTXentLoss, SupConLoss)):
            raise TypeError(
                "SelfSupervisedLoss: loss must be one of sslfast.compat.pytorch_metric_learning, got "
                f"{type(loss).__module__}.{type(loss).__name__}; it goes with pytorch-metric-learning's own wrapper"
            )
        self.loss, self.symmetric = loss, symmetric

    def forward(self, embeddings: Tensor, ref_emb: Tensor) -> Tensor:
        """embeddings, ref_emb: (N, D), row i of both of one example."""
        return (self.loss.symmetric if self.symmetric else self.loss.one_way)(embeddings, ref_emb)


def _check_labelled(loss: str, name: str, embeddings: Tensor, labels_name: str, labels: Tensor) -> None:
    check_dense(loss, name, embeddings, " (N, D)")
    check_dense(loss, labels_name, labels, " (N,)")
    if labels.is_complex() or labels.is_quantized or labels.is_meta:
        raise TypeError(f"{loss}: {labels_name} must be real numbers, got {labels.dtype} on {labels.device}")
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{loss}: {labels_name} must be (N,) for {name} (N, D), got shapes {tuple(labels.shape)} and "
            f"{tuple(embeddings.shape)}"
        )


def _rows(x: Tensor, order: Tensor) -> Tensor:
    return x.index_select(0, order.to(x.device))
