"""Rows to unit length, cosines of an image's views, and gradients back to raw rows, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_as_accurate

from sslfast.kernels import reference
from sslfast.ops import unit_rows

pytestmark = pytest.mark.usefixtures("poisoned_memory")

DTYPES = torch.float32, torch.bfloat16, torch.float16


def random(*shape, device, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "m", "d"), [(1, None, 1), (37, None, 129), (20, 7, 50)])
def test_unit_rows(n, m, d, dtype, device):
    first, second = random(n, d, device=device, dtype=dtype), None
    if m is not None:
        first[3], second = 0, random(m, d, device=device, dtype=dtype, seed=1)
    u, scale = unit_rows.normalize(first, second)
    together = first if second is None else torch.cat([first, second])
    eager, exact = (reference.normalize(together.to(t)) for t in (torch.float32, torch.float64))
    assert u.dtype == dtype
    assert_as_accurate(u, eager[0], exact[0], "u", dtype=dtype)
    assert_as_accurate(scale, eager[1], exact[1], "scale")
    assert m is None or ((u[3] == 0).all() and scale[3] == 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("views", "n", "d"), [(2, 1, 3), (2, 33, 128), (3, 21, 50), (5, 8, 17)])
def test_views_of_one_image(views, n, d, dtype, device):
    """Their cosines, and gradients of rows that pull each other."""
    u, scale = unit_rows.normalize(random(views * n, d, device=device, dtype=dtype))
    du, pull = random(views * n, d, device=device, seed=1), random(views - 1, views, n, device=device, seed=2)
    by = torch.tensor(0.5, device=device)
    cosines = unit_rows.view_cosines(u, views)
    dz, along = unit_rows.project(du, u, scale, 6.0, by, pull)
    eager, exact = (
        (reference.view_cosines(u.to(t), views), reference.pulled(du.to(t), u.to(t), pull.to(t)))
        for t in (torch.float32, torch.float64)
    )
    assert_as_accurate(cosines, eager[0], exact[0], "cosines")
    for v in range(views):  # what the reference says in a line, said otherwise
        for distance in range(1, views):
            other = u.view(views, n, d)[(v - distance) % views].double()
            assert_as_accurate(exact[0][distance - 1, v], *[(u.view(views, n, d)[v].double() * other).sum(1)] * 2)
    to_raw = [reference.project(3 * x[1], u.to(x[1].dtype), scale.to(x[1].dtype)) for x in (eager, exact)]
    assert_as_accurate(dz, *to_raw, "dz", dtype=dtype)
    assert_as_accurate(
        along,
        *((x[1] * u.to(x[1].dtype)).sum() for x in (eager, exact)),
        "along",
        inherent=2**-24 * du.abs().sum().item(),
    )


def test_no_number_overflows_that_a_zero_row_is_multiplied_by(device):
    raw = random(4, 5, device=device)
    raw[1] = 0
    raw[2] = 1e-30
    u, scale = unit_rows.normalize(raw)
    for multiplier in (1e38, -1e38):
        dz, _ = unit_rows.project(torch.ones_like(u), u, scale, multiplier)
        assert (dz[1] == 0).all()
        assert not dz.isnan().any()


def test_rows_that_threads_share_have_the_same_bits(device):
    """Of one thread and of two."""
    u, scale = unit_rows.normalize(random(999, 300, device=device))
    du, pull = random(999, 300, device=device, seed=1), random(2, 3, 333, device=device, seed=2)
    threads, found = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append([*unit_rows.project(du, u, scale, 2.0, None, pull), unit_rows.view_cosines(u, 3)])
    torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


def test_opcheck(device):
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        first, second = random(6, 5, device=device, dtype=dtype), random(3, 5, device=device, dtype=dtype)
        normalize, view_cosines, project = (
            getattr(torch.ops.sslfast, name).default for name in ("unit_rows", "view_cosines", "project_rows")
        )
        for arguments in ((first,), (first, second)):
            torch.library.opcheck(normalize, arguments)
        u, scale = normalize(first)
        torch.library.opcheck(view_cosines, (u, 3))
        du, by = torch.ones_like(u, dtype=scale.dtype), torch.tensor(0.5, device=device)
        for pull in (None, torch.ones(2, 3, 2, device=device, dtype=scale.dtype)):
            torch.library.opcheck(project, (du, u, scale, 2.0, by, pull))


@pytest.mark.parametrize("views", [0, 1, 4, -2])
def test_views_that_do_not_fit_are_refused(views):
    with pytest.raises(ValueError, match="view_cosines: views must be at least 2 and divide 6, the rows of u"):
        torch.ops.sslfast.view_cosines(torch.ones(6, 2), views)


@pytest.mark.parametrize("shape", [(1, 3, 2), (2, 3, 3), (1, 2, 2)])
def test_pulls_that_do_not_fit_are_refused(shape):
    u, pull = torch.ones(6, 2), torch.ones(*shape)
    with pytest.raises(ValueError, match="project_rows: pull must be"):
        torch.ops.sslfast.project_rows(u, u, torch.ones(6), 1.0, None, pull)
