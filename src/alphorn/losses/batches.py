"""Losses of many entries together: overlaps of regions, and pairs of embeddings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.core.masked import Masked, expand_to, fill_masked, mask_of, unmask, with_mask
from alphorn.core.variable import unwrap
from alphorn.errors import ShapeError
from alphorn.losses.pairs import (
    counted,
    cut_mask,
    pair_function,
    plain_pair,
    unit_axis_dropped,
    weights_for,
)
from alphorn.naming import register

__all__ = ["circle", "dice", "tversky"]

_TINY = 1e-7


def _public(compute: Callable) -> Callable:
    return register("losses", pair_function("whole")(compute), compute.__name__)


def _overlap(name: str, y_true: Any, y_pred: Any, axis: Any, weight: Any, of: Callable) -> Any:
    """Returns 1 minus an index of sums over `axis`, in which padding does not stand.

    Args:
        name: Of the loss, for errors.
        y_true: Targets.
        y_pred: Predictions of the same shape.
        axis: One or several axes, None for all.
        weight: Sample weights; those of what is summed over weigh inside the sums.
        of: `(y_true, y_pred, total)` gives the index; `total` sums what is there.
    """
    true, pred, mask = plain_pair(y_true, y_pred, counted(weight, y_pred))
    if true.shape != pred.shape:
        raise ShapeError(
            f"loss {name}: targets and predictions do not fit together",
            received=f"y_true {tuple(true.shape)}, y_pred {tuple(pred.shape)}",
            expected="equal shapes",
        )
    given = range(pred.ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = tuple(a % pred.ndim for a in given)
    rank = pred.ndim - len(axes)
    if weight is not None:
        weight = unit_axis_dropped(weight, rank)
        weight = weight if weight.ndim > rank else None
    inside = weights_for(pred, mask, weight)

    def total(x: Array) -> Array:
        return jnp.sum(x if inside is None else x * inside, axes)

    values = 1 - of(true.astype(pred.dtype), pred, total)
    return with_mask(values, None if inside is None else jnp.any(inside != 0, axes))


@_public
def dice(y_true: Any, y_pred: Any, axis: Any = None, weight: Any = None) -> Any:
    """Returns 1 minus the Dice coefficient of the entries along `axis`, by default of all.

    Args:
        y_true: Targets.
        y_pred: Predictions of the same shape.
        axis: One or several axes; None for all together.
        weight: Sample weights.

    >>> dice(jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0])).round(3)
    Array(0.333, dtype=float32)
    """

    def index(t: Array, p: Array, total: Callable) -> Array:
        return 2.0 * total(t * p) / (total(t) + total(p) + _TINY)

    return _overlap("dice", y_true, y_pred, axis, weight, index)


@_public
def tversky(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.5,
    beta: float = 0.5,
    axis: Any = None,
    weight: Any = None,
) -> Any:
    """Returns 1 minus the Tversky index of the entries along `axis`, by default of all.

    Args:
        y_true: Targets.
        y_pred: Predictions of the same shape.
        alpha: Weight of targets that are not predicted.
        beta: Weight of predictions that are no targets.
        axis: One or several axes; None for all together.
        weight: Sample weights.
    """

    def index(t: Array, p: Array, total: Callable) -> Array:
        both, missed, wrong = total(t * p), total((1 - p) * t), total(p * (1 - t))
        return both / (both + missed * alpha + wrong * beta + _TINY)

    return _overlap("tversky", y_true, y_pred, axis, weight, index)


def _points(labels: Any, embeddings: Any) -> tuple[Array, Array, Array | None, tuple[int, ...]]:
    """Returns class numbers and embeddings as rows, which exist, and the shape they came in."""
    where, masks = jnp.asarray(unmask(unwrap(embeddings))), [mask_of(labels), mask_of(embeddings)]
    numbers = jnp.asarray(unmask(unwrap(labels))).astype(jnp.int32)
    shape = where.shape[:-1]
    if numbers.shape == (*shape, 1):
        numbers = numbers[..., 0]
    if numbers.shape != shape or where.ndim < 2:
        raise ShapeError(
            "loss circle",
            received=f"labels {tuple(numbers.shape)}, embeddings {tuple(where.shape)}",
            expected="class numbers (batch,) and embeddings (batch, features)",
        )
    exists = None
    for mask in masks:
        if mask is not None:
            mask = expand_to(cut_mask(mask, len(shape)), len(shape))
            exists = mask if exists is None else exists & mask
    if exists is not None:
        exists = jnp.broadcast_to(exists, shape).reshape(-1)
    where = fill_masked(where.reshape(-1, where.shape[-1]), exists)
    return numbers.reshape(-1), where, exists, shape


def _log_sum(x: Array, chosen: Array) -> tuple[Array, Array]:
    """Returns the logarithm of a sum of exponentials of the chosen, and whether there are any."""
    some = chosen.any(1)
    others = jnp.where(some, -jnp.inf, 0)[:, None]
    return jax.nn.logsumexp(jnp.where(chosen, x, others), axis=1), some


@_public
def circle(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80,
    margin: float = 0.4,
    weight: Any = None,
) -> Any:
    """Returns how far each embedding is from those of its class and how near to the others.

    Args:
        y_true: Class numbers `(batch,)`, or of steps `(batch, time)`.
        y_pred: Embeddings of length 1, `(batch, features)` or `(batch, time, features)`.
        ref_labels: Class numbers of the partners; by default `y_true`.
        ref_embeddings: The partners; by default `y_pred`.
        remove_diagonal: Whether a row is no partner of itself.
        gamma: How steep it is.
        margin: How far classes should be apart.
        weight: Sample weights, which do not say who is a partner.

    Returns:
        Masked: values above 0 count, others have nothing to learn.
    """
    labels, points, exists, shape = _points(y_true, y_pred)
    partners, ends, known = labels, points, exists
    if ref_embeddings is not None or ref_labels is not None:
        partners, ends, known, _ = _points(
            y_true if ref_labels is None else ref_labels,
            y_pred if ref_embeddings is None else ref_embeddings,
        )
    apart = jnp.maximum(1 - points @ ends.astype(points.dtype).T, 0)
    same = labels[:, None] == partners[None]
    pair = jnp.ones_like(same)
    for mask, axis in ((exists, 1), (known, 0)):
        if mask is not None:
            pair &= jnp.expand_dims(mask, axis)
    near, far = same & pair, ~same & pair
    if remove_diagonal:
        near &= ~jnp.eye(*same.shape, dtype=bool)
    pull = gamma * (margin + apart) * (apart - margin)
    push = gamma * jnp.maximum(1 + margin - apart, 0) * (1 - margin - apart)
    (pulled, some), (pushed, others) = _log_sum(pull, near), _log_sum(push, far)
    values = jnp.where(some & others, jax.nn.softplus(pulled + pushed), 0).reshape(shape)
    return Masked.trusted(values, values > 0)
