"""Merging layers: a step that an input lacks contributes what changes nothing."""

import functools
import itertools
import string
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.core.layer import Layer
from alphorn.core.masked import fill_masked, with_mask
from alphorn.core.rules import Call, join
from alphorn.errors import ArgumentError, ShapeError
from alphorn.ops.linalg import product_mask

__all__ = [
    "Add",
    "Average",
    "Concatenate",
    "Dot",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]


def _masks(masks: Any, count: int) -> list[Array | None]:
    return list(masks) if isinstance(masks, list | tuple) else [None] * count


def _spread(mask: Array, rank: int) -> Array:
    return mask.reshape(mask.shape + (1,) * (rank - mask.ndim))


class _Merge(Layer):
    masking = join
    absent: ClassVar[float] = 0.0

    def build(self, input_shape: Any) -> None:
        """Checks that the shapes fit together."""
        if not isinstance(input_shape, list | tuple) or not all(
            isinstance(s, list | tuple) for s in input_shape
        ):
            raise ShapeError(
                f"{type(self).__name__} '{self.name}'",
                received=f"one input of shape {input_shape}",
                expected="a list of inputs",
                fix=f"{type(self).__name__}()([a, b])",
            )
        for first, second in itertools.pairwise(input_shape):
            for a, b in zip(reversed(first), reversed(second), strict=False):
                if a != b and None not in (a, b) and 1 not in (a, b):
                    raise ShapeError(
                        f"{type(self).__name__} '{self.name}'",
                        received=f"shapes {', '.join(map(str, input_shape))}",
                        expected="shapes that broadcast",
                    )

    def joined_mask(self, call: Call) -> Array | None:
        """Valid where any masked input is."""
        found = [m for m in _masks(call.masks, 0) if m is not None]
        if not found:
            return None
        rank = max(m.ndim for m in found)
        shape = call.outputs.shape[:rank]
        return functools.reduce(
            jnp.logical_or, (jnp.broadcast_to(_spread(m, rank), shape) for m in found)
        )

    def aligned(self, inputs: list[Array], masks: list[Array | None]) -> list[Array]:
        """Returns inputs of one rank, absent steps filled."""
        rank = max(x.ndim for x in inputs)
        filled = [
            x if m is None else fill_masked(x, m, self.identity(x.dtype))
            for x, m in zip(inputs, masks, strict=True)
        ]
        return [x.reshape(x.shape[:1] + (1,) * (rank - x.ndim) + x.shape[1:]) for x in filled]

    def identity(self, dtype: Any) -> Any:
        """Returns what an absent step contributes."""
        if np.isfinite(self.absent) or jnp.issubdtype(dtype, jnp.floating):
            return self.absent
        return jnp.iinfo(dtype).min if self.absent < 0 else jnp.iinfo(dtype).max

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the inputs as one."""
        raise ArgumentError(f"{type(self).__name__} has no combine")

    def call(self, inputs: Any, mask: Any = None) -> Array:
        """Returns the inputs as one."""
        masks = _masks(mask, len(inputs))
        out = self.combine(self.aligned(list(inputs), masks), masks)
        joined = self.joined_mask(Call(inputs, masks, out))
        return out if joined is None else fill_masked(out, joined)


class Add(_Merge):
    """The sum of the inputs; an absent step adds 0."""

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the sum."""
        return functools.reduce(jnp.add, inputs)


class Subtract(_Merge):
    """The first of two inputs less the second; an absent step is 0."""

    def build(self, input_shape: Any) -> None:
        """Checks the number of inputs."""
        super().build(input_shape)
        if len(input_shape) != 2:
            raise ShapeError(f"Subtract '{self.name}'", f"{len(input_shape)} inputs", "two")

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the difference."""
        return inputs[0] - inputs[1]


class Multiply(_Merge):
    """The product of the inputs; an absent step multiplies by 1."""

    absent = 1.0

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the product."""
        return functools.reduce(jnp.multiply, inputs)


class Average(_Merge):
    """The mean of the inputs that have the step."""

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the mean."""
        total = functools.reduce(jnp.add, inputs)
        if all(m is None for m in masks):
            return total / len(inputs)
        present = [
            jnp.ones((), total.dtype) if m is None else _spread(m, x.ndim).astype(total.dtype)
            for x, m in zip(inputs, masks, strict=True)
        ]
        return total / jnp.maximum(functools.reduce(jnp.add, present), 1)


class Maximum(_Merge):
    """The largest of the inputs that have the step."""

    absent = -np.inf

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the largest."""
        return functools.reduce(jnp.maximum, inputs)


