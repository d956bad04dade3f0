"""Accuracies as functions: 1 for each sample or step that is right. Masks pass through."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.losses.pairs import pair_function
from alphorn.naming import register

__all__: list[str] = []


def _public(reduces: str) -> Callable[[Callable], Callable]:
    def decorate(compute: Callable) -> Callable:
        __all__.append(compute.__name__)
        return register("functions", pair_function(reduces)(compute))

    return decorate


def _matches(y_true: Array, y_pred: Array) -> Array:
    return (y_true == y_pred).astype(jnp.float32)


def _existing(y_pred: Array, valid: Array | None) -> Array:
    return y_pred if valid is None else jnp.where(valid, y_pred, -jnp.inf)


@pair_function("nothing")
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Returns 1 where a prediction equals its target."""
    return _matches(y_true.astype(y_pred.dtype), y_pred)


@_public("nothing")
def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Any:
    """Returns 1 where a probability is on the right side of the threshold."""
    return _matches(y_true, (y_pred > threshold).astype(y_true.dtype))


@_public("compared")
def categorical_accuracy(y_true: Any, y_pred: Any, valid: Any = None) -> Any:
    """Returns 1 where the likeliest class is that of the one-hot target."""
    return _matches(jnp.argmax(y_true, -1), jnp.argmax(_existing(y_pred, valid), -1))


def _labels(y_true: Array, y_pred: Array) -> Array:
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    return y_true.astype(jnp.int32)


@_public("compared")
def sparse_categorical_accuracy(y_true: Any, y_pred: Any, valid: Any = None) -> Any:
    """Returns 1 where the likeliest class is the target."""
    return _matches(_labels(y_true, y_pred), jnp.argmax(_existing(y_pred, valid), -1))


def _among_best(labels: Array, y_pred: Array, k: int, valid: Array | None) -> Array:
    y_pred = _existing(y_pred, valid)
    own = jnp.take_along_axis(y_pred, labels[..., None], -1)
    own = jnp.where(jnp.isnan(own), -jnp.inf, own)  # what is no number is not likely
    return (jnp.sum(y_pred > own, -1) < k).astype(jnp.float32)


@_public("compared")
def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, valid: Any = None) -> Any:
    """Returns 1 where the one-hot target's class is among the `k` likeliest."""
    return _among_best(jnp.argmax(y_true, -1), y_pred, k, valid)


@_public("compared")
def sparse_top_k_categorical_accuracy(
    y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False, valid: Any = None
) -> Any:
    """Returns 1 where the target is among the `k` likeliest classes.

    With `from_sorted_ids` predictions are class numbers, the likeliest first.
    """
    labels = _labels(y_true, y_pred)
    if not from_sorted_ids:
        return _among_best(labels, y_pred, k, valid)
    found = y_pred[..., :k].astype(jnp.int32) == labels[..., None]
    if valid is not None:
        found &= valid[..., :k]
    return jnp.any(found, -1).astype(jnp.float32)
