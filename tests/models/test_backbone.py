from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from sslfast.models import build_backbone
from sslfast.models.input_size import check_input_size
from sslfast.models.vit import sine_cosine_positions


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet26d", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("channels", [1, 3])
def test_num_features_is_what_comes_out(name: str, channels: int) -> None:
    backbone = build_backbone(name, in_channels=channels, image_size=32).eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, channels, 32, 32))
    assert features.shape == (2, backbone.num_features)


def test_resnets_for_small_images_keep_their_resolution_in_the_stem() -> None:
    small, large = (build_backbone("resnet18", image_size=size) for size in (64, 65))
    assert small.conv1.kernel_size == (3, 3)
    assert small.conv1.stride == (1, 1)
    assert isinstance(small.maxpool, nn.Identity)
    assert large.conv1.kernel_size == (7, 7)
    assert isinstance(large.maxpool, nn.MaxPool2d)


def test_deep_stem_loses_its_stride_too() -> None:
    backbone = build_backbone("resnet26d", image_size=32)
    x = backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(torch.rand(2, 3, 32, 32)))))
    assert x.shape[-2:] == (32, 32)


def test_resnet20_is_the_papers() -> None:
    backbone = build_backbone("resnet20")
    layers = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) == 19  # and the classifier that features do not need
    assert sum(p.numel() for p in backbone.parameters()) + 64 * 10 + 10 == 269_722  # table 6: 0.27M
    assert backbone.layer3(backbone.layer2(torch.rand(1, 16, 32, 32))).shape == (1, 64, 8, 8)


def test_shortcut_of_a_new_stage_is_the_subsampled_input() -> None:
    block = build_backbone("resnet20").layer2[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert not y[:, 16:].any()


def test_the_same_seed_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(build_backbone("resnet20", in_channels=1).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values()))


@pytest.mark.parametrize(("name", "near"), [("resnet19", "resnet18"), ("vit_tiny_patch16_225", "vit_tiny_patch16_224")])
def test_unknown_name_has_its_neighbours_in_the_error(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=near):
        build_backbone(name)


def test_names_that_would_go_to_the_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was asked"))
    with pytest.raises(ValueError, match="unknown backbone"):
        build_backbone("hf-hub:timm/resnet18.a1_in1k")


@pytest.mark.parametrize("wrong", [{"in_channels": 0}, {"image_size": 2}])
def test_wrong_sizes_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build_backbone("resnet20", **wrong)


@pytest.mark.parametrize(("name", "size"), [("vit_micro_patch2", 8), ("vit_tiny_patch4", 32), ("vit_small_patch8", 32)])
def test_vision_transformers_load_in_plain_timm_and_give_the_mean_of_their_tokens(name: str, size: int) -> None:
    backbone = build_backbone(name, in_channels=1, image_size=size).eval()
    kind, patch = name.removeprefix("vit_").split("_patch")
    shape = {"embed_dim": 128, "depth": 4, "num_heads": 4} if kind == "micro" else {}
    plain = timm.create_model(
        f"vit_{kind.replace('micro', 'tiny')}_patch16_224", img_size=size, patch_size=int(patch), in_chans=1,
        num_classes=0, global_pool="avg", fc_norm=False, **shape,
    ).eval()  # fmt: skip
    plain.load_state_dict(backbone.state_dict())
    x = torch.rand(2, 1, size, size)
    with torch.no_grad():
        features = backbone(x)
        assert features.shape == (2, backbone.num_features)
        torch.testing.assert_close(features, plain(x))
        torch.testing.assert_close(features, backbone.forward_features(x)[:, 1:].mean(dim=1))


@pytest.mark.parametrize(("name", "width", "depth"), [("base", 768, 12), ("large", 1024, 24)])
def test_large_vision_transformers_are_the_papers(name: str, width: int, depth: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(f"vit_{name}_patch16", image_size=224)
    assert (backbone.embed_dim, len(backbone.blocks)) == (width, depth)
    assert backbone.pos_embed.shape == (1, 197, width)


def test_an_image_that_patches_do_not_divide_is_named() -> None:
    with pytest.raises(ValueError, match="image_size to be a multiple of 8, got 30"):
        build_backbone("vit_tiny_patch8", image_size=30)
    with pytest.raises(ValueError, match="multiple of 0"):
        build_backbone("vit_tiny_patch0")


def test_positions_tell_columns_in_their_first_half_and_rows_in_their_second() -> None:
    positions = sine_cosine_positions(3, 8).unflatten(0, (3, 3))  # (row, column, width)
    angles = torch.tensor([1.0, 0.01])
    expected = torch.cat([(2 * angles).sin(), (2 * angles).cos(), angles.sin(), angles.cos()])
    torch.testing.assert_close(positions[1, 2], expected)
    with pytest.raises(ValueError, match="width"):
        sine_cosine_positions(3, 6)


def test_a_module_under_two_names_keeps_its_weights() -> None:
    """As CoaT has them: a check of shapes once left them without values."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    network.again = network[1]
    network.forward = lambda x: network[1](network[0](x))
    weight = network[1].weight
    assert check_input_size(network, "twice", 3, 8).shape == (1, 4)
    assert network[1].weight is weight
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
