"""Ops along axes: over time they skip masked steps, over features they keep the mask."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alphorn.core.masked import Masked, expand_to, fill_masked, unmask, with_mask
from alphorn.kernels.moments import masked_mean, valid_count
from alphorn.kernels.moments import moments as masked_moments
from alphorn.ops.elementwise import float_like
from alphorn.ops.rules import (
    HIGHEST,
    LOWEST,
    along,
    axes_of,
    filled,
    fill_value,
    reduced,
    refusal,
    refuse,
    touches,
)
from alphorn.ops.table import Op, Rule, row

_SAYS = (
    "over time, masked steps are skipped, and rows without a step give 0; over features it stays."
)


def reduction(
    identity: Any, pad: Any = 0, axis: str = "axis", check: Callable | None = None
) -> Rule:
    """Returns the rule of a reduction.

    Args:
        identity: What a masked step contributes.
        pad: What stands where nothing is valid, so that value and derivative are finite.
        axis: The argument that names the axes.
        check: `(op, arguments)`, may refuse.
    """

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        x, keepdims = arguments["x"], arguments.get("keepdims", False)
        axes = axes_of(arguments[axis], x.ndim, op)
        if check is not None:
            check(op, arguments)
        if not touches(x, axes):
            out = op.with_arrays(arguments, filled(x, pad))
            return reduced(op, x, axes, out, keepdims)
        count = valid_count(x.data, axes, x.mask, keepdims=True)
        low, high = fill_value(identity, x.dtype), fill_value(pad, x.dtype)
        here = jnp.where(count > 0, low, high)
        data = jnp.where(expand_to(x.mask, x.ndim), x.data, here)
        out = op.with_arrays(arguments, data)
        some = count > 0 if keepdims else lax.squeeze(count > 0, axes)
        return reduced(op, x, axes, jnp.where(some, out, jnp.zeros_like(out)), keepdims)

    return Rule(apply, _SAYS)


def _by_kernel(kernel: Callable) -> Rule:
    """Returns the rule of a reduction whose kernel knows masks: `(x, axes, mask, keepdims)`."""

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        x, keepdims = arguments["x"], arguments["keepdims"]
        axes = axes_of(arguments.get("axis", arguments.get("axes")), x.ndim, op)
        if not touches(x, axes):
            out = op.with_arrays(arguments, filled(x, 0))
        else:
            out = kernel(x.data, axes, x.mask, keepdims)
        if isinstance(out, tuple):
            return tuple(reduced(op, x, axes, o, keepdims) for o in out)
        return reduced(op, x, axes, out, keepdims)

    return Rule(apply, _SAYS)


def _variance(x: Array, axes: tuple[int, ...], mask: Array, keepdims: bool) -> Array:
    variance = masked_moments(x, axes, mask, keepdims=keepdims)[1]
    return variance.astype(float_like(x).dtype)


def _deviation(x: Array, axes: tuple[int, ...], mask: Array, keepdims: bool) -> Array:
    variance = _variance(x, axes, mask, keepdims)
    # Nothing or one value has no spread: the root's derivative there would be infinite.
    spread = variance > 0
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1)), 0)


def _moments(x: Array, axes: tuple[int, ...], mask: Array, keepdims: bool) -> tuple:
    pair = masked_moments(x, axes, mask, keepdims=keepdims)
    return tuple(p.astype(float_like(x).dtype) for p in pair)


@row(reduction(0))
def _sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the sum over `axis`."""
    return jnp.sum(x, _axes(axis), keepdims=keepdims)


@row(reduction(1, 1))
def _prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
    """Returns the product over `axis`."""
    return jnp.prod(x, _axes(axis), dtype=dtype, keepdims=keepdims)


@row(_by_kernel(lambda x, axes, mask, keepdims: masked_mean(x, axes, mask, keepdims=keepdims)))
def _mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the mean over `axis`."""
    return jnp.mean(x, _axes(axis), keepdims=keepdims)


@row(_by_kernel(_variance))
def _var(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the variance over `axis`."""
    return jnp.var(x, _axes(axis), keepdims=keepdims)


@row(_by_kernel(_deviation))
def _std(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the standard deviation over `axis`."""
    variance = jnp.var(x, _axes(axis), keepdims=keepdims)
    spread = variance > 0
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1)), jnp.sqrt(variance * 1))


@row(_by_kernel(_moments))
def _moments_row(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    """Returns the mean and the variance over `axes`; replicas here always agree."""
    return jnp.mean(x, _axes(axes), keepdims=keepdims), jnp.var(x, _axes(axes), keepdims=keepdims)
