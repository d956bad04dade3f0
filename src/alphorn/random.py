"""Random numbers for layers of your own. A row's first steps get the same draws whatever T is."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.config import floatx
from alphorn.core.masked import Masked, map_data, unmask
from alphorn.core.random import SeedGenerator, as_key, draw_steps
from alphorn.core.scope import staging
from alphorn.core.variable import unwrap
from alphorn.errors import MaskError, StateError

__all__ = [
    "SeedGenerator",
    "beta",
    "binomial",
    "categorical",
    "dropout",
    "gamma",
    "normal",
    "randint",
    "shuffle",
    "truncated_normal",
    "uniform",
]


def _key(name: str, seed: Any) -> Array:
    if seed is None and staging():
        raise StateError(
            f"random.{name} without a seed while JAX traces",
            expected="a generator: the draw would be made once and stay for ever",
            fix="self.seed_generator = keras.random.SeedGenerator() in __init__, and"
            " seed=self.seed_generator here",
        )
    return as_key(seed)


def normal(
    shape: Sequence[int],
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
) -> Array:
    """Draws from a normal distribution.

    Args:
        shape: The shape; axis 1 of three or more is taken for time.
        mean, stddev: Of the distribution.
        dtype: By default `floatx()`.
        seed: A `SeedGenerator`, or an integer for the same draw every time.

    >>> normal((2, 3), seed=1).shape
    (2, 3)
    """
    key, dtype = _key("normal", seed), dtype or floatx()
    draw = draw_steps(lambda s: jax.random.normal(key, s, dtype), shape)
    return draw * jnp.asarray(stddev, dtype) + jnp.asarray(mean, dtype)


def truncated_normal(
    shape: Sequence[int],
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
) -> Array:
    """Draws from a normal distribution, within two standard deviations. Arguments as in `normal`."""
    key, dtype = _key("truncated_normal", seed), dtype or floatx()
    draw = draw_steps(lambda s: jax.random.truncated_normal(key, -2.0, 2.0, s, dtype), shape)
    return draw * jnp.asarray(stddev, dtype) + jnp.asarray(mean, dtype)


def uniform(
    shape: Sequence[int],
    minval: float = 0.0,
    maxval: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
) -> Array:
    """Draws evenly from `[minval, maxval)`. Other arguments as in `normal`."""
    key, dtype = _key("uniform", seed), dtype or floatx()
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        return randint(shape, int(minval), int(maxval), dtype, key)
    return draw_steps(lambda s: jax.random.uniform(key, s, dtype, minval, maxval), shape)


def randint(
    shape: Sequence[int], minval: int, maxval: int, dtype: Any = "int32", seed: Any = None
) -> Array:
    """Draws integers from `[minval, maxval)`. Other arguments as in `normal`."""
    key = _key("randint", seed)
    return draw_steps(lambda s: jax.random.randint(key, s, minval, maxval, dtype), shape)


def gamma(shape: Sequence[int], alpha: Any, dtype: Any = None, seed: Any = None) -> Array:
    """Draws from gamma distributions of shape parameter `alpha`, which broadcasts."""
    dtype = dtype or floatx()
    return jax.random.gamma(_key("gamma", seed), unwrap(alpha), tuple(shape), dtype)


def beta(shape: Sequence[int], alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Array:
    """Draws from beta distributions; their parameters broadcast."""
    key, dtype = _key("beta", seed), dtype or floatx()
    return jax.random.beta(key, unwrap(alpha), unwrap(beta), tuple(shape), dtype)


def binomial(
    shape: Sequence[int], counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None
) -> Array:
    """Draws numbers of hits in `counts` trials; both parameters broadcast."""
    key, dtype = _key("binomial", seed), dtype or floatx()
    return jax.random.binomial(key, unwrap(counts), unwrap(probabilities), tuple(shape), dtype)


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Array:
    """Draws `num_samples` classes for each row of `logits` `(rows, classes)`."""
    logits = jnp.asarray(unwrap(logits))
    shape = (*logits.shape[:-1], num_samples)
    drawn = jax.random.categorical(
        _key("categorical", seed), logits[..., None, :], axis=-1, shape=shape
    )
    return drawn.astype(dtype)


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """Sets a share of the entries to 0 and scales the rest up; a mask stays.

    Args:
        inputs: An array or a masked sequence.
        rate: The share.
        noise_shape: Axes of size 1 share one draw; None stands for the input's size.
        seed: As in `normal`.
    """
    key = _key("dropout", seed)

    def dropped(x: Array) -> Array:
        given = x.shape if noise_shape is None else noise_shape
        shape = tuple(n if s is None else s for s, n in zip(given, x.shape, strict=True))
        kept = draw_steps(lambda s: jax.random.bernoulli(key, 1 - rate, s), shape)
        return jnp.where(kept, x / jnp.asarray(max(1 - rate, 1e-7), x.dtype), jnp.zeros_like(x))

    return map_data(dropped, inputs) if isinstance(inputs, Masked) else dropped(jnp.asarray(inputs))


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Any:
    """Puts the entries along an axis into a random order; steps of masked sequences stay."""
    key = _key("shuffle", seed)
    if isinstance(x, Masked):
        if axis % x.ndim and axis % x.ndim < x.mask.ndim:
            raise MaskError(
                "random.shuffle over time of a masked sequence would mix padding in",
                fix="shuffle rows (axis=0), or unmask(x)",
            )
        data = jax.random.permutation(key, x.data, axis)
        mask = x.mask if axis % x.ndim else jax.random.permutation(key, x.mask, 0)
        return Masked.trusted(data, mask)
    return jax.random.permutation(key, jnp.asarray(unmask(unwrap(x))), axis)
