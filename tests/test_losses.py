from __future__ import annotations

import pytest
import torch

from sslfast import ops
from sslfast.losses import CLIPLoss, InfoNCELoss, NegativeCosineSimilarity, NTXentLoss, SigLIPLoss, SupConLoss

Z1, Z2 = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))


def test_is_the_op():
    assert torch.equal(NTXentLoss(0.2)(Z1, Z2), ops.nt_xent(Z1, Z2, 0.2))
    assert torch.equal(NTXentLoss(reduction="none")(Z1, Z2), ops.nt_xent(Z1, Z2, 0.5, reduction="none"))
    assert not list(NTXentLoss().parameters())


def test_info_nce_is_the_op():
    queue = torch.nn.functional.normalize(torch.randn(9, 5))
    assert torch.equal(InfoNCELoss()(Z1, Z2), ops.info_nce(Z1, Z2, None, 0.07))
    assert torch.equal(
        InfoNCELoss(0.2, reduction="sum")(Z1, Z2, queue), ops.info_nce(Z1, Z2, queue, 0.2, reduction="sum")
    )


def test_nt_xent_takes_ids_and_may_be_decoupled():
    ids = torch.arange(8) // 3
    expected = ops.nt_xent(Z1, Z2, 0.5, ids=ids, decoupled=True)
    assert torch.equal(NTXentLoss(decoupled=True)(Z1, Z2, ids=ids), expected)


def test_clip_loss_is_the_op():
    assert torch.equal(CLIPLoss()(Z1, Z2), ops.clip_loss(Z1, Z2))
    assert torch.equal(CLIPLoss(0.2, reduction="sum")(Z1, Z2), ops.clip_loss(Z1, Z2, 0.2, reduction="sum"))
    scale = torch.tensor(8.0, requires_grad=True)
    loss = CLIPLoss()(Z1, Z2, scale)
    assert torch.equal(loss, ops.clip_loss(Z1, Z2, logit_scale=scale))
    loss.backward()
    assert scale.grad != 0


def test_siglip_loss_is_the_op():
    assert torch.equal(SigLIPLoss()(Z1, Z2), ops.siglip_loss(Z1, Z2, 10.0, -10.0))
    loss = SigLIPLoss(5.0, -2.0, learnable=True, reduction="sum")
    torch.testing.assert_close(loss(Z1, Z2), ops.siglip_loss(Z1, Z2, 5.0, -2.0, reduction="sum"))
    own = torch.tensor(3.0), torch.tensor(-1.0)
    assert torch.equal(loss(Z1, Z2, *own), ops.siglip_loss(Z1, Z2, *own, reduction="sum"))
    loss(Z1, Z2).backward()
    assert loss.log_scale.grad != 0
    assert loss.bias.grad != 0
    assert set(loss.state_dict()) == {"log_scale", "bias"}
    assert "logit_scale=5, logit_bias=-2, learnable=True" in repr(loss)
    assert not SigLIPLoss().state_dict()
    for arguments, message in (
        ({"logit_scale": 0.0}, "logit_scale must be positive"),
        ({"logit_bias": torch.ones(())}, "logit_bias must be a number"),
        ({"reduction": "x"}, "reduction must be one of"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"SigLIPLoss: {message}"):
            SigLIPLoss(**arguments)


def test_sup_con_is_the_op():
    labels = torch.arange(8) // 2
    assert torch.equal(SupConLoss()(Z1, labels), ops.sup_con(Z1, labels, 0.1))
    loss = SupConLoss(0.3, learnable=True, reduction="sum")
    assert torch.equal(loss(Z1, labels), ops.sup_con(Z1, labels, loss.temperature, reduction="sum"))


@pytest.mark.parametrize("loss_class", [NTXentLoss, InfoNCELoss, CLIPLoss])
def test_learnable_temperature_learns_and_stays_positive(loss_class):
    loss = loss_class(0.5, learnable=True)
    optimizer = torch.optim.SGD(loss.parameters(), lr=10.0)
    first = loss(Z1, Z1).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(Z1, Z1).backward()
        optimizer.step()
    assert loss(Z1, Z1).item() < first
    assert 0 < loss.temperature.item() < 0.5


def test_state_dict_holds_a_learned_temperature_only():
    assert set(NTXentLoss(learnable=True).state_dict()) == {"log_temperature"}
    assert not NTXentLoss().state_dict()


def test_says_what_it_is():
    assert "temperature=0.1, learnable=True" in repr(NTXentLoss(0.1, learnable=True))
    assert "logit_scale=10, logit_bias=-10" in repr(SigLIPLoss(learnable=True))
    with torch.device("meta"):
        assert "temperature=nan, learnable=True" in repr(NTXentLoss(0.1, learnable=True))
        assert "logit_scale=nan, logit_bias=nan" in repr(SigLIPLoss(learnable=True))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"temperature": 0.0}, ValueError),
        ({"temperature": torch.ones(())}, TypeError),
        ({"reduction": "x"}, ValueError),
    ],
)
@pytest.mark.parametrize("loss_class", [NTXentLoss, InfoNCELoss, CLIPLoss, SupConLoss])
def test_bad_arguments(loss_class, arguments, error):
    with pytest.raises(error, match=loss_class.__name__):
        loss_class(**arguments)


def test_negative_cosine_similarity_is_the_op():
    assert torch.equal(NegativeCosineSimilarity()(Z1, Z2), ops.negative_cosine_similarity(Z1, Z2))
    losses = NegativeCosineSimilarity("none")(Z1, Z2)
    assert torch.equal(losses, ops.negative_cosine_similarity(Z1, Z2, reduction="none"))
    assert repr(NegativeCosineSimilarity("sum")) == "NegativeCosineSimilarity(reduction='sum')"
    assert not NegativeCosineSimilarity().state_dict()
    with pytest.raises(ValueError, match="NegativeCosineSimilarity: reduction must be one of"):
        NegativeCosineSimilarity("max")


def test_info_nce_of_candidates():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(n, 8, generator=generator) for n in (5, 9))
    targets, ids = torch.tensor([3, 8, 0, 0, 1]), torch.arange(9) // 2
    found = InfoNCELoss(0.3, normalize=False)(query, key, targets=targets, ids=ids, return_rank=True)
    expected = ops.info_nce(query, key, None, 0.3, targets=targets, ids=ids, normalize=False, return_rank=True)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert not torch.equal(found[0], InfoNCELoss(0.3)(query, key, targets=targets, ids=ids))
