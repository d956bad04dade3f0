"""Recurrences over padded batches at the price of their valid steps, with hand-written gradients.

Letters: `B` batch, `T` time, `F` features, `U` units, `G` gates times units; `R` rows of a block,
`C` steps of a chunk (see `blocks`).

A chunk of steps is projected by one large product before the loop over its steps, and gives its
part of the weights' gradients by one large product after the loop back.
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


# States of all steps are kept for the way back up to this size, beyond it those between chunks.
_SAVED_BYTES = 1 << 28


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


def _select(valid: Array | None, new: States, old: States) -> States:
    if valid is None:
        return new
    return tuple(jnp.where(valid[:, None], n, o) for n, o in zip(new, old, strict=True))


# States over steps, for each of the states that are wanted.
Rooms = tuple[Array, ...]

_take = functools.partial(lax.dynamic_index_in_dim, keepdims=False)


def _put(buffer: Array, value: Array, at: Any) -> Array:
    return lax.dynamic_update_index_in_dim(buffer, value, at, 0)


def _room(like: Any, *sizes: int) -> Array:
    return jnp.zeros((*sizes, *like.shape), like.dtype)


def _matmul(x: Array, kernel: Array) -> Array:
    """Returns `(..., N)` from `(..., M)`, by one product of matrices."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[1])


class _Loop:
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
        self.wide = widened(weights.kernel.dtype)
        kept = sum(s.size * s.dtype.itemsize for s in states) * self.steps
        self.long = kept > _SAVED_BYTES
        # Turned once: turned inside the loop, a product on XLA's CPU takes twice as long.
        turned = (weights.kernel.T, weights.recurrent.T)
        self.kernel_back, self.recurrent_back = lax.optimization_barrier(turned)

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

    def seen(self, state: Array, drop: Array | None) -> Array:
        """Returns what of the state enters the product."""
        return state if drop is None else state * drop

    def product(self, seen: Array, start: int = 0, stop: int | None = None) -> Array:
        """Goes through columns of the recurrent kernel."""
        out = _matmul(seen, self.weights.recurrent[:, start:stop])
        bias = self.weights.recurrent_bias
        return out if bias is None else out + bias[start:stop]

    def product_back(self, d: Array, start: int = 0, stop: int | None = None) -> Array:
        """Goes back through columns of the recurrent kernel."""
        return d @ self.recurrent_back[start:stop]

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

    def projected(self, x: Array) -> Array:
        """Returns `(steps, R, F)` inputs times their kernel, with the bias."""
        kernel, bias = self.weights.kernel, self.weights.bias
        projected = _matmul(x, kernel)
        if bias is None:
            return projected
        return (projected.astype(self.wide) + bias.astype(self.wide)).astype(projected.dtype)

    def step(
        self, projected: Array, valid: Array | None, states: States, drop: Array | None
    ) -> States:
        """Runs one step."""
        new = self.cell.forward(projected, self.product, self.seen(states[0], drop), states)
        return _select(valid, new, states)

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
        projected = self.projected(self.chunk_inputs(at))
        drop = self.drop_of(block)

        def step(i: Any, carry: tuple) -> tuple:
            states, rooms = carry
            now = None if valid is None else _take(valid, i)
            states = self.step(_take(projected, i), now, states, drop)
            wanted = zip(rooms, states, strict=False)
            return states, tuple(_put(room, state, begin + i) for room, state in wanted)

        return lax.fori_loop(0, self.count(block, chunk), step, (states, rooms))

    def outputs(self, series: Array) -> Array:
        """Returns `(B, T, U)` from states `(blocks * (T' + 1), R, U)`, first ones included."""
        found = series.reshape(-1, series.shape[-1])[self.order.taken]
        begun = self.order.begun
        return found if begun is None else jnp.where(begun[..., None], found, 0)


