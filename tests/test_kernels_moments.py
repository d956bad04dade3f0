"""Counts, means, variances, extremes of valid entries, and lookups."""

from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphorn.core.masked import fill_masked
from alphorn.kernels.embedding import lookup
from alphorn.kernels.moments import moments, standardized, valid_count
from alphorn.kernels.pooling import masked_max, masked_mean, masked_min

B, T, F = 3, 5, 2
JUNK = (0.0, 1e3, np.nan, np.inf, -np.inf)
AXES = [1, (0, 1), None, -1, (1, 2), 0]


def close(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.max(np.abs(expected), initial=1e-6)
    assert np.max(np.abs(actual - expected), initial=0) <= 1e-5 * scale


def normal(seed, *shape) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def bool_masks(*shape):
    count = int(np.prod(shape))
    return st.lists(st.booleans(), min_size=count, max_size=count).map(
        lambda drawn: np.array(drawn).reshape(shape)
    )


def over_valid(function, x, mask, axes, keepdims=False):
    """Applies a NumPy function to the valid entries of each slice, 0 where there are none."""
    axes = tuple(range(x.ndim)) if axes is None else tuple(np.atleast_1d(axes) % x.ndim)
    mask = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    out = np.zeros([x.shape[axis] for axis in kept])
    for place in np.ndindex(*out.shape):
        at = tuple(place[kept.index(a)] if a in kept else slice(None) for a in range(x.ndim))
        entries = x[at][mask[at]].astype(np.float64)
        out[place] = function(entries) if entries.size else 0
    out = np.expand_dims(out, axes) if keepdims else out
    return out.astype(np.float32)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_unmasked(axes, keepdims):
    x = normal(0, B, T, F)
    mean, variance = moments(x, axes, keepdims=keepdims)
    expected: Any = keras.ops.moments(
        x, axes=(0, 1, 2) if axes is None else np.atleast_1d(axes).tolist(), keepdims=keepdims
    )
    close(mean, expected[0])
    close(variance, expected[1])
    close(masked_mean(x, axes, keepdims=keepdims), expected[0])
    close(masked_max(x, axes, keepdims=keepdims), np.max(x, axes, keepdims=keepdims))
    close(masked_min(x, axes, keepdims=keepdims), np.min(x, axes, keepdims=keepdims))
    number = x.size if axes is None else np.prod([x.shape[axis] for axis in np.atleast_1d(axes)])
    assert (valid_count(x, axes) == number).all()


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=8, deadline=None)
@given(data=st.data(), junk=st.sampled_from(JUNK), keepdims=st.booleans())
def test_valid_entries_only(axes, rank, data, junk, keepdims):
    mask = data.draw(bool_masks(*(B, T, F)[:rank]))
    spread = mask.reshape(mask.shape + (1,) * (3 - rank))
    clean = normal(0, B, T, F)
    x: Any = np.where(spread, clean, np.float32(junk))
    mean, variance = moments(x, axes, mask, keepdims=keepdims)
    for actual, function in (
        (mean, np.mean),
        (masked_mean(x, axes, mask, keepdims=keepdims), np.mean),
        (masked_max(x, axes, mask, keepdims=keepdims), np.max),
        (masked_min(x, axes, mask, keepdims=keepdims), np.min),
        (variance, np.var),
    ):
        close(actual, over_valid(function, clean, mask, axes, keepdims))
    count = np.broadcast_to(valid_count(x, axes, mask, keepdims=keepdims), mean.shape)
    np.testing.assert_array_equal(count, over_valid(np.size, clean, mask, axes, keepdims))


@jax.jit
def reductions(x, mask=None):
    with jax.numpy_dtype_promotion("strict"):
        mean, variance = moments(x, 1, mask)
        return (
            mean,
            variance,
            masked_mean(x, 1, mask),
            masked_max(x, 1, mask),
            masked_min(x, 1, mask),
        )


@settings(max_examples=8, deadline=None)
@given(mask=bool_masks(B, T), junk=st.sampled_from(JUNK), seed=st.integers(0, 99))
def test_gradients_of_rows_alone(mask, junk, seed):
    clean = normal(seed, B, T, F)
    x = np.where(mask[..., None], clean, np.float32(junk))
    cotangents = tuple(jnp.asarray(normal(seed + i, B, F)) for i in range(5))
    (gradient,) = jax.vjp(lambda x: reductions(x, mask), x)[1](cotangents)
    for row in range(B):
        if mask[row].any():
            _, pull = jax.vjp(reductions, clean[row : row + 1, mask[row]])
            (expected,) = pull(tuple(c[row : row + 1] for c in cotangents))
            close(gradient[row : row + 1, mask[row]], expected)
    assert not np.asarray(gradient)[~mask].any()


@settings(max_examples=8, deadline=None)
@given(counts=st.lists(st.integers(0, 3), min_size=B * T, max_size=B * T))
def test_weights_are_repeats(counts):
    x = normal(0, B, T, F)
    weights: Any = np.array(counts, np.float32).reshape(B, T)
    x[weights == 0] = np.nan
    repeated = np.repeat(x.reshape(-1, F), counts, axis=0)
    mean, variance = moments(x, (0, 1), weights=weights)
    if len(repeated):
        close(mean, repeated.mean(0))
        close(variance, repeated.var(0))
    else:
        assert mean.tolist() == variance.tolist() == [0, 0]
    whole = moments(x, weights=weights)
    if len(repeated):
        close(whole[0], repeated.mean())
        close(whole[1], repeated.var())


