"""Ops on shapes: the mask follows its steps; where it cannot, the op refuses."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from alphorn.core.masked import Masked, expand_to, fill_masked, with_mask
from alphorn.ops.rules import (
    axes_of,
    extent_along,
    filled,
    gather_steps,
    joined_masks,
    refusal,
)
from alphorn.ops.table import Op, Rule, row

_FOLLOWS = "follows its steps; refused where it cannot."


def _follow(where: Callable[[Op, Masked, dict[str, Any]], Array | None]) -> Rule:
    """Returns the rule of an op that moves entries: `where` gives the mask of its result."""

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        x = arguments["x"]
        mask = where(op, x, arguments)
        return with_mask(op.with_arrays(arguments, x.data), mask)

    return Rule(apply, _FOLLOWS)


def _reshaped(op: Op, x: Masked, arguments: dict[str, Any]) -> Array:
    shape = tuple(arguments["newshape"]) if "newshape" in arguments else (-1,)
    known = math.prod(s for s in shape if s != -1)
    shape = tuple(x.size // max(known, 1) if s == -1 else int(s) for s in shape)
    if shape[: x.mask.ndim] == x.mask.shape:
        return x.mask
    steps, rest = math.prod(x.mask.shape), math.prod(x.shape[x.mask.ndim :])
    for rank in range(1, len(shape) + 1):
        if math.prod(shape[:rank]) == steps and math.prod(shape[rank:]) == rest:
            return x.mask.reshape(shape[:rank])
    raise refusal(
        op,
        f"{x.shape} to {shape} would mix the features of several steps",
        "keep the axes of the mask in front, reduce time first (ops.mean(x, 1)), or unmask(x)",
    )


@row(_follow(_reshaped))
def reshape(x: Any, newshape: Any) -> Any:
    """Returns the entries in another shape; one size may be -1."""
    return jnp.reshape(x, newshape)


@row(_follow(_reshaped))
def ravel(x: Any) -> Any:
    """Returns the entries as one axis."""
    return jnp.ravel(x)


def permuted_mask(x: Masked, order: Sequence[int]) -> Array:
    """Returns the mask of `x` with its axes in `order`.

    It grows along axes of features that come before one of its own.
    """
    last = max(order.index(a) for a in range(x.mask.ndim)) + 1
    mask = jnp.transpose(expand_to(x.mask, x.ndim), order)
    shape = tuple(x.shape[a] for a in order)
    return jnp.broadcast_to(lax.squeeze(mask, range(last, x.ndim)), shape[:last])


def _transposed(op: Op, x: Masked, arguments: dict[str, Any]) -> Array:
    axes = arguments["axes"]
    order = range(x.ndim)[::-1] if axes is None else axes
    return permuted_mask(x, [a % x.ndim for a in order])


def _moved(op: Op, x: Masked, arguments: dict[str, Any]) -> Array:
    order = jnp.moveaxis(
        jnp.empty(tuple(range(x.ndim))), arguments["source"], arguments["destination"]
    )
    return permuted_mask(x, order.shape)


def _swapped(op: Op, x: Masked, arguments: dict[str, Any]) -> Array:
    order = list(range(x.ndim))
    first, second = arguments["axis1"], arguments["axis2"]
    order[first], order[second] = order[second], order[first]
    return permuted_mask(x, order)


@row(_follow(_transposed))
def transpose(x: Any, axes: Any = None) -> Any:
    """Returns `x` with its axes in another order, by default backwards."""
    return jnp.transpose(x, axes)


@row(_follow(_moved))
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """Returns `x` with axes moved to other places."""
    return jnp.moveaxis(x, source, destination)


@row(_follow(_swapped))
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Returns `x` with two axes exchanged."""
    return jnp.swapaxes(x, axis1, axis2)


def _expanded(op: Op, x: Masked, arguments: dict[str, Any]) -> Array:
    axis = arguments["axis"]
    axes = axis if isinstance(axis, list | tuple) else (axis,)
    rank = x.ndim + len(axes)
    mask = x.mask
    for a in sorted(a % rank for a in axes):
        mask = jnp.expand_dims(mask, a) if a < mask.ndim else mask
    return mask


