"""Calls of `torch.ops.sslfast` with tensors that the kernels cannot take are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from every_op import DIFFERENTIABLE, randn, views
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sslfast import ops
from sslfast.ops import negatives
from sslfast.ops.registry import IMPLS

# Sizes that others follow
ON_ITS_OWN = {
    "query",
    "key",
    "queue",
    "columns",
    "noise",
    "rows",
    "images",
    "tokens",
    "visible",
    "cosines",
    "first",
    "second",
}


class Recorded(TorchDispatchMode):
    """The kernels that are called inside, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple[Callable, list]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "sslfast":
            arguments = [*args, *(argument.default_value for argument in function._schema.arguments[len(args) :])]
            self.calls.setdefault(f"{function._opname}, {len(self.calls)}", (function, arguments))
        return function(*args, **(kwargs or {}))


def every_call() -> dict[str, tuple[Callable, list]]:
    with Recorded() as recorded:
        for case in DIFFERENTIABLE.values():
            op, _, leaves = case.bound()
            op(*(x.requires_grad_() for x in leaves)).sum().backward()
        ops.random_patch_mask(3, 4, noise=randn(3, 4))
        ops.random_patch_mask(3, 4, seed=1)
        images, params = views()
        ops.augment(images, params, 8, sizes=torch.full((3, 2), 8, dtype=torch.int32))
        rows, columns = (torch.nn.functional.normalize(randn(n, 5)) for n in (3, 4))
        shift, factor = torch.ones(3), torch.ones(4)
        negatives.forward(rows, columns, False, 0.5, None, True)
        negatives.backward(rows, columns, False, shift, shift, factor, factor, 0.5, None)
    return recorded.calls


CALLS = every_call()


def test_every_kernel_is_asked():
    elsewhere = {"ema_update_"}  # a table of tensors
    elsewhere |= {name for name in IMPLS if IMPLS[name]["cpu"] is IMPLS[name]["reference"]}  # between processes
    assert {name.partition(",")[0] for name in CALLS} == IMPLS.keys() - elsewhere


@pytest.mark.parametrize("name", CALLS)
def test_tensors_that_do_not_fit_are_refused(name):
    function, arguments = CALLS[name]
    op = name.partition(",")[0]
    function(*arguments)
    for i, (argument, x) in enumerate(zip(function._schema.arguments, arguments)):
        if not isinstance(x, Tensor):
            continue
        wrong = torch.complex64 if argument.name == "tokens" else torch.int16  # tokens may be integers
        changed = {"dtype": x.to(wrong), "dimension": x[None]}
        if x.dim() and argument.name not in ON_ITS_OWN:
            changed["longer"] = torch.cat([x, x[:1]])
            changed["shorter"] = x[1:]
        for what, y in changed.items():
            named = argument.name if what in ("dtype", "dimension") else ""  # of two sizes either may be the wrong one
            with pytest.raises((TypeError, ValueError), match=rf"{op[:9]}.*{named}"):
                function(*arguments[:i], y, *arguments[i + 1 :])


def test_candidates_that_are_not_there_are_refused():
    forward, backward = torch.ops.sslfast.info_nce_forward, torch.ops.sslfast.info_nce_backward
    query, key, queue = randn(4, 5), randn(6, 5), randn(3, 5)
    targets = torch.tensor([0, 5, 1, 1])
    for keys, others, own in (
        (key[:3], None, None),
        (key[:3], queue, None),
        (key, queue, None),
        (key, None, targets + 1),
    ):
        with pytest.raises(ValueError, match=r"info_nce.*: (key|targets) must"):
            forward(query, keys, others, 0.5, None, True, True, own)
    losses, shift, inverse_sum, mean, u, scale, cosines, _ = forward(query, key, None, 0.5, None, True, True, targets)
    saved = u[:-3], scale[:-3], losses, shift, inverse_sum, mean, cosines, 0.5, None, True, True
    for own, ids in ((None, None), (targets, None), (targets * 0, torch.arange(5, dtype=torch.int32))):
        with pytest.raises(ValueError, match=r"info_nce.*: (key|targets|ids) must"):
            backward(losses, *saved, own, ids)


def test_numbers_that_do_not_fit_are_refused():
    z = torch.ops.sslfast
    seed, noise, keep = torch.tensor(1), randn(2, 4), torch.zeros(2, 2, dtype=torch.int64)
    images, tokens = randn(2, 3, 4, 4), randn(2, 4, 5)
    for call, message in [
        (lambda: z.random_patch_mask_from_seed(seed, 2, 4, 5), "num_keep"),
        (lambda: z.random_patch_mask_from_seed(seed, -1, 4, 2), "batch"),
        (lambda: z.random_patch_mask_from_seed(seed, 2, 20_000, 2), "num_patches"),
        (lambda: z.random_patch_mask_from_noise(noise, 5), "num_keep"),
        (lambda: z.random_patch_mask_from_noise(noise, -1), "num_keep"),
        (lambda: z.gather_patches_forward(images, keep, 3, [], [], torch.float32), "patch_size"),
        (lambda: z.gather_patches_forward(images, keep, 0, [], [], torch.float32), "patch_size"),
        (lambda: z.gather_patches_forward(images, keep, 2, [1.0], [1.0], torch.float32), "scale and offset"),
        (lambda: z.gather_patches_backward(randn(2, 2, 12), keep, 3, 4, 6, 4, [], torch.float32), "patch_size"),
        (lambda: z.gather_patches_backward(randn(2, 2, 11), keep, 3, 4, 4, 2, [], torch.float32), "grad"),
        (lambda: z.restore_tokens_backward(tokens, keep.repeat(1, 2), 5, False), "num_visible"),
        (lambda: z.restore_tokens_backward(tokens, keep.repeat(1, 2), -1, False), "num_visible"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_an_order_that_is_no_permutation():
    images, params = views()
    params.order[1, 0] = params.order[1, 1]
    with pytest.raises(ValueError, match=r"augment: order must be a permutation of 0\.\.3 in each row"):
        ops.augment(images, params, 8)


@pytest.mark.parametrize("field", ["crop", "flip", "jitter", "order", "grayscale", "blur", "solarize"])
def test_a_field_of_view_parameters_that_changed_since(field):
    images, params = views()
    getattr(params, field).resize_(0)
    with pytest.raises(ValueError, match=f"augment: {field}|params"):
        ops.augment(images, params, 8)
