"""Assignment to parts of arrays, `x[..., 0] = v`, which JAX's arrays refuse.

A user's `call` is run on plain arrays first. Where one of them refuses an assignment, what was
written to state is taken back and the call runs again on `Assignable` arrays: private copies that
can be assigned to and are arrays otherwise.
"""

import contextlib
import contextvars
import operator
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alphorn.core.refusal import asked_by_operator
from alphorn.core.scope import attempt, current_trace
from alphorn.errors import AssignmentError

# The trace of the call that assigns; None elsewhere.
_assigning: contextvars.ContextVar[Any] = contextvars.ContextVar("assigning", default=None)
_REFUSED = "JAX arrays are immutable"


class Assignable:
    """An array that can be assigned to: `x[index] = value`.

    A part, `part = x[..., 0]`, is a value of its own; what is assigned to it is assigned to `x` as
    well, as with NumPy. Operators, methods and ops give assignable arrays again; functions of jnp
    give plain ones.

    Args:
        value: The array, which stays as it is.
        whole: `(array, index)` that this is a part of.
    """

    __slots__ = ("value", "whole")
    __hash__ = None  # type: ignore[assignment]
    # NumPy's operators leave the work to ours.
    __array_priority__ = 1000

    def __init__(self, value: Any, whole: "tuple[Assignable, Any] | None" = None):
        self.value = value
        self.whole = whole

    def __getitem__(self, index: Any) -> "Assignable":
        index = plain(index)
        return Assignable(self.value[index], (self, index) if is_basic(index) else None)

    def __setitem__(self, index: Any, value: Any) -> None:
        index, value = plain(index), jnp.asarray(plain(value))
        value = value.astype(self.value.dtype)
        if not value.ndim and getattr(index, "dtype", None) == jnp.bool_:
            chosen = lax.expand_dims(jnp.asarray(index), range(index.ndim, self.value.ndim))
            self.value = jnp.where(chosen, value, self.value)
        else:
            self.value = self.value.at[index].set(value)
        if self.whole is not None:
            whole, at = self.whole
            part = Assignable(whole.value[at])
            part[index] = value
            whole[at] = part

    @property
    def __jax_array__(self) -> Callable[[], Array]:
        if asked_by_operator():
            raise AttributeError("__jax_array__")
        return lambda: self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs and hasattr(jnp, ufunc.__name__):
            return Assignable(getattr(jnp, ufunc.__name__)(*plain(inputs)))
        return getattr(ufunc, method)(*plain(inputs), **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in Assignable.__slots__:  # not yet set, while a copy is made
            raise AttributeError(name)
        found = getattr(self.value, name)
        if name == "at" or not callable(found):
            return assignable(found)
        return lambda *args, **kwargs: assignable(found(*plain(args), **plain(kwargs)))

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self.value)))

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"Assignable({self.value!r})"

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


def _operator(name: str) -> Callable:
    function = getattr(operator, name, None) or getattr(operator, f"{name}_")
    return lambda self, *others: assignable(function(self.value, *map(plain, others)))


def _reflected(name: str) -> Callable:
    function = getattr(operator, name, None) or getattr(operator, f"{name}_")
    return lambda self, other: assignable(function(plain(other), self.value))


_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
for _name in (*_BINARY, *"eq ne lt le gt ge neg pos abs invert".split()):
    setattr(Assignable, f"__{_name}__", _operator(_name))
for _name in _BINARY:
    setattr(Assignable, f"__r{_name}__", _reflected(_name))
for _name, _convert in {
    "float": float,
    "int": int,
    "bool": bool,
    "complex": complex,
    "index": operator.index,
    "round": round,
}.items():
    setattr(
        Assignable, f"__{_name}__", lambda self, *a, _convert=_convert: _convert(self.value, *a)
    )


def _as_plain(_: None, children: tuple[Any]) -> Any:
    return children[0]


# Comes back from transforms as the plain array: bodies of scans keep their structure.
jax.tree_util.register_pytree_node(Assignable, lambda a: ((a.value,), None), _as_plain)


def is_basic(index: Any) -> bool:
    """Returns whether an index picks a part by slices and integers only, as a view in NumPy."""
    entries = index if isinstance(index, tuple) else (index,)
    return all(e is None or e is Ellipsis or isinstance(e, int | slice) for e in entries)


def plain(value: Any) -> Any:
    """Returns plain arrays in place of assignable ones, also inside lists, tuples and dicts."""
    if isinstance(value, Assignable):
        return value.value
    if type(value) in (list, tuple):
        return type(value)(plain(v) for v in value)
    if type(value) is dict:
        return {k: plain(v) for k, v in value.items()}
    return value


def assignable(value: Any) -> Any:
    """Returns assignable arrays in place of plain ones, also inside lists, tuples and dicts."""
    if isinstance(value, Array):
        return Assignable(value)
    if isinstance(value, list | tuple):
        values = [assignable(v) for v in value]
        return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)
    if isinstance(value, dict):
        return {k: assignable(v) for k, v in value.items()}
    return value


def is_assigning() -> bool:
    """Returns whether arrays made here are to be assignable."""
    trace = _assigning.get()
    return trace is not None and trace == current_trace()


def assignable_here(value: Any) -> Any:
    """Returns arrays as assignable ones where the call around assigns; else as they are."""
    return assignable(value) if is_assigning() else value


def without_assigning(function: Callable, args: Any, kwargs: Any) -> Any:
    """Returns `function(*args, **kwargs)` as code sees it that does not assign itself."""
    token = _assigning.set(None)
    try:
        return function(*args, **kwargs)
    finally:
        _assigning.reset(token)


# What JAX says where numbers are wanted while a program is traced, and what to write instead.
_WAYS = {
    jax.errors.TracerArrayConversionError: (
        "NumPy wants numbers that are known only when the program runs: write ops for np;"
        " an array to assign to is y = ops.zeros(shape)"
    ),
    jax.errors.NonConcreteBooleanIndexError: (
        "how many entries x[condition] has is known only when the program runs: write"
        " x = ops.where(condition, values, x), with values in the shape of x"
    ),
}


@contextlib.contextmanager
def _explained(where: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except tuple(_WAYS) as error:
        if not getattr(error, "__notes__", None):
            error.add_note(f"{where()}: {_WAYS[type(error)]}")
        raise


def call_assigning(
    where: Callable[[], str], function: Callable, args: tuple, kwargs: dict, own: Callable
) -> Any:
    """Returns `function(*args, **kwargs)` of a user's function that may assign to its arguments.

    Args:
        where: Says which layer that is.
        function: The user's.
        args: Positional arguments.
        kwargs: Arguments by name.
        own: Copies a Masked: the caller's must stay as it is.
    """
    with attempt() as undo, _explained(where):
        try:
            return function(*own(args), **own(kwargs))
        except TypeError as error:
            if _REFUSED not in str(error):
                raise
        undo()
        token = _assigning.set(current_trace())
        try:
            out = function(*assignable(own(args)), **assignable(own(kwargs)))
        except TypeError as error:
            if _REFUSED not in str(error):
                raise
            raise AssignmentError(
                f"{where()}: an item of an array is assigned that a function of jnp or jax made",
                expected="an input of the layer, or what operators, methods and ops make of it",
                fix="make it by an op (ops.tanh(x) for jnp.tanh(x)), or write"
                " y = y.at[index].set(value)",
            ) from error
        finally:
            _assigning.reset(token)
        return jax.tree.map(lambda x: x, out)
