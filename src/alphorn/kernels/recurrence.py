"""Recurrences with hand-written gradients.

Letters: `B` batch, `T` time, `F` features, `U` units, `G` gates times units.

All products that do not depend on the recurrence stand outside the loop: the projection of the
inputs before it, the weights' gradients after it. A loop runs to the longest valid step of the
batch, not to T. A masked step repeats the state.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from alphorn.core.masked import expand_to, extent, fill_masked

States = tuple[Array, ...]


def reverse_by_extent(x: Array, mask: Array | None = None) -> Array:
    """Reverses each row within its extent, so that a padded row turns as it would alone.

    Args:
        x: `(B, T, ...)`.
        mask: `(B, T)`, or None to reverse whole rows.

    >>> reverse_by_extent(jnp.array([[1, 2, 3, 0]]), jnp.array([[True, True, True, False]]))
    Array([[3, 2, 1, 0]], dtype=int32)
    """
    if mask is None:
        return jnp.flip(x, 1)
    start, stop = (edge[:, None] for edge in extent(mask))
    step = lax.iota(jnp.int32, x.shape[1])[None]
    source = jnp.where((step >= start) & (step < stop), start + stop - 1 - step, step)
    source = source.reshape(source.shape + (1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, source, axis=1)


def bounded_scan(
    step: Callable, carry: Any, xs: Any, bound: Array | None, reverse: bool = False
) -> tuple[Any, Any]:
    """Is `lax.scan` over the first `bound` entries; what is stacked is 0 beyond.

    Without a bound it is `lax.scan` itself; with one it cannot be differentiated by JAX.
    """
    if bound is None:
        return lax.scan(step, carry, xs, reverse=reverse)
    length = jax.tree.leaves(xs)[0].shape[0]
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    _, outs = jax.eval_shape(step, carry, first)
    buffers = jax.tree.map(lambda y: jnp.zeros((length, *y.shape), y.dtype), outs)

    def body(i: Array, state: tuple) -> tuple:
        carry, buffers = state
        t = bound - 1 - i if reverse else i
        x = jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, t, keepdims=False), xs)
        carry, y = step(carry, x)
        write = functools.partial(lax.dynamic_update_index_in_dim, index=t, axis=0)
        return carry, jax.tree.map(write, buffers, y)

    return lax.fori_loop(0, bound, body, (carry, buffers))


@dataclass(frozen=True, eq=False)
class Pointwise:
    """What a cell does with its gates: `(gates, states) -> new states`, the output first.

    Args:
        function: `(projected, recurrent, states)`; with `additive`, `(their sum, states)`.
        additive: Whether only the sum of the input's and the state's projections matters.
        keeping: Is `function`, but returns `(new states, what by_hand needs)`; by default it needs
            the gates.
        by_hand: `(kept, old, new, dnew) -> (dprojected, drecurrent, dold)`, the gradient; by
            default JAX differentiates `function`, which computes its activations once more. With
            `additive` the first result is not read.
    """

    function: Callable
    additive: bool
    keeping: Callable | None = None
    by_hand: Callable | None = None

    def __call__(self, projected: Array, recurrent: Array, states: States) -> States:
        """Returns the new states from one step's projections."""
        if self.additive:
            return self.function(recurrent, states)
        return self.function(projected, recurrent, states)

    def forward(self, projected: Array, recurrent: Array, states: States) -> tuple[States, Any]:
        """Returns the new states and what `pull` needs of this step."""
        if self.keeping is None:
            return self(projected, recurrent, states), recurrent
        given = (recurrent,) if self.additive else (projected, recurrent)
        return self.keeping(*given, states)

    def pull(self, projected: Array, kept: Any, old: States, new: States, dnew: States) -> tuple:
        """Returns the gradients by both projections and the old states."""
        if self.by_hand is None:
            return jax.vjp(self, projected, kept, old)[1](dnew)
        return self.by_hand(kept, old, new, dnew)


def _bound(steps: Array | None) -> Array | None:
    if steps is None:
        return None
    return jnp.max(extent(jnp.moveaxis(steps[..., 0], 0, 1))[1], initial=0)


def _gates(
    pointwise: Pointwise, projected: Array, state: Array, kernel: Array, bias: Array | None
) -> Array:
    gates = state @ kernel
    gates = gates if bias is None else gates + bias
    return gates + projected if pointwise.additive else gates


def _choose(valid: Array | None, new: States, old: States) -> States:
    if valid is None:
        return new
    return tuple(jnp.where(valid, n, o) for n, o in zip(new, old, strict=True))


