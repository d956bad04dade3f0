"""The recurrent layers' maths: SimpleRNN, LSTM and GRU over whole sequences.

Letters: `B` batch, `T` time, `F` features, `U` units. All return outputs `(B, T, U)`, or the last
output `(B, U)`, and the last states, each `(B, U)`. Options of all three:

- `go_backwards`: each row runs from the end of its extent to its start.
- `zero_output_for_mask`: masked steps put out zeros, not the output before them.
- `sequences`: whether all outputs are wanted, or the last; that of a row without steps is zero.
"""

import functools
from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from alphorn.kernels.recurrence import (
    Pointwise,
    as_outputs,
    last_output,
    recur,
    scan_cell,
    time_major,
)

Activation = Callable[[Array], Array]
States = tuple[Array, ...]


# Compiled by themselves: an eager call would else compile its loop anew each time.
_compiled_once = functools.partial(
    jax.jit,
    static_argnames=(
        *("activation", "recurrent_activation", "reset_after"),
        *("go_backwards", "zero_output_for_mask", "sequences"),
    ),
)


class Options(TypedDict, total=False):
    """What all three take by name: see the top of the room."""

    go_backwards: bool
    zero_output_for_mask: bool
    sequences: bool


def _linear(x: Array) -> Array:
    return x


# Derivatives of activations, from their outputs: nothing is computed twice on the way back.
_FROM_OUTPUT: dict[Activation, Callable[[Array], Any]] = {
    jnp.tanh: lambda y: 1 - y * y,
    jax.nn.sigmoid: lambda y: y * (1 - y),
    jax.nn.relu: lambda y: (y > 0).astype(y.dtype),
    _linear: jnp.ones_like,
}


@functools.lru_cache(maxsize=256)
def simple_pointwise(activation: Activation | None) -> Pointwise:
    """Returns what SimpleRNN does with its one gate."""
    act = activation or _linear

    def cell(gates: Array, states: States) -> States:
        return (act(gates),)

    slope = _FROM_OUTPUT.get(act)
    if slope is None:
        return Pointwise(cell, additive=True)

    def forward(gates: Array, states: States) -> tuple[States, Any]:
        return cell(gates, states), ()

    def pull(kept: Any, old: States, new: States, dnew: States) -> tuple:
        # At a masked step `new` is no output of the activation, but `dnew` is zero.
        return None, dnew[0] * slope(new[0]), (jnp.zeros_like(old[0]),)

    return Pointwise(cell, True, forward, pull)


@functools.lru_cache(maxsize=256)
def lstm_pointwise(
    activation: Activation | None, recurrent_activation: Activation | None
) -> Pointwise:
    """Returns what an LSTM does with its gates i, f, c, o (Hochreiter and Schmidhuber, 1997)."""
    act, gate = activation or _linear, recurrent_activation or _linear

    def forward(gates: Array, states: States) -> tuple[States, Any]:
        i, f, c, o = jnp.split(gates, 4, -1)
        i, f, c, o = gate(i), gate(f), act(c), gate(o)
        carry = f * states[1] + i * c
        return (o * act(carry), carry), (i, f, c, o)

    def cell(gates: Array, states: States) -> States:
        return forward(gates, states)[0]

    slope, gate_slope = _FROM_OUTPUT.get(act), _FROM_OUTPUT.get(gate)
    if slope is None or gate_slope is None:
        return Pointwise(cell, additive=True)

    def pull(kept: Any, old: States, new: States, dnew: States) -> tuple:
        i, f, c, o = kept
        shown = act(new[1])
        dcarry = dnew[1] + dnew[0] * o * slope(shown)
        dgates = (
            dcarry * c * gate_slope(i),
            dcarry * old[1] * gate_slope(f),
            dcarry * i * slope(c),
            dnew[0] * shown * gate_slope(o),
        )
        return None, jnp.concatenate(dgates, -1), (jnp.zeros_like(old[0]), dcarry * f)

    return Pointwise(cell, True, forward, pull)


@functools.lru_cache(maxsize=256)
def gru_pointwise(
    activation: Activation | None, recurrent_activation: Activation | None
) -> Pointwise:
    """Returns what a GRU does with its gates z, r, h, the reset after the product."""
    act, gate = activation or _linear, recurrent_activation or _linear

    def forward(projected: Array, recurrent: Array, states: States) -> tuple[States, Any]:
        xz, xr, xh = jnp.split(projected, 3, -1)
        hz, hr, hh = jnp.split(recurrent, 3, -1)
        z, r = gate(xz + hz), gate(xr + hr)
        candidate = act(xh + r * hh)
        return (z * states[0] + (1 - z) * candidate,), (z, r, candidate, hh)

    def cell(projected: Array, recurrent: Array, states: States) -> States:
        return forward(projected, recurrent, states)[0]

    slope, gate_slope = _FROM_OUTPUT.get(act), _FROM_OUTPUT.get(gate)
    if slope is None or gate_slope is None:
        return Pointwise(cell, additive=False)

    def pull(kept: Any, old: States, new: States, dnew: States) -> tuple:
        z, r, candidate, hh = kept
        dz = dnew[0] * (old[0] - candidate) * gate_slope(z)
        dh = dnew[0] * (1 - z) * slope(candidate)
        dr = dh * hh * gate_slope(r)
        dprojected = jnp.concatenate((dz, dr, dh), -1)
        return dprojected, jnp.concatenate((dz, dr, dh * r), -1), (dnew[0] * z,)

    return Pointwise(cell, False, forward, pull)


