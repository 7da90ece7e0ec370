"""lightly's losses, memory bank, momentum update, token masks (https://github.com/lightly-ai/lightly, 1.6), by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast import ops
from sslfast.kernels import reference
from sslfast.key_queue import KeyQueue
from sslfast.ops.checks import as_int, as_number, check_dense, check_embeddings, check_module, check_temperature
from sslfast.ops.distributed import Group, find_group, gather_all
from sslfast.ops.ema import HALVES


class NTXentLoss(nn.Module):
    """SimCLR's loss, or with a memory bank MoCo's; the mean over all rows.

    It differs from lightly's where a batch does not divide the size of the bank: lightly drops the keys that pass the
    end, here they wrap around. The bank is part of the state, so that a checkpoint resumes it. The result is float32
    also for bfloat16 and float16.

    Args:
        temperature: not 0. A negative one, which draws what is alike apart, goes through plain PyTorch.
        memory_bank_size: (size, dim), or 0 for none. A size alone, as lightly 1.5 takes it, gets the width of the first
            batch, or of the state that is loaded.
        gather_distributed: see the images of all processes: as negatives, or with a bank as keys that enter it.

    Raises:
        TypeError, ValueError: the temperature is no number or 0, memory_bank_size is none of these, gather_distributed
            is asked of a PyTorch without torch.distributed; in the call: out0 and out1 do not go together, or with the
            bank; a negative temperature meets other processes.
    """

    def __init__(
        self, temperature: float = 0.5, memory_bank_size: int | Sequence[int] = 0, gather_distributed: bool = False
    ) -> None:
        super().__init__()
        check_temperature("NTXentLoss", abs(as_number("NTXentLoss", "temperature", temperature)), torch.device("cpu"))
        size = memory_bank_size if isinstance(memory_bank_size, (tuple, list)) else (memory_bank_size,)
        size = tuple(as_int("NTXentLoss", "memory_bank_size", x, "(size, dim), a size or 0") for x in size)
        if len(size) not in (1, 2) or min(size) < 0:
            raise ValueError(f"NTXentLoss: memory_bank_size must be (size, dim), a size or 0, got {memory_bank_size}")
        if gather_distributed and not dist.is_available():
            raise ValueError("NTXentLoss: gather_distributed must be False where PyTorch has no torch.distributed")
        self.temperature = temperature
        self.group: Group = "world" if gather_distributed else None
        self.size = size[0]
        self.memory_bank = KeyQueue(*size, group=self.group) if self.size and len(size) == 2 else None

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """out0, out1: (N, D) of the two views; queries and keys for a bank, which without grad stays as it is."""
        if self.size and self.memory_bank is None:
            self.memory_bank = KeyQueue(self.size, out1.shape[1], group=self.group).to(out1.device)
        bank = self.memory_bank
        keys = None if bank is None else bank.keys
        if self.temperature < 0:
            loss = self._repelling(out0, out1, keys)
        elif keys is None:
            loss = ops.nt_xent(out0, out1, self.temperature, group=self.group)
        else:
            loss = ops.info_nce(out0, out1, keys, self.temperature)
        if bank is not None and out0.requires_grad:
            bank.enqueue(out1)
        return loss

    def _repelling(self, out0: Tensor, out1: Tensor, keys: Tensor | None) -> Tensor:
        out0, out1 = check_embeddings("NTXentLoss", out0=out0, out1=out1)
        if keys is not None:
            return reference.info_nce(out0, out1, keys.clone(), self.temperature)  # the queue moves on
        if find_group("NTXentLoss", self.group, "all") is not None:
            raise ValueError(f"NTXentLoss: temperature must be positive across processes, got {self.temperature}")
        return reference.nt_xent(out0, out1, self.temperature)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        keys = state_dict.get(f"{prefix}memory_bank.keys")
        if self.size and self.memory_bank is None and keys is not None:
            self.memory_bank = KeyQueue(len(keys), keys.shape[1], group=self.group)
        super()._load_from_state_dict(state_dict, prefix, *args)


class MemoryBankModule(nn.Module):
    """The features of the batches before, in plain PyTorch, for losses of your own that inherit it.

    As lightly's, it keeps them as they are, and drops what of a batch passes the end. It differs in that it takes a
    size alone, too. `sslfast.KeyQueue` drops nothing, normalises, is part of the state and waits for no device.

    Args:
        size: (features, dim); features alone, which get the width of the first batch, as in lightly 1.5; 0 for no bank.
        gather_distributed: the batches of all processes enter, in the order of the ranks.
        feature_dim_first: return the bank as (dim, features), else (features, dim).

    Raises:
        ValueError: an entry of size is negative, or there are more than two.
    """

    bank: Tensor
    bank_ptr: Tensor

    def __init__(
        self, size: int | Sequence[int], gather_distributed: bool = False, feature_dim_first: bool = True
    ) -> None:
        super().__init__()
        self.size = (size,) if isinstance(size, int) else tuple(size)
        if any(x < 0 for x in self.size):
            raise ValueError(f"Illegal memory bank size {size}, all entries must be non-negative.")
        if len(self.size) not in (1, 2):
            raise ValueError(f"Illegal memory bank size {size}, expected (features, dim), features or 0.")
        self.gather_distributed, self.feature_dim_first = gather_distributed, feature_dim_first
        rows = torch.randn(*self.size, *[0] * (len(self.size) == 1), dtype=torch.float32, device="cpu")
        self.register_buffer("bank", reference.normalize(rows)[0] if rows.numel() else rows, persistent=False)
        self.register_buffer("bank_ptr", torch.zeros(1, dtype=torch.int64, device="cpu"), persistent=False)

    def forward(
        self, output: Tensor, labels: Tensor | None = None, update: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """output (N, dim) -> it, and a copy of the bank, or None; with update it enters afterwards."""
        if self.size[0] == 0:
            return output, None
        if self.bank.shape[1] == 0:
            rows = torch.randn(self.size[0], output.shape[1], dtype=torch.float32, device=output.device)
            self.bank = reference.normalize(rows)[0]
        bank = self.bank.clone()
        if update:
            self._enqueue(output)
        return output, bank.T if self.feature_dim_first else bank

    @torch.no_grad()
    def _enqueue(self, batch: Tensor) -> None:
        group = find_group("MemoryBankModule", "world", "all") if self.gather_distributed else None
        if group is not None:
            batch = gather_all(batch, group).flatten(0, 1)
        first = int(self.bank_ptr)
        places = self.bank[first : first + len(batch)]
        places.copy_(batch[: len(places)])
        self.bank_ptr.fill_(0 if first + len(batch) >= self.size[0] else first + len(batch))


class DCLLoss(nn.Module):
    """Decoupled contrastive learning of two views: SimCLR without the positive in the sum; the mean over all rows.

    It differs from lightly's for a batch of one image, which has nothing to be compared with: lightly's loss is minus
    infinity, this is 0. The result is float32 also for bfloat16 and float16.

    Args:
        temperature: positive.
        weight_fn: (out0, out1) of unit length -> (N,) weights of the positive pairs.
        gather_distributed: see the images of all processes as negatives.

    Raises:
        TypeError, ValueError: the temperature is not a positive number, gather_distributed is asked of a PyTorch
            without torch.distributed; in the call: out0 and out1 do not go together.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        weight_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        check_temperature(type(self).__name__, temperature, torch.device("cpu"))
        if gather_distributed and not dist.is_available():
            name = type(self).__name__
            raise ValueError(f"{name}: gather_distributed must be False where PyTorch has no torch.distributed")
        self.temperature, self.weight_fn, self.gather_distributed = temperature, weight_fn, gather_distributed

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """out0, out1: (N, D) of the two views."""
        group: Group = "world" if self.gather_distributed else None
        loss = ops.nt_xent(out0, out1, self.temperature, decoupled=True, group=group)
        if self.weight_fn is None:
            return loss
        u0, u1 = F.normalize(out0, dim=1), F.normalize(out1, dim=1)
        cosines = -ops.negative_cosine_similarity(out0, out1, reduction="none")
        weights = (self.weight_fn(u0, u1) + self.weight_fn(u1, u0)) / 2
        return loss + ((1 - weights) * cosines).mean() / self.temperature


