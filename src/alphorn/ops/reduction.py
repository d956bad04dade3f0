"""Ops along axes: over time they skip masked steps, over features they keep the mask."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import Masked, expand_to, fill_masked, unmask, with_mask
from alphorn.kernels.moments import masked_mean, valid_count
from alphorn.kernels.moments import moments as masked_moments
from alphorn.kernels.pooling import masked_max, masked_min
from alphorn.ops.elementwise import float_like
from alphorn.ops.rules import (
    HIGHEST,
    LOWEST,
    along,
    axes_of,
    fill_value,
    filled,
    joined_masks,
    reduced,
    refusal,
    touches,
)
from alphorn.ops.table import TABLE, Op, Rule, row

_SAYS = (
    "over time, masked steps are skipped, and rows without a step give 0; over features it stays."
)


def reduction(
    identity: Any, pad: Any = 0, axis: str = "axis", check: Callable | None = None
) -> Rule:
    """Returns the rule of a reduction.

    Args:
        identity: What a masked step contributes.
        pad: What stands where nothing is valid, so that value and derivative are finite.
        axis: The argument that names the axes.
        check: `(op, arguments)`, may refuse.
    """

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        x, keepdims = arguments["x"], arguments.get("keepdims", False)
        axes = axes_of(arguments[axis], x.ndim, op)
        if check is not None:
            check(op, arguments)
        if not touches(x, axes):
            out = op.with_arrays(arguments, filled(x, pad))
            return reduced(op, x, axes, out, keepdims)
        count = valid_count(x.data, axes, x.mask, keepdims=True)
        low, high = fill_value(identity, x.dtype), fill_value(pad, x.dtype)
        here = jnp.where(count > 0, low, high)
        data = jnp.where(expand_to(x.mask, x.ndim), x.data, here)
        out = op.with_arrays(arguments, data)
        some = count > 0 if keepdims else lax.squeeze(count > 0, axes)
        return reduced(op, x, axes, jnp.where(some, out, jnp.zeros_like(out)), keepdims)

    return Rule(apply, _SAYS)


def _by_kernel(kernel: Callable) -> Rule:
    """Returns the rule of a reduction whose kernel knows masks: `(x, axes, mask, keepdims)`."""

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        x, keepdims = arguments["x"], arguments["keepdims"]
        axes = axes_of(arguments.get("axis", arguments.get("axes")), x.ndim, op)
        if not touches(x, axes):
            out = op.with_arrays(arguments, filled(x, 0))
        else:
            out = kernel(x.data, axes, x.mask, keepdims)
        if isinstance(out, tuple):
            return tuple(reduced(op, x, axes, o, keepdims) for o in out)
        return reduced(op, x, axes, out, keepdims)

    return Rule(apply, _SAYS)


def _variance(x: Array, axes: tuple[int, ...], mask: Array, keepdims: bool) -> Array:
    variance = masked_moments(x, axes, mask, keepdims=keepdims)[1]
    return variance.astype(float_like(x).dtype)


def _deviation(x: Array, axes: tuple[int, ...], mask: Array, keepdims: bool) -> Array:
    variance = _variance(x, axes, mask, keepdims)
    # Nothing or one value has no spread: the root's derivative there would be infinite.
    spread = variance > 0
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1)), 0)


def _moments(x: Array, axes: tuple[int, ...], mask: Array, keepdims: bool) -> tuple:
    pair = masked_moments(x, axes, mask, keepdims=keepdims)
    return tuple(p.astype(float_like(x).dtype) for p in pair)


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


@row(reduction(0))
def _sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the sum over `axis`."""
    return jnp.sum(x, _axes(axis), keepdims=keepdims)


@row(reduction(1, 1))
def _prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    """Returns the product over `axis`."""
    return jnp.prod(x, _axes(axis), dtype=dtype, keepdims=keepdims)


@row(_by_kernel(lambda x, axes, mask, keepdims: masked_mean(x, axes, mask, keepdims=keepdims)))
def _mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the mean over `axis`."""
    return jnp.mean(x, _axes(axis), keepdims=keepdims)


@row(_by_kernel(_variance))
def _var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the variance over `axis`."""
    return jnp.var(x, _axes(axis), keepdims=keepdims)


