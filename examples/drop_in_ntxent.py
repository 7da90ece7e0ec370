"""An ordinary single-file SimCLR script, and the one import that makes its loss fast.

    python examples/drop_in_ntxent.py                 # with sslfast's loss
    python examples/drop_in_ntxent.py --loss plain    # with the few lines of PyTorch it replaces
    python examples/drop_in_ntxent.py --loss both     # both, and how far apart the two loss curves are

Needs torch, numpy and scikit-learn (for its handwritten digits).
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from sslfast.ops import nt_xent  # the one import


def plain_nt_xent(z1, z2, temperature=0.5):
    """What the import replaces: it holds the (2N, 2N) matrix, several times."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(similarity, partner)


def view(images):
    """A random shift, scale and contrast of each image (N, 1, 8, 8)."""
    n = len(images)
    scale = torch.empty(n).uniform_(0.7, 1.1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2].uniform_(-0.25, 0.25)
    moved = F.grid_sample(images, F.affine_grid(theta, images.shape, align_corners=False), align_corners=False)
    return moved * torch.empty(n, 1, 1, 1).uniform_(0.6, 1.4)


def train(loss_function, epochs, batch_size, seed=0):
    """Losses of all steps."""
    torch.manual_seed(seed)
    images = torch.from_numpy(load_digits().images.astype(np.float32))[:, None] / 16
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64),
    )  # fmt: skip
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(batch_size)[:-1]:
            z1, z2 = encoder(torch.cat([view(images[index]), view(images[index])])).chunk(2)
            loss = loss_function(z1, z2, temperature=0.5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=["sslfast", "plain", "both"], default="sslfast", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="images; twice as many views (%(default)s)")
    arguments = parser.parse_args()
    functions = {"plain": plain_nt_xent, "sslfast": nt_xent}
    curves = {}
    for name in functions if arguments.loss == "both" else [arguments.loss]:
        start = time.perf_counter()
        curves[name] = train(functions[name], arguments.epochs, arguments.batch_size)
        seconds = time.perf_counter() - start
        print(f"{name}: loss {curves[name][0]:.4f} -> {curves[name][-1]:.4f} in {seconds:.1f} s")
    if arguments.loss == "both":
        apart = max(abs(a - b) for a, b in zip(curves["plain"], curves["sslfast"], strict=True))
        print(f"the two loss curves are at most {apart:.1e} apart over {len(curves['plain'])} steps")


if __name__ == "__main__":
    main()
