"""What comes from outside of sslfast: objects by an import path, entry points of other packages, objects of a session.

A run's configuration holds names, so that a later command finds again what the run was given: the import path
`module:name` where there is one, else `given:…`, which only a process that has been given the same knows.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
from typing import Any

GIVEN = "given:"
PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

_given: dict[str, Any] = {}


def import_module(name: str) -> Any:
    """The module, which may lie in the working directory, as for `python -m`.

    Raises:
        ImportError: there is none, or one that it needs is missing.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()  # a module may have been written a moment ago
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ImportError(f"there is no module {name}, neither installed nor in {os.getcwd()}", name=name) from error


def is_path(name: str) -> bool:
    """Whether it reads like `module:name`."""
    return PATH.fullmatch(name) is not None


def imported(path: str) -> Any:
    """The object of an import path `module:name`.

    Raises:
        ImportError: there is no such module. ValueError: it has no such name.
    """
    module, _, name = path.partition(":")
    found = import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path} is not there: {getattr(found, '__name__', module)} has no {part}")
        found = getattr(found, part)
    return found


def path_of(thing: Any) -> str | None:
    """The import path of a function or class, if another process can import it by that."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not module or not name or module == "__main__" or not PATH.fullmatch(f"{module}:{name}"):
        return None
    try:
        return f"{module}:{name}" if imported(f"{module}:{name}") is thing else None
    except (ImportError, ValueError):
        return None


def entry_points(kind: str) -> dict[str, Any]:
    """The entry points of the group `sslfast.KIND` by name; `.load()` imports one."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=f"sslfast.{kind}")}


def outside(kind: str, name: str) -> Any:
    """The object that a name outside of sslfast's own stands for: an import path, an entry point, an object given.

    Args:
        kind: "methods", "data", "backbones" or "presets".

    Raises:
        KeyError: it is none of the three. ValueError, ImportError: it is one, but the object is not there.
    """
    if name.startswith(GIVEN):
        if name not in _given:
            what = name.removeprefix(GIVEN).partition("-")[0]
            raise ValueError(
                f"{name} is a Python object ({what}), which this process has not been given: pass the same again by "
                f"sslfast.give(…), or name it in the run by an import path, module:name"
            )
        return _given[name]
    if (entry := entry_points(kind).get(name)) is not None:
        return entry.load()
    if is_path(name):
        return imported(name)
    raise KeyError(name)


def is_outside(kind: str, name: str) -> bool:
    """Whether `outside` takes the name for one of the three."""
    return name.startswith(GIVEN) or name in entry_points(kind) or is_path(name)


def keep(thing: Any, digest: str) -> str:
    """The name under which `outside` gives this object, in this process; `digest` tells others of its type apart."""
    name = f"{GIVEN}{type(thing).__name__}-{digest[:12]}"
    _given[name] = thing
    return name
