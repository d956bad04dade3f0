"""The recurrent layers' maths: SimpleRNN, LSTM and GRU over whole sequences.

Letters: `B` batch, `T` time, `F` features, `U` units. All return outputs `(B, T, U)`, or the last
output `(B, U)`, and the last states, each `(B, U)`. Options of all three:

- `go_backwards`: each row runs from the end of its extent to its start.
- `zero_output_for_mask`: masked steps put out zeros, not the output before them.
- `sequences`: whether all outputs are wanted, or the last; that of a row without steps is zero.
- `drop`: `(B, U)` or None, by which the state is multiplied before its product.
"""

import functools
from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.core.masked import fill_masked
from alphorn.distribution.placing import by_rows
from alphorn.kernels import loops, recurrence
from alphorn.kernels.cells import (
    Activation,
    Cell,
    States,
    gru_cell,
    gru_reset_first_cell,
    lstm_cell,
    simple_cell,
)
from alphorn.kernels.device import for_any_device
from alphorn.kernels.loops import Weights
from alphorn.kernels.stepping import scan_cell

# Steps of a batch are numbered in 32 bits.
_MOST_PLACES = 1 << 30

_STATIC = (
    *("activation", "recurrent_activation", "reset_after"),
    *("go_backwards", "zero_output_for_mask", "sequences"),
)


def _compiled_once(kernel: Callable, states: int) -> Callable:
    """Compiles by itself: an eager call would else compile its loop anew each time.

    Rows are sorted in it, on each device those that it has.

    Args:
        kernel: Takes inputs, mask, states and weights.
        states: How many there are of them.
    """
    compiled = jax.jit(kernel, static_argnames=_STATIC)

    @functools.wraps(kernel)
    def run(x: Array, mask: Array | None, *arrays: Any, drop: Any = None, **options: Any) -> Any:
        def run_rows(rows: tuple, weights: tuple) -> tuple[Array, States]:
            x, mask, states, drop = rows
            return compiled(x, mask, *states, *weights, drop=drop, **options)

        return by_rows(run_rows, (x, mask, arrays[:states], drop), arrays[states:])

    return run


class Options(TypedDict, total=False):
    """What all three take by name: see the top of the room."""

    go_backwards: bool
    zero_output_for_mask: bool
    sequences: bool
    drop: Array | None


def _run(
    cell: Cell,
    x: Array,
    mask: Array | None,
    states: States,
    weights: Weights,
    *,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    sequences: bool = True,
    drop: Array | None = None,
) -> tuple[Array, States]:
    """Runs a cell over `(B, T, F)`."""
    batch, steps, _ = x.shape
    if not batch * steps:
        shape = (batch, steps) if sequences else (batch,)
        return jnp.zeros((*shape, states[0].shape[1]), states[0].dtype), states
    if not for_any_device() and batch * steps < _MOST_PLACES:
        chosen = loops.Options(go_backwards, zero_output_for_mask, sequences)
        found: Any = recurrence.recur(cell, chosen, x, mask, states, weights, drop)
        outputs, last = found
    else:

        def step(x: Array, states: States) -> tuple[Array, States]:
            new, _ = weights.step(cell, weights.projected(x), states, drop)
            return new[0], new

        outputs, last = scan_cell(
            step,
            x,
            mask,
            states,
            go_backwards=go_backwards,
            zero_output_for_mask=zero_output_for_mask,
        )
    if not sequences:
        # A row without steps has no output: its state is its first.
        outputs = last[0] if mask is None else fill_masked(last[0], jnp.any(mask, 1))
    return outputs, last


@functools.partial(_compiled_once, states=1)
def simple_rnn(
    x: Array,
    mask: Array | None,
    state: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    activation: Activation | None = jnp.tanh,
    **options: Unpack[Options],
) -> tuple[Array, States]:
    """Runs `h = activation(x W + h U + b)` over time.

    Args:
        x: `(B, T, F)`.
        mask: `(B, T)` or None.
        state: `(B, U)`.
        kernel: `(F, U)`.
        recurrent_kernel: `(U, U)`.
        bias: `(U,)` or None.
        activation: Of the state; None for none.
        **options: See the top of the room.
    """
    weights = Weights(kernel, bias, recurrent_kernel)
    return _run(simple_cell(activation), x, mask, (state,), weights, **options)


@functools.partial(_compiled_once, states=2)
def lstm(
    x: Array,
    mask: Array | None,
    hidden: Array,
    carry: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    activation: Activation | None = jnp.tanh,
    recurrent_activation: Activation | None = jax.nn.sigmoid,
    **options: Unpack[Options],
) -> tuple[Array, States]:
    """Runs an LSTM over time; gates stand in the order i, f, c, o.

    Args:
        x: `(B, T, F)`.
        mask: `(B, T)` or None.
        hidden: `(B, U)`, the output before.
        carry: `(B, U)`, the cell's state.
        kernel: `(F, 4U)`.
        recurrent_kernel: `(U, 4U)`.
        bias: `(4U,)` or None.
        activation: Of the cell; None for none.
        recurrent_activation: Of its gates; None for none.
        **options: See the top of the room.
    """
    cell = lstm_cell(activation, recurrent_activation)
    weights = Weights(kernel, bias, recurrent_kernel)
    return _run(cell, x, mask, (hidden, carry), weights, **options)


@functools.partial(_compiled_once, states=1)
def gru(
    x: Array,
    mask: Array | None,
    state: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    activation: Activation | None = jnp.tanh,
    recurrent_activation: Activation | None = jax.nn.sigmoid,
    reset_after: bool = True,
    **options: Unpack[Options],
) -> tuple[Array, States]:
    """Runs a GRU over time; gates stand in the order z, r, h.

    Args:
        x: `(B, T, F)`.
        mask: `(B, T)` or None.
        state: `(B, U)`.
        kernel: `(F, 3U)`.
        recurrent_kernel: `(U, 3U)`.
        bias: `(2, 3U)`, or `(3U,)` without `reset_after`, or None.
        activation: Of the candidate; None for none.
        recurrent_activation: Of the gates; None for none.
        reset_after: Whether the reset gate stands after the product with the state (as in cuDNN),
            or before it (Cho et al., 2014).
        **options: See the top of the room.
    """
    if not reset_after:
        cell = gru_reset_first_cell(activation, recurrent_activation)
        return _run(cell, x, mask, (state,), Weights(kernel, bias, recurrent_kernel), **options)
    inner, outer = (None, None) if bias is None else (bias[0], bias[1])
    cell = gru_cell(activation, recurrent_activation)
    weights = Weights(kernel, inner, recurrent_kernel, outer)
    return _run(cell, x, mask, (state,), weights, **options)
