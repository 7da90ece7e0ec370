from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslfast.data import TensorImages, load_images
from sslfast.evaluate import extract_features
from sslfast.evaluate.features import fingerprint, frozen
from sslfast.modality.images import RawPixels, to_inputs
from sslfast.models import build_backbone

GRAY = {"inputs": partial(to_inputs, size=None, mean=(0.3,), std=(0.4,))}
COLOUR = {"inputs": partial(to_inputs, size=None, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))}


def random_images(count: int, shape: tuple[int, int, int], *, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Forgetful(nn.Module):
    """A backbone that changes one of its tensors on every forward pass."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64, 4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        getattr(self, self.kind).add_(1)
        return x.flatten(1) @ self.weight


@pytest.mark.parametrize("kind", ["weight", "seen", "hidden"])
def test_a_backbone_that_changes_is_caught(kind):
    with pytest.raises(RuntimeError, match=f"stay frozen, but evaluating it changed {kind}$"):
        extract_features(Forgetful(kind), load_images("digits", "test"), **GRAY)


def test_batchnorm_that_updates_its_statistics_is_caught():
    class Careless(nn.BatchNorm2d):
        def forward(self, x):
            return F.batch_norm(x, self.running_mean, self.running_var, training=True).flatten(1)

    with pytest.raises(RuntimeError, match=r"changed running_mean, running_var"):
        extract_features(Careless(1), load_images("digits", "test"), **GRAY)


def test_a_nan_that_stays_a_nan_has_not_changed():
    network = nn.Flatten()
    network.register_buffer("odd", torch.tensor([float("nan"), 1.0]))
    with frozen(network):
        pass
    with pytest.raises(RuntimeError, match="changed odd"), frozen(network):
        network.odd[1] = 2


def test_features_are_the_networks_own_in_eval_mode():
    images = load_images("digits", "test")
    backbone = build_backbone("resnet20", in_channels=1, image_size=8)
    backbone(torch.randn(32, 1, 8, 8))  # so that BatchNorm has statistics
    backbone.layer1.eval()
    before = fingerprint(backbone)
    features, labels = extract_features(backbone, images, batch_size=100, **GRAY)
    assert fingerprint(backbone) == before
    assert backbone.training
    assert not backbone.layer1.training  # every module has the mode it had
    backbone.eval()
    with torch.no_grad():
        wanted = backbone((images.images.float() / 255 - 0.3) / 0.4)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, images.labels)


def test_a_selection_comes_in_its_order():
    images = load_images("digits", "test")
    chosen = torch.tensor([5, 300, 2])
    features, labels = extract_features(RawPixels(), images, indices=chosen, batch_size=2, **GRAY)
    torch.testing.assert_close(features, ((images.images[chosen].float() / 255 - 0.3) / 0.4).flatten(1))
    assert torch.equal(labels, images.labels[chosen])


def test_output_that_is_no_feature_vector_is_named():
    with pytest.raises(ValueError, match=r"backbone must return \(256, F\) features, got \(256, 1, 8, 8\)"):
        extract_features(nn.Identity(), load_images("digits", "test"), **GRAY)


def test_fingerprint_tells_weights_apart():
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    assert fingerprint(one) != fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(one.bfloat16())


@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu():
    images = TensorImages(random_images(70, (3, 32, 32)), torch.zeros(70, dtype=torch.int64), ["one"])
    backbone = build_backbone("resnet20")
    on_cpu, _ = extract_features(backbone, images, **COLOUR)
    on_gpu, labels = extract_features(backbone, images, device="cuda", **COLOUR)
    assert (on_gpu.device.type, labels.device.type) == ("cuda", "cuda")
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-2, atol=1e-2)
