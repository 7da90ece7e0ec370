"""SimCLR on CIFAR-10 in one file: PyTorch, with sslfast's views and loss.

    python examples/simclr.py --data ./data --download       # one GPU, or the CPU
    torchrun --nproc-per-node 8 examples/simclr.py --data ./data
    python examples/simclr.py --data digits --epochs 5       # scikit-learn's digits: to try it out on a CPU

The values are those of lightly's CIFAR-10 benchmark: a kNN accuracy of 84.8 % after 200 epochs. The loss contrasts the
images of all processes, so that it does not matter how many of them the batch is spread over.
Paper: Chen et al. 2020, https://arxiv.org/abs/2002.05709
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sslfast.augment import ViewSampler
from sslfast.ops import augment, nt_xent

CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
DIGITS = {"mean": (0.3054,), "std": (0.3760,)}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder of CIFAR-10, or digits (%(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch CIFAR-10 if it is not there")
    parser.add_argument("--epochs", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=512, help="images, of all processes together (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.06, help="for a batch of 128 (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.5, help="(%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 mixed precision")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--output", help="file for the trained backbone's weights")
    return parser.parse_args()


def start_process():
    """(rank, processes, device) of this process; torchrun's environment says whether there are others."""
    cuda = torch.cuda.is_available()
    if "RANK" not in os.environ:
        return 0, 1, torch.device("cuda" if cuda else "cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    return dist.get_rank(), dist.get_world_size(), device


def load_images(data, download, device):
    """[images, labels] of the training and of the test split: uint8 (N, C, H, W) and int64 (N,)."""
    if data == "digits":
        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().byte()[:, None]
        splits = zip(images.split(1437), torch.from_numpy(digits.target).split(1437))
    else:
        sets = [torchvision.datasets.CIFAR10(data, train=train, download=download) for train in (True, False)]
        splits = [(torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(s.targets)) for s in sets]
    return [[tensor.to(device) for tensor in split] for split in splits]


class SimCLR(nn.Module):
    """A ResNet-18 for small images, and the projection head that only training needs."""

    def __init__(self, channels):
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.backbone.maxpool = self.backbone.fc = nn.Identity()
        self.head = nn.Sequential(nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 128))

    def forward(self, x):
        return self.head(self.backbone(x))


class Views:
    """Random views of uint8 images (B, C, H, W), normalised: float (B, C, H, W)."""

    def __init__(self, data, size, seed, device):
        self.sampler = ViewSampler("mnist-like" if data == "digits" else "simclr-cifar", size)
        self.normalization = DIGITS if data == "digits" else CIFAR10
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, images):
        params = self.sampler.sample(len(images), images.shape[-2:], generator=self.generator)
        return augment(images, params, self.sampler.size, **self.normalization)


def train(model, images, views, arguments, rank, processes):
    steps = len(images) // arguments.batch_size  # an epoch
    peak = arguments.learning_rate * arguments.batch_size / 128
    optimizer = torch.optim.SGD(model.parameters(), lr=peak, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs * steps)
    shared = torch.Generator().manual_seed(arguments.seed)  # draws the same in every process
    for epoch in range(arguments.epochs):
        order = torch.randperm(len(images), generator=shared)[: steps * arguments.batch_size].to(images.device)
        total = torch.zeros((), device=images.device)
        for mine in order.view(steps, processes, -1)[:, rank]:
            both = torch.cat([views(images[mine]), views(images[mine])])  # one pass: BatchNorm sees both views
            with torch.autocast(images.device.type, torch.bfloat16, enabled=arguments.bf16):
                z1, z2 = model(both).chunk(2)
                loss = nt_xent(z1, z2, arguments.temperature, group="world")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        if rank == 0:
            print(f"epoch {epoch + 1}/{arguments.epochs}: loss {total.item() / steps:.4f}", flush=True)


@torch.no_grad()
def knn_accuracy(backbone, train_split, test_split, normalization, k, temperature=0.1):
    """The weighted vote of the k nearest training images, by the cosine of the backbone's features."""
    backbone.eval()
    mean, std = (
        torch.tensor(normalization[name], device=train_split[0].device).view(-1, 1, 1) for name in ("mean", "std")
    )

    def features(images):
        chunks = [backbone((chunk / 255 - mean) / std) for chunk in images.split(512)]
        return F.normalize(torch.cat(chunks).float(), dim=1)

    (bank, labels), (queries, truth) = [(features(images), labels) for images, labels in (train_split, test_split)]
    correct = 0
    for query, label in zip(queries.split(512), truth.split(512)):
        similarity, index = (query @ bank.T).topk(k)
        votes = torch.zeros(len(query), 10, device=query.device)
        votes.scatter_add_(1, labels[index], (similarity / temperature).softmax(dim=1))
        correct += (votes.argmax(dim=1) == label).sum().item()
    return correct / len(truth)


def main():
    arguments = parse_arguments()
    rank, processes, device = start_process()
    if arguments.batch_size % processes:
        raise SystemExit(f"--batch-size must be a multiple of the {processes} processes, got {arguments.batch_size}")
    torch.manual_seed(arguments.seed)
    train_split, test_split = load_images(arguments.data, arguments.download, device)
    if len(train_split[0]) < arguments.batch_size:
        raise SystemExit(f"--batch-size must be at most {len(train_split[0])}, the images, got {arguments.batch_size}")
    channels, *size = train_split[0].shape[1:]
    model = SimCLR(channels).to(device, memory_format=torch.channels_last)
    views = Views(arguments.data, tuple(size), arguments.seed * processes + rank, device)
    if processes > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    network = model if processes == 1 else DistributedDataParallel(model)
    train(network, train_split[0], views, arguments, rank, processes)
    if rank == 0:
        k = 20 if arguments.data == "digits" else 200
        accuracy = knn_accuracy(model.backbone, train_split, test_split, views.normalization, k)
        print(f"kNN accuracy {accuracy:.2%} on the test images")
        if arguments.output:
            torch.save(model.backbone.state_dict(), arguments.output)
    if processes > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
