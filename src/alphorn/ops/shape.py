"""Ops that move axes and entries: the mask moves along, or the op says what to write instead."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from alphorn.core.masked import Masked, is_masked
from alphorn.errors import MaskError
from alphorn.kernels.recurrence import reverse_by_extent
from alphorn.ops.table import array, axes_of, full_mask, made, op, plain

_STEPS = "ops.first(x), ops.last(x) and ops.take_steps(x, start, stop) count within each row"


def _refuse(what: str, x: Any, fix: str) -> MaskError:
    return MaskError(f"{what} along the time of a masked {x.shape}", fix=fix)


@op
def shape(x: Any) -> tuple:
    """Returns the shape."""
    return tuple(array(x).shape)


@op
def ndim(x: Any) -> int:
    """Returns the number of axes."""
    return array(x).ndim


@op
def size(x: Any) -> int:
    """Returns the number of entries, padding included."""
    return array(x).size


@op
def reshape(x: Any, newshape: Sequence[int] | int) -> Any:
    """Returns the entries in another shape; the mask follows them."""
    new = (newshape,) if isinstance(newshape, int) else tuple(newshape)
    new = tuple(-1 if s is None else int(s) for s in new)
    if not is_masked(x):
        return jnp.reshape(jnp.asarray(x), new)
    data = jnp.reshape(x.data, new)
    wanted = math.prod(x.mask.shape)
    for rank in range(1, data.ndim + 1):
        if data.shape[:rank] == x.mask.shape or (
            math.prod(data.shape[:rank]) == wanted and x.size == data.size and rank <= data.ndim
        ):
            return Masked.trusted(data, x.mask.reshape(data.shape[:rank]))
    return Masked.trusted(data, full_mask(x).reshape(data.shape))


@op
def ravel(x: Any) -> Any:
    """Returns all entries along one axis; the mask follows them."""
    return reshape(x, (-1,))


@op
def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """Returns `x` with its axes in another order; the mask follows."""
    if not is_masked(x):
        return jnp.transpose(jnp.asarray(x), axes)
    order = tuple(reversed(range(x.ndim))) if axes is None else axes_of(axes, x.ndim)
    rank = x.mask.ndim
    if set(order[:rank]) == set(range(rank)):
        mask = jnp.transpose(x.mask, order[:rank])
    else:
        mask = jnp.transpose(full_mask(x), order)
    return Masked.trusted(jnp.transpose(x.data, order), mask)


@op
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Returns `x` with two axes exchanged; the mask follows."""
    order = list(range(np.ndim(plain(x))))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return transpose(x, order)


@op
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """Returns `x` with axes moved; the mask follows."""
    rank = np.ndim(plain(x))
    index = np.moveaxis(np.empty(range(1, rank + 1)), source, destination).shape
    return transpose(x, [n - 1 for n in index])


@op
def expand_dims(x: Any, axis: int | Sequence[int]) -> Any:
    """Returns `x` with axes of size 1 put in; the mask follows."""
    if not is_masked(x):
        return jnp.expand_dims(jnp.asarray(x), axis)
    data, mask = x.data, x.mask
    for a in sorted(axes_of(axis, x.ndim + (1 if isinstance(axis, int) else len(axis)))):
        data = jnp.expand_dims(data, a)
        mask = jnp.expand_dims(mask, a) if a < mask.ndim else mask
    return Masked.trusted(data, mask)


@op
def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Returns `x` without axes of size 1; the mask follows."""
    if not is_masked(x):
        return jnp.squeeze(jnp.asarray(x), axis)
    axes = (
        axes_of(axis, x.ndim) if axis is not None else [a for a, s in enumerate(x.shape) if s == 1]
    )
    mask = jnp.squeeze(x.mask, tuple(a for a in axes if a < x.mask.ndim))
    return Masked.trusted(jnp.squeeze(x.data, tuple(axes)), mask)


@op
def concatenate(xs: Sequence[Any], axis: int = 0) -> Any:
    """Joins arrays along an axis.

    Along features a step is valid where it is in all masked ones; along time masks are joined, an
    unmasked array counting as valid.
    """
    xs = [array(x) for x in xs]
    data = jnp.concatenate([plain(x) for x in xs], axis)
    masked = [x for x in xs if is_masked(x)]
    if not masked:
        return data
    axis %= data.ndim
    rank = max(x.mask.ndim for x in masked)
    if axis >= rank:
        masks = [x.mask.reshape(x.mask.shape + (1,) * (rank - x.mask.ndim)) for x in masked]
        mask = masks[0]
        for other in masks[1:]:
            mask = mask & other
        return Masked.trusted(data, jnp.broadcast_to(mask, data.shape[:rank]))
    parts = []
    for x in xs:
        like = x.mask if is_masked(x) else jnp.ones(x.shape[:rank], bool)
        like = like.reshape(like.shape + (1,) * (rank - like.ndim))
        parts.append(jnp.broadcast_to(like, plain(x).shape[:rank]))
    return Masked.trusted(data, jnp.concatenate(parts, axis))


@op
def stack(x: Sequence[Any], axis: int = 0) -> Any:
    """Joins arrays along a new axis; the masks follow."""
    axis %= np.ndim(plain(x[0])) + 1
    return concatenate([expand_dims(v, axis) for v in x], axis)


@op
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list:
    """Cuts `x` along an axis of features or rows; the mask follows."""
    if not is_masked(x):
        return jnp.split(jnp.asarray(x), indices_or_sections, axis)
    axis %= x.ndim
    if 0 < axis < x.mask.ndim:
        raise _refuse("split", x, _STEPS)
    parts = jnp.split(x.data, indices_or_sections, axis)
    if axis:
        return [Masked.trusted(p, x.mask) for p in parts]
    masks = jnp.split(x.mask, indices_or_sections, 0)
    return [Masked.trusted(p, m) for p, m in zip(parts, masks, strict=True)]


@op
def flip(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Returns `x` in reverse along an axis; time within each row's extent."""
    if not is_masked(x):
        return jnp.flip(jnp.asarray(x), axis)
    data, mask = x.data, x.mask
    for a in axes_of(axis, x.ndim):
        if a == x.mask.ndim - 1 == 1:
            data, mask = reverse_by_extent(data, mask), reverse_by_extent(mask, mask)
        elif 0 < a < x.mask.ndim:
            raise _refuse("flip", x, "TimeDistributed reaches inner sequences")
        else:
            data = jnp.flip(data, a)
            mask = jnp.flip(mask, 0) if a == 0 else mask
    return Masked.trusted(data, mask)


