from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gloo import run_ranks
from train.toys import assert_resumes_exactly

from sslfast.kernels import reference
from sslfast.methods import MoCo
from sslfast.models import build_backbone
from sslfast.models.split_batch_norm import SplitBatchNorm2d
from sslfast.recipes import RECIPES
from sslfast.train import pretrain
from sslfast.train.optim import build_optimizer

CONFIG = MoCo.Config(
    data="digits", image_size=8, preset="mnist-like", batch_size=8, queue_size=32, key_momentum=0.75, warmup_epochs=0
)
IMAGES = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build(**changes: object) -> MoCo:
    torch.manual_seed(0)
    return MoCo(build_backbone("resnet20", in_channels=1, image_size=8), dataclasses.replace(CONFIG, **changes))


def views(method: MoCo, seed: int = 1) -> tuple[torch.Tensor, ...]:
    return method.views(IMAGES, torch.Generator().manual_seed(seed))


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x)


def test_views_and_their_shuffle_are_drawn_from_the_generator_alone() -> None:
    method = build()
    batch = views(method)
    torch.rand(5)  # the global generator plays no part
    assert all(torch.equal(a, b) for a, b in zip(batch, views(method)))
    first, second, order = batch
    assert first.shape == second.shape == (8, 1, 8, 8)
    assert not torch.equal(first, second)
    assert not torch.equal(order, torch.arange(8))
    assert torch.equal(order.sort().values, torch.arange(8))


def test_loss_is_info_nce_against_the_queue_as_it_was_before_the_batch() -> None:
    method = build(temperature=0.3)
    first, second, order = views(method)
    queue = method.queue.keys.clone()
    query, key = method.head(method.backbone(first)), method.encode_keys(second, order)
    output = method((first, second, order))
    assert output["loss"].item() == pytest.approx(reference.info_nce(query, key, queue, 0.3).item(), rel=1e-5)
    assert torch.allclose(output["embeddings"], query)
    assert not output["embeddings"].requires_grad


def test_keys_are_enqueued_after_the_logits_in_order_and_only_in_training() -> None:
    method = build()
    batch = views(method)
    assert method.queue.keys.norm(dim=1).allclose(torch.ones(32))  # the random rows it starts with
    key = method.encode_keys(*batch[1:])
    before = method.queue.keys.clone()
    method(batch)
    assert torch.allclose(method.queue.keys[:8], unit(key), atol=1e-6)
    assert torch.equal(method.queue.keys[8:], before[8:])
    assert method.queue.pointer == 8
    state = {name: value.clone() for name, value in method.queue.state_dict().items()}
    assert set(state) == {"keys", "pointer"}
    method.eval()
    with torch.no_grad():
        assert method(batch)["loss"].isfinite()
    assert all(torch.equal(value, state[name]) for name, value in method.queue.state_dict().items())


def test_a_queue_that_the_batch_does_not_divide_holds_the_newest_keys() -> None:
    method = build(queue_size=20)
    keys = []
    for seed in range(4):
        batch = views(method, seed)
        keys.append(unit(method.encode_keys(*batch[1:])))
        method(batch)
    newest = torch.cat(keys)[-20:]
    held = method.queue.keys.roll(-int(method.queue.pointer), 0)  # the oldest first
    assert torch.allclose(held, newest, atol=1e-6)


def test_symmetric_loss_is_the_sum_of_both_directions() -> None:
    method = build(symmetric=True)
    first, second, order = views(method)
    queue = method.queue.keys.clone()
    one = build()((first, second, order))["loss"] + build()((second, first, order))["loss"]
    assert method((first, second, order))["loss"].item() == pytest.approx(one.item(), rel=1e-5)
    assert method.queue.pointer == 16
    assert not (method.queue.keys[:16] == queue[:16]).all(dim=1).any()


def test_key_encoder_follows_the_parameters_before_the_forward_pass_and_is_not_trained() -> None:
    method = build()
    method.on_step(0, 10)
    optimizer = build_optimizer(method, CONFIG)
    trained = [id(p) for group in optimizer.param_groups for p in group["params"]]
    keys = list(method.key_encoder.parameters())
    assert not {id(p) for p in keys} & set(trained)
    queries = [*method.backbone.parameters(), *method.head.parameters()]
    assert sorted(map(id, queries)) == sorted(trained)

    method(views(method))["loss"].backward()
    assert all(p.grad is None for p in keys)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in queries)
    with torch.no_grad():
        for p in queries:
            p.add_(1.0)
    before = [p.clone() for p in keys]
    method.on_step(1, 10)
    for key, old, query in zip(keys, before, queries):
        torch.testing.assert_close(key, 0.75 * old + 0.25 * query.detach())


def test_key_encoder_keeps_the_running_statistics_of_its_own_images() -> None:
    method = build()
    method.on_step(0, 10)
    first, second, order = views(method)
    method((first, second, order))
    method.on_step(1, 10)
    own, queries = method.key_encoder.module[0].bn1, method.backbone.bn1
    assert own.num_batches_tracked == queries.num_batches_tracked == 1
    assert not torch.allclose(own.running_mean, queries.running_mean)
    mean = method.backbone.conv1(second).mean(dim=(0, 2, 3))  # of the second view, by the weights then equal
    torch.testing.assert_close(own.running_mean, 0.1 * mean.detach(), rtol=1e-4, atol=1e-6)


def test_key_encoder_starts_from_weights_that_were_loaded() -> None:
    method = build()
    with torch.no_grad():
        method.backbone.conv1.weight.add_(1.0)  # as --init-from does after the networks are made
    method.on_step(0, 10)
    for (name, key), query in zip(method.key_encoder.module[0].named_parameters(), method.backbone.parameters()):
        torch.testing.assert_close(key, query, msg=name)


