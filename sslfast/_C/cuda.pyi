"""What csrc/bindings_cuda.cpp shows: kernels over addresses (int) on a device, launched on a stream (int)."""

ema_chunk: int

def ema_update(
    pairs: int,
    chunks: int,
    chunk_count: int,
    momentum: float,
    momentum_at: int,
    momentum_is_double: bool,
    step: int,
    step_at: int,
    stream: int,
    /,
) -> None: ...
def random_patch_mask_from_seed(
    seed: int, batch: int, patches: int, kept: int, keep: int, restore: int, mask: int, stream: int, /
) -> None: ...
def random_patch_mask_from_noise(
    noise: int,
    type: int,
    image_stride: int,
    patch_stride: int,
    batch: int,
    patches: int,
    kept: int,
    keep: int,
    restore: int,
    mask: int,
    stream: int,
    /,
) -> None: ...
