"""Losses as modules; the work is done by `sslfast.ops`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sslfast import ops
from sslfast.ops.checks import Reduction, check_reduction, check_scalar, check_temperature
from sslfast.ops.distributed import Gather, Group, OfGroup


def _value(x: float | Tensor) -> float:
    """As a number; NaN on the meta device, which has none."""
    return math.nan if isinstance(x, Tensor) and x.is_meta else float(x)


class _ContrastiveLoss(OfGroup):
    """What the contrastive losses share: a reduction, and whose negatives to see."""

    def __init__(self, reduction: Reduction, group: Group, gather: Gather) -> None:
        super().__init__()
        check_reduction(type(self).__name__, reduction)
        self.reduction, self.group, self.gather = reduction, group, gather
        self.check_ranks = True  # may be set to False once the ranks have agreed, see ops.nt_xent

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("reduction", "group", "gather", "check_ranks")}


class _TemperedLoss(_ContrastiveLoss):
    """With a temperature that may be learned."""

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        reduction: Reduction = "mean",
        group: Group = None,
        gather: Gather = "all",
    ) -> None:
        super().__init__(reduction, group, gather)
        name = type(self).__name__
        if isinstance(temperature, Tensor):
            raise TypeError(f"{name}: temperature must be a number; learnable=True trains it")
        self._temperature, _ = check_temperature(name, temperature, torch.device("cpu"))
        self.log_temperature = (
            nn.Parameter(torch.tensor(math.log(temperature), dtype=torch.float32)) if learnable else None
        )

    @property
    def temperature(self) -> float | Tensor:
        """The number, or the 0-dim tensor that is being learned."""
        return self._temperature if self.log_temperature is None else self.log_temperature.exp()

    def extra_repr(self) -> str:
        learnable = self.log_temperature is not None
        return f"temperature={_value(self.temperature):.4g}, learnable={learnable}, reduction={self.reduction!r}"


class NTXentLoss(_TemperedLoss):
    """SimCLR's contrastive loss of two views: `loss = NTXentLoss(temperature=0.5)(z1, z2)`; see `ops.nt_xent`.

    Args:
        temperature: positive; the initial value when learnable.
        learnable: train the temperature; the parameter is its logarithm, so it stays positive.
        reduction: "mean" over the 2N views, "sum", or "none".
        group, gather: whose negatives to see across processes, and how; as in `ops.nt_xent`.
        decoupled: leave the positive out of the sum of exponentials.

    Raises:
        TypeError, ValueError: the temperature is not a positive number, or the reduction is unknown.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        learnable: bool = False,
        reduction: Reduction = "mean",
        group: Group = None,
        gather: Gather = "all",
        decoupled: bool = False,
    ) -> None:
        super().__init__(temperature, learnable, reduction, group, gather)
        self.decoupled = decoupled

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        temperature: Tensor | None = None,
        ids: Tensor | None = None,
        *,
        return_rank: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """z1, z2: raw projections (N, D) of the two views -> 0-dim float32, or (2N,) with reduction="none".

        temperature: its own, where the caller has taken it before, as `GradCache` and parallel modules need it.
        ids: (N,) integers, of which equal ones mark images that are no negatives of each other.
        return_rank: return (loss, rank), as in `ops.nt_xent`.
        """
        tau = self.temperature if temperature is None else temperature
        choice: dict[str, Any] = {"ids": ids, "decoupled": self.decoupled, "return_rank": return_rank}
        return ops.nt_xent(z1, z2, tau, **choice, **self._options)