@row(_follow(_expanded))
def expand_dims(x: Any, axis: Any) -> Any:
    """Returns `x` with axes of size 1 put in."""
    return jnp.expand_dims(x, tuple(axis) if isinstance(axis, list) else axis)


def _squeezed(op: Op, x: Masked, arguments: dict[str, Any]) -> Array | None:
    axis = arguments["axis"]
    if axis is None:
        gone = [a for a, size in enumerate(x.shape) if size == 1]
    else:
        gone = axes_of(axis, x.ndim, op)
    mask = lax.squeeze(x.mask, [a for a in gone if a < x.mask.ndim])
    return mask if mask.ndim else None


@row(_follow(_squeezed))
def squeeze(x: Any, axis: Any = None) -> Any:
    """Returns `x` without axes of size 1."""
    return jnp.squeeze(x, tuple(axis) if isinstance(axis, list) else axis)


def _broadcast_mask(op: Op, x: Masked, arguments: dict[str, Any]) -> Array:
    shape = tuple(arguments["shape"])
    front = len(shape) - x.ndim
    mask = lax.expand_dims(x.mask, range(front))
    return jnp.broadcast_to(mask, shape[: mask.ndim])


@row(_follow(_broadcast_mask))
def broadcast_to(x: Any, shape: Any) -> Any:
    """Returns `x` stretched to `shape`."""
    return jnp.broadcast_to(x, tuple(shape))


def _masks_of(xs: Sequence[Any]) -> list[Array]:
    """Returns the masks of all inputs with equal ranks; unmasked ones count as all valid."""
    rank = max(x.mask.ndim for x in xs if isinstance(x, Masked))
    masks = [x.mask if isinstance(x, Masked) else jnp.ones(x.shape[:1], bool) for x in xs]
    return [
        jnp.broadcast_to(expand_to(m, rank), x.shape[:rank]) if m.ndim < rank else m
        for m, x in zip(masks, xs, strict=True)
    ]


def _shared_mask(xs: Sequence[Any]) -> Array:
    return joined_masks([x.mask for x in xs if isinstance(x, Masked)])


def concatenated(op: Op, arguments: dict[str, Any]) -> Any:
    """Joins the arrays `xs` along the axis that the op or its arguments name."""
    xs = arguments["xs"]
    rank = max(x.mask.ndim for x in xs if isinstance(x, Masked))
    axis = _joining_axis(op.name, arguments.get("axis"), xs[0].ndim)
    out = op.with_arrays(arguments, [filled(x, 0) for x in xs])
    if axis is None:
        raise refusal(op, "axis=None would flatten rows into each other", "name an axis")
    mask = jnp.concatenate(_masks_of(xs), axis) if axis < rank else _shared_mask(xs)
    return Masked.trusted(fill_masked(out, mask), mask)


def _joining_axis(name: str, axis: int | None, rank: int) -> int | None:
    axis = {"hstack": int(rank > 1), "vstack": 0, "dstack": 2}.get(name, axis)
    return None if axis is None else axis % rank


JOINED = (
    "over features, a step is valid where all masked inputs are; over time, masks are joined,"
    " and an unmasked input counts as all valid."
)


@row(Rule(concatenated, JOINED), arrays=("xs",))
def concatenate(xs: Any, axis: int | None = 0) -> Any:
    """Returns arrays joined along an axis."""
    return jnp.concatenate(xs, axis)


def _stacked(op: Op, arguments: dict[str, Any]) -> Any:
    xs = list(arguments["x"])
    axis = arguments["axis"] % (xs[0].ndim + 1)
    masks = _masks_of(xs)
    rank = masks[0].ndim
    # Rows that are stacked into steps: each keeps its own claim.
    steps = axis == rank == 1 and any(m is not masks[0] for m in masks)
    mask = jnp.stack(masks, axis) if axis < rank or steps else _shared_mask(xs)
    out = op.with_arrays(arguments, [filled(x, 0) for x in xs])
    return Masked.trusted(fill_masked(out, mask), mask)