@row(_by_kernel(_deviation))
def _std(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the standard deviation over `axis`."""
    return jnp.std(x, _axes(axis), keepdims=keepdims)


@row(_by_kernel(_moments), name="moments")
def _mean_and_variance(
    x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False
) -> Any:
    """Returns the mean and the variance over `axes`; replicas here always agree."""
    return jnp.mean(x, _axes(axes), keepdims=keepdims), jnp.var(x, _axes(axes), keepdims=keepdims)


@row(reduction(LOWEST))
def _max(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """Returns the maximum over `axis`."""
    return jnp.max(x, _axes(axis), keepdims=keepdims, initial=initial)


@row(reduction(HIGHEST))
def _min(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Any:
    """Returns the minimum over `axis`."""
    return jnp.min(x, _axes(axis), keepdims=keepdims, initial=initial)


@row(reduction(LOWEST))
def amax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the maximum over `axis`."""
    return jnp.max(x, _axes(axis), keepdims=keepdims)


@row(reduction(HIGHEST))
def amin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the minimum over `axis`."""
    return jnp.min(x, _axes(axis), keepdims=keepdims)


def _peak_to_peak(x: Array, axes: tuple[int, ...], mask: Array, keepdims: bool) -> Array:
    return masked_max(x, axes, mask, keepdims=keepdims) - masked_min(
        x, axes, mask, keepdims=keepdims
    )


@row(_by_kernel(_peak_to_peak))
def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the maximum less the minimum over `axis`."""
    return jnp.ptp(x, _axes(axis), keepdims=keepdims)


@row(reduction(False))
def _any(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns whether any entry over `axis` is true (not 0)."""
    return jnp.any(x, _axes(axis), keepdims=keepdims)


@row(reduction(True))
def _all(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns whether all entries over `axis` are true (not 0); False where there are none."""
    return jnp.all(x, _axes(axis), keepdims=keepdims)


@row(reduction(0))
def count_nonzero(x: Any, axis: Any = None) -> Any:
    """Returns how many entries over `axis` are not 0."""
    return jnp.count_nonzero(x, axis=_axes(axis))


@row(reduction(LOWEST))
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns `log(sum(exp(x)))` over `axis`."""
    return jax.nn.logsumexp(x, _axes(axis), keepdims=keepdims)


def _not_flat(op: Op, arguments: dict[str, Any]) -> None:
    if arguments["axis"] is None and arguments["x"].ndim > 1:
        raise refusal(
            op, "axis=None counts places in the padded batch", "name an axis, e.g. axis=1"
        )


@row(reduction(LOWEST, check=_not_flat))
def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the place of the maximum along `axis`, the first of equal ones."""
    return jnp.argmax(x, axis, keepdims=keepdims)


@row(reduction(HIGHEST, check=_not_flat))
def argmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the place of the minimum along `axis`, the first of equal ones."""
    return jnp.argmin(x, axis, keepdims=keepdims)


def _vanishes_at_zero(op: Op, arguments: dict[str, Any]) -> None:
    order = arguments["ord"]
    if isinstance(order, int | float) and order < 0 and arguments["x"].mask is not None:
        axes = axes_of(arguments["axis"], arguments["x"].ndim, op)
        if touches(arguments["x"], axes):
            raise refusal(op, f"ord={order} over time", "use a norm of a positive order")


@row(reduction(0, 1, check=_vanishes_at_zero))
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the norm over `axis` (of a vector, or of a matrix for two axes)."""
    return jnp.linalg.norm(float_like(x), ord, _axes(axis), keepdims)


@row(along(0))
def normalize(x: Any, axis: Any = -1, order: Any = 2, epsilon: float | None = None) -> Any:
    """Returns `x` divided by its norm along `axis`."""
    least = jnp.finfo(x.dtype).eps if epsilon is None else epsilon
    if order == 2:
        squares = jnp.sum(jnp.square(x), axis, keepdims=True)
        return x * lax.rsqrt(jnp.maximum(squares, least * least))
    size = jnp.linalg.norm(x, order, _axes(axis), keepdims=True)
    return x / jnp.maximum(size, least)


def _average(op: Op, arguments: dict[str, Any]) -> Any:
    x, weights, axis = arguments["x"], arguments["weights"], arguments["axis"]
    if weights is None:
        return TABLE["mean"].masked({"x": x, "axis": axis, "keepdims": False})
    data, w = unmask(x), unmask(weights)
    rank = max(v.mask.ndim for v in (x, weights) if isinstance(v, Masked))
    axes = axes_of(axis, data.ndim, op)
    if w.ndim == 1 and data.ndim > 1 and len(axes) == 1:
        w = jnp.expand_dims(w, [a for a in range(data.ndim) if a != axes[0]])
    mask = joined_masks([v.mask for v in (x, weights) if isinstance(v, Masked)])
    whole = fill_masked(jnp.broadcast_to(float_like(w), data.shape), mask)
    count = jnp.sum(whole, axes)
    total = jnp.sum(fill_masked(data, mask) * whole, axes)
    out = total / jnp.where(count == 0, 1, count)
    return reduced(
        op, Masked.trusted(data, jnp.broadcast_to(mask, data.shape[:rank])), axes, out, False
    )


@row(Rule(_average, _SAYS), arrays=("x", "weights"))
def average(x: Any, axis: Any = None, weights: Any = None) -> Any:
    """Returns the mean over `axis`, weighted."""
    return jnp.average(x, _axes(axis), weights)


@row(along(0))
def cumsum(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Returns the running sums along `axis`."""
    return jnp.cumsum(x, axis, _counting(x, dtype))


@row(along(1))
def cumprod(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Returns the running products along `axis`."""
    return jnp.cumprod(x, axis, _counting(x, dtype))


def _counting(x: Any, dtype: Any) -> Any:
    return jnp.int32 if dtype is None and x.dtype == jnp.bool_ else dtype


def _sorted_by_validity(op: Op, arguments: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Returns values, places and mask, sorted along `axis`, valid entries first."""
    x: Masked = arguments["x"]
    if arguments["axis"] is None:
        raise refusal(op, "axis=None would flatten rows into each other", "name an axis")
    (axis,) = axes_of(arguments["axis"], x.ndim, op)
    absent = jnp.broadcast_to(expand_to(~x.mask, x.ndim), x.shape)
    place = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    _, values, places = lax.sort((absent, x.fill(0), place), dimension=axis, num_keys=2)
    mask = ~jnp.sort(~x.mask, axis=axis) if axis < x.mask.ndim else x.mask
    return values, places, mask


def _sort(op: Op, arguments: dict[str, Any]) -> Masked:
    values, _, mask = _sorted_by_validity(op, arguments)
    return Masked.trusted(values, mask)


def _argsort(op: Op, arguments: dict[str, Any]) -> Masked:
    _, places, mask = _sorted_by_validity(op, arguments)
    return Masked.trusted(fill_masked(places, mask), mask)


_SORTED = "moves with the entries: along time, valid steps come first, in order, padding last."


@row(Rule(_sort, _SORTED))
def sort(x: Any, axis: Any = -1) -> Any:
    """Returns the entries along `axis` in rising order."""
    return jnp.sort(x, axis)


@row(Rule(_argsort, _SORTED))
def argsort(x: Any, axis: Any = -1) -> Any:
    """Returns the places of the entries along `axis` in rising order."""
    return jnp.argsort(x, axis)


def _top_k(op: Op, arguments: dict[str, Any]) -> list:
    x, k = arguments["x"], arguments["k"]
    filling = LOWEST if x.mask.ndim == x.ndim else 0
    pair = op.with_arrays(arguments, filled(x, filling))
    mask = x.mask
    if mask.ndim == x.ndim:
        mask = jnp.arange(k) < jnp.sum(mask, -1, keepdims=True)
    return [with_mask(fill_masked(p, mask), mask) for p in pair]


@row(Rule(_top_k, "stays; along time, entries beyond a row's number of steps are masked."))
def top_k(x: Any, k: int, sorted: bool = True) -> Any:
    """Returns the `k` largest entries of the last axis and their places, in falling order."""
    return list(lax.top_k(x, k))