def _unfolded(
    pointwise: Pointwise,
    projected: Array,
    steps: Array | None,
    states: States,
    kernel: Array,
    bias: Array | None,
) -> tuple[tuple[Array, ...], Any]:
    """Returns the states after each step, each `(T, B, U)`, and what the gradient keeps of them."""

    def step(states: States, x: tuple) -> tuple[States, tuple[States, Any]]:
        projection, valid = x
        gates = _gates(pointwise, projection, states[0], kernel, bias)
        new, kept = pointwise.forward(projection, gates, states)
        new = _choose(valid, new, states)
        return new, (new, kept)

    bound = _bound(steps)
    last, (series, kept) = bounded_scan(step, states, (projected, steps), bound)
    if bound is not None:
        beyond = lax.iota(jnp.int32, projected.shape[0])[:, None, None] >= bound
        series = tuple(jnp.where(beyond, end, s) for end, s in zip(last, series, strict=True))
    return series, kept


_unfold = jax.custom_vjp(_unfolded, nondiff_argnums=(0,))


def _unfold_forward(pointwise: Pointwise, *args: Any) -> tuple[Any, Any]:
    out = _unfold(pointwise, *args)
    return out, (args, out)


def _unfold_backward(pointwise: Pointwise, residuals: Any, cotangents: Any) -> tuple:
    args, (series, kept) = residuals
    return _pull_back(pointwise, args, series, kept, *cotangents)


_unfold.defvjp(_unfold_forward, _unfold_backward)


def _recur(
    pointwise: Pointwise,
    projected: Array,
    steps: Array | None,
    states: States,
    kernel: Array,
    bias: Array | None,
) -> tuple[Array, ...]:
    """Runs a recurrence and returns each state after each step, `(T, B, U)`.

    Args:
        pointwise: The cell between its products; one object a configuration.
        projected: `(T, B, G)`, the inputs times their kernel.
        steps: `(T, B, 1)` boolean, or None.
        states: `(B, U)` each, the output first.
        kernel: `(U, G)`, applied to the output.
        bias: `(G,)`, added to that product, or None.
    """
    return _unfold(pointwise, projected, steps, states, kernel, bias)[0]


recur = jax.custom_vjp(_recur, nondiff_argnums=(0,))


def _recur_forward(pointwise: Pointwise, *args: Any) -> tuple[Any, Any]:
    series, kept = _unfold(pointwise, *args)
    return series, (args, series, kept)


def _recur_backward(pointwise: Pointwise, residuals: Any, cotangents: tuple) -> tuple:
    return _pull_back(pointwise, *residuals, cotangents, None)


recur.defvjp(_recur_forward, _recur_backward)


def _backward(
    pointwise: Pointwise,
    bounded: bool,
    args: tuple,
    series: tuple,
    kept: Any,
    dseries: tuple,
    dkept: Any,
) -> tuple:
    projected, steps, states, kernel, bias = args
    bound = _bound(steps) if bounded else None
    before = tuple(
        jnp.concatenate([first[None], after[:-1]])
        for first, after in zip(states, series, strict=True)
    )
    carry = tuple(jnp.zeros_like(s) for s in states)
    if bound is not None:  # what is repeated beyond the bound is the last state
        beyond = lax.iota(jnp.int32, projected.shape[0])[:, None, None] >= bound
        carry = tuple(jnp.sum(jnp.where(beyond, d, 0), 0, dtype=d.dtype) for d in dseries)

    # The second order asks for the gradient of what was kept as well: that is left to JAX, at the
    # gates, which are one product.
    gates = None
    if dkept is not None:
        gates = _gates(pointwise, projected, before[0], kernel, bias)

    def step(carry: States, x: tuple) -> tuple[States, tuple]:
        projection, valid, gate, kept, old, new, dnew, dkept = x
        total = tuple(c + d for c, d in zip(carry, dnew, strict=True))
        zeros = tuple(jnp.zeros_like(d) for d in total)
        taken = _choose(valid, total, zeros)
        if dkept is None:
            dprojection, drecurrent, dold = pointwise.pull(projection, kept, old, new, taken)
        else:
            _, pull = jax.vjp(pointwise.forward, projection, gate, old)
            dprojection, drecurrent, dold = pull((taken, dkept))
        passed = zeros if valid is None else _choose(valid, zeros, total)
        dold = tuple(d + k for d, k in zip(dold, passed, strict=True))
        dold = (dold[0] + drecurrent @ kernel.T, *dold[1:])
        return dold, (drecurrent, None if pointwise.additive else dprojection)

    xs = (projected, steps, gates, kept, before, series, dseries, dkept)
    dstates, (drecurrent, dprojected) = bounded_scan(step, carry, xs, bound, reverse=True)
    rows = (a.reshape(-1, a.shape[-1]) for a in (before[0], drecurrent))
    wide = jnp.float32 if kernel.dtype.itemsize < 4 else kernel.dtype
    dkernel = jnp.einsum("nu,ng->ug", *rows, preferred_element_type=wide)
    dkernel = dkernel.astype(kernel.dtype)
    dbias = None
    if bias is not None:
        dbias = jnp.sum(drecurrent, (0, 1), dtype=wide).astype(bias.dtype)
    return drecurrent if pointwise.additive else dprojected, None, dstates, dkernel, dbias


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pull_back(
    pointwise: Pointwise,
    args: tuple,
    series: tuple,
    kept: Any,
    dseries: tuple,
    dkept: Any,
) -> tuple:
    """Gradients by all arguments of `recur`; itself differentiable, by the plain scan."""
    return _backward(pointwise, True, args, series, kept, dseries, dkept)


