"""`python -m sslfast`, which is also what torchrun starts: torchrun --nproc-per-node 2 -m sslfast pretrain …"""

import sys

from sslfast.cli import main

sys.exit(main())
