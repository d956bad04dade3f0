"""Pooling: over windows and over whole rows, of valid steps only."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.core.layer import Family
from alphorn.core.rules import reduce, resample
from alphorn.errors import ArgumentError
from alphorn.kernels.geometry import per_axis, resampled_mask
from alphorn.kernels.moments import masked_mean
from alphorn.kernels.pooling import average_pool, masked_max, max_pool
from alphorn.layers import older
from alphorn.layers.layout import check_rank, mask_of_windows, set_layout

__all__ = [
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
]


class _Pooling(Family):
    masking = resample
    old_names = older.POOLING

    def after_init(self) -> None:
        """Checks the arguments."""
        self.pool_size = per_axis(self.pool_size, self.rank, "pool_size")
        given = self.pool_size if self.strides is None else self.strides
        self.strides = per_axis(given, self.rank, "strides")
        set_layout(self, resample)
        self.padding = str(self.padding).lower()
        if self.padding not in ("valid", "same"):
            raise ArgumentError(
                f"{type(self).__name__}: padding", repr(self.padding), "'valid' or 'same'"
            )

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """A window is valid where the row alone has it and it holds a valid step."""
        if mask is None or mask.ndim == 1:
            return mask
        return resampled_mask(mask, self.pool_size[0], self.strides[0], 1, self.padding)

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the windows' figures."""
        check_rank(self, inputs.shape)
        return self.pool(
            inputs,
            self.pool_size,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            mask=mask_of_windows(self, mask),
        )


class MaxPooling1D(_Pooling):
    """The largest valid step of each window.

    Args:
        pool_size: Steps of a window.
        strides: Steps between windows, by default `pool_size`.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
    """

    rank = 1
    pool = staticmethod(max_pool)
    pool_size: Any = 2
    strides: Any = None
    padding: str = "valid"
    data_format: Any = None


class AveragePooling1D(_Pooling):
    """The mean of each window's valid steps. Arguments as in `MaxPooling1D`."""

    rank = 1
    pool = staticmethod(average_pool)
    pool_size: Any
    strides: Any = None
    padding: str = "valid"
    data_format: Any = None


class MaxPooling2D(_Pooling):
    """The largest entry of each window. Arguments as in `MaxPooling1D`, one an axis."""

    rank = 2
    pool = staticmethod(max_pool)
    pool_size: Any = (2, 2)
    strides: Any = None
    padding: str = "valid"
    data_format: Any = None


class AveragePooling2D(_Pooling):
    """The mean of each window. Arguments as in `MaxPooling1D`, one an axis."""

    rank = 2
    pool = staticmethod(average_pool)
    pool_size: Any
    strides: Any = None
    padding: str = "valid"
    data_format: Any = None


class MaxPooling3D(_Pooling):
    """The largest entry of each window. Arguments as in `MaxPooling1D`, one an axis."""

    rank = 3
    pool = staticmethod(max_pool)
    pool_size: Any = (2, 2, 2)
    strides: Any = None
    padding: str = "valid"
    data_format: Any = None


class AveragePooling3D(_Pooling):
    """The mean of each window. Arguments as in `MaxPooling1D`, one an axis."""

    rank = 3
    pool = staticmethod(average_pool)
    pool_size: Any
    strides: Any = None
    padding: str = "valid"
    data_format: Any = None


class _GlobalPooling(Family):
    masking = reduce

    def after_init(self) -> None:
        """Checks the layout."""
        set_layout(self, reduce)

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns one figure a feature; 0 for a row without valid steps."""
        check_rank(self, inputs.shape)
        if self.data_format == "channels_first":
            mask_of_windows(self, mask)
        first = 1 if self.data_format == "channels_last" else 2
        axes = tuple(range(first, first + self.rank))
        if mask is None:
            function = jnp.max if self.largest else jnp.mean
            return function(inputs, axes, keepdims=self.keepdims)
        if self.largest:
            return masked_max(inputs, axes, mask, keepdims=self.keepdims)
        return masked_mean(inputs, axes, mask, keepdims=self.keepdims).astype(inputs.dtype)


class GlobalMaxPooling1D(_GlobalPooling):
    """The largest valid step, `(batch, features)`.

    Args:
        data_format: "channels_last" or "channels_first".
        keepdims: Whether time stays, with size 1.
    """

    rank, largest = 1, True
    data_format: Any = None
    keepdims: bool = False


class GlobalAveragePooling1D(_GlobalPooling):
    """The mean of the valid steps, `(batch, features)`. Arguments as in `GlobalMaxPooling1D`."""

    rank, largest = 1, False
    data_format: Any = None
    keepdims: bool = False


class GlobalMaxPooling2D(_GlobalPooling):
    """The largest entry of each channel. Arguments as in `GlobalMaxPooling1D`."""

    rank, largest = 2, True
    data_format: Any = None
    keepdims: bool = False


class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each channel. Arguments as in `GlobalMaxPooling1D`."""

    rank, largest = 2, False
    data_format: Any = None
    keepdims: bool = False


class GlobalMaxPooling3D(_GlobalPooling):
    """The largest entry of each channel. Arguments as in `GlobalMaxPooling1D`."""

    rank, largest = 3, True
    data_format: Any = None
    keepdims: bool = False


class GlobalAveragePooling3D(_GlobalPooling):
    """The mean of each channel. Arguments as in `GlobalMaxPooling1D`."""

    rank, largest = 3, False
    data_format: Any = None
    keepdims: bool = False
