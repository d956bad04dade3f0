"""Products: masked steps count as zero where time is contracted."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.core.masked import Masked, is_masked
from alphorn.errors import ArgumentError, MaskError
from alphorn.ops.table import array, expanded, full_mask, op, plain


def _zeroed(x: Any) -> Any:
    return x.fill(0) if is_masked(x) else x


@op
def matmul(x1: Any, x2: Any) -> Any:
    """Returns the matrix product; a contraction over time counts valid steps only.

    The rows of `x1` keep its mask; where the columns of `x2` are steps, its mask follows as well.
    """
    x1, x2 = array(x1), array(x2)
    out = jnp.matmul(_zeroed(x1), _zeroed(x2))
    rows = columns = None
    if is_masked(x1):
        rows = jnp.any(x1.mask, -1) if x1.mask.ndim == x1.ndim else x1.mask
        rows = None if rows.ndim == 0 else rows
    if is_masked(x2) and x2.mask.ndim == x2.ndim and x2.ndim > 1:
        columns = jnp.any(x2.mask, -2)
    if columns is not None and out.ndim >= 2:
        mask = jnp.broadcast_to(columns[..., None, :], out.shape)
        if rows is not None:
            mask = mask & expanded(rows, out.ndim)
        return Masked.trusted(out, mask)
    if rows is None or (rows.ndim == 1 and is_masked(x1) and x1.mask.ndim > 1 and out.ndim == 1):
        return out
    return Masked.trusted(out, jnp.broadcast_to(rows, out.shape[: rows.ndim]))


@op
def dot(x1: Any, x2: Any) -> Any:
    """Returns the dot product, as NumPy defines it; of Masked, the matrix product."""
    x1, x2 = array(x1), array(x2)
    if is_masked(x1) or is_masked(x2):
        return matmul(x1, x2)
    return jnp.dot(x1, x2)


@op
def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Any:
    """Returns a sum of products by letters; contracted steps count where they are valid.

    The mask of the result is over the letters of time that stay.
    """
    values = [array(x) for x in operands]
    if not any(map(is_masked, values)):
        return jnp.einsum(subscripts, *values, **kwargs)
    if "..." in subscripts or "->" not in subscripts:
        raise ArgumentError(
            "einsum of a masked sequence",
            received=repr(subscripts),
            expected="every letter named, and `->`: 'btf,fg->btg'",
        )
    inputs, result = subscripts.replace(" ", "").split("->")
    out = jnp.einsum(subscripts, *map(_zeroed, values), **kwargs)
    mask: Array | None = None
    for letters, x in zip(inputs.split(","), values, strict=True):
        if not is_masked(x):
            continue
        own = letters[: x.mask.ndim]
        gone = tuple(i for i, c in enumerate(own) if c not in result)
        left = [c for c in own if c in result]
        if not [c for c in left if c != result[0]] and x.mask.ndim > 1:
            continue
        part = jnp.any(x.mask, gone) if gone else x.mask
        order = sorted(range(len(left)), key=lambda i: result.index(left[i]))
        part = jnp.transpose(part, order)
        shape = [out.shape[i] if c in left else 1 for i, c in enumerate(result)]
        part = part.reshape(shape)
        mask = part if mask is None else mask & part
    if mask is None:
        return out
    used = max((i + 1 for i, s in enumerate(mask.shape) if s > 1), default=1)
    mask = jnp.broadcast_to(mask, out.shape)[(..., *[0] * (out.ndim - used))]
    return Masked.trusted(out, mask)


def _unmasked(name: str, values: Sequence[Any]) -> list[Any]:
    for x in values:
        if is_masked(x):
            raise MaskError(
                f"{name} of a masked {x.shape} has no rule for its mask",
                fix="use ops.matmul or ops.einsum, or unmask(x)",
            )
    return [plain(array(x)) for x in values]


@op
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """Returns the tensor product contracted over `axes`."""
    return jnp.tensordot(*_unmasked("tensordot", (x1, x2)), axes=axes)


@op
def outer(x1: Any, x2: Any) -> Any:
    """Returns the outer product."""
    return jnp.outer(*_unmasked("outer", (x1, x2)))


@op
def vdot(x1: Any, x2: Any) -> Any:
    """Returns the dot product of flattened arrays."""
    return jnp.vdot(_zeroed(array(x1)), _zeroed(array(x2)))


@op
def normalize(x: Any, axis: int = -1, order: int = 2, epsilon: float | None = None) -> Any:
    """Returns `x` over its norm along an axis; a mask stays."""
    x, small = array(x), 1e-12 if epsilon is None else epsilon
    data = plain(x)
    if is_masked(x) and axis % x.ndim < x.mask.ndim:
        data = jnp.where(full_mask(x), data, 0)
    elif is_masked(x):
        data = x.fill(1)
    if order == 2:
        squares = jnp.sum(jnp.square(data), axis, keepdims=True)
        out = data * jnp.reciprocal(jnp.sqrt(jnp.maximum(squares, small**2)))
    else:
        length = jnp.linalg.norm(data, order, axis, keepdims=True)
        out = data / jnp.maximum(length, small)
    return Masked.trusted(out, x.mask) if is_masked(x) else out
