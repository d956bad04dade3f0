"""State: a Variable is a slot that holds an array, and a scope may stand before the slots.

Outside any scope a Variable reads and writes its slot. Inside `functional(fn, variables)` reads and
writes go to the scope's own values, so that `fn` becomes a pure function of arrays: all that jit,
grad, vmap, training and `stateless_call` need.
"""

import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state

from alphorn.config import floatx
from alphorn.errors import ShapeError, StateError
from alphorn.naming import auto_name

try:  # private: without the handler `jax.lax` speaks JAX's own error
    from jax._src.dtypes import canonicalize_value_handlers
except ImportError:
    canonicalize_value_handlers = {}

_trace = functools.partial(get_opaque_trace_state, convention="nnx")
_EAGER = _trace()

# Changes with every scope, so that a user's stored jit cannot carry values from one to another.
scope_token = jax.make_user_context(None)


class Scope:
    """The values that Variables have inside one `functional` call."""

    __slots__ = ("absorbing", "losses", "outer", "trace", "values")

    def __init__(self, values: dict["Variable", Any], outer: "Scope | None", absorbing: bool):
        self.values = values
        self.outer = outer
        self.absorbing = absorbing
        self.trace = _trace()
        self.losses: list[tuple[Any, Any]] = []

    def owner(self, variable: "Variable") -> "Scope | None":
        """Returns the innermost scope that holds `variable`."""
        scope = self
        while scope is not None and variable not in scope.values:
            if scope.absorbing:
                return scope
            scope = scope.outer
        return scope


_scope: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("scope", default=None)
_autocast: contextvars.ContextVar[Any] = contextvars.ContextVar("autocast", default=None)


def current_scope() -> Scope | None:
    """Returns the open scope, or None."""
    return _scope.get()


@contextlib.contextmanager
def open_scope(
    values: dict["Variable", Any] | None = None, absorbing: bool = False
) -> Iterator[Scope]:
    """Opens a scope; an absorbing one takes writes of Variables that it was not given."""
    scope = Scope(values or {}, _scope.get(), absorbing)
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def autocast_to(dtype: Any) -> Iterator[None]:
    """Float Variables read as `dtype` while the context lasts."""
    token = _autocast.set(dtype)
    try:
        yield
    finally:
        _autocast.reset(token)


