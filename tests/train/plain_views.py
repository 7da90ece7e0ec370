"""The command line with one more preset, "plain", whose views are the images: nothing then depends on the process."""

from __future__ import annotations

import sys

from sslfast.augment.presets import PRESETS, Preset

PLAIN = {"plain": Preset(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0)}

if __name__ == "__main__":
    from sslfast.cli import main

    PRESETS.update(PLAIN)
    sys.exit(main())