@row(
    Rule(_stacked, "stacked as well, or, over features, valid where all masked inputs are."),
)
def stack(x: Any, axis: int = 0) -> Any:
    """Returns arrays joined along a new axis."""
    return jnp.stack(x, axis)


def split_parts(op: Op, arguments: dict[str, Any], axis: int) -> list:
    """Returns the parts of a split, each with its part of the mask."""
    x = arguments["x"]
    parts = op.with_arrays(arguments, x.data)
    if axis >= x.mask.ndim:
        return [Masked.trusted(p, x.mask) for p in parts]
    masks = op.with_arrays(arguments, x.mask)
    return [with_mask(p, m if m.ndim else None) for p, m in zip(parts, masks, strict=True)]


def _split(op: Op, arguments: dict[str, Any]) -> list:
    return split_parts(op, arguments, axes_of(arguments["axis"], arguments["x"].ndim, op)[0])


@row(Rule(_split, _FOLLOWS))
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """Returns a list of parts along an axis: so many, or cut at those places."""
    return jnp.split(x, indices_or_sections, axis)


@row(Rule(_split, _FOLLOWS))
def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """Returns a list of parts along an axis, whose sizes may differ by one."""
    return jnp.array_split(x, indices_or_sections, axis)


@row(Rule(_split, _FOLLOWS))
def unstack(x: Any, num: int | None = None, axis: int = 0) -> Any:
    """Returns a list of the arrays along an axis."""
    if num is not None and num != x.shape[axis]:
        raise ValueError(f"ops.unstack: num={num}, but axis {axis} has size {x.shape[axis]}")
    return [jnp.squeeze(part, axis) for part in jnp.split(x, x.shape[axis], axis)]


def turn(op: Op, x: Masked, axis: int, shift: Any) -> Masked:
    """Reverses (`shift=None`) or rolls each row within its own extent."""
    if axis >= x.mask.ndim or axis == 0:
        turn = (
            (lambda a: jnp.flip(a, axis)) if shift is None else lambda a: jnp.roll(a, shift, axis)
        )
        return Masked.trusted(turn(x.data), x.mask if axis else turn(x.mask))
    start, stop = extent_along(x.mask, axis)
    place = lax.broadcasted_iota(jnp.int32, (*x.shape[:axis], x.shape[axis]), axis)
    if shift is None:
        index = start + stop - 1 - place
    else:
        index = start + (place - start - shift) % jnp.maximum(stop - start, 1)
    index = jnp.where((place >= start) & (place < stop), index, place)
    return Masked.trusted(gather_steps(x.data, index, axis), gather_steps(x.mask, index, axis))


def _flipped(op: Op, arguments: dict[str, Any]) -> Any:
    x = arguments["x"]
    for axis in axes_of(arguments["axis"], x.ndim, op):
        x = turn(op, x, axis, None)
    return x


def _rolled(op: Op, arguments: dict[str, Any]) -> Any:
    x, axis, shift = arguments["x"], arguments["axis"], arguments["shift"]
    if axis is None:
        raise refusal(op, "axis=None would roll rows into each other", "name an axis")
    axes = axis if isinstance(axis, list | tuple) else (axis,)
    shifts = shift if isinstance(shift, list | tuple) else (shift,) * len(axes)
    for a, s in zip(axes, shifts, strict=True):
        x = turn(op, x, a % x.ndim, s)
    return x


TURNED = "follows; along time, each row turns within its own extent."


@row(Rule(_flipped, TURNED))
def flip(x: Any, axis: Any = None) -> Any:
    """Returns `x` backwards along `axis`, or all axes."""
    return jnp.flip(x, tuple(axis) if isinstance(axis, list) else axis)


@row(Rule(_rolled, TURNED))
def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """Returns `x` shifted along `axis`; what leaves at one end comes in at the other."""
    return jnp.roll(x, shift, axis)


