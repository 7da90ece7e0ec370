"""sslfast.compat.sup_contrast against SupContrast's formula, written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslfast.compat.sup_contrast import SupConLoss


def formula(features: Tensor, labels: Tensor, temperature: float, base_temperature: float) -> Tensor:
    """The mean over all views of minus the mean log-probability of their positives; 0 where a view has none."""
    z, labels = features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    positives = (labels[:, None] == labels) & others
    log_p = (z @ z.T / temperature).masked_fill(~others, -torch.inf).log_softmax(dim=1)
    mean = torch.where(positives, log_p, 0).sum(1) / positives.sum(1).clamp(min=1)
    return -temperature / base_temperature * mean.mean()


@pytest.mark.parametrize("temperatures", [(0.07, 0.07), (0.2, 0.1)])
@pytest.mark.parametrize("shape", [(6, 2, 5), (5, 3, 2, 4), (6, 1, 5)], ids=str)
@pytest.mark.parametrize("with_labels", [True, False])
def test_value_and_gradient(with_labels: bool, shape: tuple[int, ...], temperatures: tuple, device: str) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    labels = torch.tensor([4, 1, 4, 0, 4, 1], device=device)[: shape[0]]
    features = F.normalize(x.flatten(2), dim=2)
    own = labels if with_labels else torch.arange(shape[0], device=device)
    loss = SupConLoss(temperatures[0], base_temperature=temperatures[1])
    values = loss(features.view(shape), labels if with_labels else None), formula(features, own, *temperatures)
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, x, retain_graph=True)[0] for value in values), rtol=1e-4, atol=1e-6
    )


def test_a_mask_of_labels_gives_the_loss_of_the_labels(device: str) -> None:
    features = F.normalize(torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0)), dim=2).to(device)
    labels = torch.tensor([4, 1, 4, 0, 4, 1], device=device)
    mask = (labels[:, None] == labels).float()
    loss = SupConLoss()
    assert torch.equal(loss(features, mask=mask), loss(features, labels))
    assert torch.equal(loss(features, mask=torch.eye(6)), loss(features))


def test_what_is_not_served_says_what_to_use() -> None:
    x, loss = F.normalize(torch.randn(4, 2, 3), dim=2), SupConLoss()
    for wrong, match in (
        (lambda: SupConLoss(contrast_mode="one"), "contrast_mode must be \"all\", got 'one'; use SupContrast"),
        (lambda: SupConLoss(base_temperature=0), "base_temperature must be positive, got 0"),
        (lambda: loss(x, mask=torch.eye(4).tril(1)[[1, 0, 2, 3]]), "mask must be that of labels"),
        (lambda: loss(x, mask=1 - torch.eye(4)), "mask must be that of labels"),
        (lambda: loss(x, mask=torch.eye(3)), r"mask must be \(4, 4\), got \(3, 3\)"),
        (lambda: loss(x, torch.arange(4), torch.eye(4)), "labels and mask must not both be given"),
        (lambda: loss(x[0]), r"features must be \(B, V, ...\), got shape \(2, 3\)"),
        (lambda: loss(x, torch.arange(3)), r"labels must be \(4,\), one an image, got 3"),
        (lambda: loss(2 * x), "features must have rows of unit length"),
    ):
        with pytest.raises(ValueError, match=match):
            wrong()
