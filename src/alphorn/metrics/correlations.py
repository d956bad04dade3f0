"""Correlations as functions: how targets and predictions vary together along an axis."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.losses.pairs import pair_function
from alphorn.naming import register

__all__ = ["concordance_correlation", "pearson_correlation"]

_TINY = 1e-7


def _moments(t: Array, p: Array, axis: int, valid: Array | None) -> tuple[Array, ...]:
    """Returns both means, both variances and the covariance of the entries that exist."""
    if valid is None:
        count = jnp.asarray(p.shape[axis], p.dtype)
    else:
        valid = jnp.broadcast_to(valid, p.shape)
        count = jnp.maximum(jnp.sum(valid, axis), 1).astype(p.dtype)

    def mean(x: Array) -> Array:
        return jnp.sum(x if valid is None else jnp.where(valid, x, 0), axis) / count

    centers = mean(t), mean(p)
    t, p = (x - jnp.expand_dims(m, axis) for x, m in zip((t, p), centers, strict=True))
    return *centers, mean(t * t), mean(p * p), mean(t * p)


@pair_function("compared")
def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1, valid: Any = None) -> Any:
    """Returns Pearson's correlation along `axis`; 0 where one of both does not vary.

    >>> pearson_correlation(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[2.0, 4.0, 6.0]])).round(4)
    Array([1.], dtype=float32)
    """
    *_, t, p, both = _moments(y_true.astype(y_pred.dtype), y_pred, axis, valid)
    varies = (t > 0) & (p > 0)
    scale = jnp.sqrt(jnp.where(varies, t, 1)) * jnp.sqrt(jnp.where(varies, p, 1))
    return jnp.where(varies, both / scale, 0)


@pair_function("compared")
def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1, valid: Any = None) -> Any:
    """Returns Lin's concordance correlation along `axis`: 1 for equal ones, less for shifted ones.

    >>> concordance_correlation(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[1.0, 2.0, 3.0]])).round(4)
    Array([1.], dtype=float32)
    """
    a, b, t, p, both = _moments(y_true.astype(y_pred.dtype), y_pred, axis, valid)
    return 2 * both / (t + p + jnp.square(a - b) + _TINY)


for _function in (pearson_correlation, concordance_correlation):
    register("functions", _function)
