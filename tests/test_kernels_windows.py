"""Convolution, pooling and their geometry: against Keras unmasked, against rows alone masked."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphorn.core import masked
from alphorn.core.masked import fill_masked
from alphorn.kernels import geometry
from alphorn.kernels.convolution import convolve
from alphorn.kernels.pooling import average_pool, max_pool

B, T, C, FILTERS = 4, 9, 2, 3
JUNK = (0.0, 1e3, np.nan, np.inf, -np.inf)


class Window(NamedTuple):
    kernel: int
    stride: int
    dilation: int
    padding: str


CONVOLUTIONS = [
    Window(3, 1, 1, "same"),
    Window(4, 1, 1, "same"),
    Window(2, 1, 3, "same"),
    Window(3, 2, 1, "same"),
    Window(2, 3, 1, "same"),
    Window(5, 2, 2, "same"),
    Window(3, 1, 1, "valid"),
    Window(3, 2, 1, "valid"),
    Window(2, 3, 2, "valid"),
    Window(1, 2, 1, "valid"),
    Window(3, 1, 2, "causal"),
    Window(3, 2, 1, "causal"),
    Window(2, 3, 2, "causal"),
]
POOLS = [
    Window(2, 2, 1, "valid"),
    Window(3, 1, 1, "valid"),
    Window(3, 2, 1, "valid"),
    Window(2, 3, 1, "same"),
    Window(3, 2, 1, "same"),
    Window(3, 1, 1, "same"),
    Window(4, 4, 1, "same"),
]


def close(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.max(np.abs(expected), initial=1e-6)
    assert np.max(np.abs(actual - expected), initial=0) <= 1e-5 * scale


def taps_alone(length, window):
    """Lists, for each output of a row alone, its taps as (number, input step)."""
    kernel, stride, dilation, padding = window
    k = (kernel - 1) * dilation + 1
    if padding == "valid":
        outputs, left = max((length - k) // stride + 1, 0), 0
    else:
        outputs = -(-length // stride)
        left = k - 1
        if padding == "same":
            left = max((outputs - 1) * stride + k - length, 0) // 2
    return [
        [
            (tap, step)
            for tap in range(kernel)
            if 0 <= (step := j * stride - left + tap * dilation) < length
        ]
        for j in range(outputs)
    ]


def rows_alone(mask, window):
    """Lists every output of every row alone: (row, where it stands, its valid taps)."""
    for row, valid in enumerate(mask):
        steps = np.flatnonzero(valid)
        if len(steps):
            first, length = steps[0], steps[-1] + 1 - steps[0]
            for j, taps in enumerate(taps_alone(length, window)):
                held = [(tap, first + step) for tap, step in taps if valid[first + step]]
                yield row, first // window.stride + j, held


def mask_alone(mask, window, outputs):
    made = np.zeros((len(mask), outputs), bool)
    for row, at, held in rows_alone(mask, window):
        made[row, at] = bool(held)
    return made


def pull_back(function, cotangent, *operands):
    out, pull = jax.vjp(function, *operands)
    return out, *pull(cotangent.astype(out.dtype))


@partial(jax.jit, static_argnames="window")
def masked_convolution(x, kernel, mask, cotangent, window):
    with jax.numpy_dtype_promotion("strict"):
        made = geometry.resampled_mask(mask, *window)

        def function(x, kernel):
            return convolve(
                x,
                kernel,
                strides=window.stride,
                padding=window.padding,
                dilation=window.dilation,
                mask=mask,
            )

        return made, *pull_back(function, fill_masked(cotangent, made), x, kernel)


@partial(jax.jit, static_argnames=("window", "pool"))
def masked_pool(x, mask, cotangent, window, pool):
    with jax.numpy_dtype_promotion("strict"):
        made = geometry.resampled_mask(mask, *window)
        function = partial(
            pool,
            pool_size=window.kernel,
            strides=window.stride,
            padding=window.padding,
            mask=mask,
        )
        return made, *pull_back(function, cotangent, x)


def masks(rows=B, steps=T):
    """Draws masks: full, padded on either side, with holes, empty."""
    free = st.lists(st.booleans(), min_size=steps, max_size=steps)
    run = st.tuples(st.integers(0, steps), st.integers(0, steps)).map(
        lambda ends: [min(ends) <= step < max(ends) for step in range(steps)]
    )
    return st.lists(free | run, min_size=rows, max_size=rows).map(np.array)


def drawn(seed, mask, junk, outputs, channels) -> Any:
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(*mask.shape, C)).astype(np.float32)
    kernel = rng.normal(size=(8, C, FILTERS)).astype(np.float32)
    cotangent = rng.normal(size=(len(mask), outputs, channels)).astype(np.float32)
    return np.where(mask[..., None], clean, np.float32(junk)), kernel, cotangent


# Unmasked: Keras.


@pytest.mark.parametrize("window", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("steps", [9, 10])
def test_reference_and_unmasked_convolution_are_keras(window, steps):
    x, kernel, _ = drawn(0, np.ones((B, steps), bool), 0, 1, FILTERS)
    kernel = kernel[: window.kernel]
    options: dict[str, Any] = {"strides": window.stride, "padding": window.padding}
    if window.stride == 1 or window.dilation == 1:
        layer: Any = keras.layers.Conv1D(
            FILTERS, window.kernel, dilation_rate=window.dilation, use_bias=False, **options
        )
        layer.build(x.shape)
        layer.set_weights([kernel])
        expected = np.asarray(layer(x))
    else:  # Keras has no layer with both
        left = {"valid": 0, "causal": window.dilation * (window.kernel - 1)}.get(window.padding)
        expected = jax.lax.conv_general_dilated(
            x,
            kernel,
            (window.stride,),
            "SAME" if left is None else [(left, 0)],
            rhs_dilation=(window.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
    close(convolve(x, kernel, dilation=window.dilation, **options), expected)
    assert expected.shape[1] == geometry.output_length(steps, *window)
    reference = np.zeros(expected.shape, np.float32)
    for row, at, held in rows_alone(np.ones((B, steps), bool), window):
        for tap, step in held:
            reference[row, at] += x[row, step] @ kernel[tap]
    close(reference, expected)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("rank", "size", "strides", "dilation", "groups"),
    [
        (1, 3, 2, 1, 2),
        (2, (3, 2), 1, (2, 1), 1),
        (2, (2, 4), (2, 3), 1, 2),
        (3, (2, 3, 2), (1, 2, 2), 1, 1),
    ],
)
def test_unmasked_convolution_is_keras_in_any_rank(padding, rank, size, strides, dilation, groups):
    x: Any = np.random.default_rng(rank).normal(size=(*(2, 7, 8, 6)[: rank + 1], 4))
    x = x.astype(np.float32)
    make = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[rank]
    layer: Any = make(
        6,
        size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        groups=groups,
        use_bias=False,
    )
    expected = np.asarray(layer(x))
    options: dict[str, Any] = {
        "strides": strides,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    kernel = layer.kernel.value
    close(convolve(x, kernel, **options), expected)
    first = convolve(np.moveaxis(x, -1, 1), kernel, data_format="channels_first", **options)
    close(first, np.moveaxis(expected, -1, 1))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("rank", "size", "strides"),
    [(1, 3, 2), (1, 2, None), (2, (3, 2), (2, 3)), (2, 2, None), (3, (2, 3, 2), (1, 2, 2))],
)
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_unmasked_pooling_is_keras(kind, rank, size, strides, padding):
    rng = np.random.default_rng(rank)
    # Small integers make ties, whose gradient is a matter of choice.
    x: Any = rng.integers(-2, 3, (*(2, 7, 8, 6)[: rank + 1], 3)).astype(np.float32)
    layer = getattr(keras.layers, f"{kind}Pooling{rank}D")(size, strides=strides, padding=padding)
    pool = partial(
        max_pool if kind == "Max" else average_pool,
        pool_size=size,
        strides=strides,
        padding=padding,
    )
    expected = layer(x)
    close(pool(x), expected)
    cotangent = jnp.asarray(rng.normal(size=expected.shape).astype(np.float32))
    gradient = jax.jit(pull_back, static_argnums=0)
    close(gradient(pool, cotangent, x)[1], gradient(layer, cotangent, x)[1])
    first = pool(np.moveaxis(x, -1, 1), data_format="channels_first")
    close(first, np.moveaxis(np.asarray(expected), -1, 1))


# Masked: every row is what it would be alone.


@pytest.mark.parametrize("padding", geometry.PADDINGS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_resampled_mask_of_every_mask(padding, stride):
    mask = np.array(list(itertools.product([False, True], repeat=7)))
    for kernel, dilation in [(1, 1), (2, 2), (3, 2), (4, 1)]:
        window = Window(kernel, stride, dilation, padding)
        outputs = geometry.output_length(7, *window)
        expected = mask_alone(mask, window, outputs)
        actual = geometry.resampled_mask(jnp.asarray(mask), *window)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("window", CONVOLUTIONS, ids=str)
@settings(max_examples=6, deadline=None)
@given(mask=masks(), junk=st.sampled_from(JUNK), seed=st.integers(0, 99))
def test_convolution_of_rows_alone(window, mask, junk, seed):
    outputs = geometry.output_length(T, *window)
    x, kernel, cotangent = drawn(seed, mask, junk, outputs, FILTERS)
    kernel = kernel[: window.kernel]
    y, dx, dk = np.zeros_like(cotangent), np.zeros((B, T, C)), np.zeros(kernel.shape)
    for row, at, held in rows_alone(mask, window):
        for tap, step in held:
            y[row, at] += x[row, step] @ kernel[tap]
            dx[row, step] += kernel[tap] @ cotangent[row, at]
            dk[tap] += np.outer(x[row, step], cotangent[row, at])
    made, actual, dx_made, dk_made = masked_convolution(x, kernel, mask, cotangent, window)
    np.testing.assert_array_equal(made, mask_alone(mask, window, outputs))
    assert np.isfinite(actual).all()
    close(np.where(made[..., None], actual, 0), y)
    close(dx_made, dx)
    close(dk_made, dk)
    assert not np.asarray(dx_made)[~mask].any()


@pytest.mark.parametrize("pool", [max_pool, average_pool])
@pytest.mark.parametrize("window", POOLS, ids=str)
@settings(max_examples=6, deadline=None)
@given(mask=masks(), junk=st.sampled_from(JUNK), seed=st.integers(0, 99))
def test_pooling_of_rows_alone(pool, window, mask, junk, seed):
    outputs = geometry.output_length(T, *window)
    x, _, cotangent = drawn(seed, mask, junk, outputs, C)
    y, dx = np.zeros_like(cotangent), np.zeros((B, T, C))
    for row, at, held in rows_alone(mask, window):
        steps = [step for _, step in held]
        if not steps:
            continue
        if pool is average_pool:
            y[row, at] = x[row, steps].mean(axis=0)
            dx[row, steps] += cotangent[row, at] / len(steps)
        else:
            best = np.array(steps)[x[row, steps].argmax(axis=0)]
            y[row, at] = x[row, best, range(C)]
            dx[row, best, range(C)] += cotangent[row, at]
    made, actual, dx_made = masked_pool(x, mask, cotangent, window, pool)
    np.testing.assert_array_equal(made, mask_alone(mask, window, outputs))
    close(actual, y)
    close(dx_made, dx)
    assert not np.asarray(dx_made)[~mask].any()


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("rank", "stride"), [(2, 1), (2, 2), (3, 2)])
def test_two_and_three_axes_under_a_mask_of_time(rank, stride, padding):
    rng = np.random.default_rng(rank)
    lengths, starts = (7, 5, 4, 0), (0, 0, 2, 0)
    x = rng.normal(size=(*(4, 7, 5, 4)[: rank + 1], 2)).astype(np.float32)
    kernel = jnp.asarray(rng.normal(size=(*(3, 2, 2)[:rank], 2, 3)).astype(np.float32))
    steps = np.arange(7)
    mask = np.array([(p <= steps) & (steps < p + n) for p, n in zip(starts, lengths, strict=True)])
    junk = np.where(masked.expand_to(jnp.asarray(mask), x.ndim), x, np.nan)
    options: dict[str, Any] = {"strides": stride, "padding": padding}
    for function in (
        partial(convolve, kernel=kernel, **options),
        partial(max_pool, pool_size=3, **options),
        partial(average_pool, pool_size=(3, 2, 2)[:rank], **options),
    ):
        function = jax.jit(function, static_argnames="data_format")
        y = np.asarray(function(junk, mask=mask))
        assert y.shape == function(x).shape
        assert np.isfinite(y).all()
        for row, (p, n) in enumerate(zip(starts, lengths, strict=True)):
            if n:
                alone = function(x[row : row + 1, p : p + n])
                at = p // stride
                close(y[row : row + 1, at : at + alone.shape[1]], alone)
        first = function(np.moveaxis(junk, -1, 1), mask=mask, data_format="channels_first")
        np.testing.assert_array_equal(first, np.moveaxis(y, -1, 1))


@pytest.mark.parametrize("padding", geometry.PADDINGS)
@pytest.mark.parametrize("stride", [1, 3])
def test_more_padding_changes_nothing(padding, stride):
    rng = np.random.default_rng(0)
    x: Any = rng.normal(size=(2, 6, C)).astype(np.float32)
    kernel: Any = rng.normal(size=(3, C, FILTERS)).astype(np.float32)
    mask = np.array([[True] * 6, [True] * 4 + [False] * 2])
    longer = np.pad(x, [(0, 0), (0, 5), (0, 0)], constant_values=np.nan)
    wider = np.pad(mask, [(0, 0), (0, 5)])
    short = geometry.resampled_mask(jnp.asarray(mask), 3, stride, 1, padding)
    long = geometry.resampled_mask(jnp.asarray(wider), 3, stride, 1, padding)
    outputs = short.shape[1]
    np.testing.assert_array_equal(short, long[:, :outputs])
    assert not long[:, outputs:].any()
    options: dict[str, Any] = {"strides": stride, "padding": padding}
    function = jax.jit(partial(convolve, **options))
    y = function(x, kernel, mask=mask)
    z = function(longer, kernel, mask=wider)
    close(np.where(short[..., None], z[:, :outputs], 0), np.where(short[..., None], y, 0))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits(dtype):
    rng = np.random.default_rng(0)
    mask = jnp.array([[True] * 7, [True] * 3 + [False] * 4])
    x = jnp.asarray(rng.normal(size=(2, 7, 2)).astype(np.float32))
    kernel = jnp.asarray(rng.normal(size=(3, 2, 2)).astype(np.float32))

    @jax.jit
    def outputs(x, kernel):
        with jax.numpy_dtype_promotion("strict"):
            options: dict[str, Any] = {"strides": 2, "padding": "same", "mask": mask}
            return (
                convolve(x, kernel, **options),
                max_pool(x, 3, **options),
                average_pool(x, 3, **options),
            )

    def loss(x, kernel):
        return sum(jnp.sum(y.astype(jnp.float32) ** 2) for y in outputs(x, kernel))

    low = x.astype(dtype), kernel.astype(dtype)
    gradient = jax.jit(jax.grad(loss, (0, 1)))
    for actual, expected in zip(
        (*outputs(*low), *gradient(*low)),
        (*outputs(x, kernel), *gradient(x, kernel)),
        strict=True,
    ):
        assert actual.dtype == dtype
        error = jnp.abs(actual.astype(jnp.float32) - expected)
        assert jnp.max(error) <= 2e-2 * jnp.max(jnp.abs(expected))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits_add_up_in_32(dtype):
    # Added up in bfloat16, ones stop at 256; 4096 numbers of 100 overflow float16.
    x = jnp.ones((1, 4096, 1), dtype)
    assert convolve(x, jnp.ones((4096, 1, 1), dtype)).item() == 4096
    assert average_pool(x * 100, 4096).item() == 100


@pytest.mark.parametrize("function", [max_pool, average_pool])
def test_no_nan_is_made_on_the_way(function):
    mask = jnp.array([[True, False, False, True], [False] * 4])
    with jax.debug_nans(True):
        jax.grad(lambda x: function(x, 2, mask=mask).sum())(jnp.ones((2, 4, 1)))


def test_integers_pool_too():
    x = jnp.array([[[-5], [-3], [7], [9]]])
    mask = jnp.array([[True, True, False, False]])
    assert max_pool(x, 2, mask=mask).ravel().tolist() == [-3, 0]
    assert average_pool(x, 2, mask=mask).ravel().tolist() == [-4.0, 0.0]


def test_extent():
    mask = jnp.array([[[True, False], [False, True]], [[False, False], [True, True]]])
    start, stop = geometry.extent(mask)
    assert (start.tolist(), stop.tolist()) == ([[0, 1], [0, 0]], [[1, 2], [0, 2]])
    start, stop = geometry.extent(jnp.zeros((2, 0), bool))
    assert start.tolist() == stop.tolist() == [0, 0]


def test_a_sequence_shorter_than_its_window():
    x, kernel = jnp.ones((2, 3, 1)), jnp.ones((5, 1, 1))
    mask = jnp.array([[True, True, True], [True, False, False]])
    assert convolve(x, kernel).shape == (2, 0, 1)
    for stride in (1, 2):
        assert convolve(x, kernel, mask=mask, strides=stride).shape == (2, 0, 1)
        assert geometry.resampled_mask(mask, 5, stride).shape == (2, 0)


def test_lengths_may_be_symbolic():
    batch, steps = jax.export.symbolic_shape("b, t")
    x = jax.ShapeDtypeStruct((batch, steps, 2), jnp.float32)
    mask = jax.ShapeDtypeStruct((batch, steps), bool)
    kernel = jnp.ones((3, 2, 4))
    for stride, padding in itertools.product((1, 2), geometry.PADDINGS):

        def made(x, mask, stride=stride, padding=padding):
            y = convolve(x, kernel, strides=stride, padding=padding, mask=mask)
            return y, geometry.resampled_mask(mask, 3, stride, 1, padding)

        data, resampled = jax.eval_shape(made, x, mask)
        assert data.shape == (*resampled.shape, 4)
        assert resampled.shape[0] == batch
        assert (resampled.shape[1] == steps) == (stride == 1 and padding != "valid")


def test_under_vmap():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 2, 7, 2)).astype(np.float32))
    mask = jnp.asarray(rng.random((3, 2, 7)) < 0.6)
    kernel = jnp.asarray(rng.normal(size=(3, 2, 2)).astype(np.float32))

    @jax.jit
    def function(x, mask):
        pooled = max_pool(x, 2, mask=mask, padding="same")
        made = geometry.resampled_mask(mask, 3, 2, 1, "same")
        return convolve(x, kernel, strides=2, padding="same", mask=mask), pooled, made

    together = jax.jit(jax.vmap(function))(x, mask)
    for i in range(3):
        for one, alone in zip(together, function(x[i], mask[i]), strict=True):
            close(one[i].astype(jnp.float32), alone.astype(jnp.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: convolve(x, jnp.ones((2, 1, 1)), padding="full"), "padding='full'"),
        (lambda x: max_pool(x, 2, padding="causal"), "padding='causal'"),
        (
            lambda x: convolve(x[:, None], jnp.ones((1, 1, 1, 1)), padding="causal"),
            "padding='causal'",
        ),
        (lambda x: convolve(x, jnp.ones((2, 1, 1)), strides=(1, 2)), r"strides=\(1, 2\)"),
        (lambda x: average_pool(x, 0), "pool_size=0"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((1, 4, 1)))