def _forward(
    cell: Cell, options: Options, keep: bool, *args: Any
) -> tuple[tuple[Array | None, States], Any]:
    """Returns the outputs and last states, and with `keep` what `_backward` needs beside them.

    That is each state before each step, `(blocks * (T' + 1), R, U)`; of long sequences before each
    chunk, `(blocks * chunks, R, U)`, and the steps between are run again.
    """
    loop = _Loop(cell, options, *args)
    blocks, rows, chunk, steps = loop.shape
    like = tuple(jax.ShapeDtypeStruct((rows, s.shape[1]), s.dtype) for s in loop.states)
    all_steps = keep and not loop.long
    wanted = len(like) if all_steps else int(options.sequences)
    rooms = tuple(_room(s, blocks * (steps + 1)) for s in like[:wanted])
    starts = tuple(_room(s, blocks * loop.chunks) for s in like) if keep and loop.long else ()

    def one_chunk(block: Any, c: Any, carry: tuple) -> tuple:
        states, rooms, starts = carry
        at = block * loop.chunks + c
        starts = tuple(_put(room, s, at) for room, s in zip(starts, states, strict=False))
        begin = block * (steps + 1) + c * chunk + 1
        return *loop.run_chunk(block, c, states, rooms, begin), starts

    def one_block(block: Any, carry: tuple) -> tuple:
        all_states, rooms, starts = carry
        states = tuple(loop.block_of(s, block) for s in all_states)
        first = zip(rooms, states, strict=False)
        rooms = tuple(_put(room, s, block * (steps + 1)) for room, s in first)
        body = functools.partial(one_chunk, block)
        carry = (states, rooms, starts)
        states, rooms, starts = lax.fori_loop(0, loop.used(block), body, carry)
        return loop.put_block(all_states, states, block), rooms, starts

    states, rooms, starts = lax.fori_loop(0, blocks, one_block, (loop.states, rooms, starts))
    last = tuple(loop.order.restored(s) for s in states)
    outputs = loop.outputs(rooms[0]) if options.sequences else None
    return (outputs, last), (starts if loop.long else rooms) if keep else None


