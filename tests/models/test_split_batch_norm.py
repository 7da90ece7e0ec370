from __future__ import annotations

import pytest
import torch
from torch import nn

from sslfast.models import build_backbone, split_batch_norm


def layer(splits: int) -> tuple[nn.BatchNorm2d, nn.Sequential]:
    """A BatchNorm2d with a history, and a network with the same one split."""
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3, momentum=0.3)
    for tensor in (plain.weight.data, plain.bias.data, plain.running_mean, plain.running_var):
        tensor.uniform_(0.5, 2.0)
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))
    network[0].load_state_dict(plain.state_dict())
    split_batch_norm(network, splits)
    return plain, network


def test_each_part_is_normalised_by_its_own_statistics() -> None:
    plain, network = layer(2)
    x = torch.randn(8, 3, 5, 5) * torch.arange(1, 9).view(8, 1, 1, 1)
    x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
    wanted = torch.cat(
        [nn.functional.batch_norm(part, None, None, plain.weight, plain.bias, True) for part in x.split(4)]
    )
    found = network(y)
    assert torch.equal(found, wanted)
    assert not torch.allclose(found, plain(x), atol=0.1)
    weight = torch.randn_like(x)
    (wanted * weight).sum().backward()
    (found * weight).sum().backward()
    torch.testing.assert_close(y.grad, x.grad)
    torch.testing.assert_close(network[0].weight.grad, plain.weight.grad)


def test_running_statistics_follow_the_mean_of_the_parts() -> None:
    plain, network = layer(4)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    x = torch.randn(8, 3, 5, 5)
    network(x)
    parts = [part.transpose(0, 1).flatten(1) for part in x.split(2)]
    mean = torch.stack([part.mean(dim=1) for part in parts]).mean(dim=0)
    var = torch.stack([part.var(dim=1) for part in parts]).mean(dim=0)
    torch.testing.assert_close(network[0].running_mean, 0.7 * before["running_mean"] + 0.3 * mean)
    torch.testing.assert_close(network[0].running_var, 0.7 * before["running_var"] + 0.3 * var)
    assert network[0].num_batches_tracked == 1


def test_in_eval_mode_and_as_a_file_it_is_a_plain_one() -> None:
    torch.manual_seed(0)
    plain, split = build_backbone("resnet20"), build_backbone("resnet20")
    split_batch_norm(split, 4)
    split.load_state_dict(plain.state_dict())
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(split.eval()(x), plain.eval()(x))
    assert "splits=4" in repr(split)


def test_channels_last_stays() -> None:
    _, network = layer(2)
    x = torch.randn(4, 3, 6, 5).to(memory_format=torch.channels_last)
    assert network(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(network(x), network(x.contiguous()), atol=1e-6)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"splits must be at least 1, got 0"):
        split_batch_norm(build_backbone("resnet20"), 0)
    with pytest.raises(ValueError, match="Linear has none"):
        split_batch_norm(nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match=r"plain BatchNorm2d layers only .* got BatchNorm1d"):
        split_batch_norm(nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(2)), 2)
    _, network = layer(3)
    with pytest.raises(ValueError, match="multiple of 3, got 4"):
        network(torch.randn(4, 3, 2, 2))
