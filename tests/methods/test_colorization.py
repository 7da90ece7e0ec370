from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gloo import run_ranks
from skimage import color
from train.toys import assert_resumes_exactly

from sslfast.data import LUMA, load_images
from sslfast.methods import Colorization
from sslfast.methods.lab import colour_bins, rebalancing
from sslfast.models import build_backbone
from sslfast.recipes import RECIPES
from sslfast.train import pretrain

CONFIG = Colorization.Config(image_size=16, stride=4, decoder_width=16)
PHOTOS = load_images("photos", "test").images[::40]  # 15 of them, from all photographs
GRAY = PHOTOS.float().mean(dim=1, keepdim=True).to(torch.uint8).expand_as(PHOTOS)
TRAINING = dataclasses.replace(
    RECIPES["colorization"].config, image_size=8, stride=2, batch_size=32, epochs=1, warmup_epochs=0, knn_every=0,
    log_every=1, accelerator="cpu", workers=0,
)  # fmt: skip


def build(**changes: object) -> Colorization:
    torch.manual_seed(0)
    return Colorization(build_backbone("resnet20", in_channels=1), dataclasses.replace(CONFIG, **changes))


def seed(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def test_the_network_sees_the_luma_and_predicts_a_quarter_of_the_size() -> None:
    method = build()
    luma, nearest, share, colourful = method.views(PHOTOS, seed())
    assert luma.shape == (15, 1, 16, 16)
    assert nearest.shape == share.shape == (15, 4, 4, 5)
    assert colourful.shape == (15,)
    rgb = method._crop(PHOTOS, seed())
    expected = torch.einsum("bchw,c->bhw", rgb, torch.tensor(LUMA))
    assert torch.allclose(luma[:, 0] * method.std + method.mean, expected, atol=1e-6)
    torch.rand(3)  # the global generator plays no part
    assert all(torch.equal(a, b) for a, b in zip(method.views(PHOTOS, seed()), (luma, nearest, share, colourful)))


def test_targets_are_the_bins_of_the_mean_ab_of_a_square() -> None:
    method = build()
    _, nearest, share, _ = method.views(PHOTOS, seed())
    rgb = method._crop(PHOTOS, seed()).double()
    ab = torch.from_numpy(color.rgb2lab(rgb.numpy(), channel_axis=1))[:, 1:]
    ab = ab.reshape(15, 2, 4, 4, 4, 4).mean(dim=(3, 5)).permute(0, 2, 3, 1)  # (B, h, w, 2)
    distance = (ab[..., None, :] - colour_bins().double()).square().sum(-1)
    found = distance.gather(-1, nearest)
    assert torch.allclose(found, distance.topk(5, largest=False).values, atol=1e-2)
    weight = torch.exp(-found / 50)
    assert torch.allclose(share.double(), weight / weight.sum(-1, keepdim=True), atol=1e-3)


def test_images_with_nearly_no_colour_weigh_nothing() -> None:
    method = build()
    views = method.views(torch.cat([PHOTOS[-3:], GRAY[:3]]), seed())
    assert views[3].tolist() == [True] * 3 + [False] * 3
    nothing = method.views(GRAY, seed())
    before = method.prior.clone()
    output = method(nothing)
    assert output["loss"].item() == 0
    assert output["accuracy"].item() == 0
    assert torch.equal(method.prior, before)  # nor do their grays count as colours


def test_loss_is_the_rebalanced_cross_entropy_with_the_soft_targets() -> None:
    method = build().eval()
    method.prior.copy_(torch.rand(313, generator=seed()).softmax(0))
    luma, nearest, share, colourful = method.views(PHOTOS, seed())
    output = method((luma, nearest, share, colourful))
    logits = method.decoder(method.backbone.forward_features(luma))  # (B, 313, h, w)
    target = torch.zeros(15, 4, 4, 313).scatter(-1, nearest, share).permute(0, 3, 1, 2)
    weight = rebalancing(method.prior, 0.5)[target.argmax(1)] * colourful[:, None, None]
    loss = F.cross_entropy(logits, target, reduction="none")
    assert output["loss"].item() == pytest.approx((weight * loss).mean().item(), rel=1e-5)
    hits = (logits.argmax(1) == target.argmax(1))[colourful]
    assert output["accuracy"].item() == pytest.approx(hits.float().mean().item())


def test_frequencies_are_the_mean_of_what_training_saw_and_stay_in_evaluation() -> None:
    method = build()
    batches = [method.views(PHOTOS, seed(k)) for k in range(3)]
    means = []
    for _, nearest, share, colourful in batches:
        counts = torch.zeros(313).index_add_(0, nearest[colourful].flatten(), share[colourful].flatten())
        means.append(counts / counts.sum())
    for batch in batches:
        method(batch)
    assert torch.allclose(method.prior, torch.stack(means).mean(0), atol=1e-5)
    assert method.prior.sum().item() == pytest.approx(1, abs=1e-4)
    before = method.prior.clone()
    method.eval()(batches[0])
    assert torch.equal(method.prior, before)


def test_after_a_hundred_batches_the_frequencies_forget() -> None:
    method = build()
    views = method.views(PHOTOS, seed())
    method._count(*views[1:])
    found = method.prior.clone()
    method.prior.fill_(1 / 313)
    method.batches.fill_(1000)
    method._count(*views[1:])
    torch.testing.assert_close(method.prior, 0.99 / 313 + 0.01 * found)


def _rank_prior() -> torch.Tensor:
    """The frequencies after one step of a rank that has half of the photographs."""
    method = build()
    method(tuple(part[dist.get_rank() :: 2] for part in method.views(PHOTOS, seed())))
    return method.prior


@pytest.mark.slow
def test_ranks_count_the_colours_of_all_as_one_process_would(tmp_path: Path) -> None:
    method = build()
    method(method.views(PHOTOS, seed()))
    assert all(torch.equal(prior, method.prior) for prior in run_ranks(_rank_prior, 2, tmp_path))


def test_illustration_is_gray_predicted_original() -> None:
    method = build().eval()
    with torch.no_grad():
        rows = method.illustrate(PHOTOS[-4:], seed())
    assert [[panel.caption for panel in row] for row in rows] == [["given", "predicted colours", "original"]] * 4
    given, predicted, original = (torch.stack([row[k].content for row in rows]) for k in range(3))
    assert given.shape == (4, 1, 16, 16)
    assert predicted.shape == original.shape == (4, 3, 16, 16)
    assert predicted.min() >= 0
    assert predicted.max() <= 1
    assert torch.allclose(given, torch.einsum("bchw,c->bhw", original, torch.tensor(LUMA))[:, None], atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("gamma", 0.0), ("gamma", 1.1), ("temperature", 0.0), ("stride", 3), ("stride", 0), ("decoder_width", 0)],
)
def test_wrong_configuration_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(CONFIG, **{field: value})


def test_what_has_no_colours_or_changes_them_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data must have colours.*'digits' is gray"):
        build(data="digits")
    with pytest.raises(ValueError, match=r"preset must leave colours.*simclr-cifar"):
        build(preset="simclr-cifar")
    with pytest.raises(ValueError, match="3 channels"):
        build().views(PHOTOS[:, :1])


def test_training_on_the_photographs_lowers_the_loss(tmp_path: Path) -> None:
    pretrain(TRAINING, tmp_path / "run")  # 75 steps
    found = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(found[-10:]) < 0.8 * sum(found[:10])


def test_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    assert_resumes_exactly(dataclasses.replace(TRAINING, batch_size=800), tmp_path, step=1)  # of 3
