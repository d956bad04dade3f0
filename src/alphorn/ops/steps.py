"""Ops of steps: they count within each row's own extent."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import Masked, extent, is_masked
from alphorn.core.masked import unmask as _unmask
from alphorn.errors import ShapeError
from alphorn.ops.table import array, op


def _at(x: Masked, step: Array) -> Array:
    index = step.reshape(step.shape + (1,) * (x.ndim - step.ndim))
    return jnp.take_along_axis(x.data, index, axis=x.mask.ndim - 1)


def _pick(x: Any, end: bool) -> Any:
    x = array(x)
    if not is_masked(x) or x.mask.ndim == 1:
        data = _unmask(x)
        if data.ndim < 2:
            raise ShapeError("first/last", f"shape {data.shape}", "(batch, time, ...)")
        return data[:, -1 if end else 0]
    axis = x.mask.ndim - 1
    start, stop = extent(x.mask)
    step = jnp.maximum(stop - 1, 0) if end else start
    out = jnp.squeeze(_at(x, step[..., None]), axis)
    some = jnp.any(x.mask, -1)
    out = jnp.where(some.reshape(some.shape + (1,) * (out.ndim - some.ndim)), out, 0)
    return Masked.trusted(out, some) if some.ndim > 1 else out


@op
def first(x: Any) -> Any:
    """Returns each row's first valid step, `(batch, ...)`; zeros for a row without any."""
    return _pick(x, False)


@op
def last(x: Any) -> Any:
    """Returns each row's last valid step, `(batch, ...)`; zeros for a row without any.

    >>> last(Masked(jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[True, True, False]])))
    Array([2.], dtype=float32)
    """
    return _pick(x, True)


@op
def take_steps(x: Any, start: int | None = None, stop: int | None = None, step: int = 1) -> Any:
    """Returns `row[start:stop:step]` of each row alone, with its mask.

    Args:
        x: `(batch, time, ...)`.
        start, stop: Count from the row's first valid step, or back from the one after its last.
        step: At least 1.
    """
    x = array(x)
    if step < 1:
        raise ShapeError("take_steps: step", received=step, expected="at least 1")
    if not is_masked(x):
        return x[:, slice(start, stop, step)]
    axis = x.mask.ndim - 1
    time = x.shape[axis]
    begin, end = extent(x.mask)
    length = end - begin

    def place(edge: int | None, default: Array) -> Array:
        if edge is None:
            return default
        return jnp.clip(length + edge if edge < 0 else edge, 0, length)

    low = place(start, jnp.zeros_like(length))
    high = place(stop, length)
    width = len(range(*slice(start, stop, step).indices(time)))
    if (start is None or start >= 0) and stop is not None and stop < 0:
        width = len(range(start or 0, time, step))
    offset = lax.iota(jnp.int32, width) * step
    index = begin[..., None] + low[..., None] + offset
    inside = index < (begin + high)[..., None]
    index = jnp.where(inside, index, 0)
    data = _at(x, index)
    mask = inside & jnp.take_along_axis(x.mask, index, -1)
    return Masked(data, mask)


@op
def unmask(x: Any) -> Any:
    """Returns plain data: a mask ends here on purpose."""
    return _unmask(x)


@op
def lengths(x: Any) -> Array:
    """Returns the number of steps of each row up to its last valid one."""
    x = array(x)
    if is_masked(x):
        return x.lengths
    return jnp.full(x.shape[:1], x.shape[1], jnp.int32)
