"""What the contrastive losses do to rows before and after all pairs meet: unit length, the cosines of an image's own
views, and the gradient back to raw rows."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.cpu import unit_rows as cpu
from sslfast.ops.layout import require
from sslfast.ops.precision import precise
from sslfast.ops.registry import define_op, lazily


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _reference_normalize(first, second=None):
    z = first if second is None else torch.cat([first, second])
    u, scale = reference.normalize(z.to(_exact(z)))
    return u.to(z.dtype).contiguous(), scale


def _reference_view_cosines(u, views):
    return reference.view_cosines(u.to(_exact(u)), views)


def _reference_project(du, u, scale, multiplier, by=None, pull=None):
    exact = u.to(scale.dtype)
    if pull is not None:
        du = reference.pulled(du, exact, pull)
    along = (du * exact).sum()
    return reference.project(du * (multiplier if by is None else multiplier * by), exact, scale).to(u.dtype), along


def _fake_normalize(first, second=None):
    rows, d = first.shape[0] + (0 if second is None else second.shape[0]), first.shape[1]
    return first.new_empty(rows, d), first.new_empty(rows, dtype=_exact(first))


def _fake_view_cosines(u, views):
    return u.new_empty(views - 1, views, u.shape[0] // views, dtype=_exact(u))


# Rows of unit length in the input's dtype, those of `first`, then of `second`; and the factors that made them so, 0 for
# a zero row.
normalize = define_op(
    "unit_rows(Tensor first, Tensor? second=None) -> (Tensor u, Tensor scale)",
    fake=_fake_normalize,
    reference=_reference_normalize,
    cpu=cpu.normalize,
    cuda=lazily("sslfast.kernels.triton.unit_rows", "normalize"),
    layout={"first": "N D: float", "second": "M D: first"},
)
# Of V views of N images, u being all first views, then all second ones, …: the cosines of every view with those of its
# image 1 to V − 1 views before, (V − 1, V, N).
view_cosines = define_op(
    "view_cosines(Tensor u, SymInt views) -> Tensor",
    fake=_fake_view_cosines,
    reference=_reference_view_cosines,
    cpu=cpu.view_cosines,
    cuda=_reference_view_cosines,
    layout={"u": "M D: float"},
    requires=lambda u, views: require(
        "view_cosines",
        "views",
        f"at least 2 and divide {u.shape[0]}, the rows of u",
        views >= 2 and u.shape[0] % views == 0,
        views,
    ),
)
# Gradients to raw rows, in u's dtype, from those to unit rows, du: times multiplier, and the number `by`. With pull
# (V − 1, V, N) the views of an image attract each other: du is less Σ_p (pull_ip + pull_pi) u_p. Also Σ_i u_i·du_i.
project = define_op(
    "project_rows(Tensor du, Tensor u, Tensor scale, float multiplier, Tensor? by=None, Tensor? pull=None)"
    " -> (Tensor dz, Tensor along)",
    fake=lambda du, u, scale, *_: (torch.empty_like(u), scale.new_empty(())),
    reference=_reference_project,
    cpu=cpu.project,
    cuda=lazily("sslfast.kernels.triton.unit_rows", "project"),
    layout={"du": "M D: exact u", "u": "M D: float", "scale": "M: exact u", "by": ": float", "pull": "P V N: exact u"},
    requires=lambda du, u, scale, multiplier, by=None, pull=None: require(
        "project_rows",
        "pull",
        "(V - 1, V, N) of the M = V·N rows",
        pull is None or (pull.shape[0] + 1 == pull.shape[1] and pull.shape[1] * pull.shape[2] == u.shape[0]),
        None if pull is None else tuple(pull.shape),
    ),
)


def over(temperature: float, tau: Tensor | None) -> tuple[float, Tensor | None]:
    """What `project` multiplies by to divide by the temperature, whichever holds it."""
    return (1 / temperature, None) if tau is None else (1.0, 1 / precise(tau))


def to_temperature(along: Tensor, tau: Tensor | None) -> Tensor | None:
    """The gradient to τ, from the Σ u·du of `project`: a pair counts from both sides."""
    return None if tau is None else (-precise(along) / precise(tau) / (2 * precise(tau))).to(tau.dtype)
