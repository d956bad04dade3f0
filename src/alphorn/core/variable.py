"""State: a Variable is a slot that holds an array, and a scope may stand before the slots.

Outside any scope a Variable reads and writes its slot. Inside `functional(fn, variables)` reads and
writes go to the scope's own values, so that `fn` becomes a pure function of arrays: all that jit,
grad, vmap, training and `stateless_call` need.
"""

import contextlib
import contextvars
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from alphorn.config import floatx
from alphorn.core.assignment import Assignable
from alphorn.core.context import current_path
from alphorn.core.scope import (
    EAGER,
    Scope,
    current_scope,
    current_trace,
    outside_traces,
    record,
    slot_may_be_read,
    staging,
)
from alphorn.distribution.placing import place, put
from alphorn.distribution.processes import on_host
from alphorn.errors import ShapeError, StateError
from alphorn.loading import take
from alphorn.naming import auto_name

try:  # private: without the handler `jax.lax` speaks JAX's own error
    from jax._src.dtypes import canonicalize_value_handlers
except ImportError:
    canonicalize_value_handlers = {}

_autocast: contextvars.ContextVar[Any] = contextvars.ContextVar("autocast", default=None)


@contextlib.contextmanager
def autocast_to(dtype: Any) -> Iterator[None]:
    """Float Variables read as `dtype` while the context lasts."""
    token = _autocast.set(dtype)
    try:
        yield
    finally:
        _autocast.reset(token)


# What JAX raises where a first value needs a traced array.
_TRACED = (jax.errors.UnexpectedTracerError, jax.errors.TracerArrayConversionError)

# Arrays up to this size are made on the host, since `jnp.full` and `jnp.array` compile a program for each
# shape; larger ones would be held twice meanwhile.
SMALL_BYTES = 1 << 20

_OF_ARRAYS = frozenset(n for n in dir(Array) if not n.startswith("_")) | {"tolist"}


