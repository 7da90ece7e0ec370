"""The autograd side of the ops: kernels compute values and gradients, the reference's formula gives all that follows.

An op comes as its value and its gradient, by kernels, and as a formula in plain PyTorch. Second derivatives
(`create_graph=True`) and forward mode differentiate the formula, which holds what the kernels avoid to hold: right, but
slow. `torch.func.vmap` makes one call after another.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from sslfast.ops.registry import LIB, without_autocast


def differentiable(
    schema: str,
    *,
    value: Callable,
    gradient: Callable,
    formula: Callable,
    leaves: int,
    saved: type[Any] | None = None,
    linear: bool = False,
    borrowed: Sequence[str] = (),
    constants: int = 0,
) -> Callable[..., Any]:
    """The op made of these parts. torch.compile sees it whole, as `sslfast::<schema>`.

    Args:
        schema: name and signature, as `torch.library.Library.define` takes it; one result, and the constants. `args`
            below are the arguments by the names that they have in it.
        value: (args) -> (result, *constants, saved), saved being () where nothing is.
        gradient: (wanted, grad, args, saved) -> gradients to the leaves; what is not wanted is ignored.
        formula: (args) -> result, differentiable with respect to the leaves.
        leaves: how many arguments, the first ones, have gradients.
        saved: a `NamedTuple` of the tensors that the gradient needs besides the arguments.
        linear: the op is linear in all its leaves together. Their values are not kept then: the gradient gets tensors
            of their shapes that take no memory.
        borrowed: tensors that only the formula needs, and that may change before the gradient is taken.
        constants: how many tensors without gradient are results, too.
    """
    name = schema.partition("(")[0]
    LIB.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    whole = getattr(torch.ops.sslfast, name).default
    names = [argument.name for argument in whole._schema.arguments]
    count, borrowed_places = len(names), [names.index(argument) for argument in borrowed]
    arguments = namedtuple("Arguments", " ".join(names))  # type: ignore[misc]
    as_arguments, as_saved = arguments._make, tuple if saved is None else saved._make

    class Value(_Function):
        @staticmethod
        def forward(ctx, *args):
            result, *others, saved = value(as_arguments(args))
            keep(ctx, args, saved)
            if not constants:
                return result
            ctx.mark_non_differentiable(*others)
            return result, *others

        @staticmethod
        def backward(ctx, grad, *_):
            wanted = ctx.needs_input_grad[:leaves]
            if grad is None:
                return (None,) * count
            if torch.is_grad_enabled():
                _check_unchanged(ctx, name)
                found = Gradient.apply(wanted, grad, *_saved(ctx))
            else:
                args = _saved(ctx)
                if not linear and type(grad) is not Tensor:
                    grad = _tied(grad, [x for x, needed in zip(args, wanted) if needed])
                found = Gradient.forward(wanted, grad, *args)
            return *_spread(found, wanted), *[None] * (count - leaves)

        @staticmethod
        def jvp(ctx, *tangents):
            _check_unchanged(ctx, name)
            return _tangents(by_arguments, _saved(ctx)[:count], tangents), *[None] * constants

    class Transformed(Value):
        """The same under transforms of `torch.func`, which let a function keep its arguments and results alone."""

        @staticmethod
        def forward(*args):
            *results, saved = value(as_arguments(args))
            return *results, *saved

        @staticmethod
        def setup_context(ctx, inputs, outputs):
            _, *others = outputs
            keep(ctx, inputs, others[constants:])
            ctx.mark_non_differentiable(*others)

        @staticmethod
        def jvp(ctx, *tangents):
            return *Value.jvp(ctx, *tangents), *[None] * (len(_saved(ctx)) - count)

        @staticmethod
        def vmap(info, in_dims, *args):
            return _one_by_one(Transformed, info, in_dims, args)

    class Gradient(_Function):
        """The gradients that are wanted, and no others."""

        @staticmethod
        def forward(wanted, grad, *args):
            found = gradient(wanted, grad, as_arguments(args[:count]), as_saved(args[count:]))
            return tuple(x for x, needed in zip(found, wanted) if needed)

        @staticmethod
        def setup_context(ctx, inputs, outputs):
            ctx.wanted, *args = inputs
            _save(ctx, args)

        @staticmethod
        def backward(ctx, *grads):
            needed, args = ctx.needs_input_grad[1:], _saved(ctx)
            with without_autocast(args[0]):
                pull = torch.func.vjp(*_along(by_formula(ctx.wanted), args, needed))[1]
                return None, *_spread(pull(grads), needed)

        @staticmethod
        def jvp(ctx, _, *tangents):
            return _tangents(by_formula(ctx.wanted), _saved(ctx), tangents)

        @staticmethod
        def vmap(info, in_dims, *args):
            return _one_by_one(Gradient, info, in_dims, args)

    def keep(ctx, args: Sequence[Any], saved: Sequence[Tensor]) -> None:
        if linear:
            args = *map(_stand_in, args[:leaves]), *args[leaves:]
        _save(ctx, (*args, *saved), borrowed_places)
        ctx.set_materialize_grads(False)

    def by_arguments(*args: Any) -> Tensor:
        return formula(as_arguments(args))

    def by_formula(wanted: Sequence[bool]) -> Callable[..., tuple[Tensor, ...]]:
        def run(grad, *args):
            return torch.func.vjp(*_along(by_arguments, args[:count], wanted))[1](grad)

        return run

    def apply(*args: Any) -> Any:
        if not torch._C._are_functorch_transforms_active():
            return Value.apply(*args)
        results = Transformed.apply(*args)
        return results[: 1 + constants] if constants else results[0]

    LIB.impl(name, apply, "CompositeImplicitAutograd")

    def call(*args: Any) -> Any:
        return whole(*args) if torch.compiler.is_compiling() else apply(*args)

    return call


class _Function(torch.autograd.Function):
    @classmethod
    def apply(cls, *args):
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        # To look for default arguments would take 70 µs.
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]


def _save(ctx, args: Sequence[Any], borrowed: Sequence[int] = ()) -> None:
    """Keep tensors as autograd wants them kept; beside them other arguments, and tensors that it would not take."""
    saved = [x if isinstance(x, Tensor) and not x.is_inference() else None for x in args]
    ctx.versions = [(i, x._version) for i in borrowed if (x := saved[i]) is not None]
    for i, _ in ctx.versions:
        saved[i] = None
    ctx.save_for_backward(*saved)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*saved)
    ctx.others = [x if kept is None else None for x, kept in zip(args, saved)]


def _saved(ctx) -> list[Any]:
    return [other if kept is None else kept for kept, other in zip(ctx.saved_tensors, ctx.others)]


def _check_unchanged(ctx, name: str) -> None:
    if any(ctx.others[i]._version != version for i, version in ctx.versions):
        raise RuntimeError(f"{name}: a tensor without gradient changed in place, before a gradient with a graph")


# PyTorch refuses to differentiate a compiled backward again only if that needs a tensor which has a gradient; without
# one it would silently take the gradient for a constant.
LIB.define("tied(Tensor x, Tensor[] leaves) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
LIB.impl("tied", lambda x, leaves: x.clone(), "CompositeExplicitAutograd")
torch.library.register_fake("sslfast::tied", lambda x, leaves: torch.empty_like(x), lib=LIB)
_tied = torch.ops.sslfast.tied.default


def _stand_in(x: Any) -> Any:
    return x.new_zeros(()).expand(x.shape) if isinstance(x, Tensor) else x


def _along(function: Callable, args: Sequence[Any], moving: Sequence[bool]) -> tuple[Any, ...]:
    """The function of those arguments that move, the others fixed; and the former."""
    places = [i for i, moves in enumerate(moving) if moves]

    def run(*xs):
        filled = list(args)
        for i, x in zip(places, xs):
            filled[i] = x
        return function(*filled)

    return run, *(args[i] for i in places)


def _tangents(function: Callable, args: Sequence[Any], tangents: Sequence[Tensor | None]) -> Any:
    """Of the results, from those of the arguments: the gradient of a gradient that is linear in its cotangent."""
    args = [unpack_dual(x).primal if isinstance(x, Tensor) else x for x in args]
    # Autograd turns forward mode off, and a tangent of a tangent would be lost.
    with without_autocast(args[0]), _set_fwd_grad_enabled(True):
        results, pull = torch.func.vjp(*_along(function, args, [x is not None for x in tangents]))[:2]
        zeros = tuple(map(torch.zeros_like, results)) if isinstance(results, tuple) else torch.zeros_like(results)
        (found,) = torch.func.vjp(pull, zeros)[1](tuple(x for x in tangents if x is not None))
    return found


def _spread(found: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """One a place, None where it is not wanted."""
    following = iter(found)
    return tuple(next(following) if needed else None for needed in wanted)


def _one_by_one(function: type[_Function], info: Any, in_dims: Sequence[Any], args: Sequence[Any]) -> tuple[Any, Any]:
    """A call for each place along the dimension that `vmap` maps over, and their results stacked."""

    def row(i: int) -> list[Any]:
        return [x.select(dim, i) if isinstance(dim, int) else x for x, dim in zip(args, in_dims)]

    results = [function.apply(*row(i)) for i in range(info.batch_size)]
    return tuple(map(torch.stack, zip(*results))), (0,) * len(results[0])


def may_be_differentiated(*xs: Tensor | None) -> bool:
    """Whether a gradient to one of the tensors may be asked for: what only it needs must be computed."""
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in xs):
        return True
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
