"""The mathematics of MoCo's momentum encoder (He et al. 2020, https://arxiv.org/abs/1911.05722, equation 2) in plain
PyTorch, and Philox, the counter-based generator of random words that it rounds with and patch masks are drawn from."""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF  # the 32 bits of Philox


def ema_update_(targets: list[Tensor], sources: list[Tensor], momentum: float | Tensor, step: int | Tensor) -> None:
    """target ← m·target + (1 − m)·source in place, at float32 or better. Every pair is dense and alike in strides."""
    weight = 1 - momentum
    if isinstance(weight, Tensor):
        weight = torch.where((weight >= 0) & (weight <= 1), weight, float("nan"))
    for row, pair in enumerate(zip(targets, sources)):
        target, source = (x.as_strided((x.numel(),), (1,)) for x in pair)  # elements in the order of memory
        exact = torch.promote_types(target.dtype, torch.float32)
        share = weight.to(exact) if isinstance(weight, Tensor) else weight
        old, new = target.to(exact), source.to(exact)
        mean = 2 * torch.lerp(old / 2, new / 2, share)  # halved, no difference overflows
        mean = torch.where(mean.isnan(), (1 - share) * old + share * new, mean)  # infinity has no difference
        halved = target.dtype in (torch.bfloat16, torch.float16)
        target.copy_(round_stochastically(mean, target.dtype, row, step) if halved else mean)


def round_stochastically(x: Tensor, dtype: torch.dtype, row: int, step: int | Tensor) -> Tensor:
    """float32 (n,) -> bfloat16 or float16, up or down with the probabilities that make the expectation x.

    Element i of tensor `row` has the (i mod 8)-th 16 bits of Philox at counter (i // 8, row, 0), keyed by the step.
    """
    group = torch.arange((len(x) + 7) // 8, device=x.device)
    counter = (group & WORD, group >> 32, torch.full_like(group, row), torch.zeros_like(group))
    words = torch.stack(philox(counter, step), dim=1)
    noise = torch.stack([words & 0xFFFF, words >> 16], dim=2).flatten()[: len(x)]
    if dtype == torch.bfloat16:
        rounded = (x.view(torch.int32) + noise >> 16).to(torch.int16).view(torch.bfloat16)
        return torch.where(x.isnan(), float("nan"), rounded)
    size, noise = x.abs(), noise >> 3  # 13 digits of float32 are beyond float16
    normal = ((size.view(torch.int32) + noise) & ~0x1FFF).to(torch.int32).view(torch.float32)
    subnormal = (size.clamp_max(2.0**-14) * 2.0**24 + noise.to(torch.float32) * 2.0**-13).floor() * 2.0**-24
    rounded = torch.copysign(torch.where(size < 2.0**-14, subnormal, normal), x)
    return torch.where(x.isfinite(), rounded, x).to(torch.float16)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int | Tensor) -> tuple[Tensor, ...]:
    """Philox 4x32-10 (Salmon et al. 2011): four random words of every counter; a word is an int64 below 2^32."""
    a, b, c, d = counter
    low, high = key & WORD, key >> 32 & WORD
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c  # modulo 2^64
        a, b, c, d = right >> 32 & WORD ^ b ^ low, right & WORD, left >> 32 & WORD ^ d ^ high, left & WORD
        low, high = low + 0x9E3779B9 & WORD, high + 0xBB67AE85 & WORD
    return a, b, c, d
