"""The losses under other libraries' names are traced as the ops under them are: exported with a free batch, and of
tensors without values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from every_op import randn
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, export

from sslfast.compat import lightly, open_clip, pytorch_metric_learning, solo, sup_contrast


class Face(nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: Tensor) -> Tensor:
        return self.function(*xs)


SCALE, BIAS, QUEUE = torch.tensor(10.0), torch.tensor(-5.0), nn.functional.normalize(randn(9, 8, seed=2), dim=1).T
FACES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lightly.DCLLoss": lightly.DCLLoss(),
    "open_clip.ClipLoss": lambda x, y: open_clip.ClipLoss()(unit(x), unit(y), SCALE),
    "open_clip.SigLipLoss": lambda x, y: open_clip.SigLipLoss()(unit(x), unit(y), SCALE, BIAS),
    "pytorch_metric_learning.NTXentLoss": lambda x, y: pytorch_metric_learning.SelfSupervisedLoss(
        pytorch_metric_learning.NTXentLoss(0.2)
    )(x, y),
    "solo.moco_loss_func": lambda x, y: solo.moco_loss_func(x, y, QUEUE),
    "solo.byol_loss_func": solo.byol_loss_func,
    "sup_contrast.SupConLoss": lambda x, y: sup_contrast.SupConLoss()(torch.stack([unit(x), unit(y)], dim=1)),
}


def unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=1)


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    return randn(batch, 8), randn(batch, 8, seed=1)


@pytest.mark.parametrize("name", FACES)
def test_a_free_batch_stays_free(name):
    batch = Dim("batch", min=2)
    program = export(Face(FACES[name]), inputs(5), dynamic_shapes=(({0: batch}, {0: batch}),)).module()
    for size in (5, 11):
        torch.manual_seed(0)
        actual = program(*inputs(size))
        torch.manual_seed(0)
        torch.testing.assert_close(actual, FACES[name](*inputs(size)))


def test_fake_tensors():
    with FakeTensorMode():
        features, scale = torch.empty(4, 2, 8), torch.empty(())
        assert open_clip.ClipLoss()(features[:, 0], features[:, 1], scale).shape == ()
        assert sup_contrast.SupConLoss()(features, mask=torch.empty(4, 4)).shape == ()
