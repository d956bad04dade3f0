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
_LOG_TINY = float(np.log(_TINY))


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


@_public("entries")
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,  # of which the mean is taken outside
) -> Any:
    """Returns the mean crossentropy over `axis`, in which what is nearly right hardly counts.

    Args:
        y_true: Yes-or-no targets.
        y_pred: Probabilities, or logits.
        apply_class_balancing: Whether yes weighs `alpha` and no `1 - alpha`.
        alpha: The weight of yes.
        gamma: How much less the easy ones count; 0 is binary_crossentropy.
        from_logits: Whether predictions are logits.
        label_smoothing: How far targets are drawn towards 0.5.
        axis: Whose mean is taken.
    """
    t, p = _alike("binary_focal_crossentropy", y_true, y_pred)
    if label_smoothing:
        t = t * (1.0 - label_smoothing) + 0.5 * label_smoothing
    p = jax.nn.sigmoid(p) if from_logits else p
    safe = jnp.clip(p, _TINY, 1 - _TINY)
    values = -(t * jnp.log(safe) + (1 - t) * jnp.log(1 - safe))
    values = values * jnp.power(1.0 - (t * p + (1 - t) * (1 - p)), gamma)
    return values * (t * alpha + (1 - t) * (1 - alpha)) if apply_class_balancing else values


def _log_probabilities(p: Array, from_logits: bool, axis: int, valid: Any) -> Array:
    if from_logits:
        lowest = float(jnp.finfo(p.dtype).min) / 2
        return jax.nn.log_softmax(_among_valid(p, valid, lowest), axis)
    p = _among_valid(p, valid, 0)
    total = jnp.sum(p, axis, keepdims=True)
    if valid is not None:
        total = jnp.where(valid.any(axis, keepdims=True), total, 1)
    return jnp.log(jnp.clip(p / total, _TINY, 1 - _TINY))


def _check_one_hot(name: str, y_true: Array, y_pred: Array) -> None:
    if y_true.shape != y_pred.shape:
        raise ShapeError(
            f"loss {name}",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected="equal shapes: one-hot targets",
            fix="for class numbers use sparse_categorical_crossentropy",
        )


def _smoothed(t: Array, smoothing: float, axis: int, valid: Array | None) -> Array:
    if not smoothing:
        return t
    classes = t.shape[axis]
    if valid is not None:
        classes = jnp.maximum(jnp.sum(valid, axis, keepdims=True), 1).astype(t.dtype)
    return t * (1.0 - smoothing) + smoothing / classes


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
    _check_one_hot("categorical_crossentropy", y_true, y_pred)
    t = _smoothed(y_true.astype(y_pred.dtype), label_smoothing, axis, valid)
    logs = _log_probabilities(y_pred, from_logits, axis, valid)
    return -jnp.sum(_among_valid(t * logs, valid, 0), axis)


@_public("compared")
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    valid: Any = None,
) -> Any:
    """Returns the crossentropy with a distribution, in which likely classes hardly count.

    Args:
        y_true: Distributions over the classes, one-hot for example.
        y_pred: Probabilities, or logits.
        alpha: A factor of all.
        gamma: How much less likely classes count.
        from_logits: Whether predictions are logits.
        label_smoothing: How far targets are drawn towards equal shares.
        axis: That of the classes.
        valid: Which of the classes exist.
    """
    _check_one_hot("categorical_focal_crossentropy", y_true, y_pred)
    t = _smoothed(y_true.astype(y_pred.dtype), label_smoothing, axis, valid)
    if from_logits:
        logs = jnp.clip(_log_probabilities(y_pred, True, axis, valid), _LOG_TINY, -_TINY)
    else:
        logs = _log_probabilities(y_pred, False, axis, valid)
    focus = alpha * jnp.power(1.0 - jnp.exp(logs), gamma)
    return -jnp.sum(_among_valid(focus * t * logs, valid, 0), axis)


def _class_numbers(name: str, y_true: Array, y_pred: Array, axis: int = -1) -> Array:
    """Returns targets as one class number for each prediction, or raises ShapeError."""
    if y_true.ndim == y_pred.ndim and y_true.shape[axis] == 1:
        y_true = jnp.squeeze(y_true, axis)
    expected = tuple(s for a, s in enumerate(y_pred.shape) if a != axis % y_pred.ndim)
    if y_true.shape != expected:
        raise ShapeError(
            f"loss {name}",
            received=f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}",
            expected=f"y_true {expected}: one class number for each prediction",
            fix="for one-hot targets use categorical_crossentropy",
        )
    return y_true.astype(jnp.int32)


@_public("compared")
def categorical_generalized_cross_entropy(
    y_true: Any, y_pred: Any, q: float, valid: Any = None
) -> Any:
    """Returns `(1 - p ** q) / q` of the probability `p` of the class numbers in `y_true`.

    Between crossentropy (`q` near 0) and the mean absolute error (`q` near 1): wrong labels, which
    get a small probability, count less than in crossentropy.
    """
    labels = _class_numbers("categorical_generalized_cross_entropy", y_true, y_pred)
    known = jax.nn.one_hot(labels, y_pred.shape[-1], dtype=jnp.bool_)
    p = jnp.sum(jnp.where(known, _among_valid(y_pred, valid, 0), 0), -1)
    return (1 - jnp.power(p, q)) / q


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
    labels = _class_numbers("sparse_categorical_crossentropy", y_true, y_pred, axis)
    kept = None if ignore_class is None else labels != ignore_class
    safe = labels if kept is None else jnp.where(kept, labels, 0)
    logs = _log_probabilities(y_pred, from_logits, axis, valid)
    values = -jnp.squeeze(jnp.take_along_axis(logs, jnp.expand_dims(safe, axis), axis), axis)
    return values if kept is None else Masked.trusted(jnp.where(kept, values, 0), kept)
