"""Ops that pick, place and make entries."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.config import floatx
from alphorn.core.masked import Masked, expand_to, fill_masked, take_index, unmask, with_mask
from alphorn.core.symbol import Symbol
from alphorn.ops.rules import axes_of, filled, keep, refusal, refuse, touches, unused
from alphorn.ops.table import Op, Rule, row

_BY_EXTENT = (
    "ops.first(x), ops.last(x) or ops.take_steps(x, start, stop), which count within each row"
)
_PICKS = "follows; picking steps by their place in the padded batch is refused."


def _take(op: Op, arguments: dict[str, Any]) -> Any:
    x, indices, axis = arguments["x"], arguments["indices"], arguments["axis"]
    if not isinstance(x, Masked):  # a lookup: the result has the steps of the indices
        at = 0 if axis is None else axis % x.ndim
        if at:
            raise refusal(op, "masked indices into a further axis", "take along axis=0, then move")
        out = op.with_arrays(arguments, x, indices.fill(0))
        return Masked.trusted(fill_masked(out, indices.mask), indices.mask)
    if axis is None:
        raise refusal(op, "axis=None would flatten rows into each other", "name an axis")
    (axis,) = axes_of(axis, x.ndim, op)
    if isinstance(indices, Masked) or 0 < axis < x.mask.ndim:
        raise refusal(op, "a place in the padded batch is no place in a row", _BY_EXTENT)
    out = op.with_arrays(arguments, x.data, indices)
    mask = x.mask if axis else jnp.take(x.mask, indices, 0)
    return with_mask(out, mask if mask.ndim else None)


@row(Rule(_take, _PICKS), arrays=("x", "indices"))
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Returns the entries at `indices` along an axis; NaN (or the lowest integer) outside."""
    return jnp.take(x, indices, axis)


def _take_along(op: Op, arguments: dict[str, Any]) -> Any:
    x, indices, axis = arguments["x"], arguments["indices"], arguments["axis"]
    if axis is None:
        raise refusal(op, "axis=None would flatten rows into each other", "name an axis")
    (axis,) = axes_of(axis, unmask(x).ndim, op)
    out = op.with_arrays(arguments, unmask(x), filled(indices, 0))
    if isinstance(indices, Masked):
        return Masked.trusted(fill_masked(out, indices.mask), indices.mask)
    if axis >= x.mask.ndim:
        mask = jnp.broadcast_to(x.mask, out.shape[: x.mask.ndim])
        return Masked.trusted(fill_masked(out, mask), mask)
    whole = jnp.broadcast_to(expand_to(x.mask, x.ndim), x.shape)
    mask = op.with_arrays(arguments, whole, indices)
    return Masked.trusted(fill_masked(out, mask), mask)


@row(
    Rule(_take_along, "is taken along with the entries; masked indices give the result theirs."),
    arrays=("x", "indices"),
)
def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Returns the entries at `indices`, one list of places for each line along an axis."""
    return jnp.take_along_axis(x, indices, axis)


def _get_item(op: Op, arguments: dict[str, Any]) -> Any:
    return take_index(arguments["x"], arguments["key"])


@row(Rule(_get_item, _PICKS))
def get_item(x: Any, key: Any) -> Any:
    """Returns `x[key]`."""
    return x[key]


def _slice(op: Op, arguments: dict[str, Any]) -> Any:
    x, starts, shape = arguments["inputs"], arguments["start_indices"], arguments["shape"]
    whole = all(
        isinstance(starts[a], int) and starts[a] == 0 and shape[a] == x.shape[a]
        for a in range(1, x.mask.ndim)
    )
    if not whole:
        raise refusal(op, "a place in the padded batch is no place in a row", _BY_EXTENT)
    n = x.mask.ndim
    mask = jax.lax.dynamic_slice(x.mask, starts[:n], shape[:n])
    return Masked.trusted(op.with_arrays(arguments, x.data), mask)


@row(Rule(_slice, _PICKS), arrays=("inputs",), name="slice")
def _slice_at(inputs: Any, start_indices: Any, shape: Any) -> Any:
    """Returns the part of `shape` that begins at `start_indices`."""
    return jax.lax.dynamic_slice(inputs, start_indices, shape)


@row(refuse, arrays=("inputs", "updates"))
def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
    """Returns `inputs` with `updates` in place of the part that begins at `start_indices`."""
    return jax.lax.dynamic_update_slice(inputs, updates, start_indices)


@row(refuse, arrays=("indices", "values"))
def scatter(indices: Any, values: Any, shape: Any) -> Any:
    """Returns zeros of `shape` with `values` added at `indices` `(N, axes)`."""
    return jnp.zeros(shape, values.dtype).at[tuple(jnp.moveaxis(indices, -1, 0))].add(values)


@row(refuse, arrays=("inputs", "indices", "updates"))
def scatter_update(inputs: Any, indices: Any, updates: Any, reduction: str | None = None) -> Any:
    """Returns `inputs` with `updates` at `indices` `(N, axes)`, or joined to what stands there.

    `reduction` is None, "add", "max", "min" or "mul".
    """
    at = inputs.at[tuple(jnp.moveaxis(indices, -1, 0))]
    if reduction not in (None, "add", "max", "min", "mul"):
        raise ValueError(
            f"ops.scatter_update: reduction={reduction!r}: expected add, max, min, mul"
        )
    return getattr(at, reduction or "set")(updates)


@row(refuse, arrays=("sorted_sequence", "values"))
def searchsorted(sorted_sequence: Any, values: Any, side: str = "left") -> Any:
    """Returns where each value would stand in a sorted vector."""
    return jnp.searchsorted(sorted_sequence, values, side)


def _alike(op: Op, arguments: dict[str, Any]) -> Masked:
    x = arguments["x"]
    return Masked.trusted(fill_masked(op.with_arrays(arguments, x.data), x.mask), x.mask)


_like = Rule(_alike, "stays.")


@row(_like, "empty_like")
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Returns zeros in the shape of `x`."""
    return jnp.zeros_like(x, dtype)


