"""Counts, means and variances over the valid entries of an array.

A mask's shape is a prefix of the array's: `(B,)`, `(B, T)`, `(B, T1, T2)`. Sums of 16-bit numbers
are taken in float32. Nothing counted gives 0, with a gradient of 0.
"""

import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alphorn.core.masked import expand_to, fill_masked

Axes: TypeAlias = int | Sequence[int] | None


def normalize_axes(axes: Axes, rank: int) -> tuple[int, ...]:
    """Returns `axes` as sorted numbers from 0 up; None means all of them.

    >>> normalize_axes((-1, 0), 3)
    (0, 2)
    """
    if axes is None:
        return tuple(range(rank))
    chosen = (axes,) if isinstance(axes, int | np.integer) else tuple(axes)
    if any(not -rank <= axis < rank for axis in chosen):
        raise ValueError(f"axes={axes!r}: expected axes of an array of rank {rank}")
    return tuple(sorted({int(axis) % rank for axis in chosen}))


def sum_dtype(x: Array) -> jnp.dtype:
    """Returns the dtype in which sums of `x` are taken: float32 for 16 bits and for integers."""
    wide = jnp.issubdtype(x.dtype, jnp.inexact) and x.dtype.itemsize > 2
    return x.dtype if wide else jnp.dtype(jnp.float32)


def valid_count(
    x: Array, axes: Axes = None, mask: Array | None = None, *, keepdims: bool = False
) -> Array:
    """Counts the valid entries of `x` over `axes`.

    Returns int32 of a shape that broadcasts to that of the reduced `x`: axes that the mask does
    not have stay at size 1, or are left out at the end together with the reduced ones.

    >>> x, mask = jnp.ones((2, 3, 4)), jnp.array([[True, True, False], [False, False, False]])
    >>> valid_count(x, 1, mask).tolist(), int(valid_count(x, None, mask))
    ([[2], [0]], 8)
    """
    chosen = normalize_axes(axes, x.ndim)
    present = jnp.ones((1,) * x.ndim, bool) if mask is None else expand_to(mask, x.ndim)
    implied = math.prod(x.shape[axis] for axis in chosen if present.shape[axis] == 1)
    counted = jnp.sum(present, axis=chosen, keepdims=keepdims, dtype=jnp.int32)
    return counted * jnp.int32(implied)


def masked_mean(
    x: Array, axes: Axes = None, mask: Array | None = None, *, keepdims: bool = False
) -> Array:
    """Returns the mean over `axes` of the valid entries, 0 where there are none.

    Args:
        x: any shape; junk in masked positions changes neither the mean nor a gradient.
        axes: which to reduce; None for all.
        mask: boolean, its shape a prefix of that of `x`.
        keepdims: keep the reduced axes at size 1.

    >>> masked_mean(jnp.array([[1.0, 3.0, jnp.inf]]), 1, jnp.array([[True, True, False]])).tolist()
    [2.0]
    """
    mean = _mean(fill_masked(x, mask).astype(sum_dtype(x)), axes, mask, None, keepdims)
    return mean.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else mean


def moments(
    x: Array,
    axes: Axes = None,
    mask: Array | None = None,
    *,
    weights: Array | None = None,
    keepdims: bool = False,
) -> tuple[Array, Array]:
    """Returns the mean and the (biased) variance over `axes` of the valid entries.

    The variance is taken about the mean in a second pass: E[x²] - E[x]² cancels catastrophically
    where the mean is large (Chan, Golub and LeVeque, "Algorithms for computing the sample
    variance", 1983).

    Args:
        x: any shape.
        axes: which to reduce; None for all.
        mask: boolean, its shape a prefix of that of `x`.
        weights: not negative, its shape a prefix of that of `x` too; entries of weight 0 are as
            if masked.
        keepdims: keep the reduced axes at size 1.

    Returns:
        `(mean, variance)`, in float32 for 16-bit and integer `x`; (0, 0) where nothing counts.

    >>> mean, variance = moments(jnp.array([1.0, 3.0, 1e3]), mask=jnp.array([True, True, False]))
    >>> float(mean), float(variance)
    (2.0, 1.0)
    """
    if weights is not None:
        weights = expand_to(weights, x.ndim)
        if mask is not None:
            weights = fill_masked(weights, mask)
        mask = weights != 0
    wide = fill_masked(x, mask).astype(sum_dtype(x))
    mean = _mean(wide, axes, mask, weights, True)
    # Filled again: a masked 0 less the mean is not 0.
    centred = fill_masked(wide - mean, mask)
    variance = _mean(centred * centred, axes, mask, weights, keepdims)
    return mean if keepdims else jnp.squeeze(mean, normalize_axes(axes, x.ndim)), variance


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def standardized(x: Array, mask: Array | None, axes: tuple[int, ...], epsilon: float) -> Array:
    """Returns `x` less its mean, over the root of its variance and `epsilon`; 0 where masked.

    Of arrays of its size a gradient keeps the result alone.

    Args:
        x: of 32 bits or more.
        mask: boolean, its shape a prefix of that of `x`; or None.
        axes: over which valid entries have mean 0 and variance 1.
        epsilon: is added to the variance.

    >>> standardized(jnp.array([[1.0, 3.0, 9.0]]), jnp.array([[True, True, False]]), (1,), 0.0)
    Array([[-1.,  1.,  0.]], dtype=float32)
    """
    return _standardized(x, mask, axes, epsilon)[0]


def _standardized(
    x: Array, mask: Array | None, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Array]:
    x = fill_masked(x, mask)  # else junk would reach second derivatives: 0 times NaN
    mean, variance = moments(x, axes, mask, keepdims=True)
    scale = lax.rsqrt(variance + jnp.asarray(epsilon, x.dtype))
    return fill_masked((x - mean) * scale, mask), scale


@standardized.defjvp
def _standardized_tangent(
    axes: tuple[int, ...], epsilon: float, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
    (x, mask), dx = primals, tangents[0]
    y, scale = _standardized(x, mask, axes, epsilon)
    dx = fill_masked(dx, mask)
    mean = _mean(dx, axes, mask, None, True)
    along = _mean(dx * y, axes, mask, None, True)
    return y, fill_masked((dx - mean - y * along) * scale, mask)


def _mean(
    filled: Array, axes: Axes, mask: Array | None, weights: Array | None, keepdims: bool
) -> Array:
    chosen = normalize_axes(axes, filled.ndim)
    if weights is None:
        total = jnp.sum(filled, axis=chosen, keepdims=keepdims)
        count = valid_count(filled, chosen, mask, keepdims=keepdims)
        return total / jnp.maximum(count, 1).astype(filled.dtype)
    weights = weights.astype(filled.dtype)
    total = jnp.sum(filled * weights, axis=chosen, keepdims=keepdims)
    implied = math.prod(filled.shape[axis] for axis in chosen if weights.shape[axis] == 1)
    mass = jnp.sum(weights, axis=chosen, keepdims=keepdims) * implied
    return total / jnp.where(mass > 0, mass, jnp.ones_like(mass))