class DCLWLoss(DCLLoss):
    """The same with the paper's weights, by the negative of a von Mises-Fisher density: `sigma` is its temperature."""

    def __init__(self, temperature: float = 0.1, sigma: float = 0.5, gather_distributed: bool = False) -> None:
        weight_fn = functools.partial(negative_mises_fisher_weights, sigma=sigma)
        super().__init__(temperature, weight_fn, gather_distributed)


def negative_mises_fisher_weights(out0: Tensor, out1: Tensor, sigma: float = 0.5) -> Tensor:
    """2 − N·softmax(out0·out1/sigma) of rows of unit length (N, D): pairs that agree already weigh less."""
    similarity = (out0.detach() * out1.detach()).sum(dim=1) / sigma
    return 2 - out0.shape[0] * similarity.softmax(dim=0)


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
    check_module("update_momentum", "model", model)
    check_module("update_momentum", "model_ema", model_ema)
    targets, sources = list(model_ema.parameters()), list(model.parameters())
    drawn = any(target.dtype in HALVES for target in targets)
    ops.ema_update_(targets, sources, m, step=int(torch.randint(2**62, (), device="cpu")) if drawn else None)


def get_at_index(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens (B, L, D) at index (B, K) int64, (B, K, D); see `ops.gather_tokens`. K may be 0.

    On CUDA the entries of a row must be distinct where a gradient is wanted.
    """
    check_dense("get_at_index", "tokens", tokens, " (B, L, D)")
    check_dense("get_at_index", "index", index, " (B, K)")
    if (tokens.dim(), index.dim()) == (3, 2) and index.shape == (tokens.shape[0], 0):
        return tokens[:, :0]
    return ops.gather_tokens(tokens, index)


def random_token_mask(
    size: tuple[int, int],
    mask_ratio: float = 0.6,
    mask_class_token: bool = False,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Which tokens of every sequence to keep, (B, K), and which to mask, (B, L - K), int64 in a random order.

    Args:
        size: (B, L); L at most 16384.
        mask_ratio: K = int(L * (1 - mask_ratio)), of the tokens behind the class token if that is always kept.
        mask_class_token: whether the first token may be masked; else it is the first that is kept.
        device: of the result.

    Raises:
        TypeError, ValueError: size is not two ints from 0 on, mask_ratio is not in [0, 1], or L is too large.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"random_token_mask: size must be (B, L), got {size!r}")
    batch, length = (as_int("random_token_mask", "size", x, "two ints") for x in size)
    if min(batch, length) < 0:
        raise ValueError(f"random_token_mask: size must not be negative, got {tuple(size)}")
    if not 0 <= as_number("random_token_mask", "mask_ratio", mask_ratio) <= 1:
        raise ValueError(f"random_token_mask: mask_ratio must be in [0, 1], got {mask_ratio}")
    num_keep = int((length - (not mask_class_token)) * (1 - mask_ratio))
    if length and not mask_class_token:
        num_keep = max(1, num_keep + 1)
    if 0 in size:
        order = torch.empty(batch, length, dtype=torch.int64, device=device)
    else:
        noise = torch.rand(batch, length, dtype=torch.float32, device=device)
        if not mask_class_token:
            noise[:, 0] = -1
        drawn = ops.random_patch_mask(batch, length, num_keep=max(1, num_keep), noise=noise)
        order = torch.cat([drawn.keep, drawn.masked], dim=1)
    return order[:, :num_keep], order[:, num_keep:]
