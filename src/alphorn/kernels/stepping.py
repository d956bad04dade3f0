"""Any cell over time, step by step, and the reversal of padded rows.

Letters: `B` batch, `T` time, `F` features.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from alphorn.core.masked import expand_to, extent, fill_masked
from alphorn.kernels.device import for_any_device


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


def _time_major(
    x: Array, mask: Array | None, go_backwards: bool, fill: ArrayLike = 0
) -> tuple[Array, Array | None, Array | None]:
    """Returns `x` as `(T, B, F)`, filled and reversed, the mask to go with it, and its steps."""
    x = fill_masked(x, mask, fill)
    if go_backwards:
        x = reverse_by_extent(x, mask)
        mask = None if mask is None else reverse_by_extent(mask, mask)
    steps = None if mask is None else jnp.moveaxis(mask, 0, 1)[..., None]
    return jnp.swapaxes(x, 0, 1), mask, steps


def _held(last: Any, x: tuple[Any, Array]) -> tuple[Any, Any]:
    """Returns the output of a valid step, or that before it, twice, as a body of a scan."""
    output, valid = x
    now = jax.tree.map(
        lambda o, b: jnp.where(expand_to(lax.squeeze(valid, (1,)), o.ndim), o, b), output, last
    )
    return now, now


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
    turned = [_time_major(x, mask, go_backwards, f) for x, f in zip(leaves, fills, strict=True)]
    xs = jax.tree.unflatten(structure, [x for x, _, _ in turned])
    _, mask, steps = turned[0]

    def body(states: Any, x: tuple) -> tuple:
        value, valid = x
        output, new = step(value, states)
        if valid is not None:
            valid = lax.squeeze(valid, (1,))
            new = jax.tree.map(lambda n, o: jnp.where(expand_to(valid, n.ndim), n, o), new, states)
        return new, output

    if unroll and leaves[0].shape[1] and not for_any_device():
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
    if for_any_device():  # a loop, which other programs' converters know
        first = jax.tree.map(lambda s: jnp.zeros(s.shape[1:], s.dtype), series)
        pairs: Any = (series, steps)
        held = lax.scan(_held, first, pairs)[1]
        return jax.tree.map(lambda s: jnp.swapaxes(s, 0, 1), held), states
    # The last valid step up to each step; -1 before the first.
    at = lax.cummax(jnp.where(mask, lax.iota(jnp.int32, mask.shape[1]), -1), axis=1)

    def repeat(o: Array) -> Array:
        found = jnp.take_along_axis(o, expand_to(jnp.maximum(at, 0), o.ndim), axis=1)
        return fill_masked(found, at >= 0)

    return jax.tree.map(repeat, outputs), states
