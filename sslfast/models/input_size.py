"""Whether a network can take images of a size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def check_input_size(backbone: nn.Module, name: str, in_channels: int, size: int, *, option: str = "image_size") -> Any:
    """Refuse images that a backbone, which is called `name`, cannot take: a small one may end before the network does.

    Returns:
        What it made of one image; perhaps on the device "meta", which has shapes only.

    Raises:
        ValueError: their side, `size` pixels, does not suit; the message calls it `option`.
    """
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            try:  # shapes only: that takes no time, but not every network can
                found = [*backbone.named_parameters(), *backbone.named_buffers()]
                found = {key: tensor.to("meta") for key, tensor in found}
                one = torch.empty(1, in_channels, size, size, device="meta")
                # Tied, a module that is there under two names, as CoaT's are, would be left on meta.
                return torch.func.functional_call(backbone, found, (one,), tie_weights=False)
            except (RuntimeError, NotImplementedError):
                return backbone(torch.zeros(1, in_channels, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"backbone {name!r} cannot take {option} {size}: {reason}") from error
    finally:
        backbone.train(training)