class Variable:
    """An array that changes: a weight, a moving mean, a counter.

    It works wherever an array does: `jnp.dot(x, self.kernel)`, `self.kernel > 0`.

    Args:
        initializer: An array, or a function `(shape, dtype) -> array`.
        shape: Needed with a function.
        dtype: By default that of the array, or `floatx()`.
        trainable: Whether training changes it.
        autocast: Whether a mixed-precision layer reads it in its compute dtype.
        aggregation, synchronization: As in Keras; replicas here are JAX's, and always agree.
        name: By default `variable`, `variable_1`, ...
        layout: A `TensorLayout`; by default that which the distribution has for the path.

    >>> counter = Variable(0.0, name="counter")
    >>> counter.assign_add(2.0)
    Array(2., dtype=float32)
    >>> counter + 1
    Array(3., dtype=float32)
    """

    born_trainable: bool  # where a layer made it
    follows: "Variable | None" = None  # the weight of which it is an optimizer's state

    def __init__(
        self,
        initializer: Any,
        shape: Sequence[int] | None = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        aggregation: str = "none",
        synchronization: str = "auto",
        name: str | None = None,
        layout: Any = None,
    ):
        self.name = name or auto_name("variable")
        self.path = "/".join((*current_path.get(), self.name))
        self.trainable = bool(trainable)
        self.autocast = autocast
        self.aggregation = aggregation
        self.synchronization = synchronization
        self.regularizer: Any = None
        self.constraint: Any = None
        self.overwrite_with_gradient = False
        self.lock = threading.RLock()
        value = self._first_value(initializer, shape, dtype)
        self._slot: Array = value
        self.version = 0
        self.dtype = value.dtype
        self.layout: Any = None
        with outside_traces():
            place([self]) if layout is None else self.lay_out(layout)
        for scope in _open_scopes():
            scope.values[self] = self._slot

    def _first_value(self, initializer: Any, shape: Sequence[int] | None, dtype: Any) -> Array:
        """Returns a concrete array even while JAX traces: a layer may build under jit, scan or vmap."""
        value: Any = None
        with contextlib.suppress(*_TRACED), outside_traces():
            if not callable(initializer) or hasattr(initializer, "shape"):
                value = _owned_array(unwrap(initializer), dtype)
            elif shape is None:
                raise ShapeError(
                    f"Variable '{self.name}'",
                    received="an initializer without a shape",
                    expected="shape=(...) beside it",
                )
            else:
                dtype = jnp.dtype(dtype or floatx())
                take(f"Variable '{self.name}'", shape, dtype.itemsize)
                value = jnp.asarray(unwrap(initializer(tuple(shape), dtype=dtype)), dtype)
        if value is None or isinstance(value, Tracer):
            raise StateError(
                f"Variable '{self.name}' would start from a traced array",
                received=initializer,
                expected="a first value that does not depend on traced inputs",
                fix="make the Variable outside jit, or initialize it by a function",
            )
        if shape is not None and tuple(shape) != value.shape:
            raise ShapeError(
                f"Variable '{self.name}'", received=value.shape, expected=f"shape {tuple(shape)}"
            )
        return value

    @property
    def value(self) -> Array:
        """The array now: the scope's, or the slot's."""
        value = self._read()
        target = _autocast.get()
        if target is not None and self.autocast and jnp.issubdtype(value.dtype, jnp.floating):
            return value.astype(target)
        return value

    def _read(self) -> Array:
        scope = current_scope()
        holder = scope.holding(self) if scope is not None else None
        if holder is not None:
            return holder.read(self)
        if not slot_may_be_read(self):
            raise StateError(
                f"Variable '{self.path}' is read while JAX traces a function that does not carry it",
                expected="its value to be an argument: otherwise today's value stays for ever",
                fix="write alphorn.jit(model) in place of jax.jit(model), or use stateless_call; around a"
                " scan of your own, read it before: w = self.w.value",
            )
        return self._slot

    def assign(self, value: Any) -> Array:
        """Sets the value; shapes must agree, the dtype stays."""
        new = unwrap(value)
        shape = np.shape(new)
        if shape != self.shape:
            raise ShapeError(
                f"assign to Variable '{self.path}'",
                received=f"shape {shape}",
                expected=f"shape {self.shape}",
            )
        scope = current_scope()
        owner = scope.taking(self) if scope is not None else None
        if owner is not None:
            if current_trace() != owner.trace:
                raise StateError(
                    f"Variable '{self.path}' is written inside a scan, vmap, cond or checkpoint"
                    " body, which does not carry it",
                    fix="wrap the transform: alphorn.lifted(jax.checkpoint, fn, variables)",
                )
            record(_restorer(owner.values, self))
            owner.values[self] = jnp.asarray(new, self.dtype)
            return owner.values[self]
        if isinstance(new, Tracer) or staging():
            raise StateError(
                f"Variable '{self.path}' is written inside a JAX transform that does not carry it",
                received=type(new).__name__,
                expected="a concrete array, or a scope that holds the Variable",
                fix="write alphorn.jit(model), functional(fn, variables) or model.stateless_call",
            )
        old = self._slot
        record(lambda: self.rebind(old))
        self.rebind(self._laid_out(_owned_array(new, self.dtype)))
        return self._slot

    @property
    def writable(self) -> bool:
        """Whether `assign` may be called here: outside JAX's transforms, or where one carries it."""
        scope = current_scope()
        owner = scope.taking(self) if scope is not None else None
        return current_trace() == (EAGER if owner is None else owner.trace)

    def assign_add(self, value: Any) -> Array:
        """Adds to the value."""
        return self.assign(self._read() + jnp.asarray(unwrap(value), self.dtype))

    def assign_sub(self, value: Any) -> Array:
        """Subtracts from the value."""
        return self.assign(self._read() - jnp.asarray(unwrap(value), self.dtype))

    def lay_out(self, layout: Any) -> None:
        """Lays the slot out over devices, now and whenever it is assigned."""
        layout.check(f"Variable '{self.path}'", self.shape)
        self.layout = layout
        self.rebind(self._laid_out(self._slot))

    def _laid_out(self, value: Array) -> Array:
        return value if self.layout is None else put(value, self.layout.backend_layout)

    def rebind(self, value: Array) -> None:
        """Puts an array that this Variable now owns into the slot; for training."""
        self._slot = value
        self.version += 1

    @property
    def slot(self) -> Array:
        """The array in the slot, whatever scope is open."""
        return self._slot

    @property
    def settled(self) -> Array:
        """The array that no trace changes: an open scope's where it is concrete, or the slot's."""
        scope = current_scope()
        holder = scope.holding(self) if scope is not None else None
        value = self._slot if holder is None else holder.read(self)
        return self._slot if isinstance(value, Tracer) else value

    def numpy(self) -> np.ndarray:
        """Returns a copy as a NumPy array."""
        return on_host(self._read())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self._slot.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._slot.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._slot.size

    # NumPy's operators then leave the work to ours, as they do for JAX's arrays.
    __array_priority__ = 100

    def __getattr__(self, name: str) -> Any:
        if name in _OF_ARRAYS:  # `w.sum()`, `w.at[0].set(1)`, `w.T`
            return getattr(self.value, name)
        raise AttributeError(f"'Variable' object has no attribute '{name}'")

    def __jax_array__(self) -> Array:
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(on_host(self.value), dtype)

    def __getitem__(self, index: Any) -> Array:
        return self.value[unwrap(index)]

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Array]:
        return iter(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else repr(self)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "lock"} | {
            "_slot": on_host(self._slot),
            "layout": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.RLock(), _slot=jnp.asarray(state["_slot"]))


