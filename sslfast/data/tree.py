"""The image files below a folder, each real directory visited once, and what was passed over."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sslfast._files import write_text

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm", ".pbm",
            ".jp2", ".j2k", ".npy"}  # fmt: skip
ARRAYS = ".npy"  # images where there are no others; beside JPEGs they are somebody's features
RUN_FILES = ({"config.json", "environment.json"}, {"config.json", "metrics.jsonl"}, {"calibrate.csv"})
LARGE = 50_000  # images from which on a listing is kept
CACHE = Path("~/.cache/sslfast/listings")


@dataclass(frozen=True)
class Tree:
    """What lies below a folder.

    Args:
        images: their paths relative to the folder, "/" between the parts, in the order of the parts.
        passed_over: how many other files or folders there are, by suffix or kind.
    """

    images: list[str]
    passed_over: dict[str, int]

    def passed(self) -> str:
        """The latter in words, "" if there is nothing."""
        parts = [
            f"{count} {kind}" for kind, count in sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
        ]
        return f"passed over: {', '.join(parts)}" if parts else ""


def list_tree(folder: Path) -> Tree:
    """List a folder. A large listing is kept, and read again as long as no directory has changed.

    Hidden files, `__MACOSX`, the folders of runs and files of other suffixes are passed over. A directory that several
    names lead to is visited by its real name, or else by the first link to it.

    Raises:
        OSError: a directory cannot be read; names it.
    """
    root = folder.resolve()
    kept = Path(os.path.expanduser(CACHE)) / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"
    if (known := _read(kept, root)) is not None:
        return known
    images, passed_over, times = _walk(root)
    others = [name for name in images if not name.lower().endswith(ARRAYS)]
    if others and len(others) < len(images):
        passed_over[ARRAYS] = len(images) - len(others)
        images = others
    tree = Tree(sorted(images, key=lambda name: name.split("/")), dict(passed_over))
    if len(tree.images) >= LARGE:
        _write(kept, tree, times)
    return tree


def _walk(root: Path) -> tuple[list[str], Counter[str], dict[str, int]]:
    """Images and what is passed over, unsorted, and the time of change of every directory."""
    images: list[str] = []
    passed_over: Counter[str] = Counter()
    times: dict[str, int] = {}
    folders, links = [""], []
    seen = set()
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        status = os.stat(root / inside)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(root / inside) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        times[inside] = status.st_mtime_ns
        names = {entry.name for entry in entries}
        if any(files <= names for files in RUN_FILES):
            passed_over["run folder"] += 1
            continue
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                passed_over["hidden"] += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(name)
            elif suffix in SUFFIXES:
                images.append(name)
            else:
                passed_over[suffix or "without a suffix"] += 1
    return images, passed_over, times


def _write(path: Path, tree: Tree, times: dict[str, int]) -> None:
    if not path.is_absolute():  # there is no home
        return
    content = {"images": tree.images, "passed_over": tree.passed_over, "times": times}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content))
    except OSError:  # a home that cannot be written: the next run lists again
        return


def _read(path: Path, root: Path) -> Tree | None:
    """What was kept, unless a directory has changed since or is gone."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if all(os.stat(root / inside).st_mtime_ns == time for inside, time in content["times"].items()):
            return Tree(content["images"], content["passed_over"])
    except (OSError, ValueError, KeyError):  # not kept, or damaged: it is listed again
        pass
    return None