@row(_like)
def ones_like(x: Any, dtype: Any = None) -> Any:
    """Returns ones in the shape of `x`."""
    return jnp.ones_like(x, dtype)


@row(_like)
def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """Returns `fill_value` in the shape of `x`."""
    return jnp.full_like(x, fill_value, dtype)


@row(keep)
def tril(x: Any, k: int = 0) -> Any:
    """Returns `x` with zeros above a diagonal of the last two axes."""
    return jnp.tril(x, k)


@row(keep)
def triu(x: Any, k: int = 0) -> Any:
    """Returns `x` with zeros below a diagonal of the last two axes."""
    return jnp.triu(x, k)


_MADE = "has none: it makes plain data."
_makes = Rule(unused.apply, _MADE)


@row(_makes, "empty", arrays=())
def zeros(shape: Any, dtype: Any = None) -> Any:
    """Returns zeros."""
    return jnp.zeros(shape, dtype or floatx())


@row(_makes, arrays=())
def ones(shape: Any, dtype: Any = None) -> Any:
    """Returns ones."""
    return jnp.ones(shape, dtype or floatx())


@row(_makes, arrays=())
def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """Returns an array of one number."""
    return jnp.full(shape, fill_value, dtype or floatx())


@row(_makes, arrays=())
def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    """Returns the numbers from `start` (or 0) up to, not with, `stop`."""
    return jnp.arange(start, stop, step, dtype)


@row(_makes, arrays=())
def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    """Returns `num` numbers in equal steps."""
    return jnp.linspace(start, stop, num, endpoint, retstep, dtype, axis)


@row(_makes, arrays=())
def logspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    """Returns `num` numbers in equal ratios, from `base ** start` to `base ** stop`."""
    return jnp.logspace(start, stop, num, endpoint, base, dtype, axis)


@row(_makes, arrays=())
def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Returns ones on a diagonal, zeros elsewhere."""
    return jnp.eye(N, M, k, dtype or floatx())


@row(_makes, arrays=())
def identity(n: int, dtype: Any = None) -> Any:
    """Returns the identity matrix."""
    return jnp.identity(n, dtype or floatx())


@row(_makes, arrays=())
def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Returns ones on and below a diagonal, zeros above."""
    return jnp.tri(N, M, k, dtype or floatx())


@row(refuse, arrays=("x",))
def meshgrid(*x: Any, indexing: str = "xy") -> Any:
    """Returns the coordinates of a grid over vectors."""
    return jnp.meshgrid(*x, indexing=indexing)


@row(refuse)
def diag(x: Any, k: int = 0) -> Any:
    """Returns a matrix with `x` on its diagonal, or the diagonal of a matrix."""
    return jnp.diag(x, k)


@row(refuse)
def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Returns a diagonal over two axes."""
    return jnp.diagonal(x, offset, axis1, axis2)


@row(refuse)
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Returns the sum of a diagonal over two axes."""
    return jnp.trace(x, offset, axis1, axis2)


@row(refuse)
def nonzero(x: Any) -> Any:
    """Returns the places of entries that are not 0."""
    return jnp.nonzero(x)


@row(refuse, arrays=("x", "weights"))
def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    """Returns how often each integer occurs."""
    if sparse:
        raise ValueError("ops.bincount: sparse=True: JAX has dense arrays only; use sparse=False")
    size = max(int(minlength), int(jnp.max(x)) + 1 if x.size else 0)
    if x.ndim == 1:
        return jnp.bincount(x, weights, length=size)
    rows = [None] * len(x) if weights is None else weights
    return jnp.stack([jnp.bincount(r, w, length=size) for r, w in zip(x, rows, strict=True)])


def _diff(op: Op, arguments: dict[str, Any]) -> Any:
    x, axis = arguments["a"], axes_of(arguments["axis"], arguments["a"].ndim, op)
    if touches(x, axes=axis):
        raise refusal(op, "differences over time", "x minus ops.roll(x, 1, 1), or unmask(x)")
    return Masked.trusted(op.with_arrays(arguments, x.fill(0)), x.mask)


@row(Rule(_diff, "stays over features; refused along time."), arrays=("a",))
def diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    """Returns the differences of neighbours along an axis."""
    return jnp.diff(a, n, axis)


@row(unused, symbolic=False)
def shape(x: Any) -> Any:
    """Returns the shape, None for sizes of a Symbol that are not known."""
    return x.shape


@row(unused, symbolic=False)
def ndim(x: Any) -> Any:
    """Returns the number of axes."""
    return x.ndim


@row(unused, symbolic=False)
def size(x: Any) -> Any:
    """Returns the number of entries, padding included."""
    if isinstance(x, Symbol):
        return None if None in x.shape else math.prod(s or 0 for s in x.shape)
    return x.size


@row(unused, symbolic=False)
def dtype(x: Any) -> Any:
    """Returns the name of the number type."""
    return jnp.dtype(x.dtype).name


_segments = {
    "segment_sum": jax.ops.segment_sum,
    "segment_max": jax.ops.segment_max,
    "segment_min": jax.ops.segment_min,
    "segment_prod": jax.ops.segment_prod,
}


def _add_segments(name: str, function: Any) -> None:
    @row(refuse, arrays=("data", "segment_ids"), name=name)
    def segment(
        data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
    ) -> Array:
        return function(data, segment_ids, num_segments, sorted)


for _name, _function in _segments.items():
    _add_segments(_name, _function)