def _open_scopes() -> Iterator[Scope]:
    scope = current_scope()
    return iter(()) if scope is None else scope.chain()


def _restorer(values: dict[Any, Any], variable: Variable) -> Callable[[], None]:
    if variable not in values:
        return lambda: values.pop(variable, None)
    old = values[variable]
    return lambda: values.update({variable: old})


def _owned_array(value: Any, dtype: Any = None) -> Array:
    """Returns a copy: donation would delete an array that the user kept."""
    if dtype is None and not hasattr(value, "dtype") and np.asarray(value).dtype.kind == "f":
        dtype = floatx()
    dtype = None if dtype is None else jnp.dtype(dtype)
    if isinstance(value, np.ndarray | np.generic) and value.nbytes <= SMALL_BYTES:
        return jax.device_put(np.array(value, dtype))
    return jnp.array(value, dtype=dtype, copy=True)


def unwrap(value: Any) -> Any:
    """Returns the array of a Variable or an Assignable; anything else as it is."""
    return value.value if isinstance(value, Variable | Assignable) else value


_BINARY = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "divmod",
]
_COMPARE = ["eq", "ne", "lt", "le", "gt", "ge"]
_UNARY = ["neg", "pos", "abs", "invert", "round"]


def _operator(name: str) -> Callable:
    def apply(self: Variable, *others: Any) -> Any:
        return getattr(self.value, name)(*(unwrap(o) for o in others))

    return apply


for _name in (*_BINARY, *(f"r{n}" for n in _BINARY), *_COMPARE, *_UNARY):
    setattr(Variable, f"__{_name}__", _operator(f"__{_name}__"))


def _plain(_: None, children: tuple[Any]) -> Any:
    return children[0]


# Flattens to its value and comes back as the plain array: a Variable passes wherever a pytree does.
jax.tree_util.register_pytree_node(Variable, lambda v: ((v.value,), None), _plain)
canonicalize_value_handlers[Variable] = lambda v: v.value
canonicalize_value_handlers[Assignable] = lambda v: v.value


@contextlib.contextmanager
def hold(variables: Sequence[Variable]) -> Iterator[None]:
    """Holds the locks of `variables`: nobody rebinds their slots meanwhile."""
    locks = {id(v.lock): v.lock for v in variables}
    with contextlib.ExitStack() as stack:
        for key in sorted(locks):
            stack.enter_context(locks[key])
        yield


def share_lock(variables: Sequence[Variable]) -> None:
    """Gives `variables` one lock between them: holding it is then one operation."""
    if variables and any(v.lock is not variables[0].lock for v in variables):
        with hold(variables):
            for variable in variables:
                variable.lock = variables[0].lock
