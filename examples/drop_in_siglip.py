"""A script that teaches pictures of words to find their letters, and the import that makes its loss fast.

    python examples/drop_in_siglip.py                 # with sslfast's loss, by open_clip's name
    python examples/drop_in_siglip.py --loss plain    # with the few lines of PyTorch that open_clip's are
    python examples/drop_in_siglip.py --loss both     # both, and how far apart the two loss curves are

The words are those of Python's own help, drawn with Pillow's font. Needs torch, numpy and pillow only.
"""

import argparse
import re
import time
from pydoc_data.topics import topics

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import nn

from sslfast.compat.open_clip import SigLipLoss  # the one import

LETTERS = 12  # of a word


class PlainSigLipLoss(nn.Module):
    """What the import replaces: it holds the (N, N) logits, several times."""

    def forward(self, image_features, text_features, logit_scale, logit_bias):
        logits = logit_scale * image_features @ text_features.T + logit_bias
        labels = 2 * torch.eye(len(logits), device=logits.device) - 1
        return -F.logsigmoid(labels * logits).sum() / len(logits)


class Model(nn.Module):
    """Pictures and letters to features of unit length, with SigLIP's scale and bias at its start."""

    def __init__(self, dim=64):
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.LazyLinear(dim),
        )  # fmt: skip
        self.letters = nn.Embedding(27, 16)
        self.text = nn.Sequential(nn.Linear(16 * LETTERS, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, images, letters):
        features = self.image(images), self.text(self.letters(letters).flatten(1))
        return *(F.normalize(x, dim=1) for x in features), self.log_scale.exp(), self.bias


def drawn(word):
    """(16, 80) floats: the word at a place of its own, in grey."""
    picture = Image.new("L", (80, 16))
    ImageDraw.Draw(picture).text(torch.randint(0, 5, (2,)).tolist(), word, fill=int(torch.randint(128, 256, ())))
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def pairs():
    """Pictures (N, 1, 16, 80) and letters (N, LETTERS), 0 behind the last, of different words in random order."""
    found = re.findall(rf"\b[a-z]{{4,{LETTERS}}}\b", " ".join(topics.values()).lower())
    words = sorted(set(found))
    words = [words[i] for i in torch.randperm(len(words))]
    letters = torch.tensor([[ord(letter) - 96 for letter in word] + [0] * (LETTERS - len(word)) for word in words])
    return torch.stack([drawn(word) for word in words])[:, None], letters


def train(loss_function, epochs, batch_size, seed=0):
    """Losses of all steps, and how many of the pictures held out find their word first among all of theirs."""
    torch.manual_seed(seed)
    images, letters = pairs()
    held_out = len(images) // 5
    model = Model()
    model(images[:1], letters[:1])  # the lazy layer learns its size
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(epochs):
        for index in (held_out + torch.randperm(len(images) - held_out)).split(batch_size)[:-1]:
            loss = loss_function(*model(images[index], letters[index]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        image, text, _, _ = model(images[:held_out], letters[:held_out])
    return losses, ((image @ text.T).argmax(dim=1) == torch.arange(held_out)).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=["sslfast", "plain", "both"], default="sslfast", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="words (%(default)s)")
    arguments = parser.parse_args()
    losses = {"plain": PlainSigLipLoss, "sslfast": SigLipLoss}
    curves = {}
    for name in losses if arguments.loss == "both" else [arguments.loss]:
        start = time.perf_counter()
        curves[name], found = train(losses[name](), arguments.epochs, arguments.batch_size)
        print(
            f"{name}: loss {curves[name][0]:.4f} -> {curves[name][-1]:.4f} in {time.perf_counter() - start:.1f} s; "
            f"{found:.1%} of the pictures held out find their word first"
        )
    if arguments.loss == "both":
        apart = max(abs(a - b) for a, b in zip(curves["plain"], curves["sslfast"], strict=True))
        print(f"the two loss curves are at most {apart:.1e} apart over {len(curves['plain'])} steps")


if __name__ == "__main__":
    main()
