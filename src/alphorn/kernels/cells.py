"""The maths of one recurrent step, forward and backward: SimpleRNN, LSTM, GRU.

Letters: `U` units, `G` gates times units; axes before them are rows, or steps and rows.

The input comes projected, `(..., G)`; the state that enters the product is `seen`, the output
before, perhaps with entries dropped. A step back is linear in what comes from behind: its
coefficients are computed for many steps at once, and little is left for the loop.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Activation = Callable[[Array], Array]
States = tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a recurrence; one object a configuration, so that programs are shared.

    Args:
        forward: `(projected, product, seen, states) -> (new states, apart)`, the output first;
            `product(seen, start, stop)` goes through columns of the recurrent kernel; `apart` is
            what a loop should write out by itself (see `loops`), or None.
        slopes: `(projected, product, seen, states) -> (coefficients, rest)`: what `backward` and
            `recurrent` need of these steps.
        backward: `(coefficients, dnew, product) -> (dprojected, dseen, dstates)`; here `product`
            goes back through the kernel's columns.
        recurrent: `(rest, seen, dprojected) -> [(left, right), ...]`: the recurrent kernel's
            gradient is `left^T right`, side by side.
        idle: `(coefficients, valid) -> coefficients`: those of a step that repeats its states where
            `valid`, `(..., 1)`, is False.
    """

    forward: Callable[..., tuple[States, Array | None]]
    slopes: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Array, Array, States]]
    recurrent: Callable[..., list[tuple[Array, Array]]]
    idle: Callable[[Any, Array], Any]


def linear(x: Array) -> Array:
    """Returns `x`."""
    return x


# Derivatives of activations, from their outputs.
_FROM_OUTPUT: dict[Activation, Callable[[Array], Any]] = {
    jnp.tanh: lambda y: 1 - y * y,
    jax.nn.sigmoid: lambda y: y * (1 - y),
    jax.nn.relu: lambda y: (y > 0).astype(y.dtype),
    linear: jnp.ones_like,
}


def widened(dtype: Any) -> Any:
    """Returns the type in which numbers of 16 bits are added up."""
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


