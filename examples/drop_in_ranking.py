"""A script that fine-tunes sentence embeddings for retrieval, and the import that makes its loss fast.

    python examples/drop_in_ranking.py                 # with sslfast's loss, batches in chunks that fit
    python examples/drop_in_ranking.py --loss plain    # with the few lines of PyTorch it replaces
    python examples/drop_in_ranking.py --loss both     # both, and how far apart the two loss curves are

The beginning of a passage of Python's own help finds the rest of it. Needs torch only. A SentenceTransformer as the
model, with its features, goes with the loss in the same way.
"""

import argparse
import time
import zlib
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

from sslfast.compat.sentence_transformers import CachedMultipleNegativesRankingLoss  # the one import


class PlainRankingLoss(nn.Module):
    """What the import replaces: it holds all activations of the batch, and the (N, N) matrix several times."""

    def __init__(self, model, scale=20.0):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, sentence_features, labels):
        a, b = (F.normalize(self.model(column)["sentence_embedding"], dim=1) for column in sentence_features)
        return F.cross_entropy(self.scale * a @ b.T, torch.arange(len(a), device=a.device))


class MeanOfWords(nn.Module):
    """What a SentenceTransformer does, as small as can be: features of N texts -> {"sentence_embedding": (N, D)}."""

    def __init__(self, words, dim):
        super().__init__()
        self.embedding = nn.Embedding(words, dim)
        self.head = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, features):
        mean = self.embedding(features["input_ids"]).mean(dim=1)
        return {"sentence_embedding": mean + self.head(mean)}


def passages(words, begin=16, rest=48):
    """(N, begin) and (N, rest) numbers of words of consecutive passages."""
    found = []
    for text in topics.values():
        numbers = [zlib.crc32(word.lower().encode()) % words for word in text.split()]
        size = begin + rest
        found += [numbers[i : i + size] for i in range(0, len(numbers) - size + 1, size)]
    return torch.tensor(found).split([begin, rest], dim=1)


def train(make_loss, epochs, batch_size, seed=0):
    """Losses of all steps, and how many of the passages held out find their rest first among all of them."""
    torch.manual_seed(seed)
    anchors, positives = passages(words=8192)
    held_out = len(anchors) // 5
    model = MeanOfWords(8192, 64)
    loss_function = make_loss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(epochs):
        for index in (held_out + torch.randperm(len(anchors) - held_out)).split(batch_size)[:-1]:
            loss = loss_function([{"input_ids": anchors[index]}, {"input_ids": positives[index]}], None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        a, b = (model({"input_ids": x[:held_out]})["sentence_embedding"] for x in (anchors, positives))
    first = (F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).argmax(dim=1)
    return losses, (first == torch.arange(held_out)).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=["sslfast", "plain", "both"], default="sslfast", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="pairs of texts (%(default)s)")
    parser.add_argument("--mini-batch-size", type=int, default=64, help="texts that pass together (%(default)s)")
    arguments = parser.parse_args()
    losses = {
        "plain": PlainRankingLoss,
        "sslfast": lambda model: CachedMultipleNegativesRankingLoss(model, mini_batch_size=arguments.mini_batch_size),
    }
    curves = {}
    for name in losses if arguments.loss == "both" else [arguments.loss]:
        start = time.perf_counter()
        curves[name], found = train(losses[name], arguments.epochs, arguments.batch_size)
        print(
            f"{name}: loss {curves[name][0]:.4f} -> {curves[name][-1]:.4f} in {time.perf_counter() - start:.1f} s; "
            f"{found:.1%} of the passages held out find their rest first"
        )
    if arguments.loss == "both":
        apart = max(abs(a - b) for a, b in zip(curves["plain"], curves["sslfast"], strict=True))
        print(f"the two loss curves are at most {apart:.1e} apart over {len(curves['plain'])} steps")


if __name__ == "__main__":
    main()
