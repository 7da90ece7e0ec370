"""What csrc/bindings.cpp shows: kernels over addresses (int) of contiguous tensors, counted in elements."""

from collections.abc import Sequence

from sslfast._C import cuda as cuda

has_core: bool
has_cuda: bool
has_openmp: bool
loaded: str
tile: int
INSTRUCTION_SETS: list[str]

def load(name: str) -> None: ...
def instruction_sets() -> list[str]: ...
def multiply_and_add(rounds: int, /) -> int: ...
def release_buffers() -> None: ...
def kept_from(type: int, /) -> int: ...

class Rows:
    """A matrix: where it is, of which type, how wide."""

    def __init__(self, data: int, type: int, dim: int, /) -> None: ...

class Kept:
    """Room for cosines, in tiles."""

    def __init__(self, cosines: int, tiles: int, /) -> None: ...

class Choice:
    """Queries and candidates: how many, the targets of the former (int64), the ids of the latter (int32); 0 is none."""

    def __init__(self, n: int, candidates: int, targets: int, ids: int, /) -> None: ...

class Images:
    """Where images (B, C, H, W) lie, and how a pixel is read."""

    def __init__(
        self,
        data: int,
        type: int,
        strides: Sequence[int],
        shape: Sequence[int],
        patch_size: int,
        scale: Sequence[float],
        offset: Sequence[float],
        /,
    ) -> None: ...

def nt_xent_forward(
    z1: Rows,
    z2: Rows,
    n: int,
    across: bool,
    tau: float,
    loss: int,
    shift: int,
    inverse_sum: int,
    unit: Rows,
    scale: int,
    rank: int,
    kept: Kept,
    /,
) -> None: ...
def nt_xent_backward(
    grad: int,
    unit: Rows,
    scale: int,
    loss: int,
    shift: int,
    inverse_sum: int,
    kept: Kept,
    n: int,
    across: bool,
    tau: float,
    dz: Rows,
    /,
) -> float: ...
def info_nce_forward(
    query: Rows,
    key: Rows,
    choice: Choice,
    normalized: bool,
    queue: Rows | None,
    queue_rows: int,
    tau: float,
    loss: int,
    shift: int,
    inverse_sum: int,
    mean: Rows | None,
    unit: Rows,
    scale: int,
    rank: int,
    kept: Kept,
    /,
) -> None: ...
def info_nce_backward(
    grad: int,
    unit: Rows,
    scale: int,
    loss: int,
    shift: int,
    inverse_sum: int,
    mean: Rows,
    kept: Kept,
    choice: Choice,
    normalized: bool,
    tau: float,
    in_batch: bool,
    dquery: Rows,
    dkey: Rows | None,
    /,
) -> float: ...
def negatives_forward(
    rows: Rows,
    count: int,
    columns: Rows,
    column_count: int,
    skip_diagonal: bool,
    row_ids: int,
    column_ids: int,
    positives: Rows | None,
    tau: float,
    shift: int,
    sum: int,
    weighted: Rows | None,
    rank: int,
    /,
) -> None: ...
def negatives_backward(
    rows: Rows,
    count: int,
    columns: Rows,
    column_count: int,
    skip_diagonal: bool,
    row_ids: int,
    column_ids: int,
    row_factor: int,
    row_shift: int,
    column_factor: int,
    column_shift: int,
    tau: float,
    out: Rows,
    /,
) -> None: ...
def negatives_among_forward(
    rows: Rows,
    count: int,
    ids: int,
    labels: int,
    tau: float,
    shift: int,
    sum: int,
    positive: int,
    rank: int,
    kept: Kept,
    /,
) -> None: ...
def negatives_among_backward(
    rows: Rows,
    count: int,
    ids: int,
    labels: int,
    factor: int,
    shift: int,
    pull: int,
    kept: Kept,
    tau: float,
    out: Rows,
    /,
) -> None: ...
def normalize_rows(z1: Rows, count1: int, z2: Rows, count2: int, unit: Rows, scale: int, /) -> None: ...
def view_cosines(unit: Rows, views: int, count: int, cosines: int, /) -> None: ...
def project_rows(
    du: Rows, unit: Rows, scale: int, count: int, multiplier: float, views: int, pulls: int, out: Rows, /
) -> float: ...
def sigmoid_sums(
    image: Rows,
    text: Rows,
    n: int,
    own: bool,
    scale: float,
    bias: float,
    factor: int,
    loss: int,
    weight: int,
    dimage: Rows | None,
    dtext: Rows | None,
    /,
) -> None: ...
def negative_cosine_similarity(p: int, z: int, type: int, rows: int, dim: int, loss: int, /) -> None: ...
def negative_cosine_similarity_backward(
    grad: int, p: int, z: int, type: int, rows: int, dim: int, dp: int, dz: int, /
) -> None: ...
def ema_update(pairs: int, count: int, momentum: float, step: int, /) -> None: ...
def augment(
    images: int,
    source: int,
    batch: int,
    channels: int,
    height: int,
    width: int,
    sizes: int,
    rows: Sequence[int],
    view_rows: int,
    view_columns: int,
    jitters: Sequence[bool],
    bicubic: bool,
    simclr: bool,
    blur_radius: int,
    scale: Sequence[float],
    offset: Sequence[float],
    type: int,
    views: int,
    /,
) -> None: ...
def random_patch_mask_from_seed(
    seed: int, batch: int, patches: int, kept: int, keep: int, restore: int, mask: int, /
) -> None: ...
def random_patch_mask_from_noise(
    noise: int, batch: int, patches: int, kept: int, keep: int, restore: int, mask: int, /
) -> None: ...
def gather_tokens(
    tokens: int, stride_b: int, stride_l: int, keep: int, batch: int, kept: int, bytes: int, out: int, /
) -> None: ...
def spread_tokens(grad: int, keep: int, batch: int, kept: int, tokens: int, bytes: int, out: int, /) -> bool: ...
def restore_tokens(
    visible: int,
    type: int,
    restore: int,
    mask_token: int,
    pos: int,
    batch: int,
    tokens: int,
    kept: int,
    dim: int,
    out: int,
    /,
) -> None: ...
def restore_tokens_backward(
    grad: int,
    type: int,
    restore: int,
    batch: int,
    tokens: int,
    kept: int,
    dim: int,
    dvisible: int,
    dmask: int,
    dpos: int,
    /,
) -> bool: ...
def gather_patches(images: Images, keep: int, kept: int, type: int, out: int, /) -> None: ...
def gather_patches_backward(grad: int, images: Images, keep: int, kept: int, type: int, dimages: int, /) -> bool: ...
def masked_patch_loss(
    pred: int, type: int, mask: int, images: Images, mean: int, rstd: int, loss: int, count: int, /
) -> None: ...
def masked_patch_loss_backward(
    pred: int, type: int, mask: int, images: Images, mean: int, rstd: int, factor: float, dpred: int, /
) -> None: ...