def _project(x: Array, kernel: Array, bias: Array | None) -> Array:
    # As a matrix: XLA's CPU is three times slower at a product that contracts two axes of x.
    projected = (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])
    if bias is None:
        return projected
    # In float32, so that the bias's gradient, a sum over all steps, is as well.
    wide = jnp.float32 if projected.dtype.itemsize < 4 else projected.dtype
    return (projected.astype(wide) + bias.astype(wide)).astype(projected.dtype)


def _run(
    pointwise: Pointwise,
    x: Array,
    mask: Array | None,
    states: States,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    recurrent_bias: Array | None = None,
    *,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    sequences: bool = True,
) -> tuple[Array, States]:
    """Runs a fused cell over `(B, T, F)`: `bias` with the inputs, `recurrent_bias` with states."""
    if not x.shape[1]:
        return _nothing(states[0], sequences), states
    turned, mask, steps = time_major(x, mask, go_backwards)
    projected = _project(turned, kernel, bias)
    series = recur(pointwise, projected, steps, states, recurrent_kernel, recurrent_bias)
    last = tuple(s[-1] for s in series)
    if sequences:
        return as_outputs(series[0], mask, zero_output_for_mask), last
    return last_output(last[0], mask), last


def _nothing(state: Array, sequences: bool) -> Array:
    """Returns the output for sequences of no steps."""
    batch, units = state.shape
    return jnp.zeros((batch, 0, units) if sequences else (batch, units), state.dtype)


@_compiled_once
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
    weights = (kernel, recurrent_kernel, bias)
    return _run(simple_pointwise(activation), x, mask, (state,), *weights, **options)


@_compiled_once
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
    pointwise = lstm_pointwise(activation, recurrent_activation)
    weights = (kernel, recurrent_kernel, bias)
    return _run(pointwise, x, mask, (hidden, carry), *weights, **options)


@_compiled_once
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
    if reset_after:
        inner, outer = (None, None) if bias is None else (bias[0], bias[1])
        pointwise = gru_pointwise(activation, recurrent_activation)
        weights = (kernel, recurrent_kernel, inner, outer)
        return _run(pointwise, x, mask, (state,), *weights, **options)

    def step(projected: Array, states: States) -> tuple[Array, States]:
        new = gru_step(projected, states[0], recurrent_kernel, activation, recurrent_activation)
        return new, (new,)

    sequences = options.get("sequences", True)
    if not x.shape[1]:
        return _nothing(state, sequences), (state,)
    # Padding is filled before the projection: NaN would reach the kernel's gradient.
    turned, _, _ = time_major(x, mask, False)
    projected = jnp.swapaxes(_project(turned, kernel, bias), 0, 1)
    zeros = options.get("zero_output_for_mask", False) and sequences
    outputs, states = scan_cell(
        step,
        projected,
        mask,
        (state,),
        go_backwards=options.get("go_backwards", False),
        zero_output_for_mask=zeros,
    )
    return (outputs if sequences else last_output(states[0], mask)), states


def gru_step(
    x: Array,
    state: Array,
    recurrent_kernel: Array,
    activation: Activation | None,
    recurrent_activation: Activation | None,
    kept: Array | None = None,
) -> Array:
    """Returns the next state of a GRU whose reset stands before the product (Cho et al., 2014).

    Args:
        x: `(B, 3U)`, the projected input with its bias.
        state: `(B, U)`.
        recurrent_kernel: `(U, 3U)`.
        activation: Of the candidate; None for none.
        recurrent_activation: Of the gates; None for none.
        kept: `(B, U)`, a dropout mask on the state that enters the products, or None.
    """
    act, gate = activation or _linear, recurrent_activation or _linear
    seen = state if kept is None else state * kept
    units = state.shape[-1]
    xz, xr, xh = jnp.split(x, 3, -1)
    hz, hr = jnp.split(seen @ recurrent_kernel[:, : 2 * units], 2, -1)
    z, r = gate(xz + hz), gate(xr + hr)
    candidate = act(xh + (r * seen) @ recurrent_kernel[:, 2 * units :])
    return z * state + (1 - z) * candidate
