from __future__ import annotations

import pytest
import torch
from torch import nn

from sslfast.models import ProjectionHead


def kinds(head: nn.Sequential) -> list[str]:
    return [type(module).__name__ for module in head]


def test_two_layers_of_simclr() -> None:
    head = ProjectionHead(64, 32, 16)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None
    assert head[3].bias is not None
    assert head(torch.rand(4, 64)).shape == (4, 16)


def test_three_layers_of_simsiam_end_in_a_norm_without_parameters() -> None:
    head = ProjectionHead(64, 32, 16, layers=3, output_norm="plain")
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert head[-1].weight is None
    assert head[-2].bias is None


def test_linear_head_and_head_without_norm() -> None:
    assert kinds(ProjectionHead(8, 8, 4, layers=1)) == ["Linear"]
    plain = ProjectionHead(8, 8, 4, batch_norm=False)
    assert kinds(plain) == ["Linear", "ReLU", "Linear"]
    assert plain[0].bias is not None


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"out_features": 0}, {"output_norm": "batch"}])
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    options = {"in_features": 8, "hidden_features": 8, "out_features": 4, **wrong}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProjectionHead(**options)
