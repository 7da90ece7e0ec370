"""A script that learns digits by their classes, as SupContrast's does, and the import that makes its loss fast.

    python examples/drop_in_sup_con.py                 # with sslfast's loss, by SupContrast's name
    python examples/drop_in_sup_con.py --loss plain    # with the lines of PyTorch that SupContrast's are
    python examples/drop_in_sup_con.py --loss both     # both, and how far apart the two loss curves are

Needs torch, numpy and scikit-learn (for its handwritten digits).
"""

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from sslfast.compat.sup_contrast import SupConLoss  # the one import


class PlainSupConLoss(nn.Module):
    """What the import replaces: it holds the (2N, 2N) logits and two masks of them, several times."""

    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature

    def forward(self, features, labels):
        z, labels = features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        log_p = (z @ z.T / self.temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
        positives = (labels[:, None] == labels) & ~itself
        mean = log_p.masked_fill(~positives, 0).sum(dim=1) / positives.sum(dim=1)
        return -self.temperature / 0.07 * mean.mean()  # SupContrast's base temperature


def view(images):
    """Each image (N, 1, 8, 8) moved by up to a pixel, with noise."""
    theta = torch.eye(2, 3).repeat(len(images), 1, 1)
    theta[:, :, 2].uniform_(-0.25, 0.25)
    moved = F.grid_sample(images, F.affine_grid(theta, images.shape, align_corners=False), align_corners=False)
    return moved + 0.1 * torch.randn_like(moved)


def train(loss_function, epochs, batch_size, seed=0):
    """Losses of all steps, and the accuracy of the nearest class mean for the digits held out."""
    torch.manual_seed(seed)
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32))[:, None] / 16
    labels = torch.from_numpy(digits.target)
    held_out = len(images) // 5
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 64),
    )  # fmt: skip
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(epochs):
        for index in (held_out + torch.randperm(len(images) - held_out)).split(batch_size)[:-1]:
            views = encoder(torch.cat([view(images[index]), view(images[index])])).chunk(2)
            loss = loss_function(F.normalize(torch.stack(views, dim=1), dim=2), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    encoder.eval()
    with torch.no_grad():
        features = F.normalize(encoder(images), dim=1)
    means = torch.stack([features[held_out:][labels[held_out:] == digit].mean(dim=0) for digit in range(10)])
    found = (features[:held_out] @ F.normalize(means, dim=1).T).argmax(dim=1)
    return losses, (found == labels[:held_out]).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=["sslfast", "plain", "both"], default="sslfast", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="images; twice as many views (%(default)s)")
    arguments = parser.parse_args()
    losses = {"plain": PlainSupConLoss, "sslfast": SupConLoss}
    curves = {}
    for name in losses if arguments.loss == "both" else [arguments.loss]:
        start = time.perf_counter()
        curves[name], right = train(losses[name](temperature=0.1), arguments.epochs, arguments.batch_size)
        print(
            f"{name}: loss {curves[name][0]:.4f} -> {curves[name][-1]:.4f} in {time.perf_counter() - start:.1f} s; "
            f"{right:.1%} of the digits held out are nearest to the mean of their class"
        )
    if arguments.loss == "both":
        apart = max(abs(a - b) for a, b in zip(curves["plain"], curves["sslfast"], strict=True))
        print(f"the two loss curves are at most {apart:.1e} apart over {len(curves['plain'])} steps")


if __name__ == "__main__":
    main()
