"""Recurrences over padded batches at the price of their valid steps, with hand-written gradients.

Letters: `B` batch, `T` time, `F` features, `U` units, `G` gates times units; `R` rows of a block,
`C` steps of a chunk, `T'` steps of whole chunks (see `blocks`).

A chunk of steps is projected by one large product before the loop over its steps. On the way back
its gates are computed again by two large products, which costs what keeping them would and a sixth
of the memory, and after the loop it gives its part of the weights' gradients by two more.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from alphorn.kernels.cells import Cell, States, widened
from alphorn.kernels.loops import Loop, Options, Weights, over_steps, put, room_for, seen, take

# States of all steps are kept for the way back up to this size, beyond it those between chunks.
_SAVED_BYTES = 1 << 28


def _is_long(loop: Loop) -> bool:
    states = sum(s.size * s.dtype.itemsize for s in loop.states)
    return states * loop.steps > _SAVED_BYTES


def _forward(
    cell: Cell, options: Options, keep: bool, *args: Any
) -> tuple[tuple[Array | None, States], Any]:
    """Returns the outputs and last states, and with `keep` what `_backward` needs beside them.

    That is each state before each step, `(blocks * (T' + 1), R, U)`; of long sequences before each
    chunk, `(blocks * chunks, R, U)`, and the steps between are run again.
    """
    loop = Loop(cell, options, *args)
    blocks, rows, chunk, steps = loop.shape
    long = _is_long(loop)
    like = tuple(jax.ShapeDtypeStruct((rows, s.shape[1]), s.dtype) for s in loop.states)
    all_steps = keep and not long
    wanted = len(like) if all_steps else int(options.sequences)
    rooms = tuple(room_for(s, blocks * (steps + 1)) for s in like[:wanted])
    starts = tuple(room_for(s, blocks * loop.chunks) for s in like) if keep and long else ()

    def one_chunk(block: Any, c: Any, carry: tuple) -> tuple:
        states, rooms, starts = carry
        at = block * loop.chunks + c
        starts = tuple(put(room, s, at) for room, s in zip(starts, states, strict=False))
        begin = block * (steps + 1) + c * chunk + 1
        return *loop.run_chunk(block, c, states, rooms, begin), starts

    def one_block(block: Any, carry: tuple) -> tuple:
        all_states, rooms, starts = carry
        states = tuple(loop.block_of(s, block) for s in all_states)
        first = zip(rooms, states, strict=False)
        rooms = tuple(put(room, s, block * (steps + 1)) for room, s in first)
        body = functools.partial(one_chunk, block)
        carry = (states, rooms, starts)
        states, rooms, starts = lax.fori_loop(0, loop.used(block), body, carry)
        return loop.put_block(all_states, states, block), rooms, starts

    states, rooms, starts = lax.fori_loop(0, blocks, one_block, (loop.states, rooms, starts))
    last = tuple(loop.order.restored(s) for s in states)
    outputs = loop.outputs(rooms[0]) if options.sequences else None
    return (outputs, last), (starts if long else rooms) if keep else None


def _backward(cell: Cell, options: Options, args: tuple, saved: States, cotangents: tuple) -> tuple:
    loop = Loop(cell, options, *args)
    order, weights = loop.order, loop.weights
    blocks, rows, chunk, steps = loop.shape
    long = _is_long(loop)
    doutputs, dlast = cotangents
    dlast = list(dlast)
    if doutputs is not None:
        if order.begun is not None and order.behind is not None:
            doutputs = jnp.where(order.begun[..., None], doutputs, 0)
            # What is repeated behind a row's last step is its last state.
            repeated = jnp.where(order.behind[..., None], doutputs, 0)
            dlast[0] = dlast[0] + jnp.sum(repeated, 1, dtype=dlast[0].dtype)
        doutputs = doutputs.reshape(-1, doutputs.shape[-1])
    dlast = tuple(order.sorted(d) for d in dlast)
    wide = widened(weights.kernel.dtype)
    # Turned once: turned inside the loop, a product on XLA's CPU takes twice as long.
    turned = (weights.kernel.T, weights.recurrent.T)
    kernel_back, recurrent_back = lax.optimization_barrier(turned)

    def product_back(d: Array, start: int = 0, stop: int | None = None) -> Array:
        """Goes back through columns of the recurrent kernel."""
        return d @ recurrent_back[start:stop]

    def chunk_doutputs(at: Any) -> Array | None:
        if doutputs is None:
            return None
        given = doutputs[loop.chunk_of(order.placed, at)]
        if order.within is None:
            return given
        return jnp.where(loop.chunk_of(order.within, at)[..., None], given, 0)

    def before(block: Any, c: Any) -> States:
        """Returns the states before each step of a chunk, `(C, R, U)` each."""
        if not long:
            begin = block * (steps + 1) + c * chunk
            return tuple(lax.dynamic_slice_in_dim(s, begin, chunk) for s in saved)
        states = tuple(take(s, block * loop.chunks + c) for s in saved)
        rooms = tuple(put(room_for(s, chunk + 1), s, 0) for s in states)
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
        entering = seen(states[0], drop)
        coefficients, rest = cell.slopes(
            weights.projected(inputs), weights.product, entering, states
        )
        if valid is not None:
            coefficients = cell.idle(coefficients, valid[..., None])

        def step(k: Any, carry: tuple) -> tuple:
            dstates, dprojected = carry
            i = count - 1 - k
            if given is not None:
                dstates = (dstates[0] + take(given, i), *dstates[1:])
            now = jax.tree.map(lambda a: take(a, i), coefficients)
            dgates, dseen, dold = cell.backward(now, dstates, product_back)
            dstates = (dold[0] + seen(dseen, drop), *dold[1:])
            return dstates, put(dprojected, dgates, i)

        dstates, dprojected = over_steps(count, step, (dstates, dprojected))
        pairs = cell.recurrent(rest, entering, dprojected)
        added = Weights(
            total(inputs, dprojected),
            None if sums.bias is None else total_rows(dprojected),
            jnp.concatenate([total(*pair) for pair in pairs], -1),
            None
            if sums.recurrent_bias is None
            else jnp.concatenate([total_rows(right) for _, right in pairs]),
        )
        dinputs = dprojected.reshape(chunk * rows, -1) @ kernel_back
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
    loop = Loop(cell, options, *args)
    order, (blocks, rows, _, steps) = loop.order, loop.shape

    def by_time(value: Array) -> Array:
        """Returns `(blocks * T', R)` as `(T', blocks * R)`."""
        return jnp.moveaxis(value.reshape(blocks, steps, rows), 1, 0).reshape(steps, -1)

    valid = None if order.valid is None else by_time(order.valid)
    if valid is None and steps > loop.steps:
        valid = lax.iota(jnp.int32, steps)[:, None] < loop.steps
    projected = loop.weights.projected(loop.taken(by_time(order.source), valid))

    def step(states: States, now: tuple) -> tuple[States, Array]:
        projected, valid = now
        states, _ = loop.step(projected, valid, states, loop.drop)
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
    kept: Any = _keeping(cell, options, *args)
    return kept, (args, kept[1])


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
    kept: Any = _keeping(cell, options, *args)
    return kept[0], (args, kept[1])


def _recur_backward(cell: Cell, options: Options, residuals: tuple, cotangents: tuple) -> tuple:
    return _pull_back(cell, options, *residuals, cotangents)


recur.defvjp(_recur_forward, _recur_backward)
