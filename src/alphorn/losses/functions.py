"""Losses as functions: a value for each sample or step. Masks pass through."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.core.masked import Masked
from alphorn.errors import ShapeError
from alphorn.losses.pairs import pair_function
from alphorn.naming import register

__all__: list[str] = []

_TINY = 1e-7


def _public(reduces: str, *short: str) -> Callable[[Callable], Callable]:
    def decorate(compute: Callable) -> Callable:
        __all__.append(compute.__name__)
        function = pair_function(reduces)(compute)
        return register("losses", function, compute.__name__, *short)

    return decorate


def _alike(name: str, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    """Returns targets in the predictions' type, if the shapes fit together."""
    try:
        np.broadcast_shapes(y_true.shape, y_pred.shape)
    except ValueError:
        raise ShapeError(
            f"loss {name}: targets and predictions do not fit together",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected="equal shapes",
            fix="for class numbers as targets use sparse_categorical_crossentropy",
        ) from None
    return y_true.astype(y_pred.dtype), y_pred


def _among_valid(x: Array, valid: Array | None, fill: float) -> Array:
    return x if valid is None else jnp.where(valid, x, jnp.asarray(fill, x.dtype))


@_public("entries", "mse", "MSE")
def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """Returns `mean((y_true - y_pred)²)` over the last axis."""
    t, p = _alike("mean_squared_error", y_true, y_pred)
    return jnp.square(t - p)


@_public("entries", "mae", "MAE")
def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """Returns `mean(|y_true - y_pred|)` over the last axis."""
    t, p = _alike("mean_absolute_error", y_true, y_pred)
    return jnp.abs(t - p)


@_public("entries", "mape", "MAPE")
def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """Returns `100 * mean(|y_true - y_pred| / |y_true|)` over the last axis."""
    t, p = _alike("mean_absolute_percentage_error", y_true, y_pred)
    return 100.0 * jnp.abs((t - p) / jnp.maximum(jnp.abs(t), _TINY))


@_public("entries", "msle", "MSLE")
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """Returns `mean((log(y_true + 1) - log(y_pred + 1))²)` over the last axis."""
    t, p = _alike("mean_squared_logarithmic_error", y_true, y_pred)
    t, p = (jnp.log(jnp.maximum(v, _TINY) + 1) for v in (t, p))
    return jnp.square(p - t)


