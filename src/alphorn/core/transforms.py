"""Pure functions behind functions that use Variables, and JAX's transforms of them."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import Array

from alphorn.core.scope import Scope, in_scope, transparent
from alphorn.core.variable import Variable, hold, unwrap
from alphorn.errors import StateError


def functional(fn: Callable, variables: Sequence[Variable]) -> Callable:
    """Returns the pure function behind `fn`, which reads and writes `variables`.

    Args:
        fn: Any function that uses the Variables.
        variables: Those whose values are arguments, in this order.

    Returns:
        `pure(values, *args, **kwargs) -> (out, new_values)`.

    >>> import jax.numpy as jnp
    >>> total = Variable(1.0)
    >>> def add(x):
    ...     _ = total.assign_add(x)
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

        def run(scope: Scope) -> tuple[Any, list[Any]]:
            out = fn(*args, **kwargs)
            return out, [scope.values[v] for v in variables]

        return in_scope(run, dict(zip(variables, map(unwrap, values), strict=True)))

    return pure


def lifted(transform: Callable, fn: Callable, variables: Sequence[Variable]) -> Callable:
    """Returns `transform(fn)` for an `fn` that reads and writes Variables.

    Args:
        transform: A JAX transform that keeps the signature and the result: `jax.checkpoint`,
            `jax.jit`.
        fn: Any function that uses the Variables.
        variables: Those that `fn` reads or writes.

    >>> import jax.numpy as jnp
    >>> seen = Variable(0.0)
    >>> def f(x):
    ...     _ = seen.assign_add(1.0)
    ...     return x * seen.value
    >>> float(lifted(jax.checkpoint, f, [seen])(jnp.float32(3))), float(seen)
    (3.0, 1.0)
    """
    variables = list(variables)
    pure = functional(fn, variables)

    def changes(values: list[Any], *args: Any, **kwargs: Any) -> tuple[Any, dict[int, Any]]:
        out, new = pure(values, *args, **kwargs)
        return out, {i: v for i, v in enumerate(new) if v is not values[i]}

    transformed = transform(changes)

    @functools.wraps(fn, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        out, new = transformed([v._read() for v in variables], *args, **kwargs)
        for i, value in new.items():
            variables[i].assign(value)
        return out

    return run


def lifted_scan(
    body: Callable, carry: Any, inputs: Any, *, variables: Sequence[Variable], **options: Any
) -> tuple[Any, Any]:
    """Is `jax.lax.scan(body, carry, inputs)` for a body that reads and writes Variables."""
    variables = list(variables)
    pure = functional(body, variables)

    def step(state: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], Any]:
        values, inner = state
        (inner, out), values = pure(values, inner, x)
        return (values, inner), out

    start = ([v._read() for v in variables], carry)
    (values, carry), out = jax.lax.scan(transparent(step), start, inputs, **options)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return carry, out


def value_and_grad(
    fn: Callable,
    variables: Sequence[Variable],
    has_aux: bool = False,
    at: Mapping[Variable, Array] | None = None,
) -> Callable[..., tuple[Any, list[Array]]]:
    """Returns a function that gives the value of `fn` and its gradients by `variables`.

    What `fn` writes to other Variables (moving means, seeds) is kept.

    Args:
        fn: Returns a scalar; with `has_aux`, `(scalar, anything)`.
        variables: By which to differentiate.
        has_aux: Whether `fn` returns more than the scalar.
        at: Values that some of them have meanwhile, instead of their own.

    >>> w = Variable(3.0)
    >>> value_and_grad(lambda x: w * w * x, [w])(2.0)
    (Array(18., dtype=float32), [Array(12., dtype=float32)])
    """
    variables = list(variables)

    def run(*args: Any, **kwargs: Any) -> tuple[Any, list[Array]]:
        written: list[Variable] = []

        def pure(values: list[Array]) -> tuple[Any, tuple[Any, list[Array]]]:
            given = dict(zip(variables, values, strict=True))

            def body(scope: Scope) -> tuple[Any, tuple[Any, list[Array]]]:
                out = fn(*args, **kwargs)
                written[:] = [v for v in scope.values if v not in given]
                new = [scope.values[v] for v in written]
                return (out[0], (out[1], new)) if has_aux else (out, (None, new))

            return in_scope(body, given, absorbing=True)

        start = [v._read() if at is None or v not in at else at[v] for v in variables]
        (value, (aux, new)), grads = jax.value_and_grad(transparent(pure), has_aux=True)(start)
        for variable, new_value in zip(written, new, strict=True):
            variable.assign(new_value)
        return ((value, aux) if has_aux else value), grads

    return run


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

    >>> import jax.numpy as jnp
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
