"""The Triton kernels of unit rows, called directly: on a GPU, and on the CPU under Triton's interpreter in a process of
its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_as_accurate

from sslfast.kernels import reference

pytest.importorskip("triton")

from triton_compile import recorded_launches
from triton_kernels import DEVICE, DTYPES, assert_fit, compiles, planned_for, run_interpreted, runs, views

from sslfast.kernels.triton import unit_rows as kernels


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(DEVICE)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("second", [None, 5], ids=str)
def test_unit_rows(dtype, second):
    rows, more = views(37, 50, dtype)
    rows[3] = 0
    more = None if second is None else more[:second]
    u, scale = kernels.normalize(rows, more)
    together = rows if more is None else torch.cat([rows, more])
    eager, exact = (reference.normalize(together.to(t)) for t in (torch.float32, torch.float64))
    assert u.dtype == dtype
    assert (u[3] == 0).all()
    assert scale[3] == 0
    assert_as_accurate(u, eager[0], exact[0], "u", dtype=dtype)
    assert_as_accurate(scale, eager[1], exact[1], "scale")


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_pull", [False, True])
def test_gradients_to_raw_rows(dtype, with_pull):
    raw = views(36, 50, dtype)[0]
    raw[3] = 0
    u, scale = kernels.normalize(raw)
    du, by, pull = random(36, 50), torch.tensor(0.3, device=DEVICE), random(2, 3, 12) if with_pull else None
    dz, along = kernels.project(du, u, scale, 10.0, by, pull)
    results = []
    for t in (torch.float32, torch.float64):
        less = du.to(t) if pull is None else reference.pulled(du.to(t), u.to(t), pull.to(t))
        results.append((reference.project(3 * less, u.to(t), scale.to(t)), (less * u.to(t)).sum()))
    eager, exact = results
    assert dz.dtype == dtype
    assert (dz[3] == 0).all()
    assert_as_accurate(dz, eager[0], exact[0], "dz", dtype=dtype, inherent=2**-24)  # 0.3 is no float32
    assert_as_accurate(along, eager[1], exact[1], "along", inherent=2**-24 * du.abs().sum().item())


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


@compiles
@pytest.mark.parametrize("d", [128, pytest.param(512, marks=pytest.mark.long)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.long)], ids=str)
@pytest.mark.parametrize(
    "capability", [pytest.param(80, marks=pytest.mark.long), 90, pytest.param(100, marks=pytest.mark.long)]
)
def test_default_configurations_compile_without_spills(d, dtype, capability, monkeypatch):
    z = torch.empty(4096, d, dtype=dtype)
    with planned_for(monkeypatch, capability):
        found, (u, scale) = recorded_launches(monkeypatch, kernels.normalize, z)
        du = torch.empty(4096, d, dtype=torch.float32)
        for by in (None, torch.tensor(0.2)):
            found += recorded_launches(monkeypatch, kernels.project, du, u, scale, 1.0, by)[0]
    assert_fit(found, capability)