@_public("entries")
def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Returns squares near 0 and straight lines beyond `delta`, the mean over the last axis."""
    t, p = _alike("huber", y_true, y_pred)
    gap, edge = jnp.abs(t - p), jnp.asarray(delta, p.dtype)
    return jnp.where(gap <= edge, 0.5 * jnp.square(gap), edge * gap - 0.5 * jnp.square(edge))


@_public("entries", "logcosh")
def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """Returns `mean(log(cosh(y_pred - y_true)))` over the last axis."""
    t, p = _alike("log_cosh", y_true, y_pred)
    gap = p - t
    return gap + jax.nn.softplus(-2.0 * gap) - jnp.log(jnp.asarray(2.0, p.dtype))


def _signs(y_true: Array) -> Array:
    """Labels of 0 and 1 as -1 and 1; others as they are."""
    binary = jnp.all((y_true == 0) | (y_true == 1))
    return jnp.where(binary, 2.0 * y_true - 1.0, y_true)


@_public("entries")
def hinge(y_true: Any, y_pred: Any) -> Any:
    """Returns `mean(max(1 - y_true * y_pred, 0))` over the last axis."""
    t, p = _alike("hinge", y_true, y_pred)
    return jnp.maximum(1.0 - _signs(t) * p, 0.0)


@_public("entries")
def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """Returns `mean(max(1 - y_true * y_pred, 0)²)` over the last axis."""
    t, p = _alike("squared_hinge", y_true, y_pred)
    return jnp.square(jnp.maximum(1.0 - _signs(t) * p, 0.0))


@_public("compared")
def categorical_hinge(y_true: Any, y_pred: Any, valid: Any = None) -> Any:
    """Returns `max(largest wrong - right + 1, 0)`."""
    t, p = _alike("categorical_hinge", y_true, y_pred)
    wrong = _among_valid((1.0 - t) * p, valid, -jnp.inf)
    right = _among_valid(t * p, valid, 0)
    return jnp.maximum(jnp.max(wrong, -1) - jnp.sum(right, -1) + 1.0, 0.0)


@_public("compared", "kld", "KLD", "kullback_leibler_divergence")
def kl_divergence(y_true: Any, y_pred: Any, valid: Any = None) -> Any:
    """Returns `sum(y_true * log(y_true / y_pred))` over the last axis."""
    t, p = (jnp.clip(v, _TINY, 1) for v in _alike("kl_divergence", y_true, y_pred))
    return jnp.sum(_among_valid(t * jnp.log(t / p), valid, 0), -1)


@_public("entries")
def poisson(y_true: Any, y_pred: Any) -> Any:
    """Returns `mean(y_pred - y_true * log(y_pred))` over the last axis."""
    t, p = _alike("poisson", y_true, y_pred)
    return p - t * jnp.log(p + _TINY)


@_public("compared")
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1, valid: Any = None) -> Any:
    """Returns minus the cosine of the angle between targets and predictions: -1 for alike ones."""
    return -cosine(y_true, y_pred, axis, valid)


def cosine(y_true: Any, y_pred: Any, axis: int = -1, valid: Any = None) -> Any:
    """Returns the cosine of the angle between plain targets and predictions."""
    t, p = _alike("cosine_similarity", y_true, y_pred)

    def unit(v: Array) -> Array:
        squares = jnp.sum(jnp.square(v), axis, keepdims=True)
        return v * jax.lax.rsqrt(jnp.maximum(squares, 1e-12))

    return jnp.sum(unit(_among_valid(t, valid, 0)) * unit(_among_valid(p, valid, 0)), axis)


@_public("entries", "bce", "BCE")
def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,  # of which the mean is taken outside
) -> Any:
    """Returns the mean crossentropy with probabilities (or logits) over `axis`."""
    t, p = _alike("binary_crossentropy", y_true, y_pred)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return jax.nn.softplus(p) - p * t
    p = jnp.clip(p, _TINY, 1 - _TINY)
    return -(t * jnp.log(p) + (1 - t) * jnp.log(1 - p))


def _log_probabilities(p: Array, from_logits: bool, axis: int, valid: Any) -> Array:
    if from_logits:
        lowest = float(jnp.finfo(p.dtype).min) / 2
        return jax.nn.log_softmax(_among_valid(p, valid, lowest), axis)
    p = _among_valid(p, valid, 0)
    total = jnp.sum(p, axis, keepdims=True)
    if valid is not None:
        total = jnp.where(valid.any(axis, keepdims=True), total, 1)
    return jnp.log(jnp.clip(p / total, _TINY, 1 - _TINY))


@_public("compared")
def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    valid: Any = None,
) -> Any:
    """Returns the crossentropy with a distribution over the classes on `axis`."""
    if y_true.shape != y_pred.shape:
        raise ShapeError(
            "loss categorical_crossentropy",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected="equal shapes: one-hot targets",
            fix="for class numbers use sparse_categorical_crossentropy",
        )
    t = y_true.astype(y_pred.dtype)
    if label_smoothing:
        classes = y_pred.shape[axis]
        if valid is not None:
            classes = jnp.maximum(jnp.sum(valid, axis, keepdims=True), 1).astype(t.dtype)
        t = t * (1.0 - label_smoothing) + label_smoothing / classes
    logs = _log_probabilities(y_pred, from_logits, axis, valid)
    return -jnp.sum(_among_valid(t * logs, valid, 0), axis)


@_public("compared")
def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    valid: Any = None,
) -> Any:
    """Returns the crossentropy with class numbers; those of `ignore_class` do not count."""
    if y_true.ndim == y_pred.ndim and y_true.shape[axis] == 1:
        y_true = jnp.squeeze(y_true, axis)
    expected = tuple(s for a, s in enumerate(y_pred.shape) if a != axis % y_pred.ndim)
    if y_true.shape != expected:
        raise ShapeError(
            "loss sparse_categorical_crossentropy",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected=f"y_true {expected}: one class number for each prediction",
            fix="for one-hot targets use categorical_crossentropy",
        )
    labels = y_true.astype(jnp.int32)
    kept = None if ignore_class is None else labels != ignore_class
    safe = labels if kept is None else jnp.where(kept, labels, 0)
    logs = _log_probabilities(y_pred, from_logits, axis, valid)
    values = -jnp.squeeze(jnp.take_along_axis(logs, jnp.expand_dims(safe, axis), axis), axis)
    return values if kept is None else Masked.trusted(jnp.where(kept, values, 0), kept)
