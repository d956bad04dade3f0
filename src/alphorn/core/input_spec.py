"""InputSpec: what a layer demands of its inputs, checked before each call."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alphorn.core.masked import is_masked
from alphorn.core.symbol import unknown_sizes
from alphorn.errors import ShapeError


class InputSpec:
    """Rank, sizes and type of one input; what is None may be anything.

    Args:
        dtype: The type.
        shape: The whole shape, the batch included, None for sizes that may differ.
        ndim, max_ndim, min_ndim: The number of axes, its bounds.
        axes: Sizes by axis, e.g. `{-1: 8}` for 8 features.
        allow_last_axis_squeeze: Whether a last axis of 1 may be missing, or be one too many.
        name: Of the input.
        optional: Whether None may come instead.

    >>> class Bilinear(keras.Layer):
    ...     def build(self, input_shape):
    ...         self.input_spec = InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
    ...     def call(self, x):
    ...         return x
    >>> layer = Bilinear(name="b")
    >>> _ = layer(np.ones((2, 3)))
    >>> layer(np.ones((2, 4)))
    Traceback (most recent call last):
    alphorn.errors.ShapeError: Bilinear 'b'
      received: shape (2, 4)
      expected: 2 or more axes, size 3 on axis -1
      to mend it: give it data of the size that it was built for, or make a new layer
    """

    def __init__(
        self,
        dtype: Any = None,
        shape: Sequence[int | None] | None = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: Mapping[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ):
        self.dtype = None if dtype is None else jnp.dtype(dtype).name
        self.shape = None if shape is None else tuple(shape)
        self.ndim = ndim if shape is None else len(shape)
        self.max_ndim, self.min_ndim = max_ndim, min_ndim
        self.axes = {int(a): n for a, n in (axes or {}).items()}
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        self.name, self.optional = name, optional

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this again, as Keras keeps them."""
        kept = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes", "optional")
        return {name: getattr(self, name) for name in kept}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "InputSpec":
        """Makes one from `get_config()`."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"InputSpec({self.demands()})"

    def demands(self) -> str:
        """Says in words what is demanded of a shape."""
        sizes = ", ".join(f"size {n} on axis {a}" for a, n in self.axes.items() if n is not None)
        parts = [
            "" if self.shape is None else f"shape {self.shape}",
            "" if self.ndim is None or self.shape is not None else f"{self.ndim} axes",
            "" if self.min_ndim is None else f"{self.min_ndim} or more axes",
            "" if self.max_ndim is None else f"{self.max_ndim} or fewer axes",
            sizes,
            "" if self.dtype is None else f"type {self.dtype}",
        ]
        return ", ".join(p for p in parts if p)

    def fits(self, x: Any) -> bool:
        """Returns whether an input is as demanded."""
        if x is None:
            return self.optional
        shape = tuple(x.shape)
        if self.allow_last_axis_squeeze and self.shape is not None and shape:
            if shape[-1] == 1 and len(shape) == len(self.shape) + 1:
                shape = shape[:-1]
            elif self.shape[-1] == 1 and len(shape) == len(self.shape) - 1:
                shape = (*shape, 1)
        rank = len(shape)
        if self.dtype is not None and jnp.dtype(x.dtype).name != self.dtype:
            return False
        if self.ndim is not None and rank != self.ndim:
            return False
        if not (self.min_ndim or 0) <= rank <= (rank if self.max_ndim is None else self.max_ndim):
            return False
        wanted = dict(self.axes) | dict(enumerate(self.shape or ()))
        return all(
            -rank <= axis < rank and shape[axis] in (size, None)
            for axis, size in wanted.items()
            if size is not None
        )


def check_inputs(where: str, spec: Any, inputs: Any) -> None:
    """Raises ShapeError unless inputs fit.

    Args:
        where: The layer, for the error.
        spec: An InputSpec, or a structure of them like that of the inputs.
        inputs: Arrays, Masked sequences or Symbols.
    """
    specs = jax.tree.leaves(spec)
    found = jax.tree.leaves(inputs, is_leaf=lambda x: x is None or is_masked(x))
    if len(specs) != len(found):
        raise ShapeError(where, f"{len(found)} inputs", f"{len(specs)} inputs")
    for one, x in zip(specs, found, strict=True):
        if (x is not None and not hasattr(x, "shape")) or one.fits(x):
            continue
        received = "None" if x is None else f"shape {unknown_sizes(x.shape)}"
        if one.dtype is not None and x is not None:
            received += f", type {jnp.dtype(x.dtype).name}"
        raise ShapeError(
            f"{where}, input '{one.name}'" if one.name else where,
            received=received,
            expected=one.demands(),
            fix="give it data of the size that it was built for, or make a new layer",
        )
