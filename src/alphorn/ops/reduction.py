"""Ops that reduce or run along an axis: along time they count valid steps only."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.activations import log_softmax as _log_softmax
from alphorn.activations import softmax as _softmax
from alphorn.core.masked import Masked, is_masked
from alphorn.kernels.moments import masked_mean, moments
from alphorn.kernels.pooling import masked_max, masked_min
from alphorn.ops.elementwise import on_entries
from alphorn.ops.table import axes_of, expanded, full_mask, keep, made, op

Axis = int | Sequence[int] | None


def _rest(x: Masked, axes: tuple[int, ...], keepdims: bool) -> Array | None:
    """What is left of the mask when `axes` are reduced."""
    inside = tuple(a for a in axes if a < x.mask.ndim)
    if not inside:
        return x.mask
    if 0 in inside or (x.mask.ndim - len(inside)) < 1:
        return None
    if x.mask.ndim - len(inside) == 1 and x.mask.ndim > 1:
        return None
    return jnp.any(x.mask, inside, keepdims=keepdims)


def reduced(
    x: Any, axis: Axis, keepdims: bool, plainly: Callable, masked: Callable[[Masked, tuple], Array]
) -> Any:
    """Reduces an array plainly, a Masked over valid entries.

    Args:
        x: What to reduce.
        axis: Along which axes.
        keepdims: Whether they stay with size 1.
        plainly: `(array, axis, keepdims)`.
        masked: `(masked, axes)`, where an axis meets the mask.
    """
    if not is_masked(x):
        return plainly(jnp.asarray(x), axis, keepdims)
    axes = axes_of(axis, x.ndim)
    if all(a >= x.mask.ndim for a in axes):
        return Masked.trusted(plainly(x.fill(0), axis, keepdims), x.mask)
    return keep(x, masked(x, axes), _rest(x, axes, keepdims))


def _filled(name: str, function: Callable, fill: Any) -> Callable:
    def apply(x: Any, axis: Axis, keepdims: bool) -> Any:
        def plainly(v: Array, axis: Axis, keepdims: bool) -> Array:
            axis = tuple(axis) if isinstance(axis, list) else axis
            return function(v, axis=axis, keepdims=keepdims)

        return reduced(x, axis, keepdims, plainly, lambda m, a: plainly(m.fill(fill), a, keepdims))

    return made(
        name,
        "x, axis=None, keepdims=False",
        f"Returns `{name}` along `axis`; along time, of the valid steps.",
        apply,
    )


sum_ = _filled("sum", jnp.sum, 0)
prod_ = _filled("prod", jnp.prod, 1)
any_ = _filled("any", jnp.any, False)
all_ = _filled("all", jnp.all, True)
count_nonzero = made(
    "count_nonzero",
    "x, axis=None",
    "Returns how many entries along `axis` are not 0; along time, of the valid steps.",
    lambda x, axis: sum_(on_entries(lambda v: (v != 0).astype(jnp.int32), x), axis),
)


@op
def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Returns the mean along `axis`; along time, of the valid steps, 0 where there are none."""
    return reduced(
        _float(x),
        axis,
        keepdims,
        lambda v, a, k: jnp.mean(v, _tuple(a), keepdims=k),
        lambda m, a: masked_mean(m.data, a, m.mask, keepdims=keepdims).astype(m.dtype),
    )


def _float(x: Any) -> Any:
    if is_masked(x):
        return x if jnp.issubdtype(x.dtype, jnp.inexact) else on_entries(_as_float, x)
    return _as_float(jnp.asarray(x))


def _as_float(v: Array) -> Array:
    return v if jnp.issubdtype(v.dtype, jnp.inexact) else v.astype(jnp.float32)


def _tuple(axis: Axis) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


@op
def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Returns the variance along `axis`; along time, of the valid steps."""
    return reduced(
        _float(x),
        axis,
        keepdims,
        lambda v, a, k: jnp.var(v, _tuple(a), keepdims=k),
        lambda m, a: moments(m.data, a, m.mask, keepdims=keepdims)[1].astype(m.dtype),
    )


@op
def std(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Returns the standard deviation along `axis`; along time, of the valid steps."""
    return on_entries(jnp.sqrt, var(x, axis, keepdims), 1)


@op
def max_(x: Any, axis: Axis = None, keepdims: bool = False, initial: Any = None) -> Any:
    """Returns the largest entry along `axis`; along time, of the valid steps, 0 for none."""
    return reduced(
        x,
        axis,
        keepdims,
        lambda v, a, k: jnp.max(v, _tuple(a), keepdims=k, initial=initial),
        lambda m, a: masked_max(m.data, a, m.mask, keepdims=keepdims),
    )


@op
def min_(x: Any, axis: Axis = None, keepdims: bool = False, initial: Any = None) -> Any:
    """Returns the smallest entry along `axis`; along time, of the valid steps, 0 for none."""
    return reduced(
        x,
        axis,
        keepdims,
        lambda v, a, k: jnp.min(v, _tuple(a), keepdims=k, initial=initial),
        lambda m, a: masked_min(m.data, a, m.mask, keepdims=keepdims),
    )