class InfoNCELoss(_TemperedLoss):
    """MoCo's contrastive loss: `loss = InfoNCELoss(temperature=0.07)(query, key, queue)`; see `ops.info_nce`.

    Args:
        temperature, learnable: as in `NTXentLoss`.
        reduction, group, gather: as in `ops.info_nce`.
        normalize: False takes rows as they are, and dot products for cosines.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable: bool = False,
        reduction: Reduction = "mean",
        group: Group = None,
        gather: Gather = "all",
        *,
        normalize: bool = True,
    ) -> None:
        super().__init__(temperature, learnable, reduction, group, gather)
        self.normalize = normalize

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        queue: Tensor | None = None,
        *,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        return_rank: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """query: raw projections (N, D); key: candidates (M, D); queue: unit rows (K, D) -> 0-dim float32, or (N,) with
        "none". The others: as in `ops.info_nce`."""
        choice: dict[str, Any] = {
            "targets": targets,
            "ids": ids,
            "normalize": self.normalize,
            "return_rank": return_rank,
        }
        return ops.info_nce(query, key, queue, self.temperature, **choice, **self._options)


class CLIPLoss(_TemperedLoss):
    """CLIP's contrastive loss: `loss = CLIPLoss()(image, text, logit_scale.exp())`; see `ops.clip_loss`.

    Args:
        temperature, learnable: as in `NTXentLoss`.
        reduction, group, gather: as in `ops.clip_loss`.
    """

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        logit_scale: float | Tensor | None = None,
        *,
        return_rank: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """image, text: raw embeddings (N, D) -> 0-dim float32, or (2N,) with reduction="none".

        logit_scale: of a model that has its own, in place of the temperature: what cosines are multiplied by.
        return_rank: return (loss, rank), as in `ops.clip_loss`.
        """
        temperature = self.temperature if logit_scale is None else None
        choice: dict[str, Any] = {"logit_scale": logit_scale, "return_rank": return_rank}
        return ops.clip_loss(image, text, temperature, **choice, **self._options)


class SupConLoss(_TemperedLoss):
    """Supervised contrastive learning: `loss = SupConLoss(temperature=0.1)(z, labels)`; see `ops.sup_con`.

    Args:
        temperature, learnable: as in `NTXentLoss`.
        reduction, group, gather: as in `ops.sup_con`.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        learnable: bool = False,
        reduction: Reduction = "mean",
        group: Group = None,
        gather: Gather = "all",
    ) -> None:
        super().__init__(temperature, learnable, reduction, group, gather)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z: raw projections (N, D); labels: (N,) integers -> 0-dim float32, or (N,) with reduction="none"."""
        return ops.sup_con(z, labels, self.temperature, **self._options)


class SigLIPLoss(_ContrastiveLoss):
    """SigLIP's sigmoid loss: `loss = SigLIPLoss(learnable=True)(image, text)`; see `ops.siglip_loss`.

    Args:
        logit_scale, logit_bias: what cosines are multiplied by, positive, and what is added; the initial values when
            learnable.
        learnable: train both; the parameters are `log_scale`, its logarithm, and `bias`.
        reduction: "mean" over the N images, "sum", or "none".
        group, gather: whose texts to see across processes, and how; as in `ops.siglip_loss`.

    Raises:
        TypeError, ValueError: the scale is not a positive number, the bias no finite one, or the reduction is unknown.
    """

    def __init__(
        self,
        logit_scale: float = 10.0,
        logit_bias: float = -10.0,
        learnable: bool = False,
        reduction: Reduction = "mean",
        group: Group = None,
        gather: Gather = "all",
    ) -> None:
        super().__init__(reduction, group, gather)
        for name, value in (("logit_scale", logit_scale), ("logit_bias", logit_bias)):
            if isinstance(value, Tensor):
                raise TypeError(f"SigLIPLoss: {name} must be a number; learnable=True trains it")
            check_scalar("SigLIPLoss", name, value, torch.device("cpu"), positive=name == "logit_scale")
        self._scale, self._bias = logit_scale, logit_bias
        self.log_scale, self.bias = (
            nn.Parameter(torch.tensor(x, dtype=torch.float32)) if learnable else None
            for x in (math.log(logit_scale), logit_bias)
        )

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        logit_scale: float | Tensor | None = None,
        logit_bias: float | Tensor | None = None,
    ) -> Tensor:
        """image, text: raw embeddings (N, D) -> 0-dim float32, or (N,) with reduction="none".

        logit_scale, logit_bias: of a model that has its own, in place of those here.
        """
        if logit_scale is None:
            logit_scale = self._scale if self.log_scale is None else self.log_scale.exp()
        if logit_bias is None:
            logit_bias = self._bias if self.bias is None else self.bias
        return ops.siglip_loss(image, text, logit_scale, logit_bias, **self._options)

    def extra_repr(self) -> str:
        scale = self._scale if self.log_scale is None else self.log_scale.exp()
        bias = self._bias if self.bias is None else self.bias
        values = f"logit_scale={_value(scale):.4g}, logit_bias={_value(bias):.4g}"
        return f"{values}, learnable={self.bias is not None}, reduction={self.reduction!r}"


class NegativeCosineSimilarity(nn.Module):
    """SimSiam's loss: `loss = NegativeCosineSimilarity()(p, z.detach())`; see `ops.negative_cosine_similarity`.

    Args:
        reduction: "mean" over the N rows, "sum", or "none".

    Raises:
        ValueError: the reduction is unknown.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction("NegativeCosineSimilarity", reduction)
        self.reduction = reduction

    def forward(self, p: Tensor, z: Tensor) -> Tensor:
        """p, z: predictions and projections (N, D) -> 0-dim float32, or (N,) with reduction="none"."""
        return ops.negative_cosine_similarity(p, z, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
