"""Quantiles, and reductions that skip NaN: over time, masked steps are skipped like it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import Masked, expand_to
from alphorn.kernels.moments import valid_count
from alphorn.ops.elementwise import float_like
from alphorn.ops.reduction import reduction
from alphorn.ops.rules import HIGHEST, LOWEST, along, axes_of, reduced, refusal, touches
from alphorn.ops.table import Op, Rule, row

_SAYS = (
    "over time, masked steps are skipped, and rows without a step give 0; over features it stays."
)


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _skipping(function: Callable, nan_stays: bool = False) -> Rule:
    """Returns the rule of a reduction by a function of jnp that skips NaN: padding becomes NaN.

    Args:
        function: `(x, axes, keepdims, arguments) -> result`.
        nan_stays: Whether a NaN at a valid step makes the result NaN.
    """

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        x = arguments["x"]
        axes, keepdims = axes_of(arguments["axis"], x.ndim, op), arguments["keepdims"]
        wide = jnp.ndim(arguments.get("q", 0))
        if not touches(x, axes):
            if wide:
                raise refusal(op, "several q of a masked sequence", "one q at a time")
            out = op.with_arrays(arguments, x.fill(0), *_others(op, arguments))
            return reduced(op, x, axes, out, keepdims)
        data, mask = float_like(x.data), expand_to(x.mask, x.ndim)
        count = valid_count(data, axes, x.mask, keepdims=True)
        # Rows without a step: zeros, so that values and slopes are finite.
        data = jnp.where(mask, data, jnp.where(count > 0, jnp.nan, 0).astype(data.dtype))
        out = function(data, axes, keepdims, arguments)
        some = count > 0 if keepdims else lax.squeeze(count > 0, axes)
        if nan_stays:
            broken = jnp.any(jnp.isnan(data) & mask, axes, keepdims=keepdims)
            out = jnp.where(broken, jnp.nan, out)
        out = jnp.where(some, out, jnp.zeros_like(out))
        result = reduced(op, x, axes, out, keepdims)
        if wide and isinstance(result, Masked):
            raise refusal(op, "several q of a masked sequence", "one q at a time")
        return result

    return Rule(apply, _SAYS)


def _others(op: Op, arguments: dict[str, Any]) -> list[Any]:
    return [arguments[name] for name in op.arrays[1:]]


def _nan_variance(x: Array, axes: Any, keepdims: bool) -> Array:
    return jnp.nanvar(x, axes, keepdims=keepdims)


def _nan_deviation(x: Array, axes: Any, keepdims: bool) -> Array:
    variance = _nan_variance(float_like(x), axes, keepdims)
    spread = variance > 0
    return jnp.where(
        spread, jnp.sqrt(jnp.where(spread, variance, 1)), jnp.where(spread, 0, variance)
    )


def _quantile(x: Array, axes: Any, keepdims: bool, given: dict[str, Any]) -> Array:
    q = jnp.asarray(given["q"], x.dtype)
    return jnp.nanquantile(x, q, axes, method=given["method"], keepdims=keepdims)


def _percentile(x: Array, axes: Any, keepdims: bool, given: dict[str, Any]) -> Array:
    return _quantile(x, axes, keepdims, given | {"q": jnp.asarray(given["q"], x.dtype) / 100})


def _median(x: Array, axes: Any, keepdims: bool, given: dict[str, Any]) -> Array:
    return _quantile(x, axes, keepdims, {"q": 0.5, "method": "linear"})


@row(_skipping(_median, nan_stays=True))
def median(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the median over `axis`."""
    return jnp.median(x, _axes(axis), keepdims=keepdims)


@row(_skipping(_quantile, nan_stays=True), arrays=("x", "q"))
def quantile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Any:
    """Returns the quantiles `q` (from 0 to 1) over `axis`."""
    return jnp.quantile(float_like(x), q, _axes(axis), method=method, keepdims=keepdims)


@row(_skipping(_percentile, nan_stays=True), arrays=("x", "q"))
def percentile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Any:
    """Returns the percentiles `q` (from 0 to 100) over `axis`."""
    return jnp.percentile(float_like(x), q, _axes(axis), method=method, keepdims=keepdims)


@row(_skipping(_median))
def nanmedian(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the median over `axis` of what is not NaN."""
    return jnp.nanmedian(x, _axes(axis), keepdims=keepdims)


@row(_skipping(_quantile), arrays=("x", "q"))
def nanquantile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Any:
    """Returns the quantiles `q` (from 0 to 1) over `axis` of what is not NaN."""
    return jnp.nanquantile(float_like(x), q, _axes(axis), method=method, keepdims=keepdims)


@row(_skipping(_percentile), arrays=("x", "q"))
def nanpercentile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Any:
    """Returns the percentiles `q` (from 0 to 100) over `axis` of what is not NaN."""
    return jnp.nanpercentile(float_like(x), q, _axes(axis), method=method, keepdims=keepdims)


@row(_skipping(lambda x, axes, keepdims, _: jnp.nanmean(x, axes, keepdims=keepdims)))
def nanmean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the mean over `axis` of what is not NaN."""
    return jnp.nanmean(x, _axes(axis), keepdims=keepdims)


@row(_skipping(lambda x, axes, keepdims, _: _nan_variance(x, axes, keepdims)))
def nanvar(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the variance over `axis` of what is not NaN."""
    return _nan_variance(x, _axes(axis), keepdims)


@row(_skipping(lambda x, axes, keepdims, _: _nan_deviation(x, axes, keepdims)))
def nanstd(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the standard deviation over `axis` of what is not NaN."""
    return _nan_deviation(x, _axes(axis), keepdims)


@row(reduction(0))
def nansum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the sum over `axis`, NaN counting as 0."""
    return jnp.nansum(x, _axes(axis), keepdims=keepdims)


@row(reduction(1, 1))
def nanprod(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the product over `axis`, NaN counting as 1."""
    return jnp.nanprod(x, _axes(axis), keepdims=keepdims)


@row(reduction(LOWEST))
def nanmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the maximum over `axis` of what is not NaN."""
    return jnp.nanmax(x, _axes(axis), keepdims=keepdims)


@row(reduction(HIGHEST))
def nanmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the minimum over `axis` of what is not NaN."""
    return jnp.nanmin(x, _axes(axis), keepdims=keepdims)


def _not_flat(op: Op, arguments: dict[str, Any]) -> None:
    if arguments["axis"] is None and arguments["x"].ndim > 1:
        raise refusal(
            op, "axis=None counts places in the padded batch", "name an axis, e.g. axis=1"
        )


@row(reduction(LOWEST, check=_not_flat))
def nanargmax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the place of the maximum along `axis` of what is not NaN; -1 where all is."""
    return jnp.nanargmax(x, axis, keepdims=keepdims)


@row(reduction(HIGHEST, check=_not_flat))
def nanargmin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Returns the place of the minimum along `axis` of what is not NaN; -1 where all is."""
    return jnp.nanargmin(x, axis, keepdims=keepdims)


@row(along(0))
def nancumsum(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Returns the running sums along `axis`, NaN counting as 0."""
    return jnp.nancumsum(x, axis, dtype)


@row(along(1))
def nancumprod(x: Any, axis: Any = None, dtype: Any = None) -> Any:
    """Returns the running products along `axis`, NaN counting as 1."""
    return jnp.nancumprod(x, axis, dtype)