def _repeated(op: Op, x: Masked, arguments: dict[str, Any]) -> Array:
    axis = arguments["axis"]
    if axis is None:
        raise refusal(op, "axis=None would flatten rows into each other", "name an axis")
    axis %= x.ndim
    return jnp.repeat(x.mask, arguments["repeats"], axis) if axis < x.mask.ndim else x.mask


@row(_follow(_repeated))
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Returns `x` with each entry repeated along `axis`."""
    return jnp.repeat(x, repeats, axis)


def _tiled(op: Op, arguments: dict[str, Any]) -> Any:
    x, repeats = arguments["x"], arguments["repeats"]
    repeats = [repeats] if isinstance(repeats, int) else list(repeats)
    if len(repeats) > x.ndim:
        raise refusal(op, "more repeats than axes", "ops.expand_dims(x, 0) first")
    repeats = [1] * (x.ndim - len(repeats)) + repeats
    data, mask = x.data, x.mask
    for axis, times in enumerate(repeats):
        if times == 1:
            continue
        if axis == 0 or axis >= mask.ndim:
            data = jnp.concatenate([data] * times, axis)
            mask = jnp.concatenate([mask] * times, 0) if axis == 0 else mask
            continue
        start, stop = extent_along(mask, axis)
        length = stop - start
        steps = mask.shape[axis] * times
        place = lax.broadcasted_iota(jnp.int32, (*data.shape[:axis], steps), axis)
        inside = (place >= start) & (place < start + times * length)
        index = start + (place - start) % jnp.maximum(length, 1)
        data, mask = gather_steps(data, index, axis), gather_steps(mask, index, axis)
        mask = mask & expand_to(inside, mask.ndim)
    return Masked.trusted(data, mask)


@row(Rule(_tiled, "follows; along time, each row is repeated within its own extent."))
def tile(x: Any, repeats: Any) -> Any:
    """Returns `x` repeated as a whole along its last axes."""
    return jnp.tile(x, repeats)


def _pairs(pad_width: Any, rank: int) -> list[tuple[int, int]]:
    if isinstance(pad_width, int):
        return [(pad_width, pad_width)] * rank
    if isinstance(pad_width[0], int):
        low, high = pad_width if len(pad_width) == 2 else pad_width * 2
        return [(low, high)] * rank
    pairs = [(p, p) if isinstance(p, int) else tuple(p) for p in pad_width]
    return pairs * rank if len(pairs) == 1 else pairs


def _padded(op: Op, arguments: dict[str, Any]) -> Any:
    x, mode = arguments["x"], arguments["mode"]
    value = arguments["constant_values"]
    value = 0 if value is None else value
    widths = _pairs(arguments["pad_width"], x.ndim)
    out, mask = op.with_arrays(arguments, x.data), x.mask
    for axis, (low, high) in enumerate(widths[: mask.ndim]):
        if low == high == 0:
            continue
        moved = jnp.pad(mask, [(low, high) if a == axis else (0, 0) for a in range(mask.ndim)])
        if axis:
            if mode != "constant":
                raise refusal(op, f"mode={mode!r} along time reads padding", "mode='constant'")
            start, stop = extent_along(mask, axis)
            place = lax.broadcasted_iota(jnp.int32, moved.shape[: axis + 1], axis)
            made = (place >= start) & (place < stop + low + high) & (stop > start)
            made &= (place < start + low) | (place >= stop + low)
            made = expand_to(made, moved.ndim)
            moved = moved | made
            out = jnp.where(expand_to(made, out.ndim), jnp.asarray(value, out.dtype), out)
        mask = moved
    return Masked.trusted(out, mask)


@row(Rule(_padded, "follows; along time, steps are added at the ends of each row's extent."))
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Any:
    """Returns `x` with entries added before and after along axes."""
    options = {} if constant_values is None else {"constant_values": constant_values}
    return jnp.pad(x, pad_width, mode, **options)
