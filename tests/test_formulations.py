"""What a CPU computes in its own way is what XLA gives: values and derivatives of every kind."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from alphorn.kernels import formulations
from alphorn.kernels.attention import attention_output, dot_product_attention
from alphorn.kernels.convolution import convolve
from alphorn.kernels.pooling import max_pool


def close(actual: Any, expected: Any) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert a.dtype == e.dtype
        scale = max(np.max(np.abs(np.asarray(e, np.float32)), initial=0), 1.0)
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(e, np.float32), rtol=0, atol=1e-5 * scale
        )


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def by_xla(x, kernel, strides, padding, dilation):
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding.upper(),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 4),
    plane=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.sampled_from([1, 2, 33]),
    strides=st.sampled_from([(1, 1), (1, 1), (2, 1)]),
    dilation=st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]),
    padding=st.sampled_from(["valid", "same"]),
    blocks=st.sampled_from([1, 2**30]),
    seed=st.integers(0, 99),
)
def test_convolution_is_that_of_xla(
    batch, plane, window, channels, strides, dilation, padding, blocks, seed
):
    x, kernel = drawn(seed, (batch, *plane, channels), (*window, channels, 2))
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formulations, "BLOCK_BYTES", blocks)
        y, pull = jax.vjp(partial(convolve, **options), x, kernel)
        z, expected = jax.vjp(partial(by_xla, **options), x, kernel)
        close(y, z)
        close(pull(jnp.cos(z)), expected(jnp.cos(z)))


@pytest.mark.parametrize("blocks", [1, 2**30])
@pytest.mark.parametrize("channels", [2, 12])
def test_derivatives_of_every_kind(channels, blocks, monkeypatch):
    monkeypatch.setattr(formulations, "BLOCK_BYTES", blocks)
    x, kernel = drawn(0, (2, 5, 6, channels), (3, 3, channels, 2))
    directions = jnp.cos(x), jnp.cos(kernel)

    def made(convolution):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(convolution(x, kernel)))

        gradient = jax.grad(loss, (0, 1))

        def steepness(x, kernel):
            return sum(jnp.sum(jnp.sin(g)) for g in gradient(x, kernel))

        return jax.jit(
            lambda x, kernel: (
                jax.jvp(convolution, (x, kernel), directions),
                jax.jvp(gradient, (x, kernel), directions),
                jax.grad(steepness, (0, 1))(x, kernel),
                jax.vmap(gradient, (0, None))(jnp.stack([x, -x]), kernel),
                jax.vmap(gradient, (None, 0))(x, jnp.stack([kernel, -kernel])),
            )
        )(x, kernel)

    plain = partial(by_xla, strides=(1, 1), padding="same", dilation=(1, 1))
    close(made(partial(convolve, padding="same")), made(plain))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits_are_left_to_xla(dtype):
    x, kernel = (a.astype(dtype) for a in drawn(0, (1, 5, 5, 12), (3, 3, 12, 2)))
    options = {"strides": (1, 1), "padding": "same", "dilation": (1, 1)}
    np.testing.assert_array_equal(convolve(x, kernel, **options), by_xla(x, kernel, **options))


@settings(max_examples=6, deadline=None)
@given(
    plane=st.tuples(st.integers(4, 8), st.integers(4, 8)),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["valid", "same"]),
    seed=st.integers(0, 99),
)
def test_max_pooling_is_that_of_xla_ties_too(plane, size, strides, padding, seed):
    # Small integers make ties.
    x = jnp.asarray(np.random.default_rng(seed).integers(0, 3, (2, *plane, 2)).astype(np.float32))

    def reference(x):
        window, steps = (1, *size, 1), (1, *strides, 1)
        return lax.reduce_window(x, np.float32(-np.inf), lax.max, window, steps, padding.upper())

    y, pull = jax.vjp(lambda x: max_pool(x, size, strides=strides, padding=padding), x)
    z, expected = jax.vjp(reference, x)
    cotangent = jnp.cos(jnp.arange(z.size, dtype=jnp.float32)).reshape(z.shape)
    close((y, pull(cotangent)), (z, expected(cotangent)))


def test_max_pooling_shows_nan():
    x = jnp.array([[[1.0], [jnp.nan], [jnp.nan], [2.0], [3.0], [4.0]]])
    np.testing.assert_array_equal(max_pool(x, 2).ravel(), [np.nan, np.nan, 4.0])


@pytest.mark.parametrize("blocks", [1, 2**30])
@pytest.mark.parametrize(
    "case", ["bare", "masks", "causal", "pairs", "one for all", "of heads", "dropout"]
)
def test_attention_without_weights_is_attention(case, blocks, monkeypatch):
    monkeypatch.setattr(formulations, "BLOCK_BYTES", blocks)
    query, key, value = drawn(3, (4, 5, 2, 3), (4, 6, 2, 3), (4, 6, 2, 4))
    rng = np.random.default_rng(4)
    keys = jnp.asarray(rng.random((4, 6)) < 0.6).at[1].set(False)  # a row that sees nothing
    options: dict[str, Any] = {"key_mask": keys, "query_mask": jnp.arange(5)[None] < 3}
    options["query_mask"] = jnp.broadcast_to(options["query_mask"], (4, 5))
    shapes = {"pairs": (4, 5, 6), "one for all": (1, 1, 5, 6), "of heads": (4, 2, 5, 6)}
    if case == "bare":
        options = {}
    elif case == "causal":
        options["causal"] = True
    elif case in shapes:
        options["attention_mask"] = jnp.asarray(rng.random(shapes[case]) < 0.5)
    elif case == "dropout":
        options |= {"keep": jnp.asarray(rng.random((4, 2, 5, 6)) < 0.7), "keep_rate": 0.7}
    if options:  # junk where masked
        query = jnp.where(options["query_mask"][..., None, None], query, jnp.nan)
        key, value = (jnp.where(keys[..., None, None], a, jnp.inf) for a in (key, value))

    def made(attention):
        y, pull = jax.vjp(attention, query, key, value)
        return y, pull(jnp.cos(y)), jax.jvp(attention, (query, key, value), pull(y))

    made_here = made(partial(attention_output, **options))
    close(made_here, made(lambda *a: dot_product_attention(*a, **options)[0]))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(made_here[:2]))
    if "key_mask" in options:
        assert not np.asarray(made_here[0])[1].any()
