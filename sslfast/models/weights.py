"""Weights as .safetensors files that carry their own checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sslfast._extras import require
from sslfast._files import replacing

CHECKSUM = "sha256"  # in the file's metadata, which other readers ignore


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of `module`, on any device, so that `safetensors` reads them too."""
    tensors, seen = {}, set()
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        # A file of safetensors has no two names of one memory, nor a part of it (safetensors#98).
        shared = storage.data_ptr() in seen or storage.nbytes() > tensor.nbytes
        seen.add(storage.data_ptr())
        tensors[name] = tensor.clone() if shared else tensor
    content = require("safetensors.torch", extra="train").save(tensors)
    length = int.from_bytes(content[:8], "little")
    # safetensors itself writes two metadata in an order that differs from file to file.
    header = {"__metadata__": {"format": "pt", CHECKSUM: checksum(tensors)}, **json.loads(content[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary:
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file, to the CPU.

    Raises:
        ValueError: it is damaged. A checksum is checked if the file has one, as `save_weights` writes.
    """
    safetensors = require("safetensors", extra="train")
    content = path.read_bytes()  # its own reader takes no path that is not UTF-8
    try:
        tensors = require("safetensors.torch", extra="train").load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        expected = header.get("__metadata__", {}).get(CHECKSUM)
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({str(error).splitlines()[0]})") from error
    if expected is not None and checksum(tensors) != expected:
        raise ValueError(f"{path} is damaged: its weights are not those of its checksum")
    return tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names, dtypes, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
