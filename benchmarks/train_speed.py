"""Milliseconds of whole training steps, with eager PyTorch and with sslfast: where it pays, and where it does not.

    python benchmarks/train_speed.py                              # all steps on the CPU
    python benchmarks/train_speed.py --step mae --device cuda

A step makes views of images in memory, goes forward and backward through the network and the loss, and updates the
weights. Both ways have the same network, weights, optimizer and images of random pixels, and take turns; only what
sslfast has an op for is computed in two ways. "eager" is the formulation of `peers/`, and for views the reference in
PyTorch. The rows go to benchmarks/results/train_speed-DEVICE.csv.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from benchmarks.measure import RESULTS, machine, refusal  # noqa: E402
from benchmarks.peers import version  # noqa: E402
from benchmarks.peers.contrastive import NT_XENT_TEMPERATURE, nt_xent_eager  # noqa: E402
from benchmarks.peers.mae import RATIO, gather_eager, loss_eager, mask_eager, restore_eager  # noqa: E402
from benchmarks.report import read, table, write  # noqa: E402
from benchmarks.timing import alternate  # noqa: E402
from sslfast.augment import ViewSampler  # noqa: E402
from sslfast.models import MAEDecoder, ProjectionHead, build_backbone, encode_visible  # noqa: E402
from sslfast.ops import masked_patch_loss, nt_xent, random_patch_mask, registry  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Loss = Callable[[nn.Module], Tensor]


def simclr(device: str, batch: int = 256) -> tuple[str, nn.Module, dict[str, Loss]]:
    """SimCLR on images as CIFAR-10's: the network takes nearly all of the time."""
    network = nn.Sequential(build_backbone("resnet20"), ProjectionHead(64, 64, 128))
    images = pixels(batch, 32, device)
    sampler = ViewSampler("simclr-cifar", 32)

    def embeddings(network: nn.Module) -> tuple[Tensor, ...]:
        return network(torch.cat([sampler.view(images, mean=MEAN, std=STD) for _ in range(2)])).chunk(2)

    def eager(network: nn.Module) -> Tensor:
        with references():
            z1, z2 = embeddings(network)
        return nt_xent_eager(z1, z2)

    def fused(network: nn.Module) -> Tensor:
        return nt_xent(*embeddings(network), NT_XENT_TEMPERATURE)

    return f"SimCLR, resnet20, {batch} images of 32 px", network, {"eager": eager, "sslfast": fused}


def head(device: str, batch: int = 4096) -> tuple[str, nn.Module, dict[str, Loss]]:
    """A projection head over features that are given: the loss takes most of the time."""
    network = ProjectionHead(512, 512, 128)
    features = torch.randn(2 * batch, 512, device=device, dtype=torch.float32)

    def eager(network: nn.Module) -> Tensor:
        return nt_xent_eager(*network(features).chunk(2))

    def fused(network: nn.Module) -> Tensor:
        return nt_xent(*network(features).chunk(2), NT_XENT_TEMPERATURE)

    return f"NT-Xent, a head of two layers on 2 x {batch} features of 512", network, {"eager": eager, "sslfast": fused}


def mae(device: str, batch: int = 64) -> tuple[str, nn.Module, dict[str, Loss]]:
    """A masked autoencoder with a small network: views, patches and targets take a good part of the time."""
    vit = build_backbone("vit_micro_patch16", image_size=224)
    decoder = MAEDecoder(vit.embed_dim, 14, 16 * 16 * 3, width=96, depth=1, heads=3)
    network = nn.ModuleDict({"vit": vit, "decoder": decoder})
    images = pixels(batch, 256, device)
    sampler = ViewSampler("mae", 224)

    def inputs() -> tuple[Tensor, Tensor]:
        return sampler.view(images, mean=MEAN, std=STD), torch.rand(batch, 14 * 14, device=device, dtype=torch.float32)

    def eager(network: nn.ModuleDict) -> Tensor:
        with references():
            views, noise = inputs()
        keep, restore, mask = mask_eager(noise)
        vit, decoder = network["vit"], network["decoder"]
        tokens = gather_eager(vit.patch_embed(views) + vit.pos_embed[:, 1:], keep)
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = decoder.embed(vit.norm(vit.blocks(torch.cat([first, tokens], dim=1))))
        patches = restore_eager(tokens[:, 1:], restore, keep, decoder.mask_token, decoder.positions)
        tokens = decoder.norm(decoder.blocks(torch.cat([tokens[:, :1], patches], dim=1))[:, 1:])
        return loss_eager(decoder.predict(tokens), views, mask, keep)

    def fused(network: nn.ModuleDict) -> Tensor:
        views, noise = inputs()
        hidden = random_patch_mask(*noise.shape, RATIO, noise=noise)
        tokens = encode_visible(network["vit"], views, hidden.keep)
        return masked_patch_loss(network["decoder"](tokens, hidden.restore), views, hidden.mask, 16, norm_pix=True)

    return f"MAE, vit_micro_patch16, {batch} images of 256 to 224 px", network, {"eager": eager, "sslfast": fused}


STEPS = {"simclr": simclr, "head": head, "mae": mae}


def pixels(count: int, side: int, device: str) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=device)


@contextmanager
def references() -> Iterator[None]:
    registry.USE_REFERENCE = True
    try:
        yield
    finally:
        registry.USE_REFERENCE = False


def step(network: nn.Module, loss: Loss) -> Callable[[], None]:
    """A training step of a copy of the network."""
    network = deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def call() -> None:
        loss(network).backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def until_done(call: Callable[[], object]) -> list[float]:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return [time.perf_counter() - start]


def rows(name: str, device: str, seconds: float) -> list[dict]:
    torch.manual_seed(0)
    case, network, losses = STEPS[name](device)
    calls = {way: step(network.to(device), loss) for way, loss in losses.items()}
    for call in calls.values():
        call()
    times = alternate(calls, seconds, until_done)
    medians = {way: statistics.median(found) for way, found in times.items()}
    made = []
    for way, found in times.items():
        low, _, high = statistics.quantiles(found, n=4)
        made.append({
            "op": "train_speed", "case": case, "peer": way, "dtype": "float32", "rounds": len(found),
            "version": version(way), "median_ms": f"{medians[way] * 1e3:.4g}",
            "spread_percent": f"{100 * (high - low) / medians[way]:.0f}",
            "times_eager": f"{medians['eager'] / medians[way]:.2f}", **machine(device),
        })  # fmt: skip
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", choices=STEPS, nargs="+", default=list(STEPS), help="(all)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="for each step and way (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the CSV (benchmarks/results)")
    arguments = parser.parse_args()
    if why := refusal(arguments.output):
        parser.error(why)
    made = [row for name in arguments.step for row in rows(name, arguments.device, arguments.seconds)]
    path, cases = arguments.output / f"train_speed-{arguments.device}.csv", {row["case"] for row in made}
    earlier = [row for row in read(path) if row["case"] not in cases] if path.is_file() else []
    write(path, earlier + made)
    print(table(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
