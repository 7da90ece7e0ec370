from __future__ import annotations

import math

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from sslfast.evaluate import knn_accuracy
from sslfast.evaluate.knn import default_k, knn_scores


def features(train: int, test: int, *, width: int = 7, classes: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(train + test, width, generator=generator)
    y = torch.randint(classes, (train + test,), generator=generator)
    x += 0.8 * torch.nn.functional.one_hot(y, width)
    return x[:train], y[:train], x[train:], y[train:]


def votes(train_x, train_y, query, *, k: int, temperature: float) -> dict[int, float]:
    """DINO's formula for one query, in Python's float64."""

    def cosine(a, b):
        return math.fsum(p * q for p, q in zip(a, b)) / math.sqrt(
            math.fsum(p * p for p in a) * math.fsum(q * q for q in b)
        )

    ranked = sorted(((cosine(row, query), label) for row, label in zip(train_x, train_y)), reverse=True)[:k]
    found: dict[int, float] = {}
    for similarity, label in ranked:
        found[label] = found.get(label, 0.0) + math.exp(similarity / temperature)
    return {label: vote / math.fsum(found.values()) for label, vote in found.items()}


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.07), (20, 0.1), (60, 1.0)])
def test_scores_are_the_formula_in_float64(k, temperature):
    train_x, train_y, test_x, _ = features(60, 25)
    scores = knn_scores(train_x, train_y, test_x, k=k, temperature=temperature)
    assert scores.shape == (25, 4)
    for row, query in zip(scores, test_x):
        wanted = votes(train_x.tolist(), train_y.tolist(), query.tolist(), k=k, temperature=temperature)
        assert row.tolist() == pytest.approx([wanted.get(c, 0.0) for c in range(4)], abs=1e-5)


def test_agrees_with_scikit_learn():
    train_x, train_y, test_x, test_y = features(300, 200, width=16)

    def weights(distances):  # cosine distance -> vote
        return torch.exp(torch.from_numpy(1 - distances) / 0.1).numpy()

    model = KNeighborsClassifier(20, weights=weights, metric="cosine").fit(train_x.numpy(), train_y.numpy())
    accuracy = knn_accuracy(train_x, train_y, test_x, test_y, k=20, temperature=0.1)
    assert accuracy == pytest.approx(model.score(test_x.numpy(), test_y.numpy()))


def test_chunks_give_the_same(monkeypatch):
    train_x, train_y, test_x, test_y = features(120, 50)
    whole = knn_scores(train_x, train_y, test_x, k=9)
    whole_accuracy = knn_accuracy(train_x, train_y, test_x, test_y, k=9)
    for cells in (1, 120, 7 * 120 + 5):  # one row at a time, though it is more than `cells`; one; seven
        monkeypatch.setattr("sslfast.evaluate.knn.CELLS", cells)
        torch.testing.assert_close(knn_scores(train_x, train_y, test_x, k=9), whole, rtol=0, atol=1e-6)
        assert knn_accuracy(train_x, train_y, test_x, test_y, k=9) == whole_accuracy


def test_more_neighbours_than_images_are_all_of_them():
    train_x, train_y, test_x, _ = features(12, 6)
    torch.testing.assert_close(knn_scores(train_x, train_y, test_x, k=500), knn_scores(train_x, train_y, test_x, k=12))


def test_a_tie_goes_to_the_smaller_label():
    train_x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    train_y = torch.tensor([2, 1, 0])
    assert knn_scores(train_x, train_y, torch.tensor([[3.0, 0.0]]), k=2).argmax().item() == 1


def test_length_of_features_does_not_matter_and_zero_is_no_nan():
    train_x, train_y, test_x, test_y = features(80, 40)
    scaled = knn_accuracy(1e4 * train_x, train_y, 1e-4 * test_x, test_y)
    assert scaled == knn_accuracy(train_x, train_y, test_x, test_y)
    assert knn_scores(train_x, train_y, torch.zeros(1, 7)).isfinite().all()


def test_a_tiny_temperature_is_the_nearest_neighbour():
    train_x, train_y, test_x, _ = features(80, 40)
    scores = knn_scores(train_x, train_y, test_x, k=20, temperature=1e-4)  # exp(1e4) is infinite in float32
    torch.testing.assert_close(scores.argmax(1), knn_scores(train_x, train_y, test_x, k=1).argmax(1))


def test_default_k_depends_on_the_size_of_the_set():
    assert default_k(1437) == 20
    assert default_k(50_000) == 200


def test_wrong_arguments_are_named():
    train_x, train_y, test_x, test_y = features(20, 10)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        knn_accuracy(train_x, train_y, test_x, test_y, k=0)
    with pytest.raises(ValueError, match="temperature must be above 0, got nan"):
        knn_accuracy(train_x, train_y, test_x, test_y, temperature=math.nan)
    with pytest.raises(ValueError, match="test_x must have 7 features"):
        knn_accuracy(train_x, train_y, test_x[:, :3], test_y)
    with pytest.raises(ValueError, match="train_y must have one label for each of the 20 rows"):
        knn_accuracy(train_x, train_y[:5], test_x, test_y)
    with pytest.raises(ValueError, match="train_x has NaN or infinite features"):
        knn_accuracy(train_x.index_fill(0, torch.tensor([3]), math.nan), train_y, test_x, test_y)
    with pytest.raises(ValueError, match=r"test_x must be .* not empty"):
        knn_accuracy(train_x, train_y, test_x[:0], test_y[:0])


@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu():
    split = features(3000, 500, width=64)
    assert knn_accuracy(*(t.cuda() for t in split)) == pytest.approx(knn_accuracy(*split), abs=0.005)
