"""CLIP's loss on the CPU: NT-Xent's pass over the pairs across alone. In units of 2·N²·D operations: forward 1, for
both directions, backward 2 and, where the cosines are not kept, 1 more."""

from __future__ import annotations

from functools import partial

from sslfast.kernels.cpu import nt_xent

cosines = partial(nt_xent.cosines, across=True)
forward = partial(nt_xent.forward, across=True)
backward = partial(nt_xent.backward, across=True)
