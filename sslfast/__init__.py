"""Fast self-supervised learning in PyTorch: fused ops, and a thin training layer over them."""

from sslfast import losses, ops
from sslfast._version import __version__
from sslfast.ema import EMA
from sslfast.grad_cache import GradCache
from sslfast.key_queue import KeyQueue

__all__ = ["EMA", "GradCache", "KeyQueue", "__version__", "losses", "ops"]
