"""The recurrent layers' maths: SimpleRNN, LSTM and GRU over whole sequences.

Letters: `B` batch, `T` time, `F` features, `U` units. All return outputs `(B, T, U)` and the last
states, each `(B, U)`.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from alphorn.kernels.recurrence import Pointwise, as_outputs, recur, time_major

Activation = Callable[[Array], Array]


@functools.lru_cache(maxsize=256)
def simple_pointwise(activation: Activation) -> Pointwise:
    """Returns what SimpleRNN does with its one gate."""
    return Pointwise(lambda gates, states: (activation(gates),), additive=True)


@functools.lru_cache(maxsize=256)
def lstm_pointwise(activation: Activation, recurrent_activation: Activation) -> Pointwise:
    """Returns what an LSTM does with its gates i, f, c, o (Hochreiter and Schmidhuber, 1997)."""

    def cell(gates: Array, states: tuple) -> tuple:
        i, f, c, o = jnp.split(gates, 4, -1)
        carry = recurrent_activation(f) * states[1] + recurrent_activation(i) * activation(c)
        return recurrent_activation(o) * activation(carry), carry

    return Pointwise(cell, additive=True)


@functools.lru_cache(maxsize=256)
def gru_pointwise(activation: Activation, recurrent_activation: Activation) -> Pointwise:
    """Returns what a GRU does with its gates z, r, h, the reset after the product."""

    def cell(projected: Array, recurrent: Array, states: tuple) -> tuple:
        xz, xr, xh = jnp.split(projected, 3, -1)
        hz, hr, hh = jnp.split(recurrent, 3, -1)
        z = recurrent_activation(xz + hz)
        candidate = activation(xh + recurrent_activation(xr + hr) * hh)
        return (z * states[0] + (1 - z) * candidate,)

    return Pointwise(cell, additive=False)


def run_cell(
    pointwise: Pointwise,
    x: Array,
    mask: Array | None,
    states: tuple[Array, ...],
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    recurrent_bias: Array | None = None,
    *,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    sequences: bool = True,
) -> tuple[Array, tuple[Array, ...]]:
    """Runs a fused cell over `(B, T, F)`.

    Args:
        pointwise: Of the functions above, with its activations.
        x: `(B, T, F)`.
        mask: `(B, T)` or None.
        states: First states, `(B, U)` each, the output first.
        kernel: `(F, G)`.
        recurrent_kernel: `(U, G)`.
        bias: `(G,)`, added to the inputs' projection.
        recurrent_bias: `(G,)`, added to the states'.
        go_backwards: Whether rows run from the end of their extent.
        zero_output_for_mask: Whether masked steps put out zeros.
        sequences: Whether all outputs are wanted, `(B, T, U)`, or the last, `(B, U)`.
    """
    turned, mask, steps = time_major(x, mask, go_backwards)
    projected = jnp.matmul(turned, kernel)
    projected = projected if bias is None else projected + bias
    series = recur(pointwise, projected, steps, states, recurrent_kernel, recurrent_bias)
    last = tuple(s[-1] for s in series)
    if sequences:
        return as_outputs(series[0], mask, zero_output_for_mask), last
    if mask is None:
        return last[0], last
    return jnp.where(jnp.any(mask, 1)[:, None], last[0], jnp.zeros_like(last[0])), last


def gru_step(
    x: Array,
    state: Array,
    recurrent_kernel: Array,
    activation: Activation,
    recurrent_activation: Activation,
    kept: Array | None = None,
) -> Array:
    """Returns the next state of a GRU whose reset stands before the product (Cho et al., 2014).

    Args:
        x: `(B, 3U)`, the projected input with its bias.
        state: `(B, U)`.
        recurrent_kernel: `(U, 3U)`.
        activation, recurrent_activation: Of the candidate and of the gates.
        kept: `(B, U)`, a dropout mask on the state that enters the products, or None.
    """
    seen = state if kept is None else state * kept
    units = state.shape[-1]
    xz, xr, xh = jnp.split(x, 3, -1)
    z, r = jnp.split(
        recurrent_activation(
            jnp.concatenate([xz, xr], -1) + seen @ recurrent_kernel[:, : 2 * units]
        ),
        2,
        -1,
    )
    candidate = activation(xh + (r * seen) @ recurrent_kernel[:, 2 * units :])
    return z * state + (1 - z) * candidate