class Minimum(_Merge):
    """The smallest of the inputs that have the step."""

    absent = np.inf

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the smallest."""
        return functools.reduce(jnp.minimum, inputs)


class Concatenate(_Merge):
    """Puts inputs one behind the other.

    Args:
        axis: Along features a step is valid where all masked inputs have it; along time masks are
            joined, an unmasked input counting as valid.
    """

    axis: int = -1

    def build(self, input_shape: Any) -> None:
        """Checks that all other axes agree."""
        if not isinstance(input_shape, list | tuple) or not all(
            isinstance(s, list | tuple) for s in input_shape
        ):
            super().build(input_shape)
        ranks = {len(s) for s in input_shape}
        others = [tuple(n for i, n in enumerate(s) if i != self.axis % len(s)) for s in input_shape]
        agree = all(
            len({n for n in sizes if n is not None}) < 2 for sizes in zip(*others, strict=False)
        )
        if len(ranks) > 1 or not agree:
            raise ShapeError(
                f"Concatenate '{self.name}' along axis {self.axis}",
                received=f"shapes {', '.join(map(str, input_shape))}",
                expected="equal sizes on all other axes",
            )

    def joined_mask(self, call: Call) -> Array | None:
        """Along features by and; along time one behind the other."""
        inputs, masks = list(call.inputs), _masks(call.masks, len(call.inputs))
        found = [m for m in masks if m is not None]
        if not found:
            return None
        rank = max(m.ndim for m in found)
        axis = self.axis % inputs[0].ndim
        if axis >= rank:
            shape = call.outputs.shape[:rank]
            return functools.reduce(
                jnp.logical_and, (jnp.broadcast_to(_spread(m, rank), shape) for m in found)
            )
        parts = [
            jnp.ones(x.shape[:rank], bool)
            if m is None
            else jnp.broadcast_to(_spread(m, rank), x.shape[:rank])
            for x, m in zip(inputs, masks, strict=True)
        ]
        return jnp.concatenate(parts, axis)

    def combine(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        """Returns the joined data."""
        return jnp.concatenate(inputs, self.axis)


class Dot(_Merge):
    """Dot products of two inputs, along an axis of each.

    Args:
        axes: One axis, or one of each input; along time, masked steps count as zero.
        normalize: Whether vectors are scaled to norm 1 first.

    Two sequences `(batch, time, features)` give `(batch, time 1, time 2)` along features, masked by
    both, so that a softmax over either time counts valid steps only.
    """

    axes: Any
    normalize: bool = False

    def build(self, input_shape: Any) -> None:
        """Checks number and sizes."""
        if not isinstance(input_shape, list | tuple) or len(input_shape) != 2:
            raise ShapeError(f"Dot '{self.name}'", f"shapes {input_shape}", "two inputs")
        first, second = input_shape
        a, b = self._pair(len(first), len(second))
        if first[a] != second[b] and None not in (first[a], second[b]):
            raise ShapeError(
                f"Dot '{self.name}': axes {self.axes}",
                received=f"sizes {first[a]} and {second[b]}",
                expected="equal sizes",
            )

    def _pair(self, first: int, second: int) -> tuple[int, int]:
        given = (self.axes, self.axes) if isinstance(self.axes, int) else tuple(self.axes)
        return given[0] % first, given[1] % second

    def _letters(self, first: int, second: int) -> tuple[list[str], str]:
        """Returns the axes of both inputs and of the output as letters, for inputs of these ranks."""
        a, b = self._pair(first, second)
        letters = string.ascii_letters
        left = ["z", *letters[: first - 1]]
        right = ["z", *letters[first - 1 : first + second - 2].upper()]
        left[a] = right[b] = "k"
        out = "".join(c for c in (*left, *right[1:]) if c != "k")
        return ["".join(left), "".join(right)], out

    def joined_mask(self, call: Call) -> Array | None:
        """Valid where both are, on the axes that are left; time that is summed over is gone."""
        masks = _masks(call.masks, 2)
        operands = [with_mask(x, m) for x, m in zip(call.inputs, masks, strict=True)]
        letters, out = self._letters(*(x.ndim for x in operands))
        return product_mask(operands, letters, out, call.outputs.shape)

    def call(self, inputs: Any, mask: Any = None) -> Array:
        """Returns the products."""
        masks = _masks(mask, 2)
        x, y = (
            v if m is None else fill_masked(v, m, 0) for v, m in zip(inputs, masks, strict=True)
        )
        if self.normalize:
            x, y = (
                v / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(v), axis, keepdims=True), 1e-12))
                for v, axis in zip((x, y), self._pair(x.ndim, y.ndim), strict=True)
            )
        (left, right), out = self._letters(x.ndim, y.ndim)
        result = jnp.einsum(f"{left},{right}->{out}", x, y)
        return result[:, None] if result.ndim == 1 else result


def _short(name: str, cls: type) -> Callable:
    def merge(inputs: Any, **kwargs: Any) -> Any:
        return cls(**kwargs)(inputs)

    merge.__name__ = merge.__qualname__ = name
    merge.__doc__ = f"Is `{cls.__name__}(**kwargs)(inputs)`."
    return merge


add = _short("add", Add)
subtract = _short("subtract", Subtract)
multiply = _short("multiply", Multiply)
average = _short("average", Average)
maximum = _short("maximum", Maximum)
minimum = _short("minimum", Minimum)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """Is `Concatenate(axis, **kwargs)(inputs)`."""
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs: Any, axes: Any = -1, **kwargs: Any) -> Any:
    """Is `Dot(axes, **kwargs)(inputs)`."""
    return Dot(axes=axes, **kwargs)(inputs)