def test_weights_under_a_mask():
    x = jnp.array([[1.0, 3.0, np.nan], [5.0, np.inf, 7.0]])
    mask = jnp.array([[True, True, False], [True, False, True]])
    weights = jnp.array([[1.0, 1.0, np.nan], [0.0, 1.0, 2.0]])
    mean, variance = moments(x, mask=mask, weights=weights)
    assert float(mean) == 4.5
    assert float(variance) == pytest.approx((3.5**2 + 1.5**2 + 2 * 2.5**2) / 4)
    gradient = jax.grad(lambda x: sum(moments(x, mask=mask, weights=weights)))(x)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~np.asarray(mask)].any()


def test_a_large_mean_does_not_cancel():
    x = 1e4 + normal(0, 2000)
    mask = jnp.arange(2000) < 1500
    _, variance = moments(x, mask=mask)
    assert float(variance) == pytest.approx(x[:1500].astype(np.float64).var(), rel=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits_add_up_in_32(dtype):
    x = jnp.full((4096, 1), 100, dtype)  # in 16 bits sums stop at 256 · 100, or overflow
    x = x.at[::2].set(102)
    mask = jnp.arange(4096) < 4000
    with jax.numpy_dtype_promotion("strict"):
        mean, variance = moments(x, 0, mask)
        assert masked_mean(x, 0, mask).dtype == dtype
        assert masked_max(x, 0, mask).dtype == dtype
        assert masked_mean(x, 0, mask).tolist() == [101]
        assert jax.grad(lambda x: masked_mean(x, None, mask))(x).dtype == dtype
    assert mean.dtype == variance.dtype == jnp.float32
    assert mean.tolist() == [101]
    assert variance.tolist() == [1]


def test_integers_and_nothing_at_all():
    x = jnp.array([[-5, 7], [3, 4]])
    mask = jnp.array([[True, False], [False, False]])
    assert masked_max(x, 1, mask).tolist() == [-5, 0]
    assert masked_min(x, 1, mask).tolist() == [-5, 0]
    assert masked_mean(x, 1, mask).tolist() == [-5.0, 0.0]
    empty = jnp.zeros((2, 0, 3))
    for reduced in reductions(empty):
        assert reduced.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_axes_out_of_range():
    with pytest.raises(ValueError, match="axes=3"):
        moments(jnp.ones((2, 2, 2)), 3)


def test_no_nan_is_made_on_the_way():
    mask = jnp.array([[True, False], [False, False]])
    with jax.debug_nans(True):
        jax.grad(lambda x: sum(y.sum() for y in reductions(x, mask)))(jnp.ones((2, 2, 2)))
        lookup(jnp.ones((2, 2)), jnp.array([[1, 9], [-1, 5]]), mask=mask)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 2)])
def test_lookup_is_keras(shape):
    table = normal(0, 7, F)
    ids = np.random.default_rng(0).integers(0, 7, shape)
    layer: Any = keras.layers.Embedding(7, F)
    layer.build()
    layer.set_weights([table])
    np.testing.assert_array_equal(lookup(jnp.asarray(table), ids), layer(ids))


def test_lookup_gradient_skips_masked_ids():
    table = jnp.asarray(normal(0, 4, F))
    ids: Any = np.array([[1, 1, 3], [0, 999, -5]])
    mask: Any = np.array([[True, True, True], [True, False, False]])
    cotangent = normal(1, 2, 3, F)
    rows, pull = jax.vjp(lambda table: lookup(table, ids, mask=mask), table)
    expected = np.zeros((4, F), np.float32)
    np.add.at(expected, ids[mask], cotangent[mask])
    close(pull(cotangent)[0], expected)
    assert not np.asarray(rows)[~mask].any()


def test_lookup_of_ids_outside_is_seen():
    table = jnp.asarray(normal(0, 4, F))
    for function in (lookup, jax.jit(lookup)):
        rows = function(table, jnp.array([-1, 4, 2]))
        assert jnp.isnan(rows).any(axis=1).tolist() == [True, True, False]


def test_lookup_adds_gradients_in_the_dtype_of_the_table():
    table = jnp.ones((2, 1))
    ids = jnp.zeros(4096, jnp.int32)
    rows, pull = jax.vjp(lambda table: lookup(table, ids, dtype=jnp.bfloat16), table)
    assert rows.dtype == jnp.bfloat16
    (gradient,) = pull(jnp.ones_like(rows))
    assert gradient.tolist() == [[4096], [0]]


def _by_moments(x, mask, axes):
    x = fill_masked(x, mask)
    mean, variance = moments(x, axes, mask, keepdims=True)
    return fill_masked((x - mean) * jax.lax.rsqrt(variance + 1e-3), mask)


@pytest.mark.parametrize("axes", [(2,), (1, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_standardized_is_what_moments_give_with_its_gradients(axes, masked):
    x, seed = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    mask = jnp.arange(12).reshape(3, 4) % 5 > jnp.array([[0], [2], [4]]) if masked else None
    x = x if mask is None else jnp.where(mask[..., None], x, jnp.nan)

    def slope(f):
        return jax.grad(lambda x: jnp.sum(jnp.sin(f(x, mask, axes)) * seed))

    def own(x, mask, axes):
        return standardized(x, mask, axes, 1e-3)

    close(own(x, mask, axes), _by_moments(x, mask, axes))
    for derived in (
        lambda f: slope(f)(x),
        lambda f: jax.jvp(lambda x: f(x, mask, axes), (x,), (seed,))[1],
        lambda f: jax.jvp(slope(f), (x,), (seed,))[1],
        lambda f: jax.grad(lambda x: jnp.sum(slope(f)(x) * seed))(x),
    ):
        close(derived(own), derived(_by_moments))


def test_the_gradient_of_standardized_keeps_one_array_of_its_size():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    _, pull = jax.vjp(lambda x: standardized(x, None, (2,), 1e-3), x)
    assert sum(kept.size == x.size for kept in jax.tree.leaves(pull)) == 1