def staging() -> bool:
    """Returns whether operations are being recorded (jit, scan, eval_shape), not run."""
    return _trace() != _EAGER and isinstance(jax.lax.add(np.float32(0), np.float32(0)), Tracer)


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

    >>> counter = Variable(0.0, name="counter")
    >>> counter.assign_add(2.0)
    >>> counter + 1
    Array(3., dtype=float32, weak_type=True)
    """

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
    ):
        self.name = name or auto_name("variable")
        self.path = self.name
        self.trainable = bool(trainable)
        self.autocast = autocast
        self.aggregation = aggregation
        self.synchronization = synchronization
        self.regularizer: Any = None
        self.constraint: Any = None
        self.overwrite_with_gradient = False
        self.lock = threading.RLock()
        # A concrete first value even while JAX traces: a layer may build under jit, scan or vmap.
        with jax.ensure_compile_time_eval():
            if callable(initializer) and not hasattr(initializer, "shape"):
                if shape is None:
                    raise ShapeError(
                        f"Variable '{self.name}'",
                        received="an initializer without a shape",
                        expected="shape=(...) beside it",
                    )
                dtype = jnp.dtype(dtype or floatx())
                value = jnp.asarray(unwrap(initializer(tuple(shape), dtype=dtype)), dtype)
            else:
                value = _owned_array(unwrap(initializer), dtype)
        if shape is not None and tuple(shape) != value.shape:
            raise ShapeError(
                f"Variable '{self.name}'", received=value.shape, expected=f"shape {tuple(shape)}"
            )
        if isinstance(value, Tracer):
            raise StateError(
                f"Variable '{self.name}' would start from a traced array",
                received=value,
                expected="a first value that does not depend on traced inputs",
                fix="make the Variable outside jit, or initialize it by a function",
            )
        self._slot: Array = value
        self.dtype = value.dtype.name
        if scope := _scope.get():
            scope.values[self] = value

    @property
    def value(self) -> Array:
        """The array now: the scope's, or the slot's."""
        value = self._read()
        target = _autocast.get()
        if target is not None and self.autocast and jnp.issubdtype(value.dtype, jnp.floating):
            return value.astype(target)
        return value

    def _read(self) -> Array:
        scope = _scope.get()
        if scope is not None:
            owner = scope.owner(self)
            if owner is not None:
                return owner.values.get(self, self._slot)
        if staging():
            raise StateError(
                f"Variable '{self.path}' is read while JAX traces a function that does not carry it",
                expected="its value to be an argument: otherwise today's value stays for ever",
                fix="write alphorn.jit(model) in place of jax.jit(model), or use stateless_call",
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
        scope = _scope.get()
        owner = scope.owner(self) if scope else None
        if owner is not None:
            if _trace() != owner.trace:
                raise StateError(
                    f"Variable '{self.path}' is written inside a scan, vmap, cond or checkpoint"
                    " body, which does not carry it",
                    fix="wrap the transform: alphorn.lifted(jax.checkpoint, fn, variables)",
                )
            owner.values[self] = jnp.asarray(new, self.dtype)
            return owner.values[self]
        if isinstance(new, Tracer) or staging():
            raise StateError(
                f"Variable '{self.path}' is written inside a JAX transform that does not carry it",
                received=type(new).__name__,
                expected="a concrete array, or a scope that holds the Variable",
                fix="write alphorn.jit(model), functional(fn, variables) or model.stateless_call",
            )
        self._slot = _owned_array(new, self.dtype)
        return self._slot

    def assign_add(self, value: Any) -> Array:
        """Adds to the value."""
        return self.assign(self._read() + jnp.asarray(unwrap(value), self.dtype))

    def assign_sub(self, value: Any) -> Array:
        """Subtracts from the value."""
        return self.assign(self._read() - jnp.asarray(unwrap(value), self.dtype))

    def rebind(self, value: Array) -> None:
        """Puts an array that this Variable now owns into the slot; for training."""
        self._slot = value

    @property
    def slot(self) -> Array:
        """The array in the slot, whatever scope is open."""
        return self._slot

    def numpy(self) -> np.ndarray:
        """Returns a copy as a NumPy array."""
        return np.array(self._read())

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

    @property
    def T(self) -> Array:
        """The transpose."""
        return self.value.T

    def astype(self, dtype: Any) -> Array:
        """Returns the value in another type."""
        return self.value.astype(dtype)

    def __jax_array__(self) -> Array:
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype)

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

    def __bool__(self) -> bool:
        return bool(self.value)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "lock"} | {
            "_slot": np.array(self._slot)
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.RLock(), _slot=jnp.asarray(state["_slot"]))


def _owned_array(value: Any, dtype: Any = None) -> Array:
    """Returns a copy: donation would delete an array that the user kept."""
    if dtype is None and not hasattr(value, "dtype") and np.asarray(value).dtype.kind == "f":
        dtype = floatx()
    return jnp.array(value, dtype=None if dtype is None else jnp.dtype(dtype), copy=True)


def unwrap(value: Any) -> Any:
    """Returns a Variable's array; anything else as it is."""
    return value.value if isinstance(value, Variable) else value


_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod".split()
_COMPARE = "eq ne lt le gt ge".split()
_UNARY = "neg pos abs invert".split()


def _operator(name: str) -> Callable:
    def apply(self: Variable, *others: Any) -> Any:
        return getattr(self.value, name)(*(unwrap(o) for o in others))

    return apply


for _name in (*_BINARY, *(f"r{n}" for n in _BINARY), *_COMPARE, *_UNARY):
    setattr(Variable, f"__{_name}__", _operator(f"__{_name}__"))

# Flattens to its value and comes back as the plain array: a Variable passes wherever a pytree does.
jax.tree_util.register_pytree_node(Variable, lambda v: ((v.value,), None), lambda _, c: c[0])
canonicalize_value_handlers[Variable] = lambda v: v.value


