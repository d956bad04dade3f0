"""What layers over spatial axes share: the data format, and which masks their windows obey."""

from dataclasses import replace
from typing import Any

from jax import Array

from alphorn.config import standardize_data_format
from alphorn.core.rules import Rule, filled, refuse_nested
from alphorn.errors import MaskError, ShapeError


def set_layout(layer: Any, rule: Rule) -> None:
    """Checks `data_format`. With channels first a mask of rows is not spread over axis 1.

    Args:
        layer: With `data_format`.
        rule: Its rule for masks.
    """
    layer.data_format = standardize_data_format(layer.data_format)
    if layer.data_format == "channels_first":
        layer.masking = replace(filled(rule, 0.0), steps=False)


def mask_of_windows(layer: Any, mask: Array | None) -> Array | None:
    """Returns the mask `(batch, time)` that windows obey; None for one of rows, which are zeros.

    Raises:
        MaskError: Time is not the axis after the batch, or the mask is nested.
    """
    if mask is None or mask.ndim == 1:
        return None
    if layer.data_format == "channels_first":
        raise MaskError(
            f"{type(layer).__name__} '{layer.name}': a mask of steps with channels_first",
            received=f"a mask of shape {tuple(mask.shape)}",
            expected="(batch, time, ..., features)",
            fix="data_format='channels_last'",
        )
    refuse_nested(layer, mask)
    return mask


def check_rank(layer: Any, shape: Any) -> None:
    """Raises ShapeError unless `shape` has the layer's spatial axes, a batch and features."""
    if len(shape) != layer.rank + 2:
        axes = "time, " if layer.rank == 1 else "height, width, " if layer.rank == 2 else "..., "
        raise ShapeError(
            f"{type(layer).__name__} '{layer.name}'",
            received=f"shape {tuple(shape)}",
            expected=f"rank {layer.rank + 2}: (batch, {axes}features)",
            fix="add an axis: x[..., None]",
        )
