"""Windows over plain data; sequences go through the layers, which know where each row ends."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from alphorn.config import image_data_format
from alphorn.core.masked import Masked
from alphorn.errors import ArgumentError
from alphorn.ops.rules import refusal
from alphorn.ops.table import Op, Rule, row

_LAYERS = {
    "conv": "layers.Conv1D (or Conv2D)",
    "depthwise_conv": "layers.DepthwiseConv1D (or DepthwiseConv2D)",
    "separable_conv": "layers.SeparableConv1D (or SeparableConv2D)",
    "max_pool": "layers.MaxPooling1D (or MaxPooling2D)",
    "average_pool": "layers.AveragePooling1D (or AveragePooling2D)",
}


def _to_layers(op: Op, arguments: dict[str, Any]) -> Any:
    way = _LAYERS.get(op.name, "ops.take_steps(x, start, stop)")
    raise refusal(op, "windows would read padding", f"{way}, which follows rows; unmask(x)")


windows = Rule(_to_layers, "refused: the layers of that name follow each row's extent.")


def _first(inputs: Any, data_format: str | None) -> tuple[Any, bool]:
    """Returns inputs with channels last, and whether they came first."""
    first = (data_format or image_data_format()) == "channels_first"
    return (jnp.moveaxis(inputs, 1, -1) if first else inputs), first


def _back(outputs: Array, first: bool) -> Array:
    return jnp.moveaxis(outputs, -1, 1) if first else outputs


def _sizes(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _convolve(
    x: Any, kernel: Any, strides: Any, padding: str, dilation: Any, groups: int | None = None
) -> Array:
    rank = x.ndim - 2
    letters = "DHW"[-rank:] if rank > 1 else "W"
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        _sizes(strides, rank),
        padding.upper(),
        rhs_dilation=_sizes(dilation, rank),
        dimension_numbers=numbers,
        feature_group_count=groups or x.shape[-1] // kernel.shape[-2],
    )


@row(windows, arrays=("inputs", "kernel"))
def conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Returns the convolution of `(N, ..., C)` by a kernel `(..., C, filters)`."""
    x, first = _first(inputs, data_format)
    return _back(_convolve(x, kernel, strides, padding, dilation_rate), first)


def _depthwise(x: Array, kernel: Array, strides: Any, padding: str, dilation: Any) -> Array:
    *window, channels, times = kernel.shape
    flat = kernel.reshape(*window, 1, channels * times)
    return _convolve(x, flat, strides, padding, dilation, channels)


@row(windows, arrays=("inputs", "kernel"))
def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Returns the convolution of each channel by itself, with a kernel `(..., C, multiplier)`."""
    x, first = _first(inputs, data_format)
    return _back(_depthwise(x, kernel, strides, padding, dilation_rate), first)


@row(windows, arrays=("inputs", "depthwise_kernel", "pointwise_kernel"))
def separable_conv(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Returns a convolution of each channel by itself, then of the channels at each place."""
    x, first = _first(inputs, data_format)
    x = _depthwise(x, depthwise_kernel, strides, padding, dilation_rate)
    return _back(_convolve(x, pointwise_kernel, 1, "valid", 1), first)


def _pool(x: Array, size: Any, strides: Any, padding: str, start: Any, join: Any) -> Array:
    rank = x.ndim - 2
    window = (1, *_sizes(size, rank), 1)
    steps = window if strides is None else (1, *_sizes(strides, rank), 1)
    return lax.reduce_window(x, start, join, window, steps, padding.upper())


@row(windows, arrays=("inputs",))
def max_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Any:
    """Returns the maximum of each window of `(N, ..., C)`."""
    x, first = _first(inputs, data_format)
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = -jnp.inf if floats else jnp.iinfo(x.dtype).min
    return _back(_pool(x, pool_size, strides, padding, lowest, lax.max), first)


@row(windows, arrays=("inputs",))
def average_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Any:
    """Returns the mean of each window of `(N, ..., C)`, of what is inside the data."""
    x, first = _first(inputs, data_format)
    total, count = (
        _pool(v, pool_size, strides, padding, 0.0, lax.add) for v in (x, jnp.ones_like(x))
    )
    return _back(total / count, first)


def _columns(x: Array, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Array:
    patches = lax.conv_general_dilated_patches(
        x,
        _sizes(kernel_size, 2),
        _sizes(stride, 2),
        [(p, p) for p in _sizes(padding, 2)],
        rhs_dilation=_sizes(dilation, 2),
    )
    return patches.reshape(*patches.shape[:2], -1)


@row(windows)
def unfold(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Returns the windows of `(N, C, H, W)` as columns: `(N, C * kh * kw, windows)`."""
    return _columns(x, kernel_size, dilation, padding, stride)


@row(windows)
def fold(
    x: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Returns `(N, C, H, W)`: the sum of columns `(N, C * kh * kw, windows)` at their places."""
    height, width = _sizes(kernel_size, 2)
    channels = x.shape[1] // (height * width)
    image = jax.ShapeDtypeStruct((x.shape[0], channels, *_sizes(output_size, 2)), x.dtype)

    def columns(y: Array) -> Array:
        return _columns(y, kernel_size, dilation, padding, stride)

    return jax.linear_transpose(columns, image)(x)[0]


def _sequences(op: Op, arguments: dict[str, Any]) -> Any:
    x: Masked = arguments["x"]
    if x.mask.ndim == x.ndim:
        raise refusal(op, "windows over time", "ops.take_steps(x, start, stop), or unmask(x)")
    return Masked.trusted(op.with_arrays(arguments, x.data), x.mask)


@row(Rule(_sequences, "stays over features; refused along time."))
def extract_sequences(x: Any, sequence_length: int, sequence_stride: int) -> Any:
    """Returns the windows of the last axis, `(..., windows, sequence_length)`."""
    if sequence_length < 1 or sequence_stride < 1 or sequence_length > x.shape[-1]:
        raise ArgumentError(
            "ops.extract_sequences",
            f"length {sequence_length}, stride {sequence_stride} of {x.shape[-1]} entries",
            "a length from 1 to the number of entries, a stride of 1 or more",
        )
    starts = jnp.arange(0, x.shape[-1] - sequence_length + 1, sequence_stride)
    return x[..., starts[:, None] + jnp.arange(sequence_length)]
