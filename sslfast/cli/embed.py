"""`sslfast embed`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sslfast._extras import require
from sslfast.cli.parse import parse

tyro = require("tyro", extra="train")


@dataclass
class Embed:
    """What to compute, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    output: Path = Path("features.npz")
    """The file: .npz with the arrays features, labels, names, classes; or .parquet with the columns name, label,
    feature."""
    data: str | None = None
    """Another data set; the run's own if not given."""
    split: Literal["train", "test"] | None = None
    """One of the splits; all examples if not given."""
    device: str | None = None
    """Where features are computed: cpu, cuda, cuda:1, …; CUDA if there is a device and none is given."""
    batch_size: int = 256
    """Examples a forward pass."""
    workers: int = 4
    """Processes that decode images which do not fit in memory."""
    data_root: Path | None = None
    """Folder of the downloaded sets; the data sets' own default if not given."""
    download: bool = False
    """Fetch the images if they are not there yet."""
    skip_corrupt: bool = False
    """Leave out image files that cannot be read."""


def embed(arguments: Sequence[str]) -> int:
    """Run `sslfast embed`; returns the exit code."""
    about = "Write the features of every example, by a run's backbone, with the path of each."
    chosen = parse(Embed, arguments, command="embed", about=about)
    from sslfast import api

    options = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    run, output = options.pop("run"), options.pop("output")
    api.check_output(output)
    found = api.embed(run, **options)
    found.save(output)
    print(f"{len(found.names)} x {found.features.shape[1]} features written to {output}")
    return 0
