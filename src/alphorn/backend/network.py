"""Convolutions, pooling, loops over time and CTC, as Keras 2's backend named them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn import ops
from alphorn.backend.nodes import node
from alphorn.config import epsilon, standardize_data_format
from alphorn.core.masked import Masked, fill_masked, has_masked, mask_of, unmask, with_mask
from alphorn.core.variable import unwrap
from alphorn.errors import ArgumentError, MaskError, ShapeError
from alphorn.kernels.convolution import convolve_transposed
from alphorn.kernels.resizing import magnify
from alphorn.kernels.stepping import reverse_by_extent, scan_cell

__all__ = [
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "ctc_batch_cost",
    "ctc_decode",
    "ctc_label_dense_to_sparse",
    "depthwise_conv2d",
    "foldl",
    "foldr",
    "local_conv1d",
    "local_conv2d",
    "map_fn",
    "pool2d",
    "pool3d",
    "resize_images",
    "resize_volumes",
    "rnn",
    "separable_conv2d",
]


def conv1d(
    x: Any,
    kernel: Any,
    strides: int = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int = 1,
) -> Any:
    """Returns the convolution of `(batch, time, channels)`; "causal" pads in front."""
    if padding == "causal":
        front = dilation_rate * (kernel.shape[0] - 1)
        channels_first = standardize_data_format(data_format) == "channels_first"
        widths = [(0, 0), (0, 0), (front, 0)] if channels_first else [(0, 0), (front, 0), (0, 0)]
        x, padding = ops.pad(x, widths), "valid"
    return ops.conv(x, kernel, strides, padding, data_format, dilation_rate)


def conv2d(
    x: Any,
    kernel: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Any:
    """Returns the convolution of images."""
    return ops.conv(x, kernel, strides, padding, data_format, dilation_rate)


def conv3d(
    x: Any,
    kernel: Any,
    strides: Any = (1, 1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1, 1),
) -> Any:
    """Returns the convolution of volumes."""
    return ops.conv(x, kernel, strides, padding, data_format, dilation_rate)


def _plain_only(name: str, x: Any, way: str) -> None:
    if isinstance(x, Masked):
        raise MaskError(
            f"K.{name} would read padding", received=repr(x), fix=f"{way}, or unmask(x)"
        )


@node
def conv2d_transpose(
    x: Any,
    kernel: Any,
    output_shape: Sequence[Any],
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Any:
    """Returns every pixel spread over a window, in `output_shape` `(batch, ...)`."""
    _plain_only("conv2d_transpose", x, "layers.Conv2DTranspose, which follows rows")
    layout = standardize_data_format(data_format)
    wanted = output_shape[2:4] if layout == "channels_first" else output_shape[1:3]
    options = {"strides": strides, "padding": padding, "dilation": dilation_rate}
    x = jnp.moveaxis(x, 1, -1) if layout == "channels_first" else jnp.asarray(x)
    y = convolve_transposed(x, jnp.asarray(unwrap(kernel)), **options)
    sizes = [m if n is None or n < 0 else int(n) for n, m in zip(wanted, y.shape[1:3], strict=True)]
    ends = [max(n - m, 0) for n, m in zip(sizes, y.shape[1:3], strict=True)]
    y = jnp.pad(y, [(0, 0), *((0, e) for e in ends), (0, 0)])[:, : sizes[0], : sizes[1]]
    return jnp.moveaxis(y, -1, 1) if layout == "channels_first" else y


def depthwise_conv2d(
    x: Any,
    depthwise_kernel: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Any:
    """Returns the convolution of each channel by itself."""
    return ops.depthwise_conv(x, depthwise_kernel, strides, padding, data_format, dilation_rate)


def separable_conv2d(
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Any:
    """Returns the convolution of each channel by itself, then of all channels at each pixel."""
    kernels = depthwise_kernel, pointwise_kernel
    return ops.separable_conv(x, *kernels, strides, padding, data_format, dilation_rate)


def _pool(x: Any, size: Any, strides: Any, padding: str, data_format: str | None, mode: str) -> Any:
    if mode not in ("max", "avg"):
        raise ArgumentError("K.pool: pool_mode", repr(mode), "'max' or 'avg'")
    pool = ops.max_pool if mode == "max" else ops.average_pool
    return pool(x, size, strides, padding, data_format)


def pool2d(
    x: Any,
    pool_size: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    pool_mode: str = "max",
) -> Any:
    """Returns the maximum ("max") or mean ("avg") of each window of images."""
    return _pool(x, pool_size, strides, padding, data_format, pool_mode)


def pool3d(
    x: Any,
    pool_size: Any,
    strides: Any = (1, 1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    pool_mode: str = "max",
) -> Any:
    """Returns the maximum ("max") or mean ("avg") of each window of volumes."""
    return _pool(x, pool_size, strides, padding, data_format, pool_mode)


def _windows(sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[Any]:
    """Returns the indices of each window along each axis, `(windows, taps)`."""
    return [
        np.arange(0, n - k + 1, s)[:, None] + np.arange(k)[None]
        for n, k, s in zip(sizes, kernel, strides, strict=True)
    ]


@node
def local_conv1d(
    inputs: Any, kernel: Any, kernel_size: Any, strides: Any, data_format: str | None = None
) -> Any:
    """Returns a convolution whose kernel differs from window to window.

    Args:
        inputs: `(batch, time, channels)`.
        kernel: `(windows, taps * channels, filters)`.
        kernel_size, strides: Tuples of one integer.
        data_format: "channels_last" or "channels_first".
    """
    _plain_only("local_conv1d", inputs, "a layer of your own on ops.take_steps")
    first = standardize_data_format(data_format) == "channels_first"
    x = jnp.moveaxis(inputs, 1, -1) if first else jnp.asarray(inputs)
    (at,) = _windows(x.shape[1:2], kernel_size, strides)
    taken = x[:, at].reshape(x.shape[0], len(at), -1)
    out = jnp.einsum("bwk,wkf->bwf", taken, jnp.asarray(unwrap(kernel)))
    return jnp.moveaxis(out, -1, 1) if first else out


@node
def local_conv2d(
    inputs: Any,
    kernel: Any,
    kernel_size: Any,
    strides: Any,
    output_shape: Any,
    data_format: str | None = None,
) -> Any:
    """Returns a convolution of images whose kernel differs from window to window.

    Args:
        inputs: `(batch, rows, columns, channels)`.
        kernel: `(windows, taps * channels, filters)`.
        kernel_size, strides: Tuples of two integers.
        output_shape: `(rows, columns)` of windows.
        data_format: "channels_last" or "channels_first".
    """
    _plain_only("local_conv2d", inputs, "a layer of your own on ops.take_steps")
    first = standardize_data_format(data_format) == "channels_first"
    x = jnp.moveaxis(inputs, 1, -1) if first else jnp.asarray(inputs)
    down, across = _windows(x.shape[1:3], kernel_size, strides)
    if (len(down), len(across)) != tuple(output_shape):
        raise ShapeError(
            "K.local_conv2d: output_shape", tuple(output_shape), f"{(len(down), len(across))}"
        )
    taken = x[:, down[:, None, :, None], across[None, :, None, :]]
    taken = taken.reshape(x.shape[0], len(down) * len(across), -1)
    out = jnp.einsum("bwk,wkf->bwf", taken, jnp.asarray(unwrap(kernel)))
    out = out.reshape(x.shape[0], len(down), len(across), -1)
    return jnp.moveaxis(out, -1, 1) if first else out


@node
def resize_images(
    x: Any, height_factor: int, width_factor: int, data_format: str, interpolation: str = "nearest"
) -> Any:
    """Returns images of so many times the height and width, "nearest" or "bilinear"."""
    _plain_only("resize_images", x, "layers.UpSampling2D, which follows rows")
    return _magnified(jnp.asarray(x), (height_factor, width_factor), data_format, interpolation)


@node
def resize_volumes(
    x: Any, depth_factor: int, height_factor: int, width_factor: int, data_format: str
) -> Any:
    """Returns volumes of so many times each size."""
    _plain_only("resize_volumes", x, "layers.UpSampling3D, which follows rows")
    factors = depth_factor, height_factor, width_factor
    return _magnified(jnp.asarray(x), factors, data_format, "nearest")


def _magnified(x: Any, factors: Sequence[int], data_format: str, method: str) -> Any:
    for axis, factor in enumerate(factors, 2 if data_format == "channels_first" else 1):
        x = magnify(x, factor, axis, method)
    return x


# --- loops


@node
def rnn(
    step_function: Callable,
    inputs: Any,
    initial_states: Any,
    go_backwards: bool = False,
    mask: Any = None,
    constants: Any = None,
    unroll: bool = False,
    input_length: int | None = None,
    time_major: bool = False,
    zero_output_for_mask: bool = False,
    return_all_outputs: bool = True,
) -> tuple[Any, Any, list[Any]]:
    """Runs a step over time.

    Args:
        step_function: `(inputs, states) -> (output, new_states)`; constants follow the states.
        inputs: `(batch, time, ...)`, an array or a masked sequence, or a structure of them.
        initial_states: A list of arrays.
        go_backwards: Whether each row is taken from the end of its extent.
        mask: `(batch, time)`, beside that of the inputs.
        constants: Further arrays for each step.
        unroll: Whether a Python loop is traced.
        input_length: The number of steps, known by the inputs.
        time_major: Whether time stands before the batch.
        zero_output_for_mask: Whether masked steps put out zeros, not the output before.
        return_all_outputs: Whether all outputs are wanted, or the last alone `(batch, 1, ...)`.

    Returns:
        The last output of each row, the outputs (masked where the inputs are), and the states.
    """
    masks = [m for m in jax.tree.leaves(jax.tree.map(mask_of, inputs, is_leaf=_is_masked))]
    given = masks + ([] if mask is None else [jnp.asarray(unmask(mask), bool)])
    given = [m[..., 0] if m.ndim == 3 and m.shape[-1] == 1 else m for m in given]
    data = jax.tree.map(lambda x: jnp.asarray(unmask(unwrap(x))), inputs, is_leaf=_is_masked)
    if time_major:
        data = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), data)
        given = [m.T for m in given]
    valid = None
    for m in given:
        valid = m if valid is None else valid & m
    steps = jax.tree.leaves(data)[0].shape[1]
    if input_length not in (None, steps):
        raise ShapeError("K.rnn: input_length", input_length, f"{steps}, as the inputs have")
    states = [jnp.asarray(unwrap(s)) for s in jax.tree.leaves(initial_states)]
    fixed = list(constants or ())

    def step(x: Any, now: list) -> tuple[Any, list]:
        output, new = step_function(x, [*now, *fixed])
        kept = [jnp.asarray(n, o.dtype) for n, o in zip(new, now, strict=True)]
        return output, kept

    outputs, last_states = scan_cell(
        step,
        data,
        valid,
        states,
        go_backwards=go_backwards,
        zero_output_for_mask=zero_output_for_mask,
        unroll=unroll,
    )
    turned = valid if valid is None or not go_backwards else reverse_by_extent(valid, valid)
    joined = jax.tree.map(lambda o: with_mask(o, turned), outputs)
    last = jax.tree.map(ops.last, joined, is_leaf=_is_masked)
    if not return_all_outputs:
        joined = jax.tree.map(lambda x: x[:, None], last)
    elif time_major:
        joined = jax.tree.map(lambda o: jnp.swapaxes(o, 0, 1), outputs)
    return last, joined, last_states


def _is_masked(x: Any) -> bool:
    return isinstance(x, Masked)


@node
def map_fn(fn: Callable, elems: Any, name: str | None = None, dtype: Any = None) -> Any:
    """Returns the stacked results of `fn` on each entry of the first axis."""
    out = ops.map(fn, elems)
    return out if dtype is None else jax.tree.map(lambda x: x.astype(dtype), out)


def _folded(fn: Callable, elems: Any, initializer: Any, reverse: bool) -> Any:
    if has_masked(elems):
        raise MaskError(
            "K.foldl and K.foldr go over rows, and would lose their mask", fix="unmask(x)"
        )
    elems = jnp.asarray(unwrap(elems))
    if initializer is None:
        at = -1 if reverse else 0
        initializer, elems = elems[at], elems[:-1] if reverse else elems[1:]
    first = jnp.asarray(unwrap(initializer))
    return ops.scan(
        lambda c, x: (jnp.asarray(fn(c, x), first.dtype), None), first, elems, reverse=reverse
    )[0]


@node
def foldl(fn: Callable, elems: Any, initializer: Any = None, name: str | None = None) -> Any:
    """Returns `fn(... fn(fn(initializer, elems[0]), elems[1]) ...)`; by default elems[0] begins."""
    return _folded(fn, elems, initializer, reverse=False)


@node
def foldr(fn: Callable, elems: Any, initializer: Any = None, name: str | None = None) -> Any:
    """Is `foldl` from the last entry to the first."""
    return _folded(fn, elems, initializer, reverse=True)


# --- CTC


@node
def ctc_batch_cost(y_true: Any, y_pred: Any, input_length: Any, label_length: Any) -> Any:
    """Returns the loss of connectionist temporal classification, `(batch, 1)`.

    Args:
        y_true: `(batch, labels)` class numbers.
        y_pred: `(batch, time, classes)` probabilities; the last class is the blank.
        input_length, label_length: `(batch, 1)`: how many steps and labels count.
    """
    logits = jax.tree.map(lambda p: jnp.log(p + epsilon()), y_pred)
    if isinstance(y_pred, Masked):
        logits = Masked.trusted(
            jnp.log(fill_masked(y_pred.data, y_pred.mask, 1) + epsilon()), y_pred.mask
        )
    lengths = [jnp.asarray(unmask(n), jnp.int32).reshape(-1) for n in (label_length, input_length)]
    blank = y_pred.shape[-1] - 1
    return ops.ctc_loss(y_true, logits, *lengths, mask_index=blank)[:, None]


@node
def ctc_decode(
    y_pred: Any, input_length: Any, greedy: bool = True, beam_width: int = 100, top_paths: int = 1
) -> tuple[list[Any], Any]:
    """Returns the likeliest label at each step, without repeats and blanks.

    Args:
        y_pred: `(batch, time, classes)` probabilities; the last class is the blank.
        input_length: `(batch,)`: how many steps count.
        greedy: Must be True.
        beam_width, top_paths: Of a search with beams.

    Returns:
        `[(batch, time)]` class numbers with -1 behind, and `(batch, 1)` logarithms.
    """
    if not greedy or top_paths != 1:
        raise ArgumentError(
            "K.ctc_decode",
            received=f"greedy={greedy}, top_paths={top_paths}",
            expected="greedy=True and one path: there is no search with beams",
        )
    p = jnp.asarray(unmask(y_pred))
    steps = jnp.arange(p.shape[1]) < jnp.asarray(unmask(input_length)).reshape(-1, 1)
    best = jnp.argmax(p, -1)
    before = jnp.pad(best, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    kept = steps & (best != p.shape[-1] - 1) & (best != before)
    order = jnp.argsort(~kept, axis=1, stable=True)
    labels = jnp.take_along_axis(jnp.where(kept, best, -1), order, 1)
    logs = jnp.where(steps, jnp.log(jnp.max(p, -1) + epsilon()), 0)
    return [labels], -jnp.sum(logs, 1, keepdims=True)


def ctc_label_dense_to_sparse(labels: Any, label_lengths: Any) -> Any:
    """Raises: `ctc_batch_cost` takes dense labels with their lengths."""
    raise ArgumentError(
        "K.ctc_label_dense_to_sparse",
        expected="dense labels: arrays here are dense",
        fix="K.ctc_batch_cost(labels, y_pred, input_length, label_length)",
    )
