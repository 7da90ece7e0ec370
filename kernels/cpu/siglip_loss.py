"""The sigmoid loss on the CPU. In units of 2·N²·D operations: one for the losses, and one for each side's gradient."""

from __future__ import annotations

from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.contrastive import floats, rows, value


def sums(
    image: Tensor,
    text: Tensor,
    factor: Tensor | None,
    own: bool,
    logit_scale: float,
    logit_bias: float,
    scale: Tensor | None,
    bias: Tensor | None,
    with_loss: bool,
    with_image: bool,
    with_text: bool,
) -> tuple[Tensor, ...]:
    image, text = image.contiguous(), text.contiguous()
    factor = None if factor is None else factor.contiguous()
    n, d = image.shape
    with_weight = with_image or with_text
    losses, weights = floats(n if with_loss else 0), floats(n if with_weight else 0)
    dimage, dtext = floats(n if with_image else 0, d), floats(n if with_text else 0, d)
    _C.sigmoid_sums(
        rows(image),
        rows(text),
        n,
        own,
        value(logit_scale, scale),
        value(logit_bias, bias),
        0 if factor is None else factor.data_ptr(),
        losses.data_ptr() if with_loss else 0,
        weights.data_ptr() if with_weight else 0,
        rows(dimage) if with_image else None,
        rows(dtext) if with_text else None,
    )
    return losses, weights, dimage, dtext
