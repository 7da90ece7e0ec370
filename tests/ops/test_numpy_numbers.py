"""NumPy's numbers, and arrays of no dimension, are numbers to everything public that takes one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from every_op import order, randn
from torch import nn

import sslfast
from sslfast import ops
from sslfast.augment import ViewSampler

ROWS, OTHERS, LABELS = randn(6, 5), randn(6, 5, seed=1), torch.tensor([0, 1, 0, 1, 2, 2])
IMAGES, KEEP, MASK = randn(3, 3, 4, 4).abs(), order(3)[:, :2], torch.tensor([[0, 1, 1, 0]] * 3)
PARAMS = ViewSampler("simclr", 4).sample(3, (4, 4), generator=torch.Generator().manual_seed(0))

# Each of half: exact in every float.
OF_A_FLOAT = {
    "nt_xent": lambda x: ops.nt_xent(ROWS, OTHERS, x),
    "nt_xent_views": lambda x: ops.nt_xent_views(torch.stack([ROWS, OTHERS]), x),
    "info_nce": lambda x: ops.info_nce(ROWS, OTHERS, None, x),
    "clip_loss": lambda x: ops.clip_loss(ROWS, OTHERS, x),
    "clip_loss, scale": lambda x: ops.clip_loss(ROWS, OTHERS, logit_scale=x),
    "sup_con": lambda x: ops.sup_con(ROWS, LABELS, x),
    "siglip_loss, scale": lambda x: ops.siglip_loss(ROWS, OTHERS, x, 0.0),
    "siglip_loss, bias": lambda x: ops.siglip_loss(ROWS, OTHERS, 1.0, x),
    "ema_update_": lambda x: _averaged(lambda average: ops.ema_update_([average], [OTHERS], x)),
    "random_patch_mask": lambda x: ops.random_patch_mask(2, 8, x, seed=0).keep,
    "gather_patches, mean": lambda x: ops.gather_patches(IMAGES, KEEP, 2, mean=x, std=1.0),
    "gather_patches, std": lambda x: ops.gather_patches(IMAGES, KEEP, 2, mean=0.0, std=x),
    "masked_patch_loss, std": lambda x: ops.masked_patch_loss(randn(3, 4, 12), IMAGES, MASK, 2, mean=0.0, std=x),
    "augment, mean": lambda x: ops.augment(IMAGES, PARAMS, 4, mean=x, std=1.0),
    "NTXentLoss": lambda x: sslfast.NTXentLoss(x)(ROWS, OTHERS),
    "InfoNCELoss": lambda x: sslfast.InfoNCELoss(x)(ROWS, OTHERS),
    "CLIPLoss": lambda x: sslfast.CLIPLoss(x)(ROWS, OTHERS),
    "SupConLoss": lambda x: sslfast.SupConLoss(x)(ROWS, LABELS),
    "SigLIPLoss": lambda x: sslfast.SigLIPLoss(x)(ROWS, OTHERS),
    "EMA": lambda x: _followed(x),
}
OF_AN_INTEGER = {
    "ema_update_, step": lambda n: _averaged(lambda average: ops.ema_update_([average], [OTHERS], 0.5, step=n)),
    "random_patch_mask, batch": lambda n: ops.random_patch_mask(n, 8, 0.5, seed=0).keep,
    "random_patch_mask, patches": lambda n: ops.random_patch_mask(2, n, num_keep=1, seed=0).keep,
    "random_patch_mask, num_keep": lambda n: ops.random_patch_mask(2, 8, num_keep=n, seed=0).keep,
    "random_patch_mask, seed": lambda n: ops.random_patch_mask(2, 8, 0.5, seed=n).keep,
    "gather_patches": lambda n: ops.gather_patches(IMAGES, KEEP, n),
    "masked_patch_loss": lambda n: ops.masked_patch_loss(randn(3, 4, 12), IMAGES, MASK, n),
    "augment": lambda n: ops.augment(IMAGES, PARAMS, n),
    "augment, pair": lambda n: ops.augment(IMAGES, PARAMS, (n, n)),
    "ViewSampler": lambda n: ops.augment(IMAGES, PARAMS, ViewSampler("simclr", n).size),
    "KeyQueue": lambda n: torch.ones_like(sslfast.KeyQueue(n, n).keys),
    "GradCache": lambda n: sslfast.GradCache([nn.Identity()], ROWS.new_zeros, n).chunk_size,
}


# Of a mean and a std, one a channel.
OF_STATISTICS = {
    "gather_patches": lambda mean, std: ops.gather_patches(IMAGES, KEEP, 2, mean=mean, std=std),
    "masked_patch_loss": lambda mean, std: ops.masked_patch_loss(randn(3, 4, 12), IMAGES, MASK, 2, mean=mean, std=std),
    "augment": lambda mean, std: ops.augment(IMAGES, PARAMS, 4, mean=mean, std=std),
}


def _averaged(update) -> torch.Tensor:
    average = ROWS.clone()
    update(average)
    return average


def _followed(momentum: float) -> torch.Tensor:
    model = nn.Linear(2, 2)
    ema = sslfast.EMA(model, momentum)
    with torch.no_grad():
        model.weight.fill_(3.0)
        ema.module.weight.zero_()
    ema.update()
    return ema.module.weight.detach()


@pytest.mark.parametrize("number", [np.float32, np.float64, np.float16, np.array], ids=lambda number: number.__name__)
@pytest.mark.parametrize("name", OF_A_FLOAT)
def test_of_a_float(name, number):
    call = OF_A_FLOAT[name]
    torch.testing.assert_close(call(number(0.5)), call(0.5), rtol=0, atol=0)


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8, np.array], ids=lambda number: number.__name__)
@pytest.mark.parametrize("name", OF_AN_INTEGER)
def test_of_an_integer(name, number):
    call = OF_AN_INTEGER[name]
    torch.testing.assert_close(call(number(2)), call(2), rtol=0, atol=0)


@pytest.mark.parametrize("form", [tuple, np.array, torch.tensor], ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", OF_STATISTICS)
def test_statistics_in_any_form(name, form):
    call, mean, std = OF_STATISTICS[name], [0.25, 0.5, 0.75], [1.0, 2.0, 4.0]
    torch.testing.assert_close(call(form(mean), form(std)), call(mean, std), rtol=0, atol=0)
    assert not torch.equal(call(mean, std), call([0.0] * 3, std))


@pytest.mark.parametrize("no_number", [np.bool_(True), np.array([0.5]), np.str_("0.5")], ids=repr)
@pytest.mark.parametrize("name", [*OF_A_FLOAT, *OF_AN_INTEGER])
def test_others_are_refused(name, no_number):
    call = {**OF_A_FLOAT, **OF_AN_INTEGER}[name]
    with pytest.raises((TypeError, ValueError), match="must be"):
        call(no_number)
