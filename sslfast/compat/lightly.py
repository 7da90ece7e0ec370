"""lightly's losses and momentum update (https://github.com/lightly-ai/lightly, 1.6), by their names and signatures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslfast import ops
from sslfast.key_queue import KeyQueue
from sslfast.ops.checks import as_int, as_number, check_dense, check_temperature
from sslfast.ops.ema import HALVES


class NTXentLoss(nn.Module):
    """SimCLR's loss, or with a memory bank MoCo's; the mean over all rows.

    It differs from lightly's where a batch does not divide the size of the bank: lightly drops the keys that pass the
    end, here they wrap around. The bank is part of the state, so that a checkpoint resumes it. The result is float32
    also for bfloat16 and float16.

    Args:
        temperature: positive.
        memory_bank_size: (size, dim), or 0 for none.
        gather_distributed: see the images of all processes: as negatives, or with a bank as keys that enter it.

    Raises:
        TypeError, ValueError: the temperature is not a positive number, or memory_bank_size is neither 0 nor (size,
            dim); in the call: out0 and out1 do not go together, or with the bank.
    """

    def __init__(
        self, temperature: float = 0.5, memory_bank_size: int | Sequence[int] = 0, gather_distributed: bool = False
    ) -> None:
        super().__init__()
        check_temperature("NTXentLoss", temperature, torch.device("cpu"))
        size = memory_bank_size if isinstance(memory_bank_size, (tuple, list)) else (memory_bank_size,)
        size = tuple(as_int("NTXentLoss", "memory_bank_size", x, "(size, dim) or 0") for x in size)
        if size != (0,) and len(size) != 2:
            raise ValueError(f"NTXentLoss: memory_bank_size must be (size, dim) or 0, got {memory_bank_size}")
        self.temperature = temperature
        self.group = "world" if gather_distributed else None
        self.memory_bank = None if size[0] == 0 else KeyQueue(*size, group=self.group)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """out0, out1: (N, D) of the two views; queries and keys for a bank, which without grad stays as it is."""
        if self.memory_bank is None:
            return ops.nt_xent(out0, out1, self.temperature, group=self.group)
        loss = ops.info_nce(out0, out1, self.memory_bank.keys, self.temperature)
        if out0.requires_grad:
            self.memory_bank.enqueue(out1)
        return loss


class NegativeCosineSimilarity(nn.Module):
    """Mean of minus the cosines, `-F.cosine_similarity(x0, x1, dim, eps).mean()`.

    It differs from lightly's for short vectors: lightly divides by eps at least, this by 1e-12 at least, whatever eps
    is; and a zero vector has gradient zero here, x/eps there. The result is float32 also for bfloat16 and float16.

    Args:
        dim: dimension of the features.
        eps: accepted for the signature; positive.

    Raises:
        ValueError: eps is not positive; in the call: x0 and x1 do not go together, or dim is no dimension of them.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        as_int("NegativeCosineSimilarity", "dim", dim)
        if not as_number("NegativeCosineSimilarity", "eps", eps) > 0:
            raise ValueError(f"NegativeCosineSimilarity: eps must be positive, got {eps}")
        self.dim, self.eps = dim, eps

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        """x0, x1: of shapes that broadcast, dtypes are promoted -> 0-dim."""
        for name, x in (("x0", x0), ("x1", x1)):
            check_dense("NegativeCosineSimilarity", name, x, "")
        try:
            pair = torch.broadcast_tensors(x0, x1)
        except RuntimeError as error:
            raise ValueError(
                f"NegativeCosineSimilarity: x1 must broadcast with x0, {tuple(x0.shape)}, got {tuple(x1.shape)}"
            ) from error
        if not -pair[0].dim() <= self.dim < pair[0].dim():
            raise ValueError(
                f"NegativeCosineSimilarity: x0 must have a dimension {self.dim}, got shape {tuple(pair[0].shape)}"
            )
        dtype = torch.promote_types(x0.dtype, x1.dtype)
        return ops.negative_cosine_similarity(*(x.to(dtype).movedim(self.dim, -1).flatten(0, -2) for x in pair))


@torch.no_grad()
def update_momentum(model: nn.Module, model_ema: nn.Module, m: float) -> None:
    """Every parameter of model_ema becomes m·its own + (1 − m)·that of model, in one launch; buffers stay as they are.

    A bfloat16 or float16 model_ema is rounded stochastically, by a number drawn from torch's generator, where lightly's
    would stop moving. `sslfast.EMA` is the same as a module, with a schedule, buffers and a state to resume from.

    Args:
        model, model_ema: of one architecture; dtypes may differ.
        m: in [0, 1].

    Raises:
        TypeError, ValueError: no modules; the parameters differ in number, shape or device; m is out of range.
    """
    for name, x in (("model", model), ("model_ema", model_ema)):
        if not isinstance(x, nn.Module):
            raise TypeError(f"update_momentum: {name} must be a module, got {type(x).__name__}")
    targets, sources = list(model_ema.parameters()), list(model.parameters())
    drawn = any(target.dtype in HALVES for target in targets)
    ops.ema_update_(targets, sources, m, step=int(torch.randint(2**62, (), device="cpu")) if drawn else None)