class Gates:
    """Activations side by side over `(..., parts times U)`; they act entry by entry.

    Tanh and sigmoid are one function but for scale and offset, so one pass over all columns does
    them all: XLA's CPU would else compute each part once for every use of it (17.3 ms against 6.6
    for 200 steps of an LSTM of 128 on 32 rows).
    """

    def __init__(self, *activations: Activation) -> None:
        self.activations = activations
        self.one_pass = set(activations) <= {jnp.tanh, jax.nn.sigmoid}

    def _lanes(self, width: int, dtype: Any, tanh: float, sigmoid: float) -> Array:
        values = [tanh if a is jnp.tanh else sigmoid for a in self.activations]
        return jnp.asarray(np.repeat(values, width // len(values)), dtype)

    def __call__(self, x: Array) -> Array:
        """Returns the gates."""
        if self.one_pass:
            wide = x.astype(widened(x.dtype))
            scale = self._lanes(x.shape[-1], wide.dtype, 1.0, 0.5)
            y = jnp.tanh(wide * scale) * scale + self._lanes(x.shape[-1], wide.dtype, 0.0, 0.5)
            return y.astype(x.dtype)
        parts = jnp.split(x, len(self.activations), -1)
        return _joined([a(p) for a, p in zip(self.activations, parts, strict=True)])

    def slope(self, x: Array, y: Array) -> Array:
        """Returns the derivative at inputs `x`, whose gates are `y`."""
        if self.one_pass:
            return (y + self._lanes(y.shape[-1], y.dtype, 1.0, 0.0)) * (1 - y)
        count = len(self.activations)
        pairs = zip(self.activations, jnp.split(x, count, -1), jnp.split(y, count, -1), strict=True)
        return _joined([_slope(*pair) for pair in pairs])


def _slope(activation: Activation, x: Array, y: Array) -> Array:
    known = _FROM_OUTPUT.get(activation)
    return jax.vjp(activation, x)[1](jnp.ones_like(x))[0] if known is None else known(y)


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)


def _all_columns(rest: Any, seen: Array, dprojected: Array) -> list[tuple[Array, Array]]:
    return [(seen, dprojected)]


@functools.lru_cache(maxsize=256)
def simple_cell(activation: Activation | None) -> Cell:
    """Returns SimpleRNN's step: `h = activation(x + h U)`."""
    act = Gates(activation or linear)

    def forward(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        return (act(projected + product(seen)),), None

    def slopes(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        x = projected + product(seen)
        slope = act.slope(x, act(x))
        return (slope, jnp.zeros_like(slope[..., :1])), None

    def backward(coefficients: Any, dnew: States, product: Callable) -> tuple:
        slope, stay = coefficients
        dgates = dnew[0] * slope
        return dgates, product(dgates), (dnew[0] * stay,)

    def idle(coefficients: Any, valid: Array) -> Any:
        slope, stay = coefficients
        return jnp.where(valid, slope, 0), jnp.where(valid, stay, 1)

    return Cell(forward, slopes, backward, _all_columns, idle)


@functools.lru_cache(maxsize=256)
def lstm_cell(activation: Activation | None, recurrent_activation: Activation | None) -> Cell:
    """Returns an LSTM's step, its gates i, f, c, o (Hochreiter and Schmidhuber, 1997)."""
    act, gate = activation or linear, recurrent_activation or linear
    gates, shown = Gates(gate, gate, act, gate), Gates(act)

    def forward(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        i, f, c, o = jnp.split(gates(projected + product(seen)), 4, -1)
        carry = f * states[1] + i * c
        return (o * shown(carry), carry), None

    def slopes(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        x = projected + product(seen)
        y = gates(x)
        i, f, c, o = jnp.split(y, 4, -1)
        carry = f * states[1] + i * c
        visible = shown(carry)
        # By the carry for the first three gates, by the output for the last.
        by_gates = jnp.concatenate((c, states[1], i, visible), -1) * gates.slope(x, y)
        stay = jnp.zeros_like(f[..., :1])
        return (by_gates, o * shown.slope(carry, visible), f, stay), None

    def backward(coefficients: Any, dnew: States, product: Callable) -> tuple:
        by_gates, by_output, f, stay = coefficients
        dcarry = dnew[1] + dnew[0] * by_output
        dgates = jnp.concatenate((dcarry, dcarry, dcarry, dnew[0]), -1) * by_gates
        return dgates, product(dgates), (dnew[0] * stay, dcarry * f)

    def idle(coefficients: Any, valid: Array) -> Any:
        by_gates, by_output, f, stay = coefficients
        none = (jnp.where(valid, by_gates, 0), jnp.where(valid, by_output, 0))
        return *none, jnp.where(valid, f, 1), jnp.where(valid, stay, 1)

    return Cell(forward, slopes, backward, _all_columns, idle)


@functools.lru_cache(maxsize=256)
def gru_cell(activation: Activation | None, recurrent_activation: Activation | None) -> Cell:
    """Returns a GRU's step, its gates z, r, h, the reset after the product, as in cuDNN."""
    act, gate = activation or linear, recurrent_activation or linear
    gates, candidate = Gates(gate, gate), Gates(act)

    def parts(projected: Array, product: Callable, seen: Array) -> tuple:
        units = seen.shape[-1]
        recurrent = product(seen)
        first = projected[..., : 2 * units] + recurrent[..., : 2 * units]
        zr, reset = gates(first), recurrent[..., 2 * units :]
        return first, zr, reset, projected[..., 2 * units :] + zr[..., units:] * reset

    def forward(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        _, zr, _, second = parts(projected, product, seen)
        z = zr[..., : seen.shape[-1]]
        return (z * states[0] + (1 - z) * candidate(second),), zr

    def slopes(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        first, zr, reset, second = parts(projected, product, seen)
        z, r = jnp.split(zr, 2, -1)
        h = candidate(second)
        by_h = (1 - z) * candidate.slope(second, h)
        by_zr = jnp.concatenate((states[0] - h, by_h * reset), -1) * gates.slope(first, zr)
        return (jnp.concatenate((by_zr, by_h), -1), r, z), r

    def backward(coefficients: Any, dnew: States, product: Callable) -> tuple:
        by_gates, r, z = coefficients
        d = dnew[0]
        dgates = jnp.concatenate((d, d, d), -1) * by_gates
        return dgates, product(_reset(dgates, r)), (d * z,)

    def recurrent(r: Array, seen: Array, dprojected: Array) -> list[tuple[Array, Array]]:
        return [(seen, _reset(dprojected, r))]

    def idle(coefficients: Any, valid: Array) -> Any:
        by_gates, r, z = coefficients
        return jnp.where(valid, by_gates, 0), r, jnp.where(valid, z, 1)

    return Cell(forward, slopes, backward, recurrent, idle)


def _reset(dgates: Array, r: Array) -> Array:
    """Returns the gradient by the recurrent product: the candidate's part passed the reset gate."""
    units = r.shape[-1]
    return jnp.concatenate((dgates[..., : 2 * units], dgates[..., 2 * units :] * r), -1)


@functools.lru_cache(maxsize=256)
def gru_reset_first_cell(
    activation: Activation | None, recurrent_activation: Activation | None
) -> Cell:
    """Returns a GRU's step, the reset before the product (Cho et al., 2014)."""
    act, gate = activation or linear, recurrent_activation or linear
    gates, candidate = Gates(gate, gate), Gates(act)

    def parts(projected: Array, product: Callable, seen: Array) -> tuple:
        units = seen.shape[-1]
        first = projected[..., : 2 * units] + product(seen, stop=2 * units)
        zr = gates(first)
        second = product(zr[..., units:] * seen, start=2 * units)
        return first, zr, projected[..., 2 * units :] + second

    def forward(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        _, zr, second = parts(projected, product, seen)
        z = zr[..., : seen.shape[-1]]
        return (z * states[0] + (1 - z) * candidate(second),), None

    def slopes(projected: Array, product: Callable, seen: Array, states: States) -> tuple:
        first, zr, second = parts(projected, product, seen)
        z, r = jnp.split(zr, 2, -1)
        h = candidate(second)
        by_z, by_r = jnp.split(gates.slope(first, zr), 2, -1)
        by_h = (1 - z) * candidate.slope(second, h)
        return ((states[0] - h) * by_z, seen * by_r, by_h, r, z), r

    def backward(coefficients: Any, dnew: States, product: Callable) -> tuple:
        by_z, by_r, by_h, r, z = coefficients
        units = z.shape[-1]
        dh = dnew[0] * by_h
        dreset = product(dh, start=2 * units)
        dzr = jnp.concatenate((dnew[0] * by_z, dreset * by_r), -1)
        dseen = product(dzr, stop=2 * units) + dreset * r
        return jnp.concatenate((dzr, dh), -1), dseen, (dnew[0] * z,)

    def recurrent(r: Array, seen: Array, dprojected: Array) -> list[tuple[Array, Array]]:
        units = seen.shape[-1]
        return [
            (seen, dprojected[..., : 2 * units]),
            (seen * r, dprojected[..., 2 * units :]),
        ]

    def idle(coefficients: Any, valid: Array) -> Any:
        by_z, by_r, by_h, r, z = coefficients
        none = (jnp.where(valid, c, 0) for c in (by_z, by_r, by_h))
        return *none, r, jnp.where(valid, z, 1)

    return Cell(forward, slopes, backward, recurrent, idle)
