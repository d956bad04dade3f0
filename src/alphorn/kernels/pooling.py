"""Pooling over windows and over whole axes, of valid steps only.

Where there is nothing to pool the result is 0 with a gradient of 0, never -inf or NaN.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alphorn.core.masked import expand_to, fill_masked
from alphorn.kernels.formulations import suits_cpu
from alphorn.kernels.geometry import (
    align,
    axis_pads,
    check_padding,
    output_length,
    per_axis,
    resampled_mask,
)
from alphorn.kernels.moments import Axes, masked_mean, normalize_axes, sum_dtype, valid_count

__all__ = ["average_pool", "masked_max", "masked_mean", "masked_min", "max_pool"]

_COMPARED = 8  # the longest edge of a window whose taps are compared one by one


def max_pool(
    x: Array,
    pool_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    padding: str = "valid",
    data_format: str = "channels_last",
    mask: Array | None = None,
) -> Array:
    """Takes the maximum over windows, every row as if it were alone, cut to its extent.

    Args:
        x: `(B, *spatial, C)`, or `(B, C, *spatial)` for "channels_first".
        pool_size: steps of a window, one number or one a spatial axis.
        strides: steps between windows; None for `pool_size`.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        mask: `(B, T)` over the first spatial axis; masked steps do not compete.

    Returns:
        `(B, *windows, C)` in the same data format; which steps are valid says
        `geometry.resampled_mask`, and the others are 0.

    >>> x = jnp.array([[[-1.0], [-2.0], [9.0], [9.0]]])
    >>> max_pool(x, 2, mask=jnp.array([[True, True, False, False]])).ravel().tolist()
    [-1.0, 0.0]
    """
    if data_format == "channels_first":
        return _channels_first(max_pool, x, pool_size, strides, padding, mask)
    rank = x.ndim - 2
    sizes = per_axis(pool_size, rank, "pool_size")
    steps = sizes if strides is None else per_axis(strides, rank, "strides")
    low = _identity(x.dtype, -1)
    pooled = _reduce_windows(x, sizes, steps, padding, mask, low, lax.max)
    if mask is None:
        return pooled
    return fill_masked(pooled, resampled_mask(mask, sizes[0], steps[0], 1, padding))


def average_pool(
    x: Array,
    pool_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    padding: str = "valid",
    data_format: str = "channels_last",
    mask: Array | None = None,
) -> Array:
    """Takes the mean over windows, every row as if it were alone, cut to its extent.

    Padding is not counted, and neither are masked steps. Arguments and result as in `max_pool`.

    >>> x = jnp.array([[[1.0], [2.0], [6.0], [jnp.nan]]])
    >>> average_pool(x, 2, mask=x[..., 0] > 0).ravel().tolist()
    [1.5, 0.0]
    >>> average_pool(x, 2, padding="same", mask=x[..., 0] > 0).ravel().tolist()
    [1.5, 6.0]
    """
    if data_format == "channels_first":
        return _channels_first(average_pool, x, pool_size, strides, padding, mask)
    rank = x.ndim - 2
    sizes = per_axis(pool_size, rank, "pool_size")
    steps = sizes if strides is None else per_axis(strides, rank, "strides")
    wide = sum_dtype(x)
    zero = np.zeros((), wide)
    present = jnp.ones((1, *x.shape[1:-1], 1), wide)
    if mask is not None:
        present = present * expand_to(mask, x.ndim).astype(wide)
    total = _reduce_windows(x.astype(wide), sizes, steps, padding, mask, zero, lax.add)
    count = _reduce_windows(present, sizes, steps, padding, mask, zero, lax.add)
    mean = total / jnp.maximum(count, 1)
    if mask is not None:
        mean = fill_masked(mean, resampled_mask(mask, sizes[0], steps[0], 1, padding))
    return mean.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else mean


def masked_max(
    x: Array, axes: Axes = None, mask: Array | None = None, *, keepdims: bool = False
) -> Array:
    """Returns the maximum over `axes` of the valid entries, 0 where there are none.

    Args:
        x: any shape.
        axes: which to reduce; None for all.
        mask: boolean, its shape a prefix of that of `x`.
        keepdims: keep the reduced axes at size 1.

    >>> masked_max(jnp.array([[-1.0, 5.0], [5.0, 5.0]]), 1, jnp.array([[True, False], [False] * 2]))
    Array([-1.,  0.], dtype=float32)
    """
    return _masked_extreme(jnp.max, _identity(x.dtype, -1), x, axes, mask, keepdims)


def masked_min(
    x: Array, axes: Axes = None, mask: Array | None = None, *, keepdims: bool = False
) -> Array:
    """Returns the minimum over `axes` of the valid entries, 0 where there are none.

    Arguments as in `masked_max`.
    """
    return _masked_extreme(jnp.min, _identity(x.dtype, 1), x, axes, mask, keepdims)


def _reduce_windows(
    x: Array,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    padding: str,
    mask: Array | None,
    identity: np.ndarray,
    reducer: Callable[[Any, Any], Any],
) -> Array:
    check_padding(padding, ("valid", "same"))
    pads = [
        axis_pads(length, size, stride, 1, padding)
        for length, size, stride in zip(x.shape[1:-1], sizes, strides, strict=True)
    ]
    if mask is not None:
        x, pads[0] = align(x, mask, sizes[0], strides[0], 1, padding, identity)
    if reducer is lax.max and max(sizes) <= _COMPARED and suits_cpu(x) and _some(x, sizes, pads):
        return _compare_windows(x, sizes, strides, pads, identity)
    # The identity is a NumPy constant, for only then JAX knows the reducer's gradient.
    return lax.reduce_window(
        x, identity, reducer, (1, *sizes, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def _some(x: Array, sizes: tuple[int, ...], pads: Sequence[tuple[int, int]]) -> bool:
    lengths = zip(x.shape[1:-1], sizes, pads, strict=True)
    return all(length + sum(pad) >= size for length, size, pad in lengths)


def _compare_windows(
    x: Array,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    pads: Sequence[tuple[int, int]],
    identity: np.ndarray,
) -> Array:
    """Takes the maximum of windows by comparing whole slices, one axis after the other.

    XLA's gradient of `reduce_window` is a slow loop on a CPU. Of equal entries the first of the
    window gets the gradient, as there: rows are compared last, so it is the first row's.
    """
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)], constant_values=identity) if any(map(any, pads)) else x
    for axis in range(len(sizes), 0, -1):
        size, stride = sizes[axis - 1], strides[axis - 1]
        last = (output_length(x.shape[axis], size, stride) - 1) * stride
        taps = [lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(size)]
        x = taps[0]
        for tap in taps[1:]:
            x = jnp.where((tap > x) | (tap != tap), tap, x)  # NaN wins, as in lax.max
    return x


def _masked_extreme(
    reduce: Callable[..., Array],
    identity: np.ndarray,
    x: Array,
    axes: Axes,
    mask: Array | None,
    keepdims: bool,
) -> Array:
    chosen = normalize_axes(axes, x.ndim)
    # The initial value makes reductions over axes of size 0 legal.
    extreme = reduce(
        fill_masked(x, mask, identity), axis=chosen, keepdims=keepdims, initial=identity
    )
    count = valid_count(x, chosen, mask, keepdims=keepdims)
    return jnp.where(count > 0, extreme, jnp.zeros_like(extreme))


def _identity(dtype: jnp.dtype, sign: int) -> np.ndarray:
    """Returns the lowest (sign -1) or highest (sign 1) value of `dtype`."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return np.asarray(sign * np.inf, dtype)
    info = jnp.iinfo(dtype)
    return np.asarray(info.min if sign < 0 else info.max, dtype)


def _channels_first(
    pool: Callable[..., Array],
    x: Array,
    pool_size: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: str,
    mask: Array | None,
) -> Array:
    last = pool(jnp.moveaxis(x, 1, -1), pool_size, strides=strides, padding=padding, mask=mask)
    return jnp.moveaxis(last, -1, 1)
