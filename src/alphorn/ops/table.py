"""What all ops share: they take arrays, Variables, Masked sequences and Symbols."""

import functools
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.core import symbol
from alphorn.core.masked import Masked, is_masked, unmask
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import MaskError, ShapeError
from alphorn.naming import register

OPS: dict[str, Callable] = {}


def op(function: Callable) -> Callable:
    """Makes an op of a function of arrays and Masked: Symbols become a node of the graph."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if symbol.symbols_in((args, kwargs)):
            return symbol.apply(run, args, kwargs)
        args, kwargs = jax.tree.map(unwrap, (args, kwargs), is_leaf=_whole)
        return function(*args, **kwargs)

    # An underscore at the end keeps a builtin's name free in the room that makes the op.
    run.__name__ = run.__qualname__ = function.__name__.rstrip("_")
    OPS[run.__name__] = run
    return register("ops", run)


def named(function: Callable) -> Callable:
    """Lists a function among the ops as it is: it makes no node."""
    OPS[function.__name__] = function
    return register("ops", function)


def _whole(x: Any) -> bool:
    return x is None or isinstance(x, Variable | Masked)


def made(name: str, parameters: str, doc: str, function: Callable) -> Callable:
    """Makes an op from a row of a table.

    Args:
        name: Its public name.
        parameters: Its signature as Python writes it, e.g. `"x, axis=None"`.
        doc: One line.
        function: What it does, called with all arguments by position.
    """
    scope: dict[str, Any] = {}
    exec(f"def sample({parameters}): ...", scope)  # our own tables only
    signature = inspect.signature(scope["sample"])

    def run(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return function(*bound.arguments.values())

    run.__name__ = run.__qualname__ = name
    run.__doc__ = doc
    run.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return op(run)


def array(x: Any) -> Any:
    """Returns a Masked as it is, anything else as an array; Python numbers stay weakly typed."""
    if isinstance(x, Masked | bool | int | float | complex):
        return x
    return jnp.asarray(x)


def axes_of(axis: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Returns `axis` as non-negative integers; None for all."""
    if axis is None:
        return tuple(range(rank))
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not -rank <= a < rank for a in given):
        raise ShapeError("axis", received=axis, expected=f"axes of an array of rank {rank}")
    return tuple(a % rank for a in given)


def full_mask(x: Masked) -> Array:
    """Returns the mask in the shape of the data."""
    mask = x.mask.reshape(x.mask.shape + (1,) * (x.ndim - x.mask.ndim))
    return jnp.broadcast_to(mask, x.shape)


def expanded(mask: Array, rank: int) -> Array:
    """Returns the mask with axes of size 1 appended."""
    return mask.reshape(mask.shape + (1,) * (rank - mask.ndim))


def joint_mask(
    operands: Sequence[Any], shape: tuple[int, ...], every: bool = False
) -> Array | None:
    """Returns the mask of a result that `operands` broadcast to.

    Args:
        operands: Arrays and Masked; plain ones make no claim.
        shape: Of the result.
        every: Whether a step needs all masked operands, or any.

    Raises:
        MaskError: an operand whose time axis would meet another axis of the result.
    """
    masked = [x for x in operands if is_masked(x)]
    if not masked:
        return None
    for x in masked:
        if x.ndim != len(shape):
            raise MaskError(
                f"a masked {x.shape} meets an operand of rank {len(shape)}: its mask would slip",
                fix="give both the same rank first, by ops.expand_dims",
            )
    rank = max(x.mask.ndim for x in masked)
    masks = [jnp.broadcast_to(expanded(x.mask, rank), shape[:rank]) for x in masked]
    return functools.reduce(jnp.logical_and if every else jnp.logical_or, masks)


def keep(x: Masked, data: Any, mask: Array | None) -> Any:
    """Returns `data` with what is left of the mask of `x`; a mask of rows only is let go.

    A mask of rows stays where `x` had no other.
    """
    if mask is None or mask.ndim == 0 or (mask.ndim == 1 and x.mask.ndim > 1):
        return data
    return Masked.trusted(data, mask)


def plain(x: Any) -> Any:
    """Returns the plain data."""
    return unmask(x)