def test_shuffling_puts_images_into_other_parts_of_batch_norm_and_keys_back() -> None:
    method = build(bn_splits=4)
    assert any(isinstance(module, SplitBatchNorm2d) for module in method.backbone.modules())
    assert any(isinstance(module, SplitBatchNorm2d) for module in method.key_encoder.modules())
    _, second, order = views(method)
    method.key_encoder.eval()
    plain = method.key_encoder(second)
    assert torch.allclose(method.encode_keys(second, order), plain, atol=1e-6)  # in order
    method.key_encoder.train()
    in_place, shuffled = (method.encode_keys(second, o) for o in (torch.arange(8), order))
    assert not torch.allclose(in_place, shuffled, atol=1e-3)  # other neighbours, other statistics
    by_hand = method.key_encoder(second[order])[order.argsort()]
    assert torch.equal(shuffled, by_hand)


def test_heads_of_both_versions() -> None:
    linear = [[(m.in_features, m.out_features) for m in head if isinstance(m, torch.nn.Linear)]
              for head in (build().head, build(projection_layers=1).head)]  # fmt: skip
    assert linear == [[(64, 64), (64, 128)], [(64, 128)]]
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in build().head)


def test_published_values() -> None:
    v1, v2, cifar = (RECIPES[name].config for name in ("moco-v1-imagenet", "moco-imagenet", "moco-cifar10"))
    assert [(c.temperature, c.queue_size, c.key_momentum, c.projection_layers) for c in (v1, v2, cifar)] == [
        (0.07, 65536, 0.999, 1), (0.2, 65536, 0.999, 2), (0.1, 4096, 0.99, 1),
    ]  # fmt: skip
    assert [(c.learning_rate * c.batch_size / 256, c.weight_decay, c.bn_splits) for c in (v1, v2, cifar)] == [
        (0.03, 1e-4, 8), (0.03, 1e-4, 8), (0.06, 5e-4, 8),
    ]  # fmt: skip
    assert [(c.preset, c.lr_scaling, c.optimizer) for c in (v1, v2)] == [
        ("moco-v1", "linear", "sgd"), ("moco-v2", "linear", "sgd"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
        ({"queue_size": 7}, "queue_size must be at least the 8 keys of a forward pass, got 7"),
        ({"queue_size": 15, "symmetric": True}, "queue_size must be at least the 16 keys"),
        ({"key_momentum": 1.5}, "key_momentum must be at most 1, got 1.5"),
        ({"key_momentum": float("nan")}, "key_momentum must be at least 0, got nan"),
        ({"bn_splits": 3}, "bn_splits must divide the batch_size of 8, got 3"),
        ({"bn_splits": 0}, "bn_splits must be at least 1, got 0"),
        ({"bn_splits": 2, "sync_batchnorm": True}, "sync_batchnorm joins what bn_splits takes apart"),
    ],
)
def test_wrong_configuration_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
    assert not CONFIG.sync_batchnorm


def test_splits_without_batch_norm_are_refused() -> None:
    backbone = torch.nn.Flatten()
    backbone.num_features = 64
    with pytest.raises(ValueError, match="must have BatchNorm2d layers to split"):
        MoCo(backbone, dataclasses.replace(CONFIG, bn_splits=2))


# 1437 digits: 22 steps an epoch.
RUN = dataclasses.replace(
    RECIPES["moco"].config, epochs=1, batch_size=64, queue_size=64, bn_splits=1, learning_rate=1.0, warmup_epochs=0.2,
    log_every=1, knn_every=0,
)  # fmt: skip


def test_training_on_the_digits_makes_the_loss_fall(tmp_path: Path) -> None:
    assert pretrain(RUN, tmp_path).steps == 22
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # The first step is against the random rows that the queue starts with, which are easy negatives.
    assert sum(losses[-6:]) / 6 < sum(losses[1:5]) / 4 - 0.1


def test_resume_is_exact_with_queue_pointer_and_key_encoder(tmp_path: Path) -> None:
    assert_resumes_exactly(dataclasses.replace(RUN, symmetric=True, queue_size=300, bn_splits=2), tmp_path, step=9)


def _rank_forward() -> dict[str, torch.Tensor]:
    """One forward pass of a rank that has its own images."""
    rank, method = dist.get_rank(), build()
    images = IMAGES.roll(rank, 0)
    batch = method.views(images, torch.Generator().manual_seed(rank))
    method(batch)
    state = {"second": batch[1], "order": batch[2], "keys": method.queue.keys, "pointer": method.queue.pointer}
    mean = method.key_encoder.module[0].bn1.running_mean
    return {name: value.detach() for name, value in {**state, "mean": mean}.items()}


@pytest.mark.slow
def test_ranks_shuffle_the_images_of_all_and_hold_the_same_queue(tmp_path: Path) -> None:
    ranks = run_ranks(_rank_forward, 2, tmp_path)
    order = ranks[0]["order"]
    assert torch.equal(order.sort().values, torch.arange(16))
    for name in ("order", "keys", "pointer"):
        assert torch.equal(ranks[0][name], ranks[1][name]), name
    assert ranks[0]["pointer"] == 16

    images = torch.cat([rank["second"] for rank in ranks])
    keys = torch.empty(16, 128)
    for rank, mine in enumerate(order.chunk(2)):  # BatchNorm sees this half of the shuffled images
        method = build()
        with torch.no_grad():
            keys[mine] = method.key_encoder(images[mine])
        torch.testing.assert_close(method.key_encoder.module[0].bn1.running_mean, ranks[rank]["mean"])
    torch.testing.assert_close(ranks[0]["keys"][:16], unit(keys))
