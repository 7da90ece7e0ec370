"""Differentiable fused ops: checked arguments, one dispatcher entry each, CPU and GPU kernels behind."""

from sslfast.ops.augment import augment
from sslfast.ops.ema import ema_update_
from sslfast.ops.info_nce import info_nce
from sslfast.ops.nt_xent import nt_xent

__all__ = ["augment", "ema_update_", "info_nce", "nt_xent"]