def functional(fn: Callable, variables: Sequence[Variable]) -> Callable:
    """Returns the pure function behind `fn`, which reads and writes `variables`.

    Args:
        fn: Any function that uses the Variables.
        variables: Those whose values are arguments, in this order.

    Returns:
        `pure(values, *args, **kwargs) -> (out, new_values)`.

    >>> total = Variable(1.0)
    >>> def add(x):
    ...     total.assign_add(x)
    ...     return total.value * 2
    >>> functional(add, [total])([jnp.float32(3)], 2.0)
    (Array(10., dtype=float32), [Array(5., dtype=float32)])
    """
    variables = list(variables)

    def pure(values: Sequence[Any], *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        if len(values) != len(variables):
            raise StateError(
                "functional", received=f"{len(values)} values", expected=f"{len(variables)}"
            )
        given = dict(zip(variables, map(unwrap, values), strict=True))
        with open_scope(given) as scope:
            out = fn(*args, **kwargs)
            return out, [scope.values[v] for v in variables]

    return pure


def lifted(transform: Callable, fn: Callable, variables: Sequence[Variable]) -> Callable:
    """Returns `transform(fn)` for an `fn` that reads and writes Variables.

    Args:
        transform: A JAX transform that keeps the signature and the result: `jax.checkpoint`,
            `jax.jit`.
        fn: Any function that uses the Variables.
        variables: Those that `fn` reads or writes.

    >>> seen = Variable(0.0)
    >>> def f(x):
    ...     seen.assign_add(1.0)
    ...     return x * seen.value
    >>> float(lifted(jax.checkpoint, f, [seen])(jnp.float32(3))), float(seen)
    (3.0, 1.0)
    """
    variables = list(variables)
    transformed = transform(functional(fn, variables))

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        out, new = transformed([v._read() for v in variables], *args, **kwargs)
        for variable, value in zip(variables, new, strict=True):
            variable.assign(value)
        return out

    return run


def lifted_scan(
    body: Callable, carry: Any, inputs: Any, variables: Sequence[Variable], **options: Any
) -> tuple[Any, Any]:
    """Is `jax.lax.scan(body, carry, inputs)` for a body that reads and writes Variables."""
    variables = list(variables)
    pure = functional(body, variables)

    def step(state: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], Any]:
        values, inner = state
        (inner, out), values = pure(values, inner, x)
        return (values, inner), out

    start = ([v._read() for v in variables], carry)
    (values, carry), out = jax.lax.scan(step, start, inputs, **options)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return carry, out


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


def variables_of(target: Any) -> list[Variable]:
    """Returns the Variables behind a layer, a bound method, or a function and what it closes over."""
    found: dict[Variable, None] = {}

    def add(value: Any) -> None:
        if isinstance(value, Variable):
            found[value] = None
        elif isinstance(value, list | tuple):
            for v in value:
                add(v)
        elif not isinstance(value, type) and hasattr(value, "variables"):
            found.update(dict.fromkeys(value.variables))

    add(target)
    add(getattr(target, "__self__", None))
    function = getattr(target, "__func__", target)
    if inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        for value in (*names.nonlocals.values(), *names.globals.values()):
            add(value)
    return list(found)


def jit(target: Callable, **options: Any) -> Callable:
    """Is `jax.jit` for a layer, a model or a function that uses them.

    The Variables (found in the layer, or in what the function closes over) are passed as arguments,
    so that the compiled function always sees today's weights and may write them.

    Args:
        target: A layer, model or function.
        **options: Those of `jax.jit` that speak of no positions.

    >>> scale = Variable(2.0)
    >>> double = jit(lambda x: x * scale.value)
    >>> scale.assign(5.0)
    Array(5., dtype=float32)
    >>> double(jnp.float32(3))
    Array(15., dtype=float32)
    """
    compiled: dict[tuple, Callable] = {}

    @functools.wraps(target, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        variables = variables_of(target)
        key = tuple(map(id, variables))
        if key not in compiled:
            compiled[key] = lifted(lambda f: jax.jit(f, **options), target, variables)
        before = len(variables)
        with hold(variables):
            out = compiled[key](*args, **kwargs)
        if len(variables_of(target)) != before:  # built while tracing: trace again with its weights
            return run(*args, **kwargs)
        return out

    return run
