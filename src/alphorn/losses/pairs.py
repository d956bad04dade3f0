"""Targets and predictions side by side: what losses and metrics share. Padding never counts."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax.numpy as jnp
from jax import Array

from alphorn.core.function_call import call_on_symbols
from alphorn.core.masked import (
    Masked,
    expand_to,
    fill_masked,
    is_masked,
    mask_of,
    unmask,
    with_mask,
)
from alphorn.core.symbol import is_symbol
from alphorn.core.variable import unwrap
from alphorn.errors import ShapeError


def cut_mask(mask: Array, rank: int) -> Array:
    """Returns a mask of at most `rank` axes: a longer one is valid where any inner step is."""
    return mask if mask.ndim <= rank else mask.any(tuple(range(rank, mask.ndim)))


def joined_mask(*values: Any) -> Array | None:
    """Returns where all of `values` are valid, or None where none is Masked."""
    masks = [v.mask for v in values if is_masked(v)]
    rank = min((m.ndim for m in masks), default=0)
    return functools.reduce(jnp.logical_and, [cut_mask(m, rank) for m in masks]) if masks else None


def same_rank(y_true: Any, y_pred: Any, comparing: bool = False) -> tuple[Any, Any]:
    """Gives both a last axis of size 1, or neither, where only one of them has it.

    Args:
        y_true: Targets.
        y_pred: Predictions.
        comparing: Whether entries of the last axis are compared: an axis of size 1 is none then.
    """
    gap = y_pred.ndim - y_true.ndim
    if abs(gap) != 1 or max(y_true, y_pred, key=jnp.ndim).shape[-1] != 1:
        return y_true, y_pred
    if comparing and min(y_true.ndim, y_pred.ndim) > 1:
        return (y_true, y_pred[..., 0]) if gap > 0 else (y_true[..., 0], y_pred)
    return (y_true[..., None], y_pred) if gap > 0 else (y_true, y_pred[..., None])


def plain_pair(
    y_true: Any, y_pred: Any, mask: Any = None, comparing: bool = False
) -> tuple[Array, Array, Array | None]:
    """Returns targets and predictions of like rank with harmless padding, and where both are valid.

    Args:
        y_true: Targets.
        y_pred: Predictions; those that are no floats become such.
        mask: Where other reasons hold that entries do not count; they are made harmless too.
        comparing: As in `same_rank`.
    """
    y_true, y_pred = (x if is_masked(x) else jnp.asarray(unwrap(x)) for x in (y_true, y_pred))
    valid = joined_mask(y_true, y_pred)
    true, pred = unmask(y_true), unmask(y_pred)
    if not jnp.issubdtype(pred.dtype, jnp.floating):
        pred = pred.astype(jnp.float32)
    for reason in (valid, mask):
        if reason is not None:
            true, pred = _harmless(true, reason, 0), _harmless(pred, reason, 0.5)
    return *same_rank(true, pred, comparing), valid


def _harmless(x: Array, mask: Array, fill: float) -> Array:
    mask = cut_mask(mask, x.ndim)
    # Where shapes do not fit, the function says so in terms of its own.
    return fill_masked(x, mask, fill) if mask.shape == x.shape[: mask.ndim] else x


def counted(sample_weight: Any, y_pred: Any, steps: bool = True) -> Array | None:
    """Returns where a weight is not 0: what weighs nothing may hold anything.

    Args:
        sample_weight: Of rows or steps.
        y_pred: Predictions.
        steps: Whether the axes after the first are steps, up to the last, and not classes.
    """
    if sample_weight is None:
        return None
    weight = jnp.asarray(unmask(unwrap(sample_weight)))
    if weight.ndim > 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    shape = jnp.shape(unmask(unwrap(y_pred)))
    fits = 0 < weight.ndim <= (len(shape) if steps else 1)
    return weight != 0 if fits and weight.shape == shape[: weight.ndim] else None


def unit_axis_dropped(sample_weight: Any, rank: int) -> Any:
    """Returns plain weights, of `rank` axes if they have one more, of size 1."""
    weight = jnp.asarray(unmask(unwrap(sample_weight)))
    return weight[..., 0] if weight.ndim == rank + 1 and weight.shape[-1] == 1 else weight


def weights_for(values: Array, mask: Array | None, sample_weight: Any) -> Array | None:
    """Returns the weight of each value: sample weight times mask; None where all weigh 1."""
    weight = None
    if sample_weight is not None:
        weight = unit_axis_dropped(sample_weight, values.ndim).astype(values.dtype)
        expected = values.shape[: weight.ndim]
        if weight.ndim > values.ndim or any(
            w not in (1, v) for w, v in zip(weight.shape, expected, strict=True)
        ):
            raise ShapeError(
                "sample_weight",
                received=f"shape {tuple(weight.shape)}",
                expected=f"a prefix of the values' shape {tuple(values.shape)}",
                fix="one weight a row, (B,), or one a step, (B, T)",
            )
        weight = jnp.broadcast_to(expand_to(weight, values.ndim), values.shape)
    if mask is not None:
        valid = expand_to(cut_mask(mask, values.ndim), values.ndim)
        valid = jnp.broadcast_to(valid, values.shape)
        # Weights of padding may be anything: they do not count.
        ones = jnp.ones(values.shape, values.dtype) if weight is None else weight
        weight = jnp.where(valid, ones, jnp.zeros_like(ones))
    return weight


def weighted_sums(values: Array, weight: Array | None) -> tuple[Array, Array]:
    """Returns the sum of values times weights, and that of the weights."""
    if weight is None:
        return jnp.sum(values), jnp.asarray(values.size, values.dtype)
    return jnp.sum(jnp.where(weight == 0, 0, values * weight)), jnp.sum(weight)


@dataclass(frozen=True)
class PairRule:
    """How a function of plain targets and predictions treats the entries of its axis.

    Args:
        compute: `(y_true, y_pred, **options)`; where entries of the axis are compared with each
            other, `valid` too: which of them exist, or None for all.
        reduces: "entries" where `compute` gives a value for each entry, whose mean is taken;
            "compared" where it reduces the axis itself; "nothing" where each entry stays;
            "whole" where it receives the Masked themselves, and the sample weights as `weight`.
    """

    compute: Callable
    reduces: str

    def values(
        self, true: Array, pred: Array, mask: Array | None, options: dict[str, Any]
    ) -> tuple[Array, Array | None]:
        """Returns the values and which are valid.

        Where the mask reaches the axis that is reduced (one number a step, `(B, T)`), each entry
        is a value of its own, and counts as much as that of any other row.
        """
        axis = options.get("axis", -1) % max(pred.ndim, 1)
        over_time = mask is not None and mask.ndim > axis
        if self.reduces == "compared":
            valid = expand_to(mask, pred.ndim) if mask is not None and over_time else None
            out = self.compute(true, pred, valid=valid, **options)
            mask = mask.any(axis) if mask is not None and over_time else mask
        else:
            options = {k: v for k, v in options.items() if k != "axis"}
            out = self.compute(true, pred, **options)
            if self.reduces == "entries" and not over_time and out.ndim:
                out = jnp.mean(out, axis)
        kept = mask_of(out)  # a loss may leave steps out by itself
        if kept is not None:
            mask = kept if mask is None else expand_to(mask, kept.ndim) & kept
        return unmask(out), mask


def pair_function(reduces: str) -> Callable[[Callable], Callable]:
    """Makes a public function of targets and predictions, plain or Masked, from a rule's `compute`.

    Args:
        reduces: As in `PairRule`.
    """

    def decorate(compute: Callable) -> Callable:
        rule = PairRule(compute, reduces)
        signature = inspect.signature(compute)
        visible = [p for p in signature.parameters.values() if p.name not in ("valid", "weight")]
        signature = signature.replace(parameters=visible)

        @functools.wraps(compute)
        def function(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            y_true, y_pred, *_ = bound.args
            if is_symbol(y_true) or is_symbol(y_pred):
                return call_on_symbols(function, args, kwargs)
            options = dict(list(bound.arguments.items())[2:])
            if reduces == "whole":
                return compute(y_true, y_pred, **options)
            true, pred, mask = plain_pair(y_true, y_pred, comparing=reduces == "compared")
            values, valid = rule.values(true, pred, mask, options)
            if mask is None or valid is None:
                return values
            axis = options.get("axis", -1) % pred.ndim
            if reduces == "entries" and values.ndim == pred.ndim:  # the mask reaches the axis
                total = jnp.sum(fill_masked(values, valid), axis)
                count = jnp.sum(jnp.broadcast_to(expand_to(valid, values.ndim), values.shape), axis)
                values, valid = total / jnp.maximum(count, 1), valid.any(axis)
            return with_mask(values, valid)

        named = cast(Any, function)
        named.rule, named.__signature__ = rule, signature
        return function

    return decorate


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else with_mask(jnp.asarray(unmask(unwrap(x)), dtype), mask_of(x))


def values_of(
    function: Callable,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    options: dict[str, Any] | None = None,
    dtype: Any = None,
) -> tuple[Array, Array | None]:
    """Returns what a loss or metric function says of each sample or step, and which are valid.

    Args:
        function: Ours, or a user's `(y_true, y_pred) -> values`, which sees the `Masked` itself.
        y_true: Targets.
        y_pred: Predictions.
        sample_weight: What weighs 0 may hold anything, NaN too.
        options: Passed to the function.
        dtype: In which it is computed; None for that of the predictions.
    """
    options = options or {}
    rule: PairRule | None = getattr(function, "rule", None)
    weighty = None
    if rule is not None and rule.reduces == "whole":
        out = rule.compute(y_true, _cast(y_pred, dtype), weight=sample_weight, **options)
        return unmask(out), mask_of(out)
    if rule is not None:
        weighty = counted(sample_weight, y_pred, steps=options.get("axis", -1) == -1)
    comparing = rule is not None and rule.reduces == "compared"
    true, pred, mask = plain_pair(y_true, y_pred, weighty, comparing)
    pred = pred if dtype is None else pred.astype(dtype)
    if rule is not None:
        if rule.reduces == "entries" and pred.ndim == 1 and options.get("axis", -1) == -1:
            true, pred = true[..., None], pred[..., None]  # each row is a value
        return rule.values(true, pred, mask, options)
    true = true if dtype is None else true.astype(dtype)
    if mask is None:
        return jnp.asarray(unwrap(function(true, pred, **options))), None
    out = function(with_mask(true, cut_mask(mask, true.ndim)), with_mask(pred, mask), **options)
    if isinstance(out, Masked):
        return out.data, out.mask
    values = jnp.asarray(unwrap(out))
    # Plain values: time was reduced, or unmasked on purpose and is still there.
    fitting = (cut_mask(mask, r) for r in range(min(mask.ndim, values.ndim), 0, -1))
    return values, next((m for m in fitting if m.shape == values.shape[: m.ndim]), None)
