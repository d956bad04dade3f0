"""Attention: against Keras unmasked, against each row's valid steps alone masked."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphorn.kernels.attention import (
    additive_scores,
    attend,
    dot_product_attention,
    masked_softmax,
    visible_pairs,
)

B, T, S, H, D = 3, 5, 6, 2, 4
JUNK = (0.0, 1e3, np.nan, np.inf, -np.inf)


def close(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.max(np.abs(expected), initial=1e-6)
    assert np.max(np.abs(actual - expected), initial=0) <= 1e-5 * scale


def normal(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def triple(seed=0, features=D):
    return (
        normal(seed, B, T, H, D),
        normal(seed + 1, B, S, H, D),
        normal(seed + 2, B, S, H, features),
    )


def bool_masks(*shape):
    count = int(np.prod(shape))
    return st.lists(st.booleans(), min_size=count, max_size=count).map(
        lambda drawn: np.array(drawn).reshape(shape)
    )


def attention_alone(query, key, value, seen, scale=None):
    """One row and head in NumPy, float64: (T, D), (S, D), (S, E), seen (T, S)."""
    query, key, value = (a.astype(np.float64) for a in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    output, weights = np.zeros((len(query), value.shape[-1])), np.zeros(seen.shape)
    for t in range(len(query)):
        keys = np.flatnonzero(seen[t])
        if len(keys):
            scores = scale * key[keys] @ query[t]
            exponentials = np.exp(scores - scores.max())
            weights[t, keys] = exponentials / exponentials.sum()
            output[t] = weights[t, keys] @ value[keys]
    return output, weights


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_unmasked_is_keras(causal, scale):
    query, key, value = triple()
    key, value = key[:, :T], value[:, :T]
    bias = normal(5, B, H, T, T)
    expected = keras.ops.dot_product_attention(
        query, key, value, bias=jnp.asarray(bias), scale=scale, is_causal=causal
    )
    output, _ = dot_product_attention(query, key, value, bias=bias, scale=scale, causal=causal)
    close(output, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_one_head_is_keras_attention(causal):
    query, key, value = normal(0, B, T, D), normal(1, B, S, D), normal(2, B, S, 3)
    layer: Any = keras.layers.Attention()
    expected = layer([query, value, key], return_attention_scores=True, use_causal_mask=causal)
    actual = dot_product_attention(query, key, value, scale=1.0, causal=causal)
    close(actual[0], expected[0])
    close(actual[1], expected[1])


def test_additive_is_keras():
    query, key, value = normal(0, B, T, D), normal(1, B, S, D), normal(2, B, S, D)
    layer: Any = keras.layers.AdditiveAttention()
    expected = layer([query, value, key], return_attention_scores=True)
    scores = additive_scores(query, key, layer.scale.value)
    actual = attend(scores, value)
    close(actual[0], expected[0])
    close(actual[1], expected[1])


@partial(jax.jit, static_argnames="causal")
def with_gradients(query, key, value, query_mask, key_mask, attention_mask, cotangent, causal):
    with jax.numpy_dtype_promotion("strict"):
        outputs, pull = jax.vjp(
            partial(
                dot_product_attention,
                query_mask=query_mask,
                key_mask=key_mask,
                attention_mask=attention_mask,
                causal=causal,
            ),
            query,
            key,
            value,
        )
        return *outputs, *pull((cotangent, jnp.zeros_like(outputs[1])))


@pytest.mark.parametrize("causal", [False, True])
@settings(max_examples=10, deadline=None)
@given(
    query_mask=bool_masks(B, T),
    key_mask=bool_masks(B, S),
    attention_mask=bool_masks(B, H, T, S),
    junk=st.sampled_from(JUNK),
    seed=st.integers(0, 99),
)
def test_any_mask_is_the_valid_pairs_alone(
    causal, query_mask, key_mask, attention_mask, junk, seed
):
    query, key, value = triple(seed, features=3)
    cotangent = normal(seed, B, T, H, 3)
    spoilt = [
        np.where(mask[..., None, None], array, np.float32(junk))
        for mask, array in ((query_mask, query), (key_mask, key), (key_mask, value))
    ]
    output, weights, *gradients = with_gradients(
        *spoilt, query_mask, key_mask, attention_mask, cotangent, causal
    )
    clean = with_gradients(
        query, key, value, query_mask, key_mask, attention_mask, cotangent, causal
    )
    seen = query_mask[:, None, :, None] & key_mask[:, None, None] & attention_mask
    if causal:
        seen = seen & np.tri(T, S, dtype=bool)
    for row in range(B):
        for head in range(H):
            expected = attention_alone(
                query[row, :, head], key[row, :, head], value[row, :, head], seen[row, head]
            )
            close(output[row, :, head], expected[0].astype(np.float32))
            close(weights[row, head], expected[1].astype(np.float32))
    for gradient, untouched, mask in zip(
        gradients, clean[2:], (query_mask, key_mask, key_mask), strict=True
    ):
        np.testing.assert_array_equal(gradient, untouched)
        assert not np.asarray(gradient)[~mask].any()


@partial(jax.jit, static_argnames="causal")
def self_attention_gradient(x, cotangent, causal, mask=None):
    def function(x):
        return dot_product_attention(x, x, x, query_mask=mask, key_mask=mask, causal=causal)[0]

    return jax.vjp(function, x)[1](cotangent)[0]


@pytest.mark.parametrize("causal", [False, True])
@settings(max_examples=8, deadline=None)
@given(mask=bool_masks(B, T), junk=st.sampled_from(JUNK))
def test_gradients_of_rows_alone(causal, mask, junk):
    x, cotangent = normal(0, B, T, H, D), normal(1, B, T, H, D)
    spoilt = np.where(mask[..., None, None], x, np.float32(junk))
    gradient = self_attention_gradient(spoilt, cotangent, causal, mask)
    for row in range(B):
        valid = mask[row]
        if valid.any():
            alone = x[row : row + 1, valid], cotangent[row : row + 1, valid]
            close(gradient[row : row + 1, valid], self_attention_gradient(*alone, causal))
    assert not np.asarray(gradient)[~mask].any()


@jax.jit
def additive_with_gradients(query, key, value, scale, cotangent, query_mask=None, key_mask=None):
    def function(query, key, value, scale):
        masks: dict[str, Any] = {"query_mask": query_mask, "key_mask": key_mask}
        return attend(additive_scores(query, key, scale, **masks), value, **masks)[0]

    output, pull = jax.vjp(function, query, key, value, scale)
    return output, *pull(cotangent)


@settings(max_examples=6, deadline=None)
@given(query_mask=bool_masks(B, 2), key_mask=bool_masks(B, 3), junk=st.sampled_from(JUNK))
def test_additive_of_rows_alone(query_mask, key_mask, junk):
    query, key, value = normal(0, B, 2, D), normal(1, B, 3, D), normal(2, B, 3, D)
    scale = normal(3, D)
    cotangent = normal(4, B, 2, D)
    spoilt = [
        np.where(mask[..., None], array, np.float32(junk))
        for mask, array in ((query_mask, query), (key_mask, key), (key_mask, value))
    ]
    output, dq, dk, dv, ds = additive_with_gradients(
        *spoilt, scale, cotangent, query_mask, key_mask
    )
    expected_ds = np.zeros(D, np.float32)
    for row in range(B):
        queries, keys = query_mask[row], key_mask[row]
        if not (queries.any() and keys.any()):
            assert not np.asarray(output[row]).any()
            continue
        asked, seen = np.index_exp[row : row + 1, queries], np.index_exp[row : row + 1, keys]
        alone = additive_with_gradients(
            query[asked], key[seen], value[seen], scale, cotangent[asked]
        )
        close(output[asked], alone[0])
        close(dq[asked], alone[1])
        close(dk[seen], alone[2])
        close(dv[seen], alone[3])
        expected_ds += alone[4]
    close(ds, expected_ds)
    assert not np.asarray(dq)[~query_mask].any()
    assert not np.asarray(dk)[~key_mask].any()
    assert not np.asarray(dv)[~key_mask].any()
    assert not np.asarray(output)[~query_mask].any()


def test_visible_pairs():
    assert visible_pairs(2, 3) is None
    pairs = np.arange(12).reshape(2, 2, 3) % 2
    seen: Any = visible_pairs(
        2,
        3,
        query_mask=jnp.array([[True, True], [True, False]]),
        key_mask=jnp.array([[True, True, False], [True, True, True]]),
        attention_mask=jnp.asarray(pairs),
        causal=True,
    )
    assert seen.shape == (2, 1, 2, 3)
    assert seen[0, 0].tolist() == [[False, False, False], [True, False, False]]
    assert seen[1, 0].tolist() == [[False, False, False], [False, False, False]]
    flat: Any = visible_pairs(2, 3, attention_mask=jnp.asarray(pairs[0]))
    assert flat.tolist() == [[pairs[0].astype(bool).tolist()]]


@pytest.mark.parametrize("attention_mask", [None, np.tri(T, S)])
def test_a_bias_of_minus_infinity_closes_pairs(attention_mask):
    query, key, value = triple()
    bias = normal(7, B, H, T, S)
    bias[0, 0, 2] = -np.inf
    bias[1, :, :, 3] = -np.inf
    closed = np.isneginf(bias)

    def function(bias, seen):
        return dot_product_attention(query, key, value, bias=bias, attention_mask=seen)[0]

    output, pull = jax.vjp(partial(function, seen=attention_mask), bias)
    (gradient,) = pull(jnp.ones_like(output))
    seen = ~closed if attention_mask is None else ~closed & attention_mask.astype(bool)
    close(output, function(np.where(closed, 0, bias), seen))
    assert not np.asarray(output[0, 2, 0]).any()
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~seen].any()


def test_a_bias_in_masked_pairs_may_be_junk():
    query, key, value = triple()
    mask = jnp.array([[True] * 4 + [False] * 2] * B)
    bias = normal(7, B, 1, 1, S)
    for junk in (np.nan, np.inf, 1e3):
        spoilt = np.where(mask[:, None, None], bias, np.float32(junk))

        def total(query, bias):
            out = dot_product_attention(query, key, value, bias=bias, key_mask=mask)[0]
            return jnp.sum(out**2)

        for actual, expected in zip(
            jax.grad(total, (0, 1))(query, spoilt),
            jax.grad(total, (0, 1))(query, bias),
            strict=True,
        ):
            np.testing.assert_array_equal(actual, expected)


def test_dropout_acts_on_the_output_only():
    query, key, value = triple()
    keep: Any = np.random.default_rng(0).random((B, H, T, S)) < 0.75
    output, weights = dot_product_attention(query, key, value, keep=keep, keep_rate=0.75)
    _, full = dot_product_attention(query, key, value)
    close(weights, full)
    close(output, np.einsum("bhts,bshd->bthd", np.where(keep, full / 0.75, 0), value))
    one = dot_product_attention(
        query[:, :, 0], key[:, :, 0], value[:, :, 0], keep=keep[:, 0], keep_rate=0.75
    )
    close(one[0], output[:, :, 0])


def test_softmax_over_any_axis():
    scores = normal(0, 3, 4, 5)
    mask: Any = np.random.default_rng(1).random((3, 4, 5)) < 0.6
    mask[:, 0] = False
    mask[:, :, 0] = False
    for axis in (0, 1, -1):
        weights = masked_softmax(jnp.asarray(np.where(mask, scores, np.nan)), mask, axis)
        exponentials = np.where(mask, np.exp(scores), 0)
        total = exponentials.sum(axis, keepdims=True)
        close(weights, np.divide(exponentials, total, out=np.zeros_like(scores), where=total > 0))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits(dtype):
    query, key, value = map(jnp.asarray, triple())
    mask = jnp.array([[True] * 4 + [False] * 2, [True] * 6, [False] * 6])

    @jax.jit
    def function(query, key, value):
        with jax.numpy_dtype_promotion("strict"):
            return dot_product_attention(query, key, value, key_mask=mask)

    def loss(*inputs):
        return jnp.sum(function(*inputs)[0].astype(jnp.float32) ** 2)

    low = [a.astype(dtype) for a in (query, key, value)]
    output, weights = function(*low)
    assert output.dtype == dtype
    assert weights.dtype == jnp.float32
    wide = [a.astype(jnp.float32) for a in low]
    for actual, expected in zip(
        (output, *jax.grad(loss, (0, 1, 2))(*low)),
        (function(*wide)[0], *jax.grad(loss, (0, 1, 2))(*wide)),
        strict=True,
    ):
        assert actual.dtype == dtype
        error = jnp.abs(actual.astype(jnp.float32) - expected)
        assert jnp.max(error) <= 2e-2 * jnp.max(jnp.abs(expected))


def test_scores_beyond_16_bits():
    x = jnp.full((1, 2, 1, 4), 200.0, jnp.float16)  # q · k is 160,000: inf in float16
    output, weights = dot_product_attention(x, x, x, scale=1.0)
    assert weights.ravel().tolist() == [0.5] * 4
    assert (output == 200).all()


def test_no_nan_is_made_on_the_way():
    x = jnp.ones((2, 3, 4))
    mask = jnp.array([[True, False, True], [False] * 3])
    with jax.debug_nans(True):
        jax.grad(lambda x: dot_product_attention(x, x, x, key_mask=mask)[0].sum())(x)


def test_one_head_takes_no_mask_of_heads():
    x = jnp.ones((1, 2, 3))
    with pytest.raises(ValueError, match=r"attention_mask of shape \(1, 1, 2, 2\)"):
        dot_product_attention(x, x, x, attention_mask=jnp.ones((1, 1, 2, 2), bool))