def _extreme_index(name: str, function: Callable, fill: float) -> Callable:
    def apply(x: Any, axis: int | None, keepdims: bool) -> Any:
        def masked(m: Masked, axes: tuple) -> Array:
            where = full_mask(m)
            data = jnp.where(where, _as_float(m.data), fill)
            return function(data, axis=axis, keepdims=keepdims).astype(jnp.int32)

        return reduced(
            x,
            axis,
            keepdims,
            lambda v, a, k: function(v, axis=a, keepdims=k).astype(jnp.int32),
            masked,
        )

    return made(
        name,
        "x, axis=None, keepdims=False",
        f"Returns `{name}` along `axis`; along time, of the valid steps, 0 for none.",
        apply,
    )


argmax = _extreme_index("argmax", jnp.argmax, -np.inf)
argmin = _extreme_index("argmin", jnp.argmin, np.inf)


@op
def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Returns `log(sum(exp(x)))` along `axis`; along time, of the valid steps, 0 for none."""

    def plainly(v: Array, axis: Axis, keepdims: bool) -> Array:
        return jax.scipy.special.logsumexp(v, _tuple(axis), keepdims=keepdims)

    def masked(m: Masked, axes: tuple) -> Array:
        where = full_mask(m)
        some = jnp.any(where, axes, keepdims=True)
        out = jax.scipy.special.logsumexp(
            jnp.where(some, m.data, 0), axes, b=where | ~some, keepdims=True
        )
        out = jnp.where(some, out, 0)
        return out if keepdims else jnp.squeeze(out, axes)

    return reduced(_float(x), axis, keepdims, plainly, masked)


@op
def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """Returns the norm along `axis` (Euclid's, or by `ord`); along time, of the valid steps."""
    x = _float(x)
    if ord in (None, 2, "euclidean", "fro") and is_masked(x):
        squares = sum_(on_entries(jnp.square, x), axis, keepdims)
        return on_entries(jnp.sqrt, squares, 1)
    return reduced(
        x,
        axis,
        keepdims,
        lambda v, a, k: jnp.linalg.norm(v, ord, _tuple(a), k),
        lambda m, a: jnp.linalg.norm(m.fill(0), ord, _tuple(axis), keepdims),
    )


def _running(name: str, function: Callable, fill: Any) -> Callable:
    def apply(x: Any, axis: int | None, dtype: Any) -> Any:
        if not is_masked(x):
            return function(jnp.asarray(x), axis=axis, dtype=dtype)
        if axis is None:
            axis = 0 if x.ndim == 1 else None
        return Masked.trusted(function(x.fill(fill), axis=axis, dtype=dtype), x.mask)

    return made(
        name,
        "x, axis=None, dtype=None",
        f"Returns the running `{name}` along `axis`; masked steps add nothing.",
        apply,
    )


cumsum = _running("cumsum", jnp.cumsum, 0)
cumprod = _running("cumprod", jnp.cumprod, 1)


def _order(x: Masked, axis: int) -> tuple[Array, Array]:
    """The order along `axis` with valid entries first, and the mask that goes with it."""
    axis %= x.ndim
    if axis >= x.mask.ndim:
        return jnp.argsort(x.data, axis), x.mask
    where = full_mask(x)
    order = jnp.lexsort((x.data, ~where), axis=axis)
    mask = x.mask if axis >= x.mask.ndim else jnp.flip(jnp.sort(x.mask, axis), axis)
    return order, mask


@op
def sort(x: Any, axis: int = -1) -> Any:
    """Returns the entries along `axis` in order; along time, the valid ones first."""
    if not is_masked(x):
        return jnp.sort(jnp.asarray(x), axis)
    order, mask = _order(x, axis)
    data = jnp.take_along_axis(x.data, order, axis)
    return Masked.trusted(jnp.where(expanded(mask, x.ndim), data, 0), mask)


@op
def argsort(x: Any, axis: int = -1) -> Any:
    """Returns the places of the entries in order; along time, of the valid ones first."""
    if not is_masked(x):
        return jnp.argsort(jnp.asarray(x), axis)
    order, mask = _order(x, axis)
    return Masked.trusted(order, mask)


@op
def top_k(x: Any, k: int, sorted: bool = True) -> Any:
    """Returns the `k` largest entries of the last axis and their places; padding never wins."""
    if not is_masked(x):
        return jax.lax.top_k(jnp.asarray(x), k)
    if x.mask.ndim < x.ndim:
        values, places = jax.lax.top_k(x.data, k)
        return Masked.trusted(values, x.mask), Masked.trusted(places, x.mask)
    values, places = jax.lax.top_k(x.fill(-np.inf), k)
    mask = jnp.isfinite(values)
    return Masked(values, mask), Masked(places, mask)


softmax = op(_softmax)
log_softmax = op(_log_softmax)
