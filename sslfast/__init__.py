"""Fast self-supervised learning in PyTorch: fused ops, and a thin training layer over them."""

from sslfast import losses, ops
from sslfast._version import __version__
<<<<<<< HEAD
from sslfast.key_queue import KeyQueue

__all__ = ["KeyQueue", "__version__", "losses", "ops"]
=======
from sslfast.ema import EMA

__all__ = ["EMA", "__version__", "losses", "ops"]
>>>>>>> cosine
