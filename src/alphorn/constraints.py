"""Constraints: what a weight must satisfy after each update, found by name."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
from jax import Array

from alphorn.config import epsilon
from alphorn.errors import ArgumentError
from alphorn.fields import Configurable, Converter
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import register, resolve
from alphorn.naming import serialize as _serialize

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "deserialize",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]


class Constraint(Configurable):
    """Base of constraints: write `__call__(w)`, which returns the weight as it must be."""

    names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers built-in classes."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            register("constraints", cls, cls.__name__, *cls.names)

    def __call__(self, w: Array) -> Array:
        """Returns the projected weight."""
        raise ArgumentError(f"{type(self).__name__} has no __call__", fix="write __call__(self, w)")


def _norm(w: Array, axis: int | Sequence[int]) -> Array:
    axes = axis if isinstance(axis, int) else tuple(axis)
    return jnp.sqrt(jnp.sum(jnp.square(w), axis=axes, keepdims=True))


class MaxNorm(Constraint):
    """Scales weights whose norm along `axis` is above `max_value` down to it.

    >>> MaxNorm(1.0)(jnp.array([[3.0], [4.0]])).round(3).tolist()
    [[0.6000000238418579], [0.800000011920929]]
    """

    names = ("max_norm", "maxnorm")
    max_value: float = 2
    axis: Any = 0

    def __call__(self, w: Array) -> Array:
        """Returns the projected weight."""
        norms = _norm(w, self.axis)
        return w * (jnp.clip(norms, 0, self.max_value) / (epsilon() + norms))


class NonNeg(Constraint):
    """Sets negative weights to 0."""

    names = ("non_neg", "nonneg")

    def __call__(self, w: Array) -> Array:
        """Returns the projected weight."""
        return w * (w >= 0).astype(w.dtype)


class UnitNorm(Constraint):
    """Scales weights to norm 1 along `axis`."""

    names = ("unit_norm", "unitnorm")
    axis: Any = 0

    def __call__(self, w: Array) -> Array:
        """Returns the projected weight."""
        return w / (epsilon() + _norm(w, self.axis))


class MinMaxNorm(Constraint):
    """Moves norms along `axis` towards an interval, by `rate` of the way."""

    names = ("min_max_norm",)
    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: Any = 0

    def __call__(self, w: Array) -> Array:
        """Returns the projected weight."""
        norms = _norm(w, self.axis)
        wanted = jnp.clip(norms, self.min_value, self.max_value)
        return w * ((self.rate * wanted + (1 - self.rate) * norms) / (epsilon() + norms))


max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm


def get(identifier: Any) -> Callable | None:
    """Returns the constraint behind a name, a config, a class, a function or None."""
    return resolve("constraints", identifier)


def serialize(constraint: Any) -> Any:
    """Returns a description of a constraint for files."""
    return _serialize(constraint)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the constraint that `serialize` described."""
    return _deserialize(config, "constraints", custom_objects)


AsConstraint = Annotated[Any, Converter(get)]
