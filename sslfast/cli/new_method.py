"""`sslfast new-method`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sslfast._extras import require
from sslfast._files import write_text
from sslfast.cli.parse import UsageError, parse

tyro = require("tyro", extra="train")


@dataclass
class NewMethod:
    """What to write."""

    name: Annotated[str, tyro.conf.Positional]
    """The method's name: small letters, digits and dashes."""
    output: Path = Path()
    """Folder of the two files."""


def new_method(arguments: Sequence[str]) -> int:
    """Run `sslfast new-method`; returns the exit code."""
    about = "Write NAME.py, a method that trains as it is, and test_NAME.py, to begin your own with."
    chosen = parse(NewMethod, arguments, command="new-method", about=about)
    from sslfast.methods import METHODS

    module = chosen.name.replace("-", "_")
    if not module.isidentifier() or module != module.lower():
        raise UsageError(f"new-method wants a name of small letters, digits and dashes, got {chosen.name!r}")
    if chosen.name in METHODS:
        raise UsageError(f"sslfast has a method {chosen.name} already")
    words = {
        "name": chosen.name,
        "module": module,
        "title": chosen.name.replace("-", " ").capitalize(),
        "name_class": "".join(part.capitalize() for part in chosen.name.split("-")),
    }
    jinja = require("jinja2", extra="train")
    loader = jinja.FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = jinja.Environment(loader=loader, keep_trailing_newline=True)
    files = {"method.py.j2": chosen.output / f"{module}.py", "test_method.py.j2": chosen.output / f"test_{module}.py"}
    if there := [str(path) for path in files.values() if path.exists()]:
        raise FileExistsError(f"{', '.join(there)} is there already: nothing was written")
    chosen.output.mkdir(parents=True, exist_ok=True)
    for template, path in files.items():
        write_text(path, environment.get_template(template).render(words))
    method, test = files.values()
    print(f"written to {method} and {test}; next: sslfast pretrain {module}:{words['name_class']} --data digits")
    return 0
