"""Convolution over two axes on a CPU, where XLA's own is uneven: three ways, one rule.

Letters: `B` batch, `C` channels, `F` filters. What XLA compiles to a slow loop on one thread, a
matrix product or a padded convolution does at the speed of the machine; NOTES.md has the figures.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from alphorn.distribution.placing import by_rows
from alphorn.kernels.device import on_cpu

Pair = tuple[int, int]
Pads = tuple[tuple[int, int], tuple[int, int]]

FEW_TAPS = 32  # times channels: up to here windows are laid out in full
BLOCK_BYTES = 2**22  # of what is laid out at a time: it fits in a cache


def suits_cpu(*arrays: Array) -> bool:
    """Says whether the default device is a CPU, and every size a number that is not 0."""
    sizes = (size for array in arrays for size in array.shape)
    return on_cpu() and all(isinstance(n, int) and n > 0 for n in sizes)


def block_count(batch: int, size: int) -> int:
    """Returns into how many equal parts a batch is cut, that needs `size` bytes as a whole.

    >>> block_count(32, 3 * BLOCK_BYTES), block_count(7, 2 * BLOCK_BYTES), block_count(7, 1)
    (4, 7, 1)
    """
    least = min(-(-size // BLOCK_BYTES), batch)
    return next(n for n in range(least, batch + 1) if batch % n == 0)


def convolve_planes(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Array | None:
    """Convolves by what is fastest on a CPU, or returns None where that is XLA's own way.

    Derivatives of any order and mode are those of `lax.conv_general_dilated`.

    Args:
        x: `(B, height, width, C)`.
        kernel: `(rows, columns, C, F)`.
        strides, pads, dilation: one a spatial axis.

    Returns:
        `(B, *windows, F)`. None on other devices, in other dtypes than float32, for other ranks,
        for strides (but of single taps) and for sizes that are symbolic or 0.

    >>> convolve_planes(jnp.ones((1, 2, 2, 1)), jnp.ones((1, 2, 1, 1)), (1, 1), [(0, 0)] * 2, (1, 1))
    Array([[[[2.]],
    <BLANKLINE>
            [[2.]]]], dtype=float32)
    """
    if x.ndim != 4 or x.dtype != jnp.float32 or kernel.dtype != x.dtype or not suits_cpu(x, kernel):
        return None
    rows, columns, channels, _ = kernel.shape
    edges: Pads = (tuple(pads[0]), tuple(pads[1]))  # pyright: ignore[reportAssignmentType]
    gaps = (dilation[0], dilation[1])
    if rows == columns == 1:
        return _pointwise(_padded(x, edges)[:, :: strides[0], :: strides[1]], kernel)
    if max(strides) > 1:
        return None
    taps = rows * columns * channels
    if taps <= FEW_TAPS:
        by_windows = partial(_by_windows, pads=edges, dilation=gaps)
        size = taps * x.shape[1] * x.shape[2] * x.dtype.itemsize
        return in_blocks(jax.checkpoint(by_windows), x, kernel, size)
    return _by_rows(x, kernel, edges, gaps)


def _pointwise(x: Array, kernel: Array) -> Array:
    """Convolves with one tap: a product of matrices."""
    channels, filters = kernel.shape[2:]
    y = x.reshape(-1, channels) @ kernel.reshape(channels, filters)
    return y.reshape(*x.shape[:3], filters)


def _by_windows(x: Array, kernel: Array, pads: Pads, dilation: Pair) -> Array:
    """Lays the taps of every window side by side (`im2col`) for one product."""
    rows, columns, _, filters = kernel.shape
    x = _padded(x, pads)
    height, width = _windows(x, kernel, dilation)
    taps = [
        x[:, i : i + height, j : j + width]
        for i in range(0, rows * dilation[0], dilation[0])
        for j in range(0, columns * dilation[1], dilation[1])
    ]
    laid = jnp.concatenate(taps, axis=-1)
    y = laid.reshape(-1, laid.shape[-1]) @ kernel.reshape(-1, filters)
    return y.reshape(x.shape[0], height, width, filters)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _by_rows(x: Array, kernel: Array, pads: Pads, dilation: Pair) -> Array:
    """Convolves by XLA; the gradient of the kernel is a product of rows of windows.

    XLA has a fast way for convolutions that give more rows than they take, and takes a slow one
    for the others: the input is padded until there are more, and what is too many is cut.
    """
    height, _ = _windows(_padded(x, pads), kernel, dilation)
    (low, high), sides = pads
    extra = max(x.shape[1] + 1 - height, 0)
    return _plain(x, kernel, ((low, high + extra), sides), dilation)[:, :height]


@partial(_by_rows.defjvp, symbolic_zeros=True)
def _by_rows_jvp(
    pads: Pads, dilation: Pair, primals: tuple[Array, Array], tangents: tuple[Any, Any]
) -> tuple[Array, Array]:
    (x, kernel), (dx, dk) = primals, tangents
    y = _by_rows(x, kernel, pads, dilation)
    parts = []
    if not isinstance(dx, SymbolicZero):
        # Its transpose, the gradient of the input, is to give more rows than it takes, too.
        extra = max(y.shape[1] + 1 - x.shape[1], 0)
        (low, high), sides = pads
        longer = _padded(dx, ((0, extra), (0, 0)))
        parts.append(_plain(longer, kernel, ((low, high - extra), sides), dilation))
    if not isinstance(dk, SymbolicZero):
        laid = x.shape[2] * max(
            kernel.shape[1] * kernel.shape[2], kernel.shape[0] * kernel.shape[3]
        )
        rows_apart = jax.checkpoint(partial(_rows_apart, pads=pads, dilation=dilation))
        parts.append(in_blocks(rows_apart, x, dk, laid * x.shape[1] * x.dtype.itemsize))
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)


def _plain(x: Array, kernel: Array, pads: Pads, dilation: Pair) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        pads,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _rows_apart(x: Array, kernel: Array, pads: Pads, dilation: Pair) -> Array:
    """Lays the taps of a window's row side by side, and adds the rows' products, shifted.

    Half of the work of a window's shape is done before the product and half after it, so that
    neither side of it is larger than the input or output times one edge of the window.
    """
    rows, columns, channels, filters = kernel.shape
    x = _padded(x, pads)
    height, width = _windows(x, kernel, dilation)
    starts = range(0, columns * dilation[1], dilation[1])
    laid = jnp.concatenate([x[:, :, j : j + width] for j in starts], axis=-1)
    beside = kernel.transpose(1, 2, 0, 3).reshape(columns * channels, rows * filters)
    products = (laid.reshape(-1, columns * channels) @ beside).reshape(
        *laid.shape[:3], rows * filters
    )
    y = jnp.zeros((), x.dtype)
    # Split, not sliced: the transpose is then one concatenation, not a sum of padded arrays.
    for i, product in enumerate(lax.split(products, [filters] * rows, axis=-1)):
        y = y + lax.slice_in_dim(product, i * dilation[0], i * dilation[0] + height, axis=1)
    return y


def in_blocks(fn: Callable[[Any, Any], Array], rows: Any, shared: Any, size: int) -> Array:
    """Returns `fn(rows, shared)`, for so many rows at a time that what it keeps stays small.

    Where that is less than all, the gradient computes it again and so keeps no more than `rows`.

    Args:
        fn: Treats each row by itself.
        rows: A structure of arrays `(B, ...)`.
        shared: What all rows use.
        size: How many bytes a row needs.
    """

    def run(rows: Any, shared: Any) -> Array:
        batch = jax.tree.leaves(rows)[0].shape[0]
        blocks = block_count(batch, batch * size)
        if blocks == 1:
            return fn(rows, shared)
        split = jax.tree.map(lambda x: x.reshape(blocks, batch // blocks, *x.shape[1:]), rows)
        again = jax.checkpoint(fn)
        y = lax.map(lambda part: again(part, shared), split)
        return y.reshape(batch, *y.shape[2:])

    return by_rows(run, rows, shared)


def _padded(x: Array, pads: Pads) -> Array:
    return jnp.pad(x, ((0, 0), *pads, (0, 0))) if any(map(any, pads)) else x


def _windows(x: Array, kernel: Array, dilation: Pair) -> Pair:
    """Returns how many windows fit on each axis of a padded `x`."""
    height, width = (
        x.shape[1 + axis] - (kernel.shape[axis] - 1) * dilation[axis] for axis in (0, 1)
    )
    return height, width
