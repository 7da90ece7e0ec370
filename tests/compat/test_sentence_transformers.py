"""sslfast.compat.sentence_transformers against its formula, written out, with a model of its kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.compat.sentence_transformers import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss

LOSSES = [MultipleNegativesRankingLoss, CachedMultipleNegativesRankingLoss]
both_losses = pytest.mark.parametrize("kind", LOSSES)


class Words(nn.Module):
    """The mean embedding of a text's words, as the smallest models of sentences have it."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.dropout, self.calls = nn.Embedding(30, 8), nn.Dropout(dropout), 0

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        mask = features["attention_mask"][:, :, None]
        mean = (self.dropout(self.words(features["input_ids"])) * mask).sum(1) / mask.sum(1)
        return {**features, "sentence_embedding": mean}


def columns(*lengths: int, rows: int = 11) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for length in lengths:
        mask = (torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)).long()
        ids = torch.randint(0, 30, (rows, length), generator=generator)
        found.append({"input_ids": ids, "attention_mask": mask, "prompt_length": 2})
    return found


def dot_score(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.T


def formula(model: nn.Module, features: list[dict[str, Any]], scale: float, both: bool, dot: bool = False) -> Tensor:
    embeddings = (model(column)["sentence_embedding"] for column in features)
    query, *documents = (x if dot else F.normalize(x, dim=-1) for x in embeddings)
    scores, own = scale * query @ torch.cat(documents).T, torch.arange(len(query))
    forth = F.cross_entropy(scores, own)
    return (forth + F.cross_entropy(scores[:, : len(query)].T, own)) / 2 if both else forth


@both_losses
@pytest.mark.parametrize("scale", [20.0, 5.0])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("lengths", "dot"), [((5, 7), False), ((5, 7, 4, 6), False), ((5, 7, 4), True)])
def test_value_and_gradient(kind: type, scale: float, both: bool, lengths: tuple[int, ...], dot: bool) -> None:
    """Of pairs, and with columns of hard negatives."""
    model = Words()
    expected, features = copy.deepcopy(model), columns(*lengths)
    options = {"mini_batch_size": 4} if kind is CachedMultipleNegativesRankingLoss else {}
    if both:
        options |= {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    if dot:
        options["similarity_fct"] = dot_score
    found, wanted = kind(model, scale, **options)(features, None), formula(expected, features, scale, both, dot)
    torch.testing.assert_close(found, wanted)
    found.backward()
    wanted.backward()
    torch.testing.assert_close(model.words.weight.grad, expected.words.weight.grad, rtol=1e-4, atol=1e-6)


def test_the_cached_loss_repeats_dropout_and_needs_no_second_pass_without_gradient() -> None:
    model = Words(dropout=0.5)
    features = columns(5, 7, rows=8)
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)
    with torch.no_grad():
        loss(features)
    assert model.calls == 4
    torch.manual_seed(3)
    loss(features).backward()
    torch.manual_seed(3)
    parts = [
        [
            {
                **column,
                "input_ids": column["input_ids"][i : i + 4],
                "attention_mask": column["attention_mask"][i : i + 4],
            }
            for i in (0, 4)
        ]
        for column in features
    ]
    expected = copy.deepcopy(model)
    embeddings = [torch.cat([expected(part)["sentence_embedding"] for part in column]) for column in parts]
    expected.zero_grad()
    MultipleNegativesRankingLoss(expected).compute_loss_from_embeddings(embeddings).backward()
    torch.testing.assert_close(model.words.weight.grad, expected.words.weight.grad)


@both_losses
def test_what_is_not_served_says_what_to_use(kind: type) -> None:
    def euclidean_sim(a: Tensor, b: Tensor) -> Tensor:
        return -torch.cdist(a, b)

    for options, match in (
        ({"scale": 0}, "scale must be positive, got 0"),
        ({"similarity_fct": euclidean_sim}, "similarity_fct=.* is not served; use sentence-transformers' own"),
        ({"similarity_fct": dot_score, "gather_across_devices": True}, "similarity_fct=.* is not served"),
        ({"directions": ("query_to_doc", "doc_to_query")}, "directions=.* is not served"),
        ({"directions": ("query_to_query",)}, "directions=.* is not served"),
        ({"hardness_mode": "hard_negatives", "hardness_strength": 5.0}, "hardness_mode='hard_negatives' is not served"),
    ):
        with pytest.raises(ValueError, match=rf"{kind.__name__}: {match}"):
            kind(Words(), **options)
    with pytest.raises(ValueError, match=r"anchors and positives at least, got 1 columns"):
        kind(Words())(columns(3))
    with pytest.raises(ValueError, match="mini_batch_num_tokens is not served; use mini_batch_size"):
        CachedMultipleNegativesRankingLoss(Words(), mini_batch_num_tokens=100)