@op
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Repeats entries along an axis; the mask follows."""
    if not is_masked(x):
        return jnp.repeat(jnp.asarray(x), repeats, axis)
    if axis is None:
        return repeat(ravel(x), repeats, 0)
    axis %= x.ndim
    mask = jnp.repeat(x.mask, repeats, axis) if axis < x.mask.ndim else x.mask
    return Masked.trusted(jnp.repeat(x.data, repeats, axis), mask)


@op
def tile(x: Any, repeats: Any) -> Any:
    """Repeats the whole along its axes; the mask follows."""
    if not is_masked(x):
        return jnp.tile(jnp.asarray(x), repeats)
    counts = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    counts = (1,) * (x.ndim - len(counts)) + counts
    return Masked.trusted(jnp.tile(x.data, counts), jnp.tile(x.mask, counts[: x.mask.ndim]))


@op
def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """Returns `x` spread to a shape; the mask follows."""
    if not is_masked(x):
        return jnp.broadcast_to(jnp.asarray(x), shape)
    if len(shape) != x.ndim:
        raise _refuse("broadcast_to another rank", x, "ops.expand_dims first")
    mask = jnp.broadcast_to(x.mask, tuple(shape)[: x.mask.ndim])
    return Masked.trusted(jnp.broadcast_to(x.data, shape), mask)


@op
def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """Moves entries round an axis of features or rows."""
    if not is_masked(x):
        return jnp.roll(jnp.asarray(x), shift, axis)
    axes = axes_of(axis, x.ndim)
    if any(0 < a < x.mask.ndim for a in axes):
        raise _refuse("roll", x, _STEPS)
    mask = jnp.roll(x.mask, shift, 0) if axes == (0,) else x.mask
    return Masked.trusted(jnp.roll(x.data, shift, axis), mask)


@op
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Any:
    """Puts entries round the axes of features; for time use ZeroPadding1D."""
    options = {} if constant_values is None else {"constant_values": constant_values}
    if not is_masked(x):
        return jnp.pad(jnp.asarray(x), pad_width, mode, **options)
    widths = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2))
    if widths[: x.mask.ndim].any():
        raise _refuse("pad", x, "layers.ZeroPadding1D adds steps to each row")
    return Masked.trusted(jnp.pad(x.data, pad_width, mode, **options), x.mask)


@op
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Returns entries by their places along an axis of features or rows."""
    indices = plain(array(indices))
    if not is_masked(x):
        return jnp.take(jnp.asarray(x), indices, axis)
    if axis is None or 0 < axis % x.ndim < x.mask.ndim:
        raise _refuse("take", x, _STEPS)
    mask = jnp.take(x.mask, indices, 0) if axis % x.ndim == 0 else x.mask
    return Masked.trusted(jnp.take(x.data, indices, axis), mask)


@op
def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Returns entries by places that differ from row to row, along an axis of features."""
    if not is_masked(x):
        return jnp.take_along_axis(jnp.asarray(x), plain(array(indices)), axis)
    if axis is None or axis % x.ndim < x.mask.ndim:
        raise _refuse("take_along_axis", x, _STEPS)
    return Masked.trusted(jnp.take_along_axis(x.data, plain(array(indices)), axis), x.mask)


def _maker(name: str, parameters: str, function: Callable) -> Callable:
    return made(name, parameters, f"Returns what `{name}` says.", function)


def _float(dtype: Any) -> Any:
    return jnp.dtype(dtype or "float32")


zeros = _maker("zeros", "shape, dtype=None", lambda s, d: jnp.zeros(s, _float(d)))
ones = _maker("ones", "shape, dtype=None", lambda s, d: jnp.ones(s, _float(d)))
full = _maker("full", "shape, fill_value, dtype=None", lambda s, v, d: jnp.full(s, v, dtype=d))
eye = _maker("eye", "N, M=None, k=0, dtype=None", lambda n, m, k, d: jnp.eye(n, m, k, _float(d)))
arange = _maker(
    "arange",
    "start, stop=None, step=1, dtype=None",
    lambda a, b, s, d: jnp.arange(a, b, s, dtype=d),
)
linspace = _maker(
    "linspace",
    "start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0",
    lambda *a: jnp.linspace(*a[:5], dtype=a[5], axis=a[6]),
)
tril = _maker("tril", "x, k=0", lambda x, k: jnp.tril(plain(array(x)), k))
triu = _maker("triu", "x, k=0", lambda x, k: jnp.triu(plain(array(x)), k))
