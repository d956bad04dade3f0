"""Conversion, control flow and transforms: a Masked crosses them as the pytree that it is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alphorn.core.masked import Masked
from alphorn.core.variable import Variable
from alphorn.ops.rules import unused
from alphorn.ops.table import Op, Rule, row

_CROSSES = "crosses: a Masked inside is data and mask."
_crosses = Rule(unused.apply, _CROSSES, anywhere=True)


def _convert(op: Op, arguments: dict[str, Any]) -> Masked:
    x, dtype = arguments["x"], arguments["dtype"]
    return x if dtype is None else Masked.trusted(x.fill(0).astype(dtype), x.mask)


@row(Rule(_convert, "stays."))
def convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    """Returns `x` as a JAX array; `sparse` and `ragged` may only be False or None."""
    if sparse or ragged:
        raise ValueError(
            "ops.convert_to_tensor: JAX has dense arrays only: leave sparse and ragged"
        )
    return jnp.asarray(x, dtype)


@row(Rule(_convert, "stays."))
def array(x: Any, dtype: Any = None) -> Any:
    """Returns `x` as a JAX array."""
    return jnp.asarray(x, dtype)


@row(Rule(lambda op, arguments: np.array(arguments["x"].data), "ends here, on purpose."))
def convert_to_numpy(x: Any) -> Any:
    """Returns `x` as a NumPy array."""
    return np.array(x)


@row(unused, arrays=(), symbolic=False)
def is_tensor(x: Any) -> Any:
    """Returns whether `x` is a JAX array, a Masked or a Variable."""
    return isinstance(x, Array | Masked | Variable)


@row(_crosses, arrays=("pred",))
def cond(pred: Any, true_fn: Callable, false_fn: Callable) -> Any:
    """Returns `true_fn()` where `pred` holds, else `false_fn()`; both give equal structures."""
    return lax.cond(pred, true_fn, false_fn)


@row(_crosses, arrays=("index",))
def switch(index: Any, branches: Any, *operands: Any) -> Any:
    """Returns `branches[index](*operands)`."""
    return lax.switch(index, branches, *operands)


@row(_crosses, arrays=())
def while_loop(
    cond: Callable, body: Callable, loop_vars: Any, maximum_iterations: Any = None
) -> Any:
    """Returns `loop_vars` after `body(*loop_vars)` was called while `cond(*loop_vars)` holds."""
    several = isinstance(loop_vars, list | tuple)
    first = tuple(loop_vars) if several else (loop_vars,)

    def go_on(state: tuple) -> Any:
        count, values = state
        within = True if maximum_iterations is None else count < maximum_iterations
        return jnp.logical_and(cond(*values), within)

    def step(state: tuple) -> tuple:
        count, values = state
        new = body(*values)
        return count + 1, tuple(new) if isinstance(new, list | tuple) else (new,)

    values = lax.while_loop(go_on, step, (0, first))[1]
    return type(loop_vars)(values) if several else values[0]


@row(_crosses, arrays=())
def fori_loop(lower: Any, upper: Any, body_fun: Callable, init_val: Any) -> Any:
    """Returns `init_val` after `body_fun(i, value)` for `i` from `lower` up to `upper`."""
    return lax.fori_loop(lower, upper, body_fun, init_val)


@row(_crosses, arrays=())
def scan(
    f: Callable,
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: Any = 1,
) -> Any:
    """Returns the last carry and the stacked outputs of `f(carry, x) -> (carry, y)` over `xs`."""
    return lax.scan(f, init, xs, length, reverse, unroll)


@row(_crosses, arrays=())
def associative_scan(f: Callable, elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """Returns the running combinations by an associative `f` along `axis`."""
    return lax.associative_scan(f, elems, reverse, axis)


@row(_crosses, arrays=(), name="map")
def _map(f: Callable, xs: Any) -> Any:
    """Returns the stacked results of `f` on each entry of `xs` along its first axis."""
    return lax.map(f, xs)


@row(_crosses, arrays=())
def vectorized_map(function: Callable, elements: Any) -> Any:
    """Returns the stacked results of `function` on each entry of the first axis, all at once."""
    return jax.vmap(function)(elements)


@row(_crosses, arrays=())
def jvp(fun: Callable, primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """Returns `fun(*primals)` and its derivative in the direction of the tangents."""
    return jax.jvp(fun, tuple(primals), tuple(tangents), has_aux)


@row(_crosses, arrays=(), symbolic=False)
def custom_gradient(f: Callable) -> Any:
    """Returns `f`, which gives `(outputs, grad)`; its gradient is `grad(*args, upstream=g)`."""

    @jax.custom_gradient
    def wrapped(*args: Any) -> Any:
        outputs, gradient = f(*args)
        return outputs, lambda upstream: gradient(*args, upstream=upstream)

    return wrapped
