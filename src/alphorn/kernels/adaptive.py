"""Pooling into a wanted number of windows, of valid steps only.

Letters: `B` batch, `T` time, `C` channels, `L` a row's own length, `n` the number of windows, `w`
the widest of them. Window `j` is `[floor(j L / n), ceil((j + 1) L / n))`, from the first step of
the row's extent: windows are as even as may be, and overlap where `n` does not divide `L`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import expand_to, extent, fill_masked
from alphorn.kernels.moments import sum_dtype

__all__ = ["adaptive_pool", "divided_mask"]


def adaptive_pool(
    x: Array,
    output_size: Sequence[int],
    *,
    largest: bool,
    data_format: str = "channels_last",
    mask: Array | None = None,
) -> Array:
    """Divides every spatial axis into windows and takes the maximum or the mean of each.

    Args:
        x: `(B, *spatial, C)`, or `(B, C, *spatial)` for "channels_first".
        output_size: the number of windows for each spatial axis.
        largest: whether the maximum is taken, or the mean.
        data_format: "channels_last" or "channels_first".
        mask: `(B, T)` over the first spatial axis. Each row's own extent is divided.

    Returns:
        `(B, *output_size, C)` in the same data format, 0 where `divided_mask` says that there is
        nothing.

    >>> x = jnp.arange(1.0, 7.0).reshape(1, 6, 1)
    >>> adaptive_pool(x, (2,), largest=False, mask=x[..., 0] < 5).ravel().tolist()
    [1.5, 3.5]
    """
    first = 1 if data_format == "channels_last" else 2
    for axis, windows in enumerate(output_size, first):
        there = mask if axis == first else None
        pooled = _pool_steps(jnp.moveaxis(x, axis, 1), windows, largest, there)
        x = jnp.moveaxis(pooled, 1, axis)
    return x


def divided_mask(mask: Array, windows: int) -> Array:
    """Returns the `(B, windows)` mask of what `adaptive_pool` makes of `(B, T)`.

    >>> divided_mask(jnp.array([[True, True, False, True], [False] * 4]), 2).tolist()
    [[True, True], [False, False]]
    """
    if not mask.shape[1]:
        return jnp.zeros((mask.shape[0], windows), bool)
    at, held = _divided(mask.shape[1], windows, mask)
    return (held & _taken(mask, at)).any(-1)


def _divided(steps: int, windows: int, mask: Array | None) -> tuple[Array, Array]:
    """Returns the steps of each window `(B or 1, n, w)`, and which of them belong to it."""
    start, stop = jnp.zeros((1,), jnp.int32), jnp.full((1,), steps, jnp.int32)
    if mask is not None:
        start, stop = extent(mask)
    start, length = start[:, None], (stop - start)[:, None]
    index = lax.iota(jnp.int32, windows)
    low, high = index * length // windows, -(-(index + 1) * length // windows)
    at = low[..., None] + lax.iota(jnp.int32, -(-steps // windows) + 1)
    held = at < high[..., None]
    return jnp.minimum(start[..., None] + at, steps - 1), held


def _taken(x: Array, at: Array) -> Array:
    if at.shape[0] == 1:
        return jnp.take(x, at[0], axis=1)
    return jax.vmap(lambda row, steps: row[steps])(x, at)


def _pool_steps(x: Array, windows: int, largest: bool, mask: Array | None) -> Array:
    """Returns one figure for each of the windows of axis 1."""
    if not x.shape[1]:
        return jnp.zeros((x.shape[0], windows, *x.shape[2:]), x.dtype)
    at, held = _divided(x.shape[1], windows, mask)
    taken = _taken(fill_masked(x, mask), at)
    if mask is not None:
        held = held & _taken(mask, at)
    if largest:
        # The first of equals: a gradient goes to one step, as in max_pool.
        shown = jnp.where(expand_to(held, x.ndim + 1), taken, _lowest(x.dtype))
        best = jnp.argmax(shown, 2, keepdims=True)
        pooled = jnp.take_along_axis(taken, best, 2)[:, :, 0]
    else:
        wide = sum_dtype(x)
        count = jnp.maximum(held.sum(-1), 1).astype(wide)
        total = jnp.where(expand_to(held, x.ndim + 1), taken, 0).sum(2, dtype=wide)
        mean = total / expand_to(count, total.ndim)
        pooled = mean.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else mean
    return pooled if mask is None else fill_masked(pooled, held.any(-1))


def _lowest(dtype: jnp.dtype) -> Array:
    low = -jnp.inf if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo(dtype).min
    return jnp.asarray(low, dtype)
