"""Layers that add, take or repeat steps: zeros round a row, its ends cut, its steps repeated."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import max_dim

from alphorn.core.layer import Family
from alphorn.core.masked import extent
from alphorn.core.rules import filled, resample
from alphorn.errors import ArgumentError, ShapeError
from alphorn.kernels.geometry import is_shorter
from alphorn.kernels.resizing import METHODS, magnify
from alphorn.layers.layout import check_rank, mask_of_windows, set_layout

__all__ = [
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
]

_moves = filled(resample, 0.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and int(value) >= 0


def _ends(layer: Any, name: str) -> tuple[tuple[int, int], ...]:
    """Returns `(before, after)` for each axis: of one number, one an axis, or two an axis."""
    given = getattr(layer, name)
    per_axis = [given] * layer.rank if _is_number(given) else given
    if layer.rank == 1 and isinstance(given, list | tuple):
        per_axis = given if len(given) == 1 else [given]
    if isinstance(per_axis, list | tuple) and len(per_axis) == layer.rank:
        pairs: list[Any] = [(n, n) if _is_number(n) else n for n in per_axis]
        if all(
            isinstance(p, list | tuple) and len(p) == 2 and all(map(_is_number, p)) for p in pairs
        ):
            return tuple((int(before), int(after)) for before, after in pairs)
    raise ArgumentError(
        f"{type(layer).__name__} '{layer.name}': {name}",
        received=repr(given),
        expected="a number, or (before, after)"
        + ("" if layer.rank == 1 else f", for each of {layer.rank} axes"),
    )


class _Resizing(Family):
    """What layers share that change the number of steps."""

    masking = _moves
    data_format: Any = "channels_last"

    def _spatial_axes(self) -> range:
        first = 1 if self.data_format == "channels_last" else 2
        return range(first, first + self.rank)


class _ZeroPadding(_Resizing):
    def after_init(self) -> None:
        """Checks the arguments."""
        set_layout(self, _moves)
        ends = _ends(self, "padding")
        self.padding = ends[0] if self.rank == 1 else ends
        self._padded = ends

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """The row's steps and the new ones round them; missing steps stay missing."""
        if mask is None or mask.ndim < 2:
            return mask
        before, after = self._padded[0]
        start, stop = (edge[:, None] for edge in extent(mask))
        step = jnp.arange(outputs.shape[1], dtype=jnp.int32)[None]
        inside = (step >= start) & (step < stop + before + after) & (stop > start)
        source = step - before
        own = (source >= start) & (source < stop)
        valid = jnp.pad(mask, ((0, 0), (before, after)))
        return inside & (valid | ~own)

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the row with zeros round it."""
        check_rank(self, inputs.shape)
        mask_of_windows(self, mask)
        widths = [(0, 0)] * inputs.ndim
        for axis, ends in zip(self._spatial_axes(), self._padded, strict=True):
            widths[axis] = ends
        return jnp.pad(inputs, widths)


class ZeroPadding1D(_ZeroPadding):
    """Adds steps of zeros round each row: they are valid steps, as they would be alone.

    Args:
        padding: A number for both ends, or `(before, after)`.
        data_format: "channels_last" or "channels_first".
    """

    rank = 1
    padding: Any = 1
    data_format: Any = None


class ZeroPadding2D(_ZeroPadding):
    """Adds zeros round two axes; under a `(batch, time)` mask the first is time.

    Args:
        padding: A number, one an axis, or `(before, after)` for each axis.
        data_format: "channels_last" or "channels_first".
    """

    rank = 2
    padding: Any = (1, 1)
    data_format: Any = None


class ZeroPadding3D(_ZeroPadding):
    """Adds zeros round three axes. Arguments as in `ZeroPadding2D`."""

    rank = 3
    padding: Any = ((1, 1), (1, 1), (1, 1))
    data_format: Any = None


class _Cropping(_Resizing):
    def after_init(self) -> None:
        """Checks the arguments."""
        set_layout(self, _moves)
        ends = _ends(self, "cropping")
        self.cropping = ends[0] if self.rank == 1 else ends
        self._cropped = ends

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """What the row alone would have left."""
        if mask is None or mask.ndim < 2:
            return mask
        start, stop = (edge[:, None] for edge in extent(mask))
        before, after = self._cropped[0]
        step = jnp.arange(mask.shape[1])[None]
        left = mask & (step >= start + before) & (step < stop - after)
        return left[:, before : before + outputs.shape[1]]

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the rows without their ends."""
        check_rank(self, inputs.shape)
        steps = mask_of_windows(self, mask)
        index = [slice(None)] * inputs.ndim
        for axis, (before, after) in zip(self._spatial_axes(), self._cropped, strict=True):
            size = inputs.shape[axis]
            # Rows that are too short have nothing left: so has a batch of such rows.
            if is_shorter(size, before + after + 1) and (steps is None or axis > 1):
                raise ShapeError(
                    f"{type(self).__name__} '{self.name}'",
                    received=f"shape {tuple(inputs.shape)}: {size} on axis {axis}",
                    expected=f"more than {before + after}",
                )
            # Rows end where they end: what is beyond is masked, not cut.
            index[axis] = slice(before, max_dim(size - after, before))
        return inputs[tuple(index)]