def _backward(cell: Cell, options: Options, args: tuple, saved: States, cotangents: tuple) -> tuple:
    loop = _Loop(cell, options, *args)
    order, weights, wide = loop.order, loop.weights, loop.wide
    blocks, rows, chunk, steps = loop.shape
    doutputs, dlast = cotangents
    dlast = list(dlast)
    if doutputs is not None:
        if order.begun is not None:
            doutputs = jnp.where(order.begun[..., None], doutputs, 0)
            # What is repeated behind a row's last step is its last state.
            repeated = jnp.where(order.behind[..., None], doutputs, 0)
            dlast[0] = dlast[0] + jnp.sum(repeated, 1, dtype=dlast[0].dtype)
        doutputs = doutputs.reshape(-1, doutputs.shape[-1])
    dlast = tuple(order.sorted(d) for d in dlast)

    def chunk_doutputs(at: Any) -> Array | None:
        if doutputs is None:
            return None
        given = doutputs[loop.chunk_of(order.placed, at)]
        if order.within is None:
            return given
        return jnp.where(loop.chunk_of(order.within, at)[..., None], given, 0)

    def before(block: Any, c: Any) -> States:
        """Returns the states before each step of a chunk, `(C, R, U)` each."""
        if not loop.long:
            begin = block * (steps + 1) + c * chunk
            return tuple(lax.dynamic_slice_in_dim(s, begin, chunk) for s in saved)
        states = tuple(_take(s, block * loop.chunks + c) for s in saved)
        rooms = tuple(_put(_room(s, chunk + 1), s, 0) for s in states)
        return tuple(room[:-1] for room in loop.run_chunk(block, c, states, rooms, 1)[1])

    def total(left: Array, right: Array) -> Array:
        left, right = (a.reshape(-1, a.shape[-1]) for a in (left, right))
        return jnp.einsum("nu,ng->ug", left, right, preferred_element_type=wide)

    def total_rows(d: Array) -> Array:
        return jnp.sum(d, (0, 1), dtype=wide)

    def back_chunk(block: Any, k: Any, carry: tuple) -> tuple:
        dstates, dprojected, dx, sums = carry
        c = loop.used(block) - 1 - k
        at, count = block * loop.chunks + c, loop.count(block, c)
        drop, valid, given = loop.drop_of(block), loop.chunk_valid(at), chunk_doutputs(at)
        inputs, states = loop.chunk_inputs(at), before(block, c)
        seen = loop.seen(states[0], drop)
        coefficients, rest = cell.slopes(loop.projected(inputs), loop.product, seen, states)
        if valid is not None:
            coefficients = cell.idle(coefficients, valid[..., None])

        def step(k: Any, carry: tuple) -> tuple:
            dstates, dprojected = carry
            i = count - 1 - k
            if given is not None:
                dstates = (dstates[0] + _take(given, i), *dstates[1:])
            now = jax.tree.map(lambda a: _take(a, i), coefficients)
            dgates, dseen, dold = cell.backward(now, dstates, loop.product_back)
            dstates = (dold[0] + loop.seen(dseen, drop), *dold[1:])
            return dstates, _put(dprojected, dgates, i)

        dstates, dprojected = lax.fori_loop(0, count, step, (dstates, dprojected))
        pairs = cell.recurrent(rest, seen, dprojected)
        added = Weights(
            total(inputs, dprojected),
            None if sums.bias is None else total_rows(dprojected),
            jnp.concatenate([total(*pair) for pair in pairs], -1),
            None
            if sums.recurrent_bias is None
            else jnp.concatenate([total_rows(right) for _, right in pairs]),
        )
        dinputs = dprojected.reshape(chunk * rows, -1) @ loop.kernel_back
        dinputs = dinputs.reshape(chunk, rows, -1)
        dx = lax.dynamic_update_slice_in_dim(dx, dinputs, at * chunk, 0)
        return dstates, dprojected, dx, jax.tree.map(jnp.add, sums, added)

    def back_block(block: Any, carry: tuple) -> tuple:
        all_dstates, dx, sums = carry
        dstates = tuple(loop.block_of(d, block) for d in all_dstates)
        # A chunk has fewer steps than room only where it is the last in time, here the first.
        room = jnp.zeros((chunk, rows, weights.kernel.shape[1]), loop.inputs.dtype)
        body = functools.partial(back_chunk, block)
        carry = (dstates, room, dx, sums)
        dstates, _, dx, sums = lax.fori_loop(0, loop.used(block), body, carry)
        return loop.put_block(all_dstates, dstates, block), dx, sums

    sums = jax.tree.map(lambda w: jnp.zeros(w.shape, wide), weights)
    dx = jnp.zeros((blocks * steps, rows, loop.features), loop.inputs.dtype)
    dstates, dx, sums = lax.fori_loop(0, blocks, back_block, (dlast, dx, sums))
    dx = dx.reshape(-1, loop.features)[order.read]
    mask = args[1]
    dx = dx if mask is None else jnp.where(mask[..., None], dx, 0)
    dweights = jax.tree.map(lambda s, w: s.astype(w.dtype), sums, weights)
    return dx, None, tuple(order.restored(d) for d in dstates), dweights, None


