"""Differentiable fused ops: checked arguments, one dispatcher entry each, CPU and GPU kernels behind."""

from sslfast.ops.augment import augment
from sslfast.ops.nt_xent import nt_xent

__all__ = ["augment", "nt_xent"]
