"""What becomes of a mask: each built-in layer names one rule, and the layer's door obeys it.

A rule gives the mask of the output from the masks of the inputs. The `call` of a layer with a rule
sees plain arrays (and `mask`, if its signature asks).
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.errors import MaskError


class Ruled(Protocol):
    """What a rule needs of a layer; a family has the one hook that its rule calls."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call of a layer: the first argument's plain data and masks, and what came out."""

    inputs: Any
    masks: Any
    outputs: Any = None


@dataclass(frozen=True)
class Rule:
    """What becomes of a mask.

    Args:
        name: One word, for errors and `summary()`.
        output_mask: `(layer, call) -> mask` of the output, in the output's structure.
        fill: What padding holds when `call` sees the data; None for what stands there (finite).
        steps: Whether `call` wants `(B, T)`: masks of rows are then spread over the steps.
        raw: Whether `call` receives the `Masked` itself and answers for the mask.
        births: Whether a mask begins here.
    """

    name: str
    output_mask: Callable[[Any, Call], Any]
    fill: float | None = None
    steps: bool = False
    raw: bool = False
    births: bool = False


def first_mask(masks: Any) -> Array | None:
    """Returns the first mask in a structure, or None."""
    found = jax.tree.leaves(masks)
    return found[0] if found else None


def _rows_of(masks: Any) -> Array | None:
    mask = first_mask(masks)
    return mask if mask is not None and mask.ndim == 1 else None


def _preserved(layer: Any, call: Call) -> Any:
    mask = first_mask(call.masks)
    touched = getattr(layer, "touches_last_axis", False)
    if mask is not None and touched and mask.ndim == jax.tree.leaves(call.inputs)[0].ndim:
        return jnp.any(mask, -1) if mask.ndim > 1 else None
    return mask


def refuse_nested(layer: Any, mask: Array | None) -> None:
    """Raises MaskError for a mask of more than steps, where windows would cross its second axis."""
    if mask is not None and mask.ndim > 2:
        raise MaskError(
            f"{type(layer).__name__} '{layer.name}': windows over a nested mask",
            received=f"a mask of shape {tuple(mask.shape)}",
            expected="a mask of steps, (batch, time)",
            fix="TimeDistributed(...) round a layer for the inner sequences; or mask steps alone:"
            " Masked(unmask(x), ops.any(x.mask, -1))",
        )


def _refused(layer: Any, call: Call) -> Any:
    raise MaskError(
        f"{type(layer).__name__} '{layer.name}' cannot say what a mask means after it",
        received="a masked sequence",
        expected="plain data",
        fix=layer.refusal_hint,
    )


def _reduced(layer: Any, call: Call) -> Any:
    return _rows_of(call.masks)


def _resampled(layer: Any, call: Call) -> Any:
    return layer.resampled_mask(first_mask(call.masks), call.outputs)


def _joined(layer: Any, call: Call) -> Any:
    return layer.joined_mask(call)


def _chosen(layer: Any, call: Call) -> Any:
    return layer.chosen_mask(call)


def _nested(layer: Any, call: Call) -> Any:
    return None


# The hooks are methods of the layers: `resampled_mask(mask, outputs)`, `joined_mask(call)`,
# `created_mask(inputs, outputs)`, `chosen_mask(call)`. Functions with names, so that what holds a
# rule can be pickled.
preserve = Rule("preserve", _preserved)
reduce = Rule("reduce", _reduced, steps=True)
resample = Rule("resample", _resampled, steps=True)
join = Rule("join", _joined)
choose = Rule("choose", _chosen, steps=True)
refuse = Rule("refuse", _refused)
nest = Rule("nest", _nested, raw=True)


def _created(layer: Any, call: Call) -> Any:
    own, given = layer.created_mask(call.inputs, call.outputs), first_mask(call.masks)
    if own is not None:
        report_birth(call.inputs, own)
    if own is None or given is None:
        return given if own is None else own
    rank = max(own.ndim, given.ndim)
    return jnp.logical_and(*(m.reshape(m.shape + (1,) * (rank - m.ndim)) for m in (own, given)))


create = Rule("create", _created, births=True)


def filled(rule: Rule, fill: float) -> Rule:
    """Returns `rule` for a `call` that sees `fill` in padding."""
    return replace(rule, fill=fill)


class Births:
    """Collects the masks that are born on one array, for a wrapper that folds time away."""

    def __init__(self, target: Any):
        self.targets = [target]
        self.masks: list[Array] = []


_births: contextvars.ContextVar[Births | None] = contextvars.ContextVar("births", default=None)


@contextlib.contextmanager
def collect_births(target: Any) -> Iterator[Births]:
    """Collects the masks born on `target` itself while the context lasts."""
    token = _births.set(found := Births(target))
    try:
        yield found
    finally:
        _births.reset(token)


def report_birth(inputs: Any, mask: Array) -> None:
    """Tells the collector, if there is one, that `mask` was born on `inputs`."""
    found = _births.get()
    if found is not None and any(inputs is t for t in found.targets):
        found.masks.append(mask)


def same_data(old: Any, new: Any) -> Any:
    """Returns `new`, a conversion of `old`: masks born on it count as born on `old`."""
    found = _births.get()
    if found is not None and new is not old and any(old is t for t in found.targets):
        found.targets.append(new)
    return new
