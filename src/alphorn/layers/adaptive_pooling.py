"""Pooling into a wanted number of windows, whatever the length."""

from typing import Any

import numpy as np
from jax import Array

from alphorn.core.layer import Family
from alphorn.core.rules import resample
from alphorn.errors import ArgumentError, ShapeError
from alphorn.kernels.adaptive import adaptive_pool, divided_mask
from alphorn.layers.layout import check_rank, mask_of_windows, set_layout

__all__ = [
    "AdaptiveAveragePooling1D",
    "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D",
    "AdaptiveMaxPooling1D",
    "AdaptiveMaxPooling2D",
    "AdaptiveMaxPooling3D",
]


class _AdaptivePooling(Family):
    """What they share: with a mask each row divides its own extent."""

    masking = resample

    def after_init(self) -> None:
        """Checks the arguments."""
        set_layout(self, resample)
        given = self.output_size
        sizes = (given,) * self.rank if isinstance(given, int | np.integer) else given
        if (
            not isinstance(sizes, list | tuple)
            or len(sizes) != self.rank
            or not all(isinstance(n, int | np.integer) and n > 0 for n in sizes)
        ):
            raise ArgumentError(
                f"{type(self).__name__}: output_size",
                received=repr(given),
                expected=f"an integer > 0, or {self.rank} of them, one an axis",
            )
        self.output_size = tuple(int(n) for n in sizes)

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """A window is valid where it holds a valid step."""
        if mask is None or mask.ndim == 1:
            return mask
        return divided_mask(mask, self.output_size[0])

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns one figure a window."""
        check_rank(self, inputs.shape)
        last = self.data_format == "channels_last"
        spatial = inputs.shape[1:-1] if last else inputs.shape[2:]
        if 0 in (spatial if mask is None else spatial[1:]):
            raise ShapeError(
                f"{type(self).__name__} '{self.name}': there is nothing to divide",
                received=f"shape {tuple(inputs.shape)}",
                expected="at least one step",
            )
        return adaptive_pool(
            inputs,
            self.output_size,
            largest=self.largest,
            data_format=self.data_format,
            mask=mask_of_windows(self, mask),
        )


class AdaptiveMaxPooling1D(_AdaptivePooling):
    """The largest valid step of each of `output_size` windows.

    Args:
        output_size: How many windows.
        data_format: "channels_last" or "channels_first".

    Takes `(batch, time, features)`, returns `(batch, output_size, features)`. With a mask each
    row's own extent is divided; a window of missing steps alone is missing.

    >>> import alphorn as keras
    >>> x = np.array([[[3.0], [1.0], [2.0], [9.0]]])
    >>> AdaptiveMaxPooling1D(2)(keras.Masked(x, x[..., 0] < 9)).fill(0).ravel().tolist()
    [3.0, 2.0]
    """

    rank, largest = 1, True
    output_size: Any
    data_format: Any = None


class AdaptiveMaxPooling2D(_AdaptivePooling):
    """The largest entry of each window. Arguments as in `AdaptiveMaxPooling1D`, one an axis."""

    rank, largest = 2, True
    output_size: Any
    data_format: Any = None


class AdaptiveMaxPooling3D(_AdaptivePooling):
    """The largest entry of each window. Arguments as in `AdaptiveMaxPooling1D`, one an axis."""

    rank, largest = 3, True
    output_size: Any
    data_format: Any = None


class AdaptiveAveragePooling1D(_AdaptivePooling):
    """The mean of each window's valid steps. Arguments as in `AdaptiveMaxPooling1D`."""

    rank, largest = 1, False
    output_size: Any
    data_format: Any = None


class AdaptiveAveragePooling2D(_AdaptivePooling):
    """The mean of each window. Arguments as in `AdaptiveMaxPooling1D`, one an axis."""

    rank, largest = 2, False
    output_size: Any
    data_format: Any = None


class AdaptiveAveragePooling3D(_AdaptivePooling):
    """The mean of each window. Arguments as in `AdaptiveMaxPooling1D`, one an axis."""

    rank, largest = 3, False
    output_size: Any
    data_format: Any = None