class Cropping1D(_Cropping):
    """Takes steps off both ends of each row.

    Args:
        cropping: A number for both ends, or `(before, after)`.
    """

    rank = 1
    data_format = "channels_last"
    cropping: Any = (1, 1)


class Cropping2D(_Cropping):
    """Takes the ends off two axes; under a `(batch, time)` mask the first is time.

    Args:
        cropping: A number, one an axis, or `(before, after)` for each axis.
        data_format: "channels_last" or "channels_first".
    """

    rank = 2
    cropping: Any = ((0, 0), (0, 0))
    data_format: Any = None


class Cropping3D(_Cropping):
    """Takes the ends off three axes. Arguments as in `Cropping2D`."""

    rank = 3
    cropping: Any = ((1, 1), (1, 1), (1, 1))
    data_format: Any = None


class _UpSampling(_Resizing):
    def after_init(self) -> None:
        """Checks the arguments."""
        set_layout(self, _moves)
        given = self.size
        sizes = (given,) * self.rank if _is_number(given) else given
        if (
            not isinstance(sizes, list | tuple)
            or len(sizes) != self.rank
            or not all(_is_number(n) and n > 0 for n in sizes)
        ):
            raise ArgumentError(
                f"{type(self).__name__} '{self.name}': size",
                received=repr(given),
                expected=f"an integer > 0, or {self.rank} of them",
            )
        self._factors = tuple(int(n) for n in sizes)
        self.size = self._factors[0] if self.rank == 1 else self._factors

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """Each step's own validity, repeated."""
        if mask is None or mask.ndim < 2:
            return mask
        return jnp.repeat(mask, self._factors[0], 1)

    def call(self, inputs: Array, mask: Array | None = None) -> Array:
        """Returns the rows with each step several times."""
        check_rank(self, inputs.shape)
        steps = mask_of_windows(self, mask)
        method = getattr(self, "interpolation", "nearest")
        for axis, factor in zip(self._spatial_axes(), self._factors, strict=True):
            over = steps if axis == 1 else None
            inputs = magnify(inputs, factor, axis, method, over)
        return inputs


class UpSampling1D(_UpSampling):
    """Repeats each step.

    Args:
        size: How often.
    """

    rank = 1
    data_format = "channels_last"
    old_names: ClassVar[dict[str, str]] = {"length": "size"}
    size: int = 2


class UpSampling2D(_UpSampling):
    """Repeats the entries of two axes, or interpolates between them.

    Args:
        size: How many of each, one number or one an axis.
        data_format: "channels_last" or "channels_first".
        interpolation: "nearest" repeats; "bilinear", "bicubic", "lanczos3" and "lanczos5" do not.

    Under a `(batch, time)` mask the first of the two axes is time: a row is interpolated between
    its own steps.
    """

    rank = 2
    size: Any = (2, 2)
    data_format: Any = None
    interpolation: str = "nearest"

    def after_init(self) -> None:
        """Checks the arguments."""
        super().after_init()
        self.interpolation = str(self.interpolation).lower()
        if self.interpolation not in METHODS:
            raise ArgumentError(
                f"UpSampling2D '{self.name}': interpolation",
                received=repr(self.interpolation),
                expected=f"one of {', '.join(METHODS)}",
            )


class UpSampling3D(_UpSampling):
    """Repeats the entries of three axes.

    Args:
        size: How many of each, one number or one an axis.
        data_format: "channels_last" or "channels_first".
    """

    rank = 3
    size: Any = (2, 2, 2)
    data_format: Any = None
