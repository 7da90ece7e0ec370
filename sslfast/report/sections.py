"""The sections of a run's page: functions of the material, which return None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from sslfast._extras import require
from sslfast.augment import ViewSampler
from sslfast.ops import augment
from sslfast.report import figures
from sslfast.report.material import Material, Unavailable
from sslfast.report.names import BASELINES, PROTOCOL_NAMES
from sslfast.report.pictures import tile

PAIRS, QUERIES, NEIGHBOURS = 12, 8, 8


@dataclass(frozen=True)
class Section:
    """A part of the page; its title is the key in `SECTIONS`.

    `content` by `kind`: "figures" a list of (caption, svg); "strips" a list of lists of `pictures.Tile`; "table" a list
    of (name, value); "panels" a list of lists of tiles and words; "text" nothing, `text` says it all.
    """

    text: str
    kind: Literal["figures", "strips", "table", "panels", "text"] = "text"
    content: Sequence[Any] = ()
    columns: int = 1  # of a strip: its tiles; of figures: 2 are beside each other where there is room
    half: bool = False  # two such sections in a row stand beside each other where there is room


def curves(material: Material) -> Section:
    """Loss, kNN accuracy, the two collapse statistics, learning rate, and whatever else the method logged."""
    lines = material.run.metrics
    names = dict.fromkeys(name for line in lines for name in line)
    shown = []
    for name in dict.fromkeys(["loss", "knn_accuracy", "std", "effective_rank", *names]):
        points = [(line["epoch"], line[name]) for line in lines if isinstance(line.get(name), int | float)]
        if not points or name in ("step", "epoch"):
            continue
        epochs, values = zip(*points)
        shown.append((name, _curve(name, epochs, values, material)))
    if not shown:
        raise Unavailable("the run has logged no metrics yet")
    text = "Loss is averaged over the steps between two points."
    if {"std", "effective_rank"} & dict(shown).keys():
        text += (
            " The standard deviation of the embeddings (1: spread over the sphere, 0: all the same) and their effective"
            " rank (1: all on one line) would fall if training collapsed."
        )
    return Section(text, "figures", [(CURVES.get(name, (name, ""))[0], svg) for name, svg in shown], 2)


# name in metrics.jsonl -> (caption, axis label)
CURVES = {
    "loss": ("Loss", "loss"),
    "knn_accuracy": ("kNN accuracy on the test examples", "accuracy (%)"),
    "std": ("Spread of the embeddings", "std × √dimensions"),
    "effective_rank": ("Effective rank of the embeddings", "dimensions"),
    "accuracy": ("Accuracy of the pretext task, on single batches", "accuracy"),
    "perplexity": ("Perplexity, on single batches", "perplexity"),
    "psnr": ("Signal to noise in the hole, on single batches", "PSNR (dB)"),
    "lr": ("Learning rate", "learning rate"),
    "examples_per_second": ("Speed", "examples per second"),
}
FROM_ZERO = ("std", "effective_rank", "lr", "examples_per_second")


def _curve(name: str, epochs: Sequence[float], values: Sequence[float], material: Material) -> str:
    end = max(line["epoch"] for line in material.run.metrics)
    if name == "knn_accuracy":
        baselines = material.results.get("knn", {}).get("baselines", {})
        levels = {BASELINES.get(key, key): 100 * level for key, level in baselines.items()}
        return figures.curve(
            epochs, [100 * v for v in values], label=CURVES[name][1], levels=levels, markers=True, end=end
        )
    label = CURVES.get(name, ("", name))[1]
    return figures.curve(epochs, values, label=label, zero=name in FROM_ZERO, end=end)


def views(material: Material) -> Section | None:
    """Some training images, each beside two views of it as the run augments them."""
    if not material.run.method_class.pairs:
        return None
    preset, strength, size = (material.config[key] for key in ("preset", "strength", "image_size"))
    chosen = material.spread(material.train, torch.arange(len(material.train)), PAIRS)
    sources = material.pictures(material.train, chosen)
    samplers, generator = ViewSampler.pair(preset, size, strength=strength), material.generator()
    strips = []
    for k, source in enumerate(sources):
        pair = [sampler.draw(source, generator=generator) for sampler in samplers]
        drawn = [tile(augment(source, params, size)[0], params.describe(0)) for params in pair]
        strips.append([tile(source[0], material.train.title("training image", int(chosen[k]))), *drawn])
    text = f"Source, and two views of it by the preset {preset} at strength {strength:g}, as training draws them."
    return Section(text, "strips", strips, 3)


def embedding(material: Material) -> Section:
    """A t-SNE map of test features."""
    features, labels = material.test_features, material.test.labels[material.test_sample]
    if len(features) < 4:
        raise Unavailable(f"a map needs at least four test {material.run.modality.unit}")
    perplexity = min(30.0, (len(features) - 1) / 3)
    seed = material.config["seed"] % 2**32
    tsne = require("sklearn.manifold", extra="train").TSNE(
        perplexity=perplexity, init="pca", metric="cosine", random_state=seed
    )
    points = tsne.fit_transform(features.numpy())
    svg = figures.scatter(points, labels.numpy(), material.test.classes)
    text = (
        f"t-SNE of the backbone's features of {len(features)} test {material.run.modality.unit} "
        f"(cosine distance, perplexity {perplexity:.3g});"
        " what labels there are only colour the points. Distances between far groups mean little."
    )
    return Section(text, "figures", [("", svg)], half=True)


def neighbours(material: Material) -> Section | None:
    """Some test images and the training images whose features are nearest."""
    if material.run.settings.modality != "images":
        return None
    train, test = material.train, material.test
    queries = material.spread(test, material.test_sample, QUERIES)
    position = {index: k for k, index in enumerate(material.test_sample.tolist())}
    features = material.test_features[[position[index] for index in queries.tolist()]]
    similarity = F.normalize(features, dim=1) @ F.normalize(material.train_features, dim=1).T  # (QUERIES, M)
    values, nearest = similarity.topk(min(NEIGHBOURS, similarity.shape[1]), dim=1)
    found = material.train_sample[nearest]  # (QUERIES, NEIGHBOURS)
    query_pictures = material.pictures(test, queries)
    pictures = iter(material.pictures(train, found.flatten()))
    strips, hits = [], 0
    for q, query in enumerate(queries):
        strip = [tile(query_pictures[q][0], test.title("test image", int(query)), "query")]
        for n, index in enumerate(found[q].tolist()):
            hit = test.labelled and train.classes[train.labels[index]] == test.classes[test.labels[query]]
            hits += hit
            text = f"{train.title('training image', index)}, cosine {values[q, n]:.3f}"
            strip.append(tile(next(pictures)[0], text, ("hit" if hit else "miss") if test.labelled else ""))
        strips.append(strip)
    pool = f"{len(material.train_sample)} training images" + (
        "" if len(material.train_sample) == len(train) else f" drawn from {len(train)}"
    )
    text = f"Left a test image, then the {found.shape[1]} nearest of {pool} by cosine similarity"
    if test.labelled:
        text += f": {hits} of {found.numel()} have its label (green frame), the others do not (red, dashed)"
    text += "."
    return Section(text, "strips", strips, 1 + found.shape[1])


def few_labels(material: Material) -> Section | None:
    """Accuracy over the number of labels a class."""
    shown = []
    for name, result in material.results.items():
        if "shots" not in result:
            continue
        details = {"this run": result, **result["baseline_details"]}
        lines = {}
        for who, detail in details.items():
            shots = detail.get("shots", result["shots"])
            means, stds = ([100 * row[key] for row in shots.values()] for key in ("mean", "std"))
            lines[BASELINES.get(who, who)] = ([int(n) for n in shots], means, stds)
        protocol, _, data = name.partition("@")
        caption = PROTOCOL_NAMES.get(protocol, protocol) + (f" on {data}" if data else "")
        shown.append((caption, figures.few_labels(lines)))
    if not shown:
        return None
    text = "Test accuracy with n labels a class: mean and standard deviation over draws, the same for every network."
    return Section(text, "figures", shown, 2)


def confusion(material: Material) -> Section | None:
    """The linear probe's confusion matrix, and which class is hardest."""
    linear = material.results.get("linear", {})
    if "class_accuracy" not in linear:
        return None
    classes, about = linear["class_accuracy"], f"Linear probe, {linear['test_examples']} test examples"
    judged = {name: value for name, value in classes.items() if value is not None}
    worst = min(judged.items(), key=lambda item: item[1])
    hardest = f"Hardest: {worst[0]}, {worst[1]:.1%} right."
    if "confusion" not in linear:
        return Section(f"{about} of {len(classes)} classes, which are too many for a matrix. {hardest}")
    svg = figures.confusion(torch.tensor(linear["confusion"]).numpy(), list(classes))
    return Section(f"{about}; shades are shares of the true class. {hardest}", "figures", [("", svg)], half=True)


