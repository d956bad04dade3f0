"""Variables, random numbers, the learning phase, names: what the functions of K keep or read."""

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn import ops
from alphorn import random as draws
from alphorn.backend.nodes import node
from alphorn.config import floatx
from alphorn.core.context import running_layer, set_training, training_now, training_phase
from alphorn.core.masked import unmask
from alphorn.core.random import generator_here
from alphorn.core.symbol import Symbol, is_symbol, symbols_in
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import ArgumentError, ShapeError
from alphorn.naming import reset_names

__all__ = [
    "batch_get_value",
    "batch_set_value",
    "dropout",
    "eye",
    "get_uid",
    "get_value",
    "in_test_phase",
    "in_train_phase",
    "learning_phase",
    "learning_phase_scope",
    "manual_variable_initialization",
    "moving_average_update",
    "name_scope",
    "ones",
    "print_tensor",
    "random_bernoulli",
    "random_binomial",
    "random_normal",
    "random_normal_variable",
    "random_uniform",
    "random_uniform_variable",
    "reset_uids",
    "set_learning_phase",
    "set_value",
    "truncated_normal",
    "update",
    "update_add",
    "update_sub",
    "variable",
    "zeros",
]

# --- variables

_scope: contextvars.ContextVar[str] = contextvars.ContextVar("name_scope", default="")


@contextlib.contextmanager
def name_scope(name: str) -> Iterator[None]:
    """Puts `name/` before the names of Variables that are made while the context lasts."""
    token = _scope.set(f"{_scope.get()}{name}/")
    try:
        yield
    finally:
        _scope.reset(token)


def variable(
    value: Any, dtype: Any = None, name: str | None = None, constraint: Any = None
) -> Variable:
    """Returns a Variable.

    Args:
        value: Its first value.
        dtype: By default `floatx()`.
        name: Counted by default.
        constraint: Applied by optimizers after each update.

    >>> variable([1.0, 2.0]).shape
    (2,)
    """
    made = Variable(np.asarray(unwrap(value)), dtype=dtype or floatx(), name=name)
    made.path = f"{_scope.get()}{made.name}"
    made.constraint = constraint
    return made


def _kept(array: Any, dtype: Any, name: str | None) -> Any:
    """Returns a Variable, as Keras 2 does; an array inside the call of a layer, which keeps none."""
    return array if running_layer.get() is not None else variable(array, dtype, name)


def zeros(shape: Sequence[int], dtype: Any = None, name: str | None = None) -> Any:
    """Returns a Variable of zeros; inside the call of a layer an array."""
    return _kept(jnp.zeros(tuple(shape), dtype or floatx()), dtype, name)


def ones(shape: Sequence[int], dtype: Any = None, name: str | None = None) -> Any:
    """Returns a Variable of ones; inside the call of a layer an array."""
    return _kept(jnp.ones(tuple(shape), dtype or floatx()), dtype, name)


def eye(size: int, dtype: Any = None, name: str | None = None) -> Any:
    """Returns a Variable with ones on the diagonal; inside the call of a layer an array."""
    shape = (size, size) if isinstance(size, int) else tuple(size)
    return _kept(jnp.eye(*shape, dtype=dtype or floatx()), dtype, name)


def get_value(x: Any) -> np.ndarray:
    """Returns the numbers of a Variable or array as a NumPy array."""
    return np.array(unmask(unwrap(x)))


def set_value(x: Any, value: Any) -> None:
    """Sets a Variable from an array."""
    x.assign(np.asarray(unwrap(value), x.dtype).reshape(x.shape))


def batch_get_value(tensors: Iterable[Any]) -> list[np.ndarray]:
    """Returns the numbers of several Variables."""
    return [get_value(t) for t in tensors]


def batch_set_value(tuples: Iterable[tuple[Any, Any]]) -> None:
    """Sets several Variables from pairs `(variable, value)`."""
    for x, value in tuples:
        set_value(x, value)


def update(x: Any, new_x: Any) -> Any:
    """Assigns `new_x` to a Variable, now; with a Symbol it is a pair for `function(updates=)`."""
    if symbols_in(new_x):
        return x, new_x
    return x.assign(unmask(new_x))


def update_add(x: Any, increment: Any) -> Any:
    """Adds to a Variable, as `update`."""
    return update(x, x + increment)


def update_sub(x: Any, decrement: Any) -> Any:
    """Takes from a Variable, as `update`."""
    return update(x, x - decrement)


def moving_average_update(x: Any, value: Any, momentum: Any) -> Any:
    """Makes a Variable `momentum` of itself and the rest of `value`, as `update`."""
    return update(x, x * momentum + value * (1 - momentum))


def manual_variable_initialization(value: bool) -> None:
    """Takes False only: Variables have their first values at once."""
    if value:
        raise ArgumentError(
            "K.manual_variable_initialization",
            received="True",
            expected="False: Variables have their first values at once",
            fix="set_weights, or K.set_value, gives them others",
        )


# --- random numbers


def _seed(what: str, shape: Any, seed: Any) -> Any:
    if any(n is None or is_symbol(n) for n in shape):
        raise ShapeError(
            f"K.{what} outside a layer",
            received=f"shape {tuple(shape)}",
            expected="known sizes",
            fix="draw inside a Lambda or a layer of your own, which know the batch size",
        )
    return generator_here() if seed is None else seed


