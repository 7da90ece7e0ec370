"""The methods by name: those of sslfast, and those of others."""

from __future__ import annotations

from sslfast._outside import is_outside, outside, path_of
from sslfast._words import nearest
from sslfast.methods.base import Method
from sslfast.methods.byol import BYOL
from sslfast.methods.clm import CLM
from sslfast.methods.colorization import Colorization
from sslfast.methods.inpainting import Inpainting
from sslfast.methods.jigsaw import Jigsaw
from sslfast.methods.mae import MAE
from sslfast.methods.mlm import MLM
from sslfast.methods.moco import MoCo
from sslfast.methods.nsp import NSP
from sslfast.methods.relative_patch import RelativePatch
from sslfast.methods.rotation import Rotation
from sslfast.methods.simclr import SimCLR
from sslfast.methods.simsiam import SimSiam
from sslfast.methods.sop import SOP

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "mae": MAE,
    "rotation": Rotation,
    "jigsaw": Jigsaw,
    "relative-patch": RelativePatch,
    "colorization": Colorization,
    "inpainting": Inpainting,
    "mlm": MLM,
    "clm": CLM,
    "sop": SOP,
    "nsp": NSP,
}
_BUILT_IN = tuple(METHODS.values())


def register(method: type[Method]) -> type[Method]:
    """Make a method known by the name in its `Config`, in this process; a decorator.

    What is registered by a module that a command is told to `--import`, the command knows. A package that has the class
    as an entry point of the group `sslfast.methods` needs neither.

    Raises:
        TypeError: it is no subclass of `Method`, or its Config has no name. ValueError: another one has the name.
    """
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise TypeError(f"method must be a subclass of sslfast.methods.Method, got {method!r}")
    name = method.Config.method
    if not name or not name.replace("-", "_").isidentifier():
        raise TypeError(f"{method.__name__}.Config.method must be its name, letters and dashes, got {name!r}")
    other = METHODS.setdefault(name, method)
    # A module that is run as a script and imported by its name has two classes of the same name.
    if other is not method and (other in _BUILT_IN or other.__qualname__ != method.__qualname__):
        raise ValueError(f"there is a method {name!r} already, {other.__module__}:{other.__qualname__}")
    METHODS[name] = method
    return method


def method_named(name: str, path: str | None = None) -> type[Method]:
    """The method of that name: one of sslfast, one that was registered, an entry point, or the class of an import path.

    Args:
        path: where to import it from if no such method is known.

    Raises:
        ValueError: there is no such method; the message has the nearest name. ImportError: its module is not there.
    """
    if name in METHODS:
        return METHODS[name]
    where = path or name
    if is_outside("methods", where):
        return register(outside("methods", where))
    hint = nearest(name, METHODS) or f"; there are {', '.join(METHODS)}"
    raise ValueError(f"unknown method {name!r}{hint}; --import MODULE brings one of your own")


def path_of_own(method: type[Method]) -> str | None:
    """The import path of a method that is not one of sslfast's; None if it is, or has none."""
    return None if method in _BUILT_IN else path_of(method)
