"""Layers that move entries. Where the time axis survives so does the mask; else padding is zero."""

import itertools
import math
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn.config import standardize_data_format
from alphorn.core.layer import Layer
from alphorn.core.rules import filled, resample
from alphorn.errors import ArgumentError, ShapeError

__all__ = [
    "Flatten",
    "Permute",
    "RepeatVector",
    "Reshape",
]

# Without windows a mask of rows stays one: it need not be spread over the steps.
_carries = replace(filled(resample, 0.0), steps=False)


class Flatten(Layer):
    """Puts all entries of a row along one axis: `(batch, ...)` to `(batch, entries)`.

    `(batch, time, 1)` keeps its mask; from a longer sequence masked entries come out as zeros.

    Args:
        data_format: "channels_first" moves the channels last before.
    """

    data_format: Any = None
    masking = _carries

    def after_init(self) -> None:
        """Checks the layout."""
        self.data_format = standardize_data_format(self.data_format)

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """The mask of `(batch, time, 1)`, or of rows."""
        if mask is not None and tuple(outputs.shape[: mask.ndim]) == tuple(mask.shape):
            return mask
        return None

    def call(self, inputs: Array) -> Array:
        """Returns `(batch, entries)`."""
        if self.data_format == "channels_first" and inputs.ndim > 2:
            inputs = jnp.moveaxis(inputs, 1, -1)
        return inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:]))


class Reshape(Layer):
    """Puts a row's entries into another shape.

    Args:
        target_shape: Without the batch axis; one -1 takes what is left.

    Where time stays the first axis, or all of it stands in the first axes, so does its mask; else
    masked entries come out as zeros.

    >>> from alphorn.core.masked import Masked
    >>> documents = Masked(jnp.ones((1, 2, 3, 4)), jnp.ones((1, 2, 3), bool))
    >>> Reshape((-1, 4))(documents).mask.shape
    (1, 6)
    """

    target_shape: Any
    masking = _carries

    def after_init(self) -> None:
        """Checks the shape."""
        self.target_shape = tuple(self.target_shape)
        if sum(s in (-1, None) for s in self.target_shape) > 1:
            raise ArgumentError(
                f"Reshape '{self.name}': target_shape", self.target_shape, "at most one -1"
            )

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """The mask of as many of its axes as fill the first axes of the output."""
        if mask is None or mask.ndim == 1:
            return mask
        sizes = [*outputs.shape[1:]]
        for axes in range(mask.ndim - 1, 0, -1):
            steps = math.prod(mask.shape[1 : axes + 1])
            for count in range(1, len(sizes) + 1):
                if math.prod(sizes[:count]) == steps:
                    whole = jnp.any(mask, range(axes + 1, mask.ndim))
                    return whole.reshape(mask.shape[0], *sizes[:count])
        steps = math.prod(mask.shape[1:])
        splits = self.target_shape[0] in (-1, None) and len(sizes) > 1
        if splits and steps and sizes[0] % steps == 0:  # each step becomes several
            return jnp.repeat(mask.reshape(mask.shape[0], steps), sizes[0] // steps, 1)
        return None

    def call(self, inputs: Array) -> Array:
        """Returns `(batch, *target_shape)`."""
        shape = tuple(-1 if s is None else s for s in self.target_shape)
        known = math.prod(s for s in shape if s != -1)
        entries = math.prod(inputs.shape[1:])
        if entries != known if -1 not in shape else known and entries % known:
            raise ShapeError(
                f"Reshape '{self.name}'",
                received=f"shape {tuple(inputs.shape)}: {entries} entries a row",
                expected=f"what {self.target_shape} holds",
            )
        shape = tuple(entries // known if s == -1 else s for s in shape)
        return inputs.reshape(inputs.shape[0], *shape)


class Permute(Layer):
    """Puts the axes of a row into another order.

    Args:
        dims: Axes from 1, e.g. `(2, 1)`.

    A mask goes with its axes as far as they come first; other masked entries come out as zeros.
    """

    dims: Any
    masking = _carries

    def after_init(self) -> None:
        """Checks the order."""
        self.dims = tuple(self.dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ArgumentError(
                f"Permute '{self.name}': dims", self.dims, "the axes from 1, each once"
            )

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """The mask by those of its axes that come first."""
        if mask is None or mask.ndim == 1:
            return mask
        first = [*itertools.takewhile(lambda d: d < mask.ndim, self.dims)]
        rest = [a for a in range(1, mask.ndim) if a not in first]
        if not first:
            return None
        order = [sorted(first).index(d) + 1 for d in first]
        return jnp.any(mask, rest).transpose(0, *order)

    def call(self, inputs: Array) -> Array:
        """Returns the row's axes in the new order."""
        if inputs.ndim != len(self.dims) + 1:
            raise ShapeError(
                f"Permute '{self.name}'",
                received=f"shape {tuple(inputs.shape)}",
                expected=f"rank {len(self.dims) + 1}",
            )
        return jnp.transpose(inputs, (0, *self.dims))


class RepeatVector(Layer):
    """Repeats a row: `(batch, features)` to `(batch, n, features)`.

    Args:
        n: How often.

    Masked entries of the row come out as zeros.
    """

    n: int
    masking = _carries

    def after_init(self) -> None:
        """Checks the number."""
        if not isinstance(self.n, int) or self.n < 1:
            raise ArgumentError(f"RepeatVector '{self.name}': n", repr(self.n), "an integer > 0")

    def resampled_mask(self, mask: Array | None, outputs: Array) -> Array | None:
        """A mask of rows stays."""
        return mask if mask is not None and mask.ndim == 1 else None

    def call(self, inputs: Array) -> Array:
        """Returns `(batch, n, features)`."""
        if inputs.ndim != 2:
            raise ShapeError(
                f"RepeatVector '{self.name}'",
                received=f"shape {tuple(inputs.shape)}",
                expected="(batch, features)",
            )
        return jnp.repeat(inputs[:, None], self.n, 1)
