"""open_clip's losses (https://github.com/mlfoundations/open_clip, 3.3), by their names and signatures."""

from __future__ import annotations

from typing import Literal

import torch.distributed as dist
from torch import Tensor, nn

from sslfast import ops
from sslfast.compat.unit_rows import unit_rows
from sslfast.ops.checks import as_number
from sslfast.ops.distributed import Gather

DIST_IMPLS = ("bidir", "shift", "reduce", "gather")


class ClipLoss(nn.Module):
    """CLIP's loss of image and text features of unit length, as open_clip's models give them.

    Values and the gradients that reach a model are open_clip's for all it recommends, and for its default: the
    gradient to the features themselves lacks the part along them, which the models' normalisation removes. The result
    is float32 also for bfloat16 and float16. Over several processes the features are those of the default group.

    Args:
        local_loss: return the mean of this process's own rows instead of that of all processes.
        gather_with_grad: gradients through the features of other processes; without, those to a process's features are
            a world_size-th, as open_clip's are. False with local_loss, which lacks a part of them, is refused.
        cache_labels: accepted for the signature; there are none.
        rank, world_size: of this process, and how many there are.
        use_horovod: refused.

    Raises:
        ValueError: what is refused is asked; in the call: features do not go together, are not of unit length (on the
            CPU; on CUDA the loss is NaN), or there is no process group of that size.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__()
        if use_horovod:
            raise ValueError("ClipLoss: use_horovod is not served; use torch.distributed, or open_clip's own ClipLoss")
        if world_size > 1 and local_loss and not gather_with_grad:
            raise ValueError("ClipLoss: local_loss lacks gradients without gather_with_grad; use gather_with_grad=True")
        self.local_loss, self.gather_with_grad, self.cache_labels = local_loss, gather_with_grad, cache_labels
        self.rank, self.world_size = rank, world_size

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """image_features, text_features: (N, D) of unit length; logit_scale: what cosines are multiplied by.

        logit_bias, the same for all logits, changes nothing and gets gradient zero.
        """
        features = [unit_rows("ClipLoss", "image_features", image_features)]
        features.append(unit_rows("ClipLoss", "text_features", text_features))
        group = _group("ClipLoss", self.world_size)
        if group is not None and not self.gather_with_grad:
            features = [_shrunk_gradient(x, self.world_size) for x in features]
        loss = ops.clip_loss(*features, logit_scale=logit_scale, group=group)
        if group is not None and not self.local_loss:
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            loss = loss + (mean / self.world_size - loss.detach())  # the value of all, the gradient of its own
        if isinstance(logit_bias, Tensor):
            loss = loss + 0 * logit_bias.sum()
        elif logit_bias is not None:
            as_number("ClipLoss", "logit_bias", logit_bias, "a tensor, a number or None")
        return {"contrastive_loss": loss} if output_dict else loss


class SigLipLoss(nn.Module):
    """SigLIP's sigmoid loss of image and text features, as open_clip's models give them.

    Values and gradients are open_clip's, for features of any length. The result is float32 also for bfloat16 and
    float16. Over several processes each returns the loss of its own images with the texts of all, from the default
    group.

    Args:
        cache_labels: accepted for the signature; there are none.
        rank, world_size: of this process, and how many there are.
        dist_impl: how texts go round: one process's at a time with "bidir" (None), "shift" and "reduce", all at once
            with "gather".

    Raises:
        ValueError: the dist_impl is unknown; in the call: features do not go together, or there is no process group of
            that size.
    """

    def __init__(
        self, cache_labels: bool = False, rank: int = 0, world_size: int = 1, dist_impl: str | None = None
    ) -> None:
        super().__init__()
        self.dist_impl = dist_impl or "bidir"
        if self.dist_impl not in DIST_IMPLS:
            raise ValueError(f"SigLipLoss: dist_impl must be None or one of {', '.join(DIST_IMPLS)}, got {dist_impl!r}")
        self.cache_labels, self.rank, self.world_size = cache_labels, rank, world_size

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """image_features, text_features: (N, D); logit_scale: what their products are multiplied by; logit_bias: what
        is added, None for nothing."""
        bias = 0.0 if logit_bias is None else logit_bias
        group = _group("SigLipLoss", self.world_size)
        gather: Gather = "all" if self.dist_impl == "gather" else "ring"
        loss = ops.siglip_loss(
            image_features, text_features, logit_scale, bias, normalize=False, group=group, gather=gather
        )
        return {"contrastive_loss": loss} if output_dict else loss


def _group(loss: str, world_size: int) -> Literal["world"] | None:
    """What an op is told of the processes: all, or this one alone."""
    if world_size <= 1:
        return None
    size = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if size != world_size:
        raise ValueError(f"{loss}: world_size must be that of the default group, {size}, got {world_size}")
    return "world"


def _shrunk_gradient(x: Tensor, by: int) -> Tensor:
    if not x.requires_grad:
        return x
    x = x.view_as(x)
    x.register_hook(lambda grad: grad / by)
    return x