def measured(material: Material) -> Section | None:
    """How each accuracy came about."""
    if not material.results:
        return None
    left_out = ("confusion", "class_accuracy", "shots")
    rows = [
        (f"{name}: {key}", value)
        for name, result in material.results.items()
        for key, value in _flat({k: v for k, v in result.items() if k not in left_out})
    ]
    return Section("Everything needed to get the accuracies again: results.json.", "table", rows)


def configuration(material: Material) -> Section:
    """The recipe."""
    return Section("Every field of the recipe: config.json.", "table", list(_flat(material.config)))


def environment(material: Material) -> Section:
    """Where the run was trained."""
    if not material.run.environment:
        raise Unavailable("the run recorded no environment.json")
    rows = list(_flat(material.run.environment))
    return Section("Where it was trained: environment.json.", "table", rows)


SECTIONS: dict[str, Callable[[Material], Section | None]] = {
    "Training": curves,
    "Augmented pairs": views,
    "Few labels": few_labels,
    "Nearest neighbours": neighbours,
    "Map of the features": embedding,
    "Confusion matrix": confusion,
    "Evaluation in full": measured,
    "Configuration": configuration,
    "Environment": environment,
}


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested dictionary as rows `outer.inner`, value."""
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, "none" if value is None else str(value)))
    return rows
