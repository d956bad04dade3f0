"""What becomes of masks: the rules that rows of the table name.

A mask's shape is a prefix of its data's, so a mask of `(B, T)` lies on the first two axes of
`(B, T, F)`. In an operation that broadcasts, data meet at their last axes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alphorn.core.masked import Masked, expand_to, extent, fill_masked, unmask, with_mask
from alphorn.errors import MaskError, ShapeError
from alphorn.ops.table import Op, Rule

LOWEST, HIGHEST = "lowest", "highest"


def fill_value(fill: Any, dtype: Any) -> np.ndarray:
    """Returns a fill (a number, LOWEST or HIGHEST) as a constant of `dtype`."""
    if fill in (LOWEST, HIGHEST):
        if dtype == jnp.bool_:
            return np.asarray(fill == HIGHEST)
        if jnp.issubdtype(dtype, jnp.integer):
            info = jnp.iinfo(dtype)
            return np.asarray(info.min if fill == LOWEST else info.max, dtype)
        fill = -np.inf if fill == LOWEST else np.inf
    return np.asarray(fill).astype(dtype)


def filled(x: Any, fill: Any) -> Array:
    """Returns the plain data of `x`, `fill` where it is masked."""
    return x if not isinstance(x, Masked) else x.fill(fill_value(fill, x.dtype))


def refusal(op: Op, why: str, fix: str) -> MaskError:
    """Returns the error of an op that cannot say what a mask means after it."""
    return MaskError(f"ops.{op.name}: {why}", fix=fix)


def _refuse(op: Op, arguments: dict[str, Any]) -> Any:
    first = next((v for v in arguments.values() if isinstance(v, Masked)), None)
    raise MaskError(
        f"ops.{op.name} cannot say what a mask means after it",
        received="masked sequences" if first is None else repr(first),
        expected="plain data",
        fix="ops.unmask(x) for plain data: its padding then counts as steps",
    )


refuse = Rule(_refuse, "refused, because it would have no meaning; `unmask(x)` is the way out.")
unused = Rule(
    lambda op, arguments: op.call_plain(arguments),
    "passes through, for what is inside decides.",
    anywhere=True,
)
_ENTRYWISE = (
    "stays; with several masked inputs, a step is valid where any of them is, and an absent one"
    " contributes the operation's identity."
)


def broadcast_shape(op: Op, operands: Sequence[Any]) -> tuple[int, ...]:
    """Returns the shape that operands broadcast to.

    Raises:
        ShapeError: naming `expand_dims` where a `(B, F)` meets a `(B, T, F)`.
    """
    shapes = [x.shape for x in operands]
    try:
        found: Any = jnp.broadcast_shapes(*shapes)  # sizes may be symbolic
        return found
    except ValueError:
        pass
    longest = max(shapes, key=len)
    hint = ""
    if any(1 < len(s) < len(longest) and s[0] == longest[0] for s in shapes):
        hint = "ops.expand_dims(y, 1) gives one value a row to every step of it"
    raise ShapeError(
        f"ops.{op.name}: shapes do not broadcast",
        received=" and ".join(map(str, shapes)),
        expected="sizes that agree from the last axis backwards, or are 1",
        fix=hint,
    )


def mask_in(x: Masked, rank: int) -> Array:
    """Returns the mask of `x` on the axes of a result of `rank` axes: `(1, ..., B, T, 1, ...)`."""
    mask = expand_to(x.mask, x.ndim)
    return lax.expand_dims(mask, range(rank - x.ndim))


def merged_mask(masked: Sequence[Masked], shape: tuple[int, ...]) -> Array:
    """Returns the mask of a broadcast result: valid where any mask is.

    A mask that is stretched over an axis where another is not makes no claim: one value for
    every step of a row makes no new steps.
    """
    rank = max(len(shape) - x.ndim + x.mask.ndim for x in masked)
    masks = [mask_in(x, len(shape)) for x in masked]
    covered = [math.prod(m.shape[:rank]) for m in masks]
    masks = [m for m, size in zip(masks, covered, strict=True) if size == max(covered)]
    if all(x.mask is masked[0].mask for x in masked):
        masks = masks[:1]
    valid = masks[0]
    for mask in masks[1:]:
        valid = valid | mask
    return jnp.broadcast_to(lax.squeeze(valid, range(rank, len(shape))), shape[:rank])


def entrywise(fills: Sequence[Any] = (0,), pads: Sequence[Any] | None = None) -> Rule:
    """Returns the rule of an op on single entries.

    Args:
        fills: For each array argument what an absent step contributes where the result is valid.
        pads: What stands in the padding, so that value and derivative are finite there.
    """

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        given = [arguments[name] for name in op.arrays]
        operands = [x for x in given if x is not None]
        shape = broadcast_shape(op, operands)
        masked = [x for x in operands if isinstance(x, Masked)]
        mask = merged_mask(masked, shape)
        valid = expand_to(mask, len(shape))
        values = []
        for x, fill, pad in zip(given, fills, pads or fills, strict=True):
            if isinstance(x, Masked):
                x = filled(x, fill)
                if pad != fill:
                    x = jnp.where(valid, x, fill_value(pad, x.dtype))
            elif x is not None and x.shape[: mask.ndim] == mask.shape and x.ndim == len(shape):
                x = fill_masked(x, mask, fill_value(pad, x.dtype))
            values.append(x)
        out = op.with_arrays(arguments, *values)
        return Masked.trusted(out if len(values) == 1 else fill_masked(out, mask), mask)

    return Rule(apply, _ENTRYWISE if len(fills) > 1 else "stays.")


def _keep(op: Op, arguments: dict[str, Any]) -> Any:
    x = arguments[op.arrays[0]]
    return Masked.trusted(op.with_arrays(arguments, x.data), x.mask)


keep = Rule(_keep, "stays.")


def _compare(op: Op, arguments: dict[str, Any]) -> Any:
    out = entrywise((0, 0)).apply(op, arguments)
    operands = [arguments[name] for name in op.arrays]
    if sum(isinstance(x, Masked) for x in operands) < 2:
        return out
    present = jnp.array(True)
    for x in operands:
        present = present & mask_in(x, out.ndim)
    absent = jnp.array(op.name == "not_equal")
    return Masked.trusted(fill_masked(jnp.where(present, out.data, absent), out.mask), out.mask)


compare = Rule(_compare, "stays; a step that one side lacks compares as NaN does.")


def axes_of(axis: Any, rank: int, op: Op) -> tuple[int, ...]:
    """Returns `axis` (an integer, several, or None for all) as numbers from 0 up.

    Raises:
        ShapeError: where there is no such axis.
    """
    if axis is None:
        return tuple(range(rank))
    chosen = tuple(axis) if isinstance(axis, list | tuple) else (axis,)
    if any(not -rank <= a < rank for a in chosen):
        raise ShapeError(f"ops.{op.name}: axis={axis}", f"an array of {rank} axes", "an axis of it")
    return tuple(sorted({int(a) % rank for a in chosen}))


def touches(x: Masked, axes: Sequence[int]) -> bool:
    """Returns whether one of `axes` is an axis of the mask."""
    return any(a < x.mask.ndim for a in axes)


def remaining_mask(mask: Array, axes: Sequence[int], keepdims: bool) -> Array | None:
    """Returns the mask after a reduction over `axes`; None where time is gone."""
    touched = tuple(a for a in axes if a < mask.ndim)
    if not touched:
        return mask
    rest = [a for a in range(mask.ndim) if a not in touched]
    return None if rest in ([], [0]) else jnp.any(mask, touched, keepdims=keepdims)


def reduced(op: Op, x: Masked, axes: Sequence[int], out: Any, keepdims: bool) -> Any:
    """Returns the result of a reduction with the mask that is left, padding 0."""
    mask = remaining_mask(x.mask, axes, keepdims)
    return out if mask is None else with_mask(fill_masked(out, mask), mask)


def along(fill: Any, whole: bool = False) -> Rule:
    """Returns the rule of an op along `axis` that keeps the shape: over time it skips padding.

    Args:
        fill: What padding contributes.
        whole: Whether `axis=None` means all axes; else it would flatten, and is refused.
    """

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        x = arguments[op.arrays[0]]
        axis = arguments["axis"]
        if axis is None and not whole and x.ndim > 1:
            raise refusal(op, "axis=None would flatten rows into each other", "name an axis")
        rest = [unmask(arguments[name]) for name in op.arrays[1:]]
        out = op.with_arrays(arguments, filled(x, fill), *rest)
        return Masked.trusted(fill_masked(out, x.mask), x.mask)

    return Rule(apply, "stays; along time, padding is skipped.")


def per_step(fills: Sequence[Any], axis: str | None = "axis") -> Rule:
    """Returns the rule of an op on the features of each step, with one or several arrays.

    Args:
        fills: What each array holds in padding.
        axis: The argument that names the axis of features; None for the last.
    """

    def apply(op: Op, arguments: dict[str, Any]) -> Any:
        given = [arguments[name] for name in op.arrays]
        masks = [x.mask for x in given if isinstance(x, Masked)]
        rank = max(m.ndim for m in masks)
        main = max((x for x in given if x is not None), key=lambda x: x.ndim)
        axes = axes_of(arguments[axis] if axis else (), main.ndim, op)
        if any(a < rank for a in axes):
            raise refusal(
                op,
                f"axis={arguments[str(axis)]} is masked",
                "name an axis of features, or unmask the inputs",
            )
        mask = joined_masks(masks)
        values = [
            x if x is None or x.shape[:rank] != mask.shape else _filled(x, mask, fill)
            for x, fill in zip(given, fills, strict=True)
        ]
        out = op.with_arrays(arguments, *map(unmask, values))
        parts = [with_mask(fill_masked(o, mask), mask) for o in _parts(out)]
        return parts[0] if hasattr(out, "dtype") else type(out)(parts)

    return Rule(apply, "stays; with several masked inputs, a step is valid where all are.")


def _filled(x: Any, mask: Array, fill: Any) -> Array:
    return fill_masked(unmask(x), mask, fill_value(fill, x.dtype))


def _parts(out: Any) -> list:
    return [out] if hasattr(out, "dtype") else list(out)


def joined_masks(masks: Sequence[Array]) -> Array:
    """Returns where all masks are valid; those of fewer axes hold for all of the further ones."""
    rank = max(m.ndim for m in masks)
    valid = expand_to(masks[0], rank)
    for mask in masks[1:]:
        if mask is not masks[0]:
            valid = valid & expand_to(mask, rank)
    return valid


def gather_steps(x: Array, index: Array, axis: int) -> Array:
    """Takes along `axis` by an index whose shape is a prefix of the result's."""
    return jnp.take_along_axis(x, expand_to(index, x.ndim), axis, mode="clip")


def extent_along(mask: Array, axis: int) -> tuple[Array, Array]:
    """Returns the extent `(start, stop)` of rows along a mask's axis, with that axis at size 1."""
    present = jnp.any(mask, tuple(range(axis + 1, mask.ndim)))
    start, stop = extent(present)
    return start[..., None], stop[..., None]
