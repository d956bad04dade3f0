"""One recurrence at hand, in blocks and chunks: what its ways forth and back share.

Letters: `B` batch, `T` time, `F` features, `U` units, `G` gates times units; `R` rows of a block,
`C` steps of a chunk, `T'` steps of whole chunks (see `blocks`).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from alphorn.kernels.blocks import block_shape, order_of
from alphorn.kernels.cells import Cell, States, widened
from alphorn.kernels.device import on_cpu
from alphorn.kernels.products import project


@dataclass(frozen=True)
class Options:
    """What the caller chooses of a recurrence, all static.

    Args:
        go_backwards: Whether each row runs from the end of its extent to its start.
        zero_output_for_mask: Whether masked steps put out zeros, not the output before.
        sequences: Whether all outputs are returned, or only the last states.
    """

    go_backwards: bool = False
    zero_output_for_mask: bool = False
    sequences: bool = True


class Weights(NamedTuple):
    """What a recurrence multiplies by and adds.

    Args:
        kernel: `(F, G)`, of the inputs.
        bias: `(G,)` or None, added to their product.
        recurrent: `(U, G)`, of the state.
        recurrent_bias: `(G,)` or None, added to its product.
    """

    kernel: Array
    bias: Array | None
    recurrent: Array
    recurrent_bias: Array | None = None

    def projected(self, x: Array) -> Array:
        """Returns `(..., F)` inputs times their kernel, with the bias."""
        projected = project(x, self.kernel)
        if self.bias is None:
            return projected
        wide = widened(projected.dtype)
        return (projected.astype(wide) + self.bias.astype(wide)).astype(projected.dtype)

    def product(self, seen: Array, start: int = 0, stop: int | None = None) -> Array:
        """Goes through columns of the recurrent kernel."""
        out = project(seen, self.recurrent[:, start:stop])
        bias = self.recurrent_bias
        return out if bias is None else out + bias[start:stop]

    def step(
        self, cell: Cell, projected: Array, states: States, drop: Array | None
    ) -> tuple[States, Array | None]:
        """Runs one step of a cell; the state enters the product times `drop`, if there is one."""
        return cell.forward(projected, self.product, seen(states[0], drop), states)


def seen(state: Array, drop: Array | None) -> Array:
    """Returns what of a state enters the product."""
    return state if drop is None else state * drop


def _select(valid: Array | None, new: States, old: States) -> States:
    if valid is None:
        return new
    return tuple(jnp.where(valid[:, None], n, o) for n, o in zip(new, old, strict=True))


# States over steps, for each of the states that are wanted.
Rooms = tuple[Array, ...]

# On a GPU the kernels of one step take less time than the loop takes to begin another round.
_UNROLLED = 8


def over_steps(count: Any, step: Callable, carry: Any) -> Any:
    """Returns the carry after so many steps, `step(i, carry)` each."""
    static = isinstance(count, int) and not on_cpu()
    return lax.fori_loop(0, count, step, carry, unroll=_UNROLLED if static else None)


take = functools.partial(lax.dynamic_index_in_dim, keepdims=False)


def put(buffer: Array, value: Array, at: Any) -> Array:
    """Returns the buffer with entry `at` replaced."""
    return lax.dynamic_update_index_in_dim(buffer, value, at, 0)


def room_for(like: Any, *sizes: int) -> Array:
    """Returns room for so many of what `like` is."""
    return jnp.zeros((*sizes, *like.shape), like.dtype)


def _needing(apart: Array, states: States) -> States:
    """Returns the states after a loop, in a way by which it has to write `apart` out at each step.

    XLA's CPU else computes it in the pass that writes a state, one number at a time, since for all
    that LLVM knows that pass may overwrite the loop's counter: 40 us a step for 15, of a GRU's gates
    for 8 rows by 128 units.
    """
    none = apart.dtype.type(0)
    zero = lax.clamp(none, apart[:1, :1], none).astype(states[0].dtype)
    padded = jnp.pad(zero, [(0, size - 1) for size in states[0].shape])
    return states[0] + padded, *states[1:]


class Loop:
    """One recurrence at hand: its arguments in blocks, and what the ways forth and back share."""

    def __init__(
        self,
        cell: Cell,
        options: Options,
        x: Array,
        mask: Array | None,
        states: States,
        weights: Weights,
        drop: Array | None,
    ) -> None:
        self.cell, self.weights = cell, weights
        batch, self.steps, self.features = x.shape
        kernel_bytes = weights.recurrent.size * weights.recurrent.dtype.itemsize
        self.shape = block_shape(batch, self.steps, kernel_bytes, mask is not None)
        backwards, zeros = options.go_backwards, options.zero_output_for_mask
        self.order = order_of(self.shape, mask, batch, self.steps, backwards, zeros)
        self.inputs = x.reshape(-1, self.features)
        self.states = tuple(self.order.sorted(s) for s in states)
        self.drop = None if drop is None else self.order.sorted(drop)
        self.chunks = self.shape.steps // self.shape.chunk

    def block_of(self, value: Array, block: Any) -> Array:
        """Returns a block's rows of `(blocks * R, ...)`."""
        return lax.dynamic_slice_in_dim(value, block * self.shape.rows, self.shape.rows)

    def put_block(self, values: States, new: States, block: Any) -> States:
        """Writes a block's rows."""
        at = block * self.shape.rows
        put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=at, axis=0)
        return tuple(put(v, n) for v, n in zip(values, new, strict=True))

    def chunk_of(self, value: Array, at: Any) -> Array:
        """Returns a chunk `(C, R)` of `(blocks * T', R)`."""
        return lax.dynamic_slice_in_dim(value, at * self.shape.chunk, self.shape.chunk)

    def last(self, block: Any) -> Any:
        """Returns the number of steps of a block."""
        last = self.order.last
        return last if isinstance(last, int) else last[block]

    def count(self, block: Any, chunk: Any) -> Any:
        """Returns the number of steps of a block's chunk."""
        last = self.last(block)
        if isinstance(last, int) and last == self.shape.steps:
            return self.shape.chunk
        return jnp.minimum(self.shape.chunk, last - chunk * self.shape.chunk)

    def used(self, block: Any) -> Any:
        """Returns the number of a block's chunks."""
        return -(-self.last(block) // self.shape.chunk)

    def taken(self, source: Array, valid: Array | None) -> Array:
        """Returns the inputs at places `(steps, R)`, zeros where they are masked."""
        taken = self.inputs[source]
        # NaN in masked steps would reach the kernel's gradient: 0 times NaN.
        return taken if valid is None else jnp.where(valid[..., None], taken, 0)

    def chunk_valid(self, at: Any) -> Array | None:
        """Returns which steps of a chunk are valid, `(C, R)`, or None."""
        return None if self.order.valid is None else self.chunk_of(self.order.valid, at)

    def chunk_inputs(self, at: Any) -> Array:
        """Returns a chunk of inputs, `(C, R, F)`."""
        return self.taken(self.chunk_of(self.order.source, at), self.chunk_valid(at))

    def step(
        self, projected: Array, valid: Array | None, states: States, drop: Array | None
    ) -> tuple[States, Array | None]:
        """Runs one step."""
        new, apart = self.weights.step(self.cell, projected, states, drop)
        return _select(valid, new, states), apart if on_cpu() else None

    def drop_of(self, block: Any) -> Array | None:
        """Returns a block's rows of the dropout, or None."""
        return None if self.drop is None else self.block_of(self.drop, block)

    def run_chunk(
        self, block: Any, chunk: Any, states: States, rooms: Rooms, begin: Any
    ) -> tuple[States, Rooms]:
        """Runs a chunk of steps; states after it stand in `rooms` from `begin` on.

        `rooms` are as many as states are wanted, `(steps, R, U)` each, the output first.
        """
        at = block * self.chunks + chunk
        valid = self.chunk_valid(at)
        projected = self.weights.projected(self.chunk_inputs(at))
        drop = self.drop_of(block)

        def step(i: Any, carry: tuple) -> tuple:
            states, rooms, _ = carry
            now = None if valid is None else take(valid, i)
            states, apart = self.step(take(projected, i), now, states, drop)
            wanted = zip(rooms, states, strict=False)
            return states, tuple(put(room, state, begin + i) for room, state in wanted), apart

        carry = (states, rooms, None)
        apart = jax.tree.map(room_for, jax.eval_shape(step, 0, carry)[2])
        states, rooms, apart = over_steps(self.count(block, chunk), step, (states, rooms, apart))
        return (states if apart is None else _needing(apart, states)), rooms

    def outputs(self, series: Array) -> Array:
        """Returns `(B, T, U)` from states `(blocks * (T' + 1), R, U)`, first ones included."""
        found = series.reshape(-1, series.shape[-1])[self.order.taken]
        begun = self.order.begun
        return found if begun is None else jnp.where(begun[..., None], found, 0)
