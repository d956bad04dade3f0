"""Ops that Keras lacks: steps by their place in each row's own extent, and masks by hand."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import Masked, expand_to, fill_masked
from alphorn.core.masked import unmask as _unmask
from alphorn.errors import ArgumentError
from alphorn.ops.rules import extent_along, gather_steps
from alphorn.ops.table import Op, Rule, row

_ONE = "ends with the time axis; for nested sequences, that of the outer axes is left."


def _one_step(op: Op, arguments: dict[str, Any]) -> Any:
    x: Masked = arguments["x"]
    axis = x.mask.ndim - 1
    if axis == 0:
        raise ArgumentError(f"ops.{op.name}", repr(x), "a mask over time, (batch, time)")
    start, stop = extent_along(x.mask, axis)
    at = start if op.name == "first" else jnp.maximum(stop - 1, 0)
    # An empty row has no step: zeros, with a gradient of zero.
    data = jnp.squeeze(gather_steps(fill_masked(x.data, x.mask), at, axis), axis)
    if axis == 1:
        return data
    return Masked.trusted(data, jnp.any(x.mask, axis))


@row(Rule(_one_step, _ONE))
def first(x: Any) -> Any:
    """Returns the first valid step of each row: `(B, T, ...)` to `(B, ...)`; zeros of an empty row.

    >>> import jax.numpy as jnp
    >>> from alphorn.core.masked import Masked
    >>> first(Masked(jnp.array([[9.0, 1.0, 2.0]]), jnp.array([[False, True, True]])))
    Array([1.], dtype=float32)
    """
    return x[:, 0]


@row(Rule(_one_step, _ONE))
def last(x: Any) -> Any:
    """Returns the last valid step of each row: `(B, T, ...)` to `(B, ...)`; zeros of an empty row.

    >>> import jax.numpy as jnp
    >>> from alphorn.core.masked import Masked
    >>> last(Masked(jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[True, True, False]])))
    Array([2.], dtype=float32)
    """
    return x[:, -1]


def _most_steps(steps: int, start: int, stop: int | None) -> int:
    """Returns how many steps the longest slice of a row of up to `steps` steps has."""
    if start < 0 and stop is not None and stop >= 0:
        return min(steps, stop, -start)
    return len(range(steps)[start:stop])


def _bound(bound: int, length: Array) -> Array:
    return jnp.clip(bound + length if bound < 0 else bound, 0, length)


def _take_steps(op: Op, arguments: dict[str, Any]) -> Any:
    x: Masked = arguments["x"]
    start, stop, step = (arguments[name] for name in ("start", "stop", "step"))
    _check_step(step)
    start, axis = start or 0, x.mask.ndim - 1
    begin, end = extent_along(x.mask, axis)
    length = end - begin
    low = _bound(start, length)
    high = length if stop is None else _bound(stop, length)
    steps = -(-_most_steps(x.shape[axis], start, stop) // step)
    place = lax.broadcasted_iota(jnp.int32, (*x.shape[:axis], steps), axis) * step
    index = begin + low + place
    mask = gather_steps(x.mask, index, axis) & (low + place < high)
    return Masked.trusted(fill_masked(gather_steps(x.data, index, axis), mask), mask)


def _check_step(step: int) -> None:
    if step < 1:
        raise ArgumentError(
            "ops.take_steps: step", step, "1 or more", "ops.flip(x, axis=1) turns rows around"
        )


@row(Rule(_take_steps, "follows; the steps taken stand at the front."))
def take_steps(x: Any, start: int | None = None, stop: int | None = None, step: int = 1) -> Any:
    """Returns the steps `start:stop:step` of each row, counted in its own extent.

    `(B, T, ...)` to `(B, n, ...)`; negative numbers count from the row's own end.

    >>> import jax.numpy as jnp
    >>> from alphorn.core.masked import Masked
    >>> x = Masked(jnp.array([[1.0, 2.0, 3.0, 0.0]]), jnp.array([[True, True, True, False]]))
    >>> take_steps(x, -2).data
    Array([[2., 3.]], dtype=float32)
    """
    _check_step(step)
    return x[:, start:stop:step]


@row(Rule(lambda op, arguments: _unmask(arguments["x"]), "ends here, on purpose."))
def unmask(x: Any) -> Any:
    """Returns plain data; padding holds what stood there, and counts as steps from now on."""
    return x


@row(Rule(lambda op, arguments: arguments["x"].lengths, "is what is counted."))
def lengths(x: Any) -> Any:
    """Returns each row's own length, from its first to its last valid step, `(B,)` int32."""
    return jnp.full(x.shape[:1], x.shape[1], jnp.int32)


def _valid(op: Op, arguments: dict[str, Any]) -> Array:
    return arguments["x"].mask


@row(Rule(_valid, "is the result, as plain data."))
def valid(x: Any) -> Any:
    """Returns where `x` is valid, as plain booleans; everywhere, of plain data `(B, T, ...)`."""
    return jnp.ones(x.shape[:2], bool)


def _with_mask(op: Op, arguments: dict[str, Any]) -> Masked:
    x, mask = arguments["x"], _unmask(arguments["mask"])
    if isinstance(x, Masked):
        rank = max(x.mask.ndim, mask.ndim)
        return Masked(x.data, expand_to(x.mask, rank) & expand_to(mask, rank))
    return Masked(x, mask)


@row(Rule(_with_mask, "both must hold."), arrays=("x", "mask"))
def with_mask(x: Any, mask: Any) -> Any:
    """Returns `x` with a mask, True where valid, whose shape is a prefix of that of `x`."""
    return Masked(x, mask.astype(bool))
