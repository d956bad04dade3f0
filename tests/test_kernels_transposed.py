"""Transposed convolutions: against Keras unmasked, against rows alone masked."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphorn.kernels import geometry
from alphorn.kernels.convolution import convolve_depthwise, convolve_transposed
from test_kernels_windows import JUNK, B, C, T, close, masks, pull_back

FILTERS = 3


class Spread(NamedTuple):
    kernel: int
    stride: int
    dilation: int
    padding: str
    output_padding: int | None


SPREADS = [
    Spread(kernel, stride, dilation, padding, end)
    for kernel in (1, 2, 3, 4)
    for stride, dilation in ((1, 1), (2, 1), (3, 1), (1, 2))
    for padding in ("valid", "same")
    for end in (None, 0, 1)
    if end is None or end < stride
]
SOME = SPREADS[::5]


def keras_layer(spread: Spread) -> Any:
    layer: Any = keras.layers.Conv1DTranspose(
        FILTERS,
        spread.kernel,
        strides=spread.stride,
        padding=spread.padding,
        output_padding=spread.output_padding,
        dilation_rate=spread.dilation,
        use_bias=False,
    )
    layer.build((None, T, C))
    return layer


def options(spread: Spread) -> dict[str, Any]:
    return {
        "strides": spread.stride,
        "padding": spread.padding,
        "dilation": spread.dilation,
        "output_padding": None if spread.output_padding is None else (spread.output_padding,),
    }


def taps_alone(length: int, spread: Spread) -> list[list[tuple[int, int]]]:
    """Lists, for each output of a row alone, what falls on it as (tap, step)."""
    kernel, stride, dilation, padding, end = spread
    k = (kernel - 1) * dilation + 1
    before = 0
    if padding == "valid":
        outputs = (length - 1) * stride + (max(k, stride) if end is None else k + end)
    else:
        outputs = length * stride if end is None else (length - 1) * stride + k % 2 + end
        extra = outputs - ((length - 1) * stride + 1) + k - 1
        before = k - 1 - min((extra + 1) // 2, k - 1)
    found: list[list[tuple[int, int]]] = [[] for _ in range(outputs)]
    for step in range(length):
        for tap in range(kernel):
            at = step * stride + tap * dilation - before
            if 0 <= at < outputs:
                found[at].append((tap, step))
    return found


@pytest.mark.parametrize("spread", SPREADS, ids=str)
def test_reference_and_unmasked_are_keras(spread: Spread) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, C)).astype(np.float32)
    layer = keras_layer(spread)
    kernel = layer.kernel.value
    expected = np.asarray(layer(x))
    close(convolve_transposed(x, kernel, **options(spread)), expected)
    first = convolve_transposed(
        np.moveaxis(x, -1, 1), kernel, data_format="channels_first", **options(spread)
    )
    close(first, np.moveaxis(expected, -1, 1))
    reference = np.zeros(expected.shape, np.float32)
    for at, taps in enumerate(taps_alone(5, spread)):
        for tap, step in taps:
            reference[:, at] += x[:, step] @ np.asarray(kernel[tap]).T
    close(reference, expected)


@pytest.mark.parametrize("rank", [2, 3])
def test_more_axes_are_keras(rank: int) -> None:
    x = np.random.default_rng(0).normal(size=(*(2, 5, 4, 3)[: rank + 1], C)).astype(np.float32)
    make = {2: keras.layers.Conv2DTranspose, 3: keras.layers.Conv3DTranspose}[rank]
    strides, ends = (2, 1, 3)[:rank], (1, 0, 2)[:rank]
    layer: Any = make(
        FILTERS, (3, 2, 2)[:rank], strides, "same", output_padding=ends, use_bias=False
    )
    expected = np.asarray(layer(x))
    kernel = layer.kernel.value
    made = convolve_transposed(x, kernel, strides=strides, padding="same", output_padding=ends)
    close(made, expected)


@partial(jax.jit, static_argnames="spread")
def run(x: Any, kernel: Any, mask: Any, cotangent: Any, spread: Spread) -> Any:
    with jax.numpy_dtype_promotion("strict"):
        made = geometry.transposed_mask(mask, *spread)

        def function(x: Any, kernel: Any) -> Any:
            y = convolve_transposed(x, kernel, mask=mask, **options(spread))
            return jnp.where(made[..., None], y, 0)

        return made, *pull_back(function, cotangent, x, kernel)


@pytest.mark.parametrize("spread", SOME, ids=str)
@settings(max_examples=6, deadline=None)
@given(mask=masks(), junk=st.sampled_from(JUNK), seed=st.integers(0, 99))
def test_rows_are_as_if_alone(spread: Spread, mask: Any, junk: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(B, T, C)).astype(np.float32)
    kernel = random.normal(size=(spread.kernel, FILTERS, C)).astype(np.float32)
    outputs = len(taps_alone(T, spread))
    cotangent = random.normal(size=(B, outputs, FILTERS)).astype(np.float32)
    y, valid = np.zeros_like(cotangent), np.zeros((B, outputs), bool)
    dx, dk = np.zeros_like(x), np.zeros_like(kernel)
    for row in range(B):
        steps = np.flatnonzero(mask[row])
        if not len(steps):
            continue
        first = steps[0]
        for j, taps in enumerate(taps_alone(steps[-1] + 1 - first, spread)):
            at = first * spread.stride + j
            held = [(tap, first + step) for tap, step in taps if mask[row, first + step]]
            valid[row, at] = bool(held) or not taps
            for tap, step in held:
                y[row, at] += kernel[tap] @ x[row, step]
                dx[row, step] += cotangent[row, at] @ kernel[tap]
                dk[tap] += np.outer(cotangent[row, at], x[row, step])
    dirty = np.where(mask[..., None], x, np.float32(junk))
    made, actual, dx_made, dk_made = run(dirty, kernel, mask, cotangent, spread)
    np.testing.assert_array_equal(made, valid)
    close(actual, y)
    close(dx_made, dx)
    close(dk_made, dk)


def test_channels_keep_to_themselves() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 6, C)).astype(np.float32)
    kernel = random.normal(size=(3, C, 2)).astype(np.float32)
    mask = np.array([[True] * 6, [True] * 4 + [False] * 2])
    layer: Any = keras.layers.DepthwiseConv1D(3, depth_multiplier=2, use_bias=False)
    layer.build(x.shape)
    layer.set_weights([kernel])
    close(convolve_depthwise(x, jnp.asarray(kernel)), layer(x))
    junk = np.where(mask[..., None], x, np.nan)
    masked = np.asarray(convolve_depthwise(junk, jnp.asarray(kernel), mask=mask))
    close(masked[1:, :2], layer(x[1:, :4]))
