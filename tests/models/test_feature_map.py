from __future__ import annotations

import pytest
import torch

from sslfast.models import build_backbone, feature_map, feature_map_shape


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("resnet20", 16, (64, 4)),
        ("vit_micro_patch4", 16, (128, 4)),
        ("swin_tiny_patch4_window7_224", 224, (768, 7)),  # channels last
    ],
)
def test_a_map_pools_into_the_features(name: str, size: int, shape: tuple[int, int]) -> None:
    backbone = build_backbone(name, image_size=size).eval()
    assert feature_map_shape(backbone, 3, size) == shape
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        found = feature_map(backbone, images)
        assert found.shape == (1, *shape, shape[1])
        torch.testing.assert_close(found.mean(dim=(2, 3)), backbone(images))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "ghostnet_050"])
def test_layers_between_the_map_and_the_features_are_refused(name: str) -> None:
    backbone = build_backbone(name, image_size=64)
    with pytest.raises(ValueError, match=r"backbone must pool its feature map into its features, \w+ has layers"):
        feature_map_shape(backbone, 3, 64)
    assert backbone.training