def _plain(cell: Cell, options: Options, *args: Any) -> tuple[Array | None, States]:
    """Is `recur` as scans that JAX differentiates any number of times."""
    loop = _Loop(cell, options, *args)
    order, (blocks, rows, _, steps) = loop.order, loop.shape

    def by_time(value: Array | None) -> Array | None:
        """Returns `(blocks * T', R)` as `(T', blocks * R)`."""
        if value is None:
            return None
        return jnp.moveaxis(value.reshape(blocks, steps, rows), 1, 0).reshape(steps, -1)

    valid = by_time(order.valid)
    if valid is None and steps > loop.steps:
        valid = lax.iota(jnp.int32, steps)[:, None] < loop.steps
    projected = loop.projected(loop.taken(by_time(order.source), valid))

    def step(states: States, now: tuple) -> tuple[States, Array]:
        states = loop.step(*now, states, loop.drop)
        return states, states[0]

    last, series = lax.scan(step, loop.states, (projected, valid))
    last = tuple(order.restored(s) for s in last)
    if not options.sequences:
        return None, last
    series = jnp.moveaxis(series.reshape(steps, blocks, rows, -1), 1, 0)
    return loop.outputs(jnp.pad(series, ((0, 0), (1, 0), (0, 0), (0, 0)))), last


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pull_back(
    cell: Cell, options: Options, args: tuple, saved: States, cotangents: tuple
) -> tuple:
    """Returns the gradients by all arguments; itself differentiable, by the plain scan."""
    return _backward(cell, options, args, saved, cotangents)


def _pull_back_forward(cell: Cell, options: Options, *rest: Any) -> tuple[Any, Any]:
    return _pull_back(cell, options, *rest), rest


def _pull_back_backward(cell: Cell, options: Options, residuals: tuple, seeds: tuple) -> tuple:
    (x, mask, states, weights, drop), saved, cotangents = residuals

    def pulled(x: Array, states: States, weights: Weights, cotangents: tuple) -> tuple:
        def plain(x: Array, states: States, weights: Weights) -> tuple:
            return _plain(cell, options, x, mask, states, weights, drop)

        return jax.vjp(plain, x, states, weights)[1](cotangents)

    _, pull = jax.vjp(pulled, x, states, weights, cotangents)
    dx, dstates, dweights, dcotangents = pull((seeds[0], *seeds[2:4]))
    # What is saved follows from the arguments, and has been counted with them.
    nothing = jax.tree.map(jnp.zeros_like, saved)
    return (dx, None, dstates, dweights, None), nothing, dcotangents


_pull_back.defvjp(_pull_back_forward, _pull_back_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _keeping(cell: Cell, options: Options, *args: Any) -> tuple:
    """Returns what `recur` does, and what its gradient needs."""
    return _forward(cell, options, True, *args)


def _keeping_forward(cell: Cell, options: Options, *args: Any) -> tuple[Any, Any]:
    out, saved = _keeping(cell, options, *args)
    return (out, saved), (args, saved)


def _keeping_backward(cell: Cell, options: Options, residuals: tuple, cotangents: tuple) -> tuple:
    return _pull_back(cell, options, *residuals, cotangents[0])


_keeping.defvjp(_keeping_forward, _keeping_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(
    cell: Cell,
    options: Options,
    x: Array,
    mask: Array | None,
    states: States,
    weights: Weights,
    drop: Array | None,
) -> tuple[Array | None, States]:
    """Runs a recurrence; each row over its own steps.

    Args:
        cell: The maths of one step.
        options: See there.
        x: `(B, T, F)`, T > 0.
        mask: `(B, T)` boolean or None. A masked step repeats state and output.
        states: The first states, `(B, U)` each, the output first.
        weights: See there.
        drop: `(B, U)` or None, by which the state is multiplied before its product. It is drawn,
            not differentiated.

    Returns:
        Outputs `(B, T, U)`, or None without `sequences`, and the last states.
    """
    return _forward(cell, options, False, x, mask, states, weights, drop)[0]


def _recur_forward(cell: Cell, options: Options, *args: Any) -> tuple[Any, Any]:
    out, saved = _keeping(cell, options, *args)
    return out, (args, saved)


def _recur_backward(cell: Cell, options: Options, residuals: tuple, cotangents: tuple) -> tuple:
    return _pull_back(cell, options, *residuals, cotangents)


recur.defvjp(_recur_forward, _recur_backward)
