"""Convolution over one, two or three spatial axes, under a mask on the first of them."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import fill_masked
from alphorn.kernels.formulations import convolve_planes
from alphorn.kernels.geometry import (
    align,
    axis_pads,
    check_padding,
    per_axis,
    transposed_pads,
)

_SPATIAL = "XYZ"


def convolve(
    x: Array,
    kernel: Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    mask: Array | None = None,
) -> Array:
    """Convolves every row of a batch as if it were alone, cut to its extent.

    Without a mask it gives what Keras gives. Accumulation in float32 for 16-bit numbers is XLA's
    own; asking for it by `preferred_element_type` would break the gradient.

    Args:
        x: `(B, *spatial, C)`, or `(B, C, *spatial)` for "channels_first".
        kernel: `(*window, C / groups, filters)`, of the dtype of `x`.
        strides: steps between windows, one number or one a spatial axis.
        padding: "valid", "same", or "causal" (one spatial axis only).
        dilation: steps between taps, one number or one a spatial axis.
        groups: into how many the channels are split.
        data_format: "channels_last" or "channels_first".
        mask: `(B, T)` over the first spatial axis. Masked steps contribute nothing.

    Returns:
        `(B, *windows, filters)` in the same data format, finite everywhere; which steps are valid
        says `geometry.resampled_mask`.

    >>> x = jnp.array([[[1.0], [2.0], [jnp.nan]]])
    >>> convolve(x, jnp.ones((2, 1, 1)), padding="same", mask=x[..., 0] > 0).ravel().tolist()
    [3.0, 2.0, 0.0]
    """
    if data_format == "channels_first":
        last = convolve(
            jnp.moveaxis(x, 1, -1),
            kernel,
            strides=strides,
            padding=padding,
            dilation=dilation,
            groups=groups,
            mask=mask,
        )
        return jnp.moveaxis(last, -1, 1)
    rank = x.ndim - 2
    strides, dilation = per_axis(strides, rank, "strides"), per_axis(dilation, rank, "dilation")
    check_padding(padding, ("valid", "same", "causal") if rank == 1 else ("valid", "same"))
    sizes = kernel.shape[:rank]
    pads = [
        axis_pads(*axis, padding)
        for axis in zip(x.shape[1:-1], sizes, strides, dilation, strict=True)
    ]
    if mask is not None:
        x, pads[0] = align(x, mask, sizes[0], strides[0], dilation[0], padding)
    if not all(isinstance(n, int) for pad in pads for n in pad):  # `jax.export` knows no sizes
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)])
        pads = [(0, 0)] * rank
    if groups == 1:
        planes = convolve_planes(x, kernel, strides, pads, dilation)
        if planes is not None:
            return planes
    axes = _SPATIAL[:rank]
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )


def convolve_depthwise(
    x: Array,
    kernel: Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    dilation: int | Sequence[int] = 1,
    data_format: str = "channels_last",
    mask: Array | None = None,
) -> Array:
    """Convolves every channel with kernels of its own.

    Args:
        x: `(B, *spatial, C)`, or `(B, C, *spatial)` for "channels_first".
        kernel: `(*window, C, multiplier)`.
        strides, padding, dilation, data_format, mask: as in `convolve`.

    Returns:
        `(B, *windows, C * multiplier)`, the outputs of a channel side by side.
    """
    *sizes, channels, multiplier = kernel.shape
    return convolve(
        x,
        kernel.reshape(*sizes, 1, channels * multiplier),
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=channels,
        data_format=data_format,
        mask=mask,
    )


def convolve_transposed(
    x: Array,
    kernel: Array,
    *,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    output_padding: Sequence[int | None] | None = None,
    dilation: int | Sequence[int] = 1,
    data_format: str = "channels_last",
    mask: Array | None = None,
) -> Array:
    """Spreads every step over a window: the transpose of `convolve`, as Keras crops it.

    A row begins at `strides` times its first step, and is what it would be alone: what is cropped
    before it does not depend on its length, and what is cropped after it is masked.

    Args:
        x: `(B, *spatial, C)`, or `(B, C, *spatial)` for "channels_first".
        kernel: `(*window, filters, C)`.
        strides: outputs between the windows of two steps.
        padding: "valid" or "same".
        output_padding: outputs added at each axis' end; None for Keras's own choice.
        dilation: outputs between taps.
        data_format: "channels_last" or "channels_first".
        mask: `(B, T)` over the first spatial axis. Masked steps contribute nothing.

    Returns:
        `(B, *outputs, filters)` in the same data format; which are valid says
        `geometry.transposed_mask`.

    >>> x = jnp.array([[[1.0], [2.0], [jnp.nan]]])
    >>> convolve_transposed(x, jnp.ones((2, 1, 1)), mask=x[..., 0] > 0).ravel().tolist()
    [1.0, 3.0, 2.0, 0.0]
    """
    if data_format == "channels_first":
        x = jnp.moveaxis(x, 1, -1)
    rank = x.ndim - 2
    strides, dilation = per_axis(strides, rank, "strides"), per_axis(dilation, rank, "dilation")
    ends = (None,) * rank if output_padding is None else output_padding
    pads = [
        transposed_pads(size, stride, gap, padding, end)
        for size, stride, gap, end in zip(kernel.shape[:rank], strides, dilation, ends, strict=True)
    ]
    axes = _SPATIAL[:rank]
    y = lax.conv_transpose(
        fill_masked(x, mask),
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        transpose_kernel=True,
    )
    return jnp.moveaxis(y, -1, 1) if data_format == "channels_first" else y