def _pull_back_forward(pointwise: Pointwise, *args: Any) -> tuple[Any, Any]:
    return _pull_back(pointwise, *args), args


def _pull_back_backward(pointwise: Pointwise, residuals: tuple, cotangents: tuple) -> tuple:
    (projected, steps, states, kernel, bias), *rest = residuals

    def plain(projected: Any, states: Any, kernel: Any, bias: Any, *rest: Any) -> tuple:
        args = (projected, steps, states, kernel, bias)
        out = _backward(pointwise, False, args, *rest)
        return out[0], *out[2:]

    _, pull = jax.vjp(plain, projected, states, kernel, bias, *rest)
    dprojected, dstates, dkernel, dbias, *drest = pull((cotangents[0], *cotangents[2:]))
    return (dprojected, None, dstates, dkernel, dbias), *drest


_pull_back.defvjp(_pull_back_forward, _pull_back_backward)


def time_major(
    x: Array, mask: Array | None, go_backwards: bool, fill: ArrayLike = 0
) -> tuple[Array, Array | None, Array | None]:
    """Returns `x` as `(T, B, F)`, filled and reversed, the mask to go with it, and its steps."""
    x = fill_masked(x, mask, fill)
    if go_backwards:
        x = reverse_by_extent(x, mask)
        mask = None if mask is None else reverse_by_extent(mask, mask)
    steps = None if mask is None else jnp.moveaxis(mask, 0, 1)[..., None]
    return jnp.swapaxes(x, 0, 1), mask, steps


def as_outputs(series: Array, mask: Array | None, zero_output_for_mask: bool) -> Array:
    """Returns a state's series `(T, B, U)` as outputs `(B, T, U)`.

    A masked step repeats the output before it, zeros before the first.
    """
    outputs = jnp.swapaxes(series, 0, 1)
    if mask is None:
        return outputs
    seen = mask if zero_output_for_mask else jnp.cumsum(mask, 1) > 0
    return fill_masked(outputs, seen)


def last_output(last: Array, mask: Array | None) -> Array:
    """Returns the last output; zeros for a row without steps, whose state is its first."""
    return last if mask is None else fill_masked(last, jnp.any(mask, 1))


def scan_cell(
    step: Callable,
    inputs: Array,
    mask: Array | None,
    states: Any,
    *,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    unroll: bool = False,
    scan: Callable = lax.scan,
) -> tuple[Any, Any]:
    """Runs any cell over a sequence.

    Args:
        step: `(x_t, states) -> (output, new_states)`, structures of `(B, ...)`.
        inputs: `(B, T, ...)`, or a structure of such.
        mask: `(B, T)` or None.
        states: The first states.
        go_backwards: Whether each row is taken from the end of its extent.
        zero_output_for_mask: Whether masked steps put out zeros, not the output before.
        unroll: Whether a Python loop is traced.
        scan: A function like `lax.scan`, e.g. one that carries Variables as well.

    Returns:
        Outputs `(B, T, ...)` and the last states.
    """
    leaves, structure = jax.tree.flatten(inputs)
    # Padding holds 1, at which what users write (log, 1/x, a norm) has a finite gradient.
    fills = [1 if jnp.issubdtype(x.dtype, jnp.inexact) else 0 for x in leaves]
    turned = [time_major(x, mask, go_backwards, f) for x, f in zip(leaves, fills, strict=True)]
    xs = jax.tree.unflatten(structure, [x for x, _, _ in turned])
    _, mask, steps = turned[0]

    def body(states: Any, x: tuple) -> tuple:
        value, valid = x
        output, new = step(value, states)
        if valid is not None:
            valid = valid[:, 0]
            new = jax.tree.map(lambda n, o: jnp.where(expand_to(valid, n.ndim), n, o), new, states)
        return new, output

    if unroll and leaves[0].shape[1]:
        outputs = []
        for t in range(leaves[0].shape[1]):
            valid = None if steps is None else steps[t]
            states, output = body(states, (jax.tree.map(lambda x, t=t: x[t], xs), valid))
            outputs.append(output)
        series = jax.tree.map(lambda *o: jnp.stack(o), *outputs)
    else:
        states, series = scan(body, states, (xs, steps))
    outputs = jax.tree.map(lambda s: jnp.swapaxes(s, 0, 1), series)
    if mask is None:
        return outputs, states
    if zero_output_for_mask:
        return jax.tree.map(lambda o: fill_masked(o, mask), outputs), states
    # The last valid step up to each step; -1 before the first.
    at = lax.cummax(jnp.where(mask, lax.iota(jnp.int32, mask.shape[1]), -1), axis=1)

    def repeat(o: Array) -> Array:
        found = jnp.take_along_axis(o, expand_to(jnp.maximum(at, 0), o.ndim), axis=1)
        return fill_masked(found, at >= 0)

    return jax.tree.map(repeat, outputs), states
