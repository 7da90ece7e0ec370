"""What `ops.augment` does to each view of a batch, as tensors with one row a view."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from sslfast.ops.checks import check_dense

STEPS = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize")
Interpolation = Literal["bilinear", "bicubic"]
Mode = Literal["torchvision", "simclr"]
INTERPOLATIONS, MODES = get_args(Interpolation), get_args(Mode)


@dataclass(frozen=True, eq=False)
class ViewParams:
    """The parameters of B views, one row a view, in the order in which `ops.augment` applies them.

    `steps`, `interpolation`, `mode` and `blur_radius` hold for the whole batch and live in Python, so that the op knows
    without asking the device which steps it can leave out.

    Args:
        crop: (B, 4) int32, the box (top, left, height, width) in pixels of the source. A box is cut to the source.
        flip: (B,) bool, mirror left and right.
        jitter: (B, 4) float32, the factors of brightness, contrast and saturation (>= 0, 1 changes nothing) and the
            shift of the hue as a fraction of the circle (in [-0.5, 0.5], 0 changes nothing).
        order: (B, 4) int32, the order in which the columns of `jitter` are applied: a permutation of 0..3 a row, which
            is checked on the CPU when it is used.
        grayscale: (B,) bool, replace the colours by their gray.
        blur: (B,) float32, σ of the Gaussian blur in pixels of the view; 0 is no blur.
        solarize: (B,) float32, pixels >= this threshold in [0, 1] are inverted; inf is no solarization.
        steps: the steps of `STEPS` that a row may need; the others are left out for every row.
        interpolation: "bilinear" or "bicubic" (a = -0.5).
        mode: "torchvision" or "simclr", whose steps are meant where the two differ; see `ops.augment`.
        blur_radius: the blur's window has 2·blur_radius + 1 taps.

    Raises:
        TypeError: a field has another dtype. ValueError: another shape, a device of its own, or an unknown name.
    """

    crop: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    grayscale: Tensor
    blur: Tensor
    solarize: Tensor
    steps: tuple[str, ...] = field(default=STEPS, kw_only=True)
    interpolation: Interpolation = field(default="bilinear", kw_only=True)
    mode: Mode = field(default="torchvision", kw_only=True)
    blur_radius: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        check_dense("ViewParams", "crop", self.crop, " (B, 4)")
        batch = self.crop.shape[0] if self.crop.dim() else 0
        for name, (columns, dtype) in LAYOUT.items():
            value = getattr(self, name)
            check_dense("ViewParams", name, value, f" of {dtype}")
            if value.dtype != dtype:
                raise TypeError(f"ViewParams: {name} must be a tensor of {dtype}, got {value.dtype}")
            if value.shape != (batch, *columns):
                raise ValueError(
                    f"ViewParams: {name} must have shape {(batch, *columns)} as crop has, got {tuple(value.shape)}"
                )
            if value.device != self.crop.device:
                raise ValueError(f"ViewParams: {name} must be on {self.crop.device} as crop is, got {value.device}")
        if unknown := set(self.steps) - set(STEPS):
            raise ValueError(f"ViewParams: steps must be among {', '.join(STEPS)}, got {', '.join(sorted(unknown))}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"ViewParams: interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}"
            )
        if self.mode not in MODES:
            raise ValueError(f"ViewParams: mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.blur_radius < 0:
            raise ValueError(f"ViewParams: blur_radius must be >= 0, got {self.blur_radius}")

    @classmethod
    def identity(cls, batch: int, source_size: tuple[int, int], *, device: torch.device | str = "cpu") -> ViewParams:
        """The parameters that take the whole source and change nothing; `dataclasses.replace` alters single fields."""
        height, width = source_size
        return cls(
            crop=torch.tensor([0, 0, height, width], dtype=torch.int32, device=device).repeat(batch, 1),
            flip=torch.zeros(batch, dtype=torch.bool, device=device),
            jitter=torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float32, device=device).repeat(batch, 1),
            order=torch.arange(4, dtype=torch.int32, device=device).repeat(batch, 1),
            grayscale=torch.zeros(batch, dtype=torch.bool, device=device),
            blur=torch.zeros(batch, dtype=torch.float32, device=device),
            solarize=torch.full((batch,), torch.inf, dtype=torch.float32, device=device),
            steps=(),
        )

    def __len__(self) -> int:
        return len(self.crop)

    def __getitem__(self, index: int | slice | Tensor) -> ViewParams:
        """Some of the rows; an int keeps the batch dimension."""
        if isinstance(index, int):
            index = range(len(self))[index]  # IndexError past the end, negative from the end
            index = slice(index, index + 1)
        return replace(self, **{name: getattr(self, name)[index] for name in LAYOUT})

    @property
    def device(self) -> torch.device:
        return self.crop.device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> ViewParams:
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in LAYOUT})

    def save(self, path: str | Path) -> None:
        """Write a file that `load` reads back bit for bit."""
        torch.save({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> ViewParams:
        """Read what `save` wrote. Raises ValueError if the file holds something else."""
        content = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(content, dict) or content.keys() != {f.name for f in fields(cls)}:
            raise ValueError(f"{path} does not hold view parameters")
        return cls(**content)

    def describe(self, index: int) -> str:
        """One line that says what happens to one view, in the order in which it happens."""
        row = self[index].to("cpu")
        top, left, height, width = row.crop[0].tolist()
        parts = [f"crop {height}x{width} at ({top}, {left})"]
        if row.flip:
            parts.append("flip")
        factors = row.jitter[0].tolist()
        for k in row.order[0].tolist():
            if STEPS[k] in self.steps and factors[k] != (0 if STEPS[k] == "hue" else 1):
                parts.append(f"{STEPS[k]} {factors[k]:+.3f}" if STEPS[k] == "hue" else f"{STEPS[k]} {factors[k]:.2f}")
        if "grayscale" in self.steps and row.grayscale:
            parts.append("grayscale")
        if "blur" in self.steps and self.blur_radius and row.blur > 0:
            parts.append(f"blur {row.blur.item():.2f} px")
        if "solarize" in self.steps and row.solarize <= 1:
            parts.append(f"solarize from {row.solarize.item():.2f}")
        return ", ".join(parts)


LAYOUT: dict[str, tuple[tuple[int, ...], torch.dtype]] = {  # field -> (shape behind the batch, dtype)
    "crop": ((4,), torch.int32),
    "flip": ((), torch.bool),
    "jitter": ((4,), torch.float32),
    "order": ((4,), torch.int32),
    "grayscale": ((), torch.bool),
    "blur": ((), torch.float32),
    "solarize": ((), torch.float32),
}
