"""Tar shards of small images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_shards(folder: Path, count: int = 3, each: int = 10, *, labels: bool = True, side: int = 9) -> Path:
    """Shards of `each` PNG images, whose pixels are their number; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            for number in range(shard * each, (shard + 1) * each):
                content = io.BytesIO()
                Image.new("RGB", (side, side), (number,) * 3).save(content, "png")
                add(archive, f"{number:05}.png", content.getvalue())
                if labels:
                    add(archive, f"{number:05}.cls", str(number % 2 + 10).encode())
    return folder