def random_normal(
    shape: Sequence[int],
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
) -> Any:
    """Draws from a normal distribution; a layer that is called draws anew each time.

    Args:
        shape: The shape.
        mean, stddev: Of the distribution.
        dtype: By default `floatx()`.
        seed: An integer gives the same draw every time.
    """
    return draws.normal(shape, mean, stddev, dtype, _seed("random_normal", shape, seed))


def truncated_normal(
    shape: Sequence[int],
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
) -> Any:
    """Draws from a normal distribution, within two standard deviations; see `random_normal`."""
    return draws.truncated_normal(
        shape, mean, stddev, dtype, _seed("truncated_normal", shape, seed)
    )


def random_uniform(
    shape: Sequence[int],
    minval: float = 0.0,
    maxval: float = 1.0,
    dtype: Any = None,
    seed: Any = None,
) -> Any:
    """Draws evenly from `[minval, maxval)`; see `random_normal`."""
    return draws.uniform(shape, minval, maxval, dtype, _seed("random_uniform", shape, seed))


def random_bernoulli(
    shape: Sequence[int], p: float = 0.0, dtype: Any = None, seed: Any = None
) -> Any:
    """Draws 1 with probability `p`, else 0; see `random_normal`."""
    even = random_uniform(shape, 0.0, 1.0, None, seed)
    return (even < p).astype(dtype or floatx())


def random_binomial(
    shape: Sequence[int], p: float = 0.0, dtype: Any = None, seed: Any = None
) -> Any:
    """Is `random_bernoulli`, by its older name."""
    return random_bernoulli(shape, p, dtype, seed)


def random_normal_variable(
    shape: Sequence[int],
    mean: float,
    scale: float,
    dtype: Any = None,
    name: str | None = None,
    seed: Any = None,
) -> Variable:
    """Returns a Variable whose first value is drawn from a normal distribution."""
    return variable(draws.normal(shape, mean, scale, dtype, seed), dtype, name)


def random_uniform_variable(
    shape: Sequence[int],
    low: float,
    high: float,
    dtype: Any = None,
    name: str | None = None,
    seed: Any = None,
) -> Variable:
    """Returns a Variable whose first value is drawn evenly from `[low, high)`."""
    return variable(draws.uniform(shape, low, high, dtype, seed), dtype, name)


@node
def dropout(x: Any, level: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """Sets a share `level` of the entries to 0 and scales the rest up; a mask stays."""
    return draws.dropout(x, level, noise_shape, _seed("dropout", (), seed))


# --- the learning phase

LEARNING_PHASE = Symbol((), "bool", name="keras_learning_phase")


def learning_phase() -> Any:
    """Returns 1 in training and 0 in use, where that is known: in a layer's call, or set.

    Elsewhere it returns a Symbol, which `function` takes among its inputs.
    """
    now = training_now()
    return LEARNING_PHASE if now is None else int(now)


def set_learning_phase(value: Any) -> None:
    """Sets what calls that say nothing about `training` get: 1 or 0. `fit` and `predict` say it."""
    if value not in (0, 1):
        raise ArgumentError("K.set_learning_phase", repr(value), "0 or 1")
    set_training(bool(value))


def learning_phase_scope(value: Any) -> contextlib.AbstractContextManager:
    """Returns a context in which the learning phase is 1 or 0."""
    if value not in (0, 1):
        raise ArgumentError("K.learning_phase_scope", repr(value), "0 or 1")
    return training_phase(bool(value))


@node
def _by_phase(x: Any, alt: Any) -> Any:
    return x if training_now() else alt


def in_train_phase(x: Any, alt: Any, training: Any = None) -> Any:
    """Returns `x` in training and `alt` in use; functions are called.

    Args:
        x, alt: Arrays, or functions of nothing.
        training: By default the learning phase.
    """
    if training is LEARNING_PHASE:
        training = None
    if training is None and training_now() is not None:
        training = training_now()
    if training is None or isinstance(training, bool | int | np.integer):
        if training is not None:
            chosen = x if training else alt
            return chosen() if callable(chosen) else chosen
        x, alt = (v() if callable(v) else v for v in (x, alt))
        return _by_phase(x, alt)
    x, alt = (v() if callable(v) else v for v in (x, alt))
    return ops.where(ops.cast(training, "bool"), x, alt)


def in_test_phase(x: Any, alt: Any, training: Any = None) -> Any:
    """Returns `x` in use and `alt` in training; see `in_train_phase`."""
    return in_train_phase(alt, x, training)


# --- names, and what is printed

_uids: dict[str, int] = {}


def get_uid(prefix: str = "") -> int:
    """Returns 1, 2, ... for each prefix."""
    _uids[prefix] = _uids.get(prefix, 0) + 1
    return _uids[prefix]


def reset_uids() -> None:
    """Starts `get_uid` and the automatic names again."""
    _uids.clear()
    reset_names()


@node
def print_tensor(x: Any, message: str = "", summarize: int = 3) -> Any:
    """Returns `x`, and prints it when it is computed.

    Args:
        x: An array or a masked sequence.
        message: Printed before it.
        summarize: How many entries at the ends of an axis are printed, -1 for all.
    """

    def show(data: Any) -> None:
        edges = max(np.shape(data), default=1) if summarize < 0 else summarize
        print(message, np.array2string(np.asarray(data), threshold=0, edgeitems=max(edges, 1)))

    jax.debug.callback(show, unmask(x))
    return x
