"""When ranks compare what they were called with; what they then refuse is in test_distributed.py."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sslfast.ops import agreement


@pytest.mark.parametrize("capturing", [True, False])
def test_nothing_is_exchanged_while_a_cuda_graph_is_captured(capturing, monkeypatch):
    """Of a tensor that says that it lies on a GPU, by a rank that meets its own description."""
    exchanged = []
    monkeypatch.setattr(agreement, "_host_group", lambda group: group)
    monkeypatch.setattr(agreement, "gather_all", lambda mine, group: exchanged.append(mine) or mine[None])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    with FakeTensorMode():
        z = torch.empty(4, 3, device="cuda")
    agreement.check_ranks_agree("nt_xent", None, z)
    assert len(exchanged) == (0 if capturing else 1)
