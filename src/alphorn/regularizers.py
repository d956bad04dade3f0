"""Regularizers: penalties on weights or outputs, found by name."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
from jax import Array

from alphorn.errors import ArgumentError
from alphorn.fields import Configurable, Converter
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import register, resolve
from alphorn.naming import serialize as _serialize

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "serialize",
]


class Regularizer(Configurable):
    """Base of penalties: write `__call__(x)`, which returns a scalar."""

    names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers built-in classes."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            register("regularizers", cls, cls.__name__, *cls.names)

    def __call__(self, x: Array) -> Array:
        """Returns the penalty."""
        raise ArgumentError(f"{type(self).__name__} has no __call__", fix="write __call__(self, x)")


def _check(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ArgumentError(f"regularizer {name}", received=repr(value), expected="a number >= 0")
    return float(value)


class L1L2(Regularizer):
    """`l1 * sum(|x|) + l2 * sum(x²)`.

    >>> L1L2(l1=1.0, l2=2.0)(jnp.array([-3.0]))
    Array(21., dtype=float32)
    """

    names = ("l1_l2",)

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1, self.l2 = _check("l1", l1 or 0.0), _check("l2", l2 or 0.0)

    def __call__(self, x: Array) -> Array:
        """Returns the penalty."""
        return self.l1 * jnp.sum(jnp.abs(x)) + self.l2 * jnp.sum(jnp.square(x))


class L1(Regularizer):
    """`l1 * sum(|x|)`."""

    names = ("l1",)

    def __init__(self, l1: float = 0.01):
        self.l1 = _check("l1", 0.01 if l1 is None else l1)

    def __call__(self, x: Array) -> Array:
        """Returns the penalty."""
        return self.l1 * jnp.sum(jnp.abs(x))


class L2(Regularizer):
    """`l2 * sum(x²)`."""

    names = ("l2",)

    def __init__(self, l2: float = 0.01):
        self.l2 = _check("l2", 0.01 if l2 is None else l2)

    def __call__(self, x: Array) -> Array:
        """Returns the penalty."""
        return self.l2 * jnp.sum(jnp.square(x))


class OrthogonalRegularizer(Regularizer):
    """Keeps the rows (or columns) of a matrix at right angles."""

    names = ("orthogonal_regularizer",)

    def __init__(self, factor: float = 0.01, mode: str = "rows"):
        if mode not in ("rows", "columns"):
            raise ArgumentError("OrthogonalRegularizer: mode", repr(mode), "'rows' or 'columns'")
        self.factor, self.mode = _check("factor", factor), mode

    def __call__(self, x: Array) -> Array:
        """Returns the penalty."""
        rows = x if self.mode == "rows" else x.T
        rows = rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        products = rows @ rows.T
        size = products.shape[0]
        off_diagonal = jnp.abs(products * (1 - jnp.eye(size, dtype=products.dtype)))
        return self.factor * 0.5 * jnp.sum(off_diagonal) / (size * (size - 1) / 2)


l1, l2, l1_l2 = L1, L2, L1L2


def get(identifier: Any) -> Callable | None:
    """Returns the regularizer behind a name, a config, a class, a function or None."""
    return resolve("regularizers", identifier)


def serialize(regularizer: Any) -> Any:
    """Returns a description of a regularizer for files."""
    return _serialize(regularizer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the regularizer that `serialize` described."""
    return _deserialize(config, "regularizers", custom_objects)


AsRegularizer = Annotated[Any, Converter(get)]
