"""MAE (He et al. 2021, https://arxiv.org/abs/2111.06377) on CIFAR-10, in plain PyTorch, timm's blocks and sslfast.ops.

    python examples/mae.py --data ~/data --download
    torchrun --nproc-per-node 4 examples/mae.py --data ~/data # the batch is divided among the processes
    python examples/mae.py --data digits --epochs 20          # scikit-learn's digits; a minute on a CPU

A smaller variant of the recipe mae-cifar10: 400 epochs instead of 2000, batch 512 instead of 4096, a decoder of width
96 instead of 192, learned positions, and patches predicted normalised (norm_pix).

Needs sslfast, timm, torchvision (for CIFAR-10) and scikit-learn (for digits).
"""

import argparse
import math
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from sslfast import ops
from sslfast.augment import ViewSampler


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder of CIFAR-10, or digits (%(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch CIFAR-10 if it is not there")
    parser.add_argument("--epochs", type=int, default=400, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=512, help="images, of all processes together (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1.5e-4, help="for a batch of 256 (%(default)s)")
    parser.add_argument("--warmup-epochs", type=float, default=20, help="(%(default)s)")
    parser.add_argument("--weight-decay", type=float, default=0.05, help="(%(default)s)")
    parser.add_argument("--mask-ratio", type=float, default=0.75, help="part of the patches to hide (%(default)s)")
    parser.add_argument("--width", type=int, default=192, help="of the encoder (%(default)s: ViT-Tiny)")
    parser.add_argument("--depth", type=int, default=12, help="of the encoder (%(default)s)")
    parser.add_argument("--decoder-width", type=int, default=96, help="(%(default)s)")
    parser.add_argument("--decoder-depth", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 mixed precision")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--output", help="file for the trained encoder's weights")
    return parser.parse_args()


def load_data(name, train, download):
    """uint8 images (N, C, H, W) and labels (N,)."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        chosen = (torch.arange(len(images)) % 5 != 0) == train  # every fifth is for testing
        return images[chosen], torch.from_numpy(digits.target)[chosen]
    from torchvision.datasets import CIFAR10

    cifar = CIFAR10(os.path.expanduser(name), train=train, download=download)
    return torch.from_numpy(cifar.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(cifar.targets)


class MaskedAutoencoder(nn.Module):
    def __init__(self, size, patch, channels, arguments):
        super().__init__()
        self.patch, self.mask_ratio, self.num_patches = patch, arguments.mask_ratio, (size // patch) ** 2
        self.encoder = VisionTransformer(
            size, patch, channels, num_classes=0, global_pool="avg", fc_norm=False, embed_dim=arguments.width,
            depth=arguments.depth, num_heads=arguments.width // 64,
        )  # fmt: skip
        width, elements = arguments.decoder_width, patch * patch * channels
        self.embed = nn.Linear(arguments.width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(0.02 * torch.randn(self.num_patches, width))
        self.decoder = nn.Sequential(
            *(Block(width, width // 32, qkv_bias=True) for _ in range(arguments.decoder_depth)),
            nn.LayerNorm(width),
            nn.Linear(width, elements),
        )

    def forward(self, images, noise):
        """The loss of normalised images (B, C, H, W), of which the patches with the least noise (B, L) are visible."""
        keep, restore, mask = ops.random_patch_mask(*noise.shape, self.mask_ratio, noise=noise)
        vit = self.encoder
        # Only the visible quarter is embedded; a patch's pixels come in (row, column, channel) order.
        patches = ops.gather_patches(images, keep, self.patch)  # (B, K, P·P·C)
        weight = vit.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
        positions = vit.pos_embed.expand(len(images), -1, -1)
        tokens = F.linear(patches, weight, vit.patch_embed.proj.bias) + ops.gather_tokens(positions[:, 1:], keep)
        tokens = torch.cat([vit.cls_token + positions[:, :1], tokens], dim=1)
        tokens = self.embed(vit.norm(vit.blocks(tokens))).float()  # (B, 1 + K, decoder width)
        restored = ops.restore_tokens(tokens[:, 1:], restore, self.mask_token, self.positions)  # (B, L, decoder width)
        pred = self.decoder(torch.cat([tokens[:, :1], restored], dim=1))[:, 1:]  # (B, L, P·P·C)
        return ops.masked_patch_loss(pred, images, mask, self.patch, norm_pix=True)


def augmentation(name, size):
    """Random crops of at least a fifth of the area; digits keep their sides, photographs are flipped."""
    return ViewSampler("mnist-like" if name == "digits" else "mae", size)


def train(arguments, images, patch, rank, processes, device):
    size, channels = images.shape[-1], images.shape[1]
    mean, std = statistics(images)
    torch.manual_seed(arguments.seed)  # the same weights in every process
    model = MaskedAutoencoder(size, patch, channels, arguments).to(device)
    parallel = nn.parallel.DistributedDataParallel(model) if processes > 1 else model
    groups = [{"params": [], "weight_decay": decay} for decay in (arguments.weight_decay, 0.0)]
    for name, parameter in model.named_parameters():  # norms, biases, tokens and positions are not decayed
        exempt = parameter.ndim < 2 or name.endswith(("_token", "pos_embed", "positions"))
        groups[exempt]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))

    sampler = augmentation(arguments.data, size)
    generator = torch.Generator(device).manual_seed(arguments.seed + rank)  # of crops and masks
    order = torch.Generator().manual_seed(arguments.seed)  # the same in every process
    steps_per_epoch = len(images) // arguments.batch_size
    total, warmup = arguments.epochs * steps_per_epoch, arguments.warmup_epochs * steps_per_epoch
    peak, step = arguments.learning_rate * arguments.batch_size / 256, 0
    for epoch in range(arguments.epochs):
        losses = []
        shuffled = torch.randperm(len(images), generator=order)
        for chosen in shuffled.split(arguments.batch_size)[:steps_per_epoch]:
            batch = images[chosen[rank::processes].to(images.device)]
            params = sampler.sample(len(batch), (size, size), generator=generator, device=device)
            views = ops.augment(batch, params, size, mean=mean, std=std)
            noise = torch.rand(len(batch), model.num_patches, generator=generator, device=device)
            cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, total - warmup)))
            for group in optimizer.param_groups:
                group["lr"] = peak * min(1, (step + 1) / max(1, warmup)) * cosine
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
                loss = parallel(views, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            step += 1
        if rank == 0:
            print(f"epoch {epoch + 1}/{arguments.epochs}: loss {torch.stack(losses).mean():.4f}", flush=True)
    return model


def statistics(images):
    """Mean and standard deviation of every channel, of images in [0, 1]."""
    pixels = images.transpose(0, 1).flatten(1).float() / 255
    return pixels.mean(dim=1).tolist(), pixels.std(dim=1).tolist()


@torch.no_grad()
def knn_accuracy(encoder, train_set, test_set, normalization, k=20, temperature=0.1):
    """The weighted vote of the k nearest training images (by cosine), as in DINO."""
    encoder.eval()
    mean, std = (torch.tensor(values, device=train_set[0].device)[:, None, None] for values in normalization)
    features, test_features = (
        torch.cat([F.normalize(encoder((x / 255 - mean) / std)) for x in images.split(500)])
        for images, _ in (train_set, test_set)
    )
    labels, right = train_set[1], 0
    for x, y in zip(test_features.split(500), test_set[1].split(500)):
        similarity, nearest = (x @ features.T).topk(k)
        votes = F.one_hot(labels[nearest], int(labels.max()) + 1) * (similarity / temperature).exp()[:, :, None]
        right += (votes.sum(dim=1).argmax(dim=1) == y).sum().item()
    return right / len(test_features)


def main():
    arguments = parse_arguments()
    processes = int(os.environ.get("WORLD_SIZE", 1))  # torchrun sets these
    rank, local = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if processes > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    if arguments.batch_size % processes:
        raise SystemExit(f"--batch-size must be a multiple of the {processes} processes, got {arguments.batch_size}")
    if local == 0 and arguments.download:  # one process a machine
        load_data(arguments.data, train=True, download=True)
    if processes > 1:
        dist.barrier()
    sets = [load_data(arguments.data, train=train, download=False) for train in (True, False)]
    train_set, test_set = ([tensor.to(device) for tensor in pair] for pair in sets)
    if len(train_set[0]) < arguments.batch_size:
        raise SystemExit(f"--batch-size must be at most {len(train_set[0])}, the images, got {arguments.batch_size}")
    patch = 2 if arguments.data == "digits" else 4
    model = train(arguments, train_set[0], patch, rank, processes, device)
    if rank == 0:
        accuracy = knn_accuracy(model.encoder, train_set, test_set, statistics(train_set[0]))
        print(f"kNN accuracy {accuracy:.2%} on the test images")
        if arguments.output:
            torch.save(model.encoder.state_dict(), arguments.output)
    if processes > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
