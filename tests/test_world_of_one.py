"""In a process group of one: modules that hold a group are copied, tensors spread over a mesh are refused by name."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from every_op import randn, views
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from sslfast import EMA, KeyQueue, losses, ops


@pytest.fixture(autouse=True)
def group() -> Iterator[ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.new_group([0])
    dist.destroy_process_group()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_of_a_module_holds_the_same_group(copied, group):
    model = nn.ModuleList([losses.NTXentLoss(group=group), KeyQueue(4, 3, group), losses.SigLIPLoss(group="world")])
    assert [x.group for x in copied(model)] == [group, group, "world"]
    assert EMA(model).module[1].group is group


def test_spread_tensors_are_refused_by_name():
    from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (1,))

    def spread(x: Tensor) -> Tensor:
        return distribute_tensor(x, mesh, [Replicate()])

    z, tokens, keep = randn(4, 3), randn(2, 4, 3), torch.zeros(2, 1, dtype=torch.int64)
    images, params = views()
    for refused, name in (
        (lambda: ops.nt_xent(z, spread(z)), "nt_xent: z2"),
        (lambda: ops.info_nce(z, z, ids=spread(torch.arange(4))), "info_nce: ids"),
        (lambda: ops.clip_loss(z, z, logit_scale=spread(torch.ones(1))), "clip_loss: logit_scale"),
        (lambda: ops.gather_tokens(spread(tokens), keep), "gather_tokens: tokens"),
        (lambda: ops.augment(spread(images), params, 8), "augment: images"),
        (lambda: ops.ema_update_([z], [spread(z)], 0.5), r"ema_update_: sources\[0\]"),
        (lambda: KeyQueue(4, 3).enqueue(spread(z)), "KeyQueue: keys"),
    ):
        with pytest.raises(TypeError, match=name + r" must be a dense tensor.*, got a DTensor; .*to_local\(\)"):
            refused()
