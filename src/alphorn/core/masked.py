"""Masked: a sequence and which of its steps exist, as one value.

Letters: `B` batch, `T` time, `F` features. A mask is boolean, True where a step is valid; its shape
is a prefix of the data's: `(B, T)`, `(B, T1, T2)` for nested sequences, `(B,)` for rows.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from alphorn.core.assignment import is_basic, plain
from alphorn.core.refusal import (
    answer_ufunc,
    as_written,
    op_for,
    refuse_canonicalization,
    refuses_arrays,
)
from alphorn.core.variable import canonicalize_value_handlers, unwrap
from alphorn.errors import MaskError, ShapeError


def loses_mask(what: str, masked: "Masked") -> MaskError:
    """Returns the error for a function of plain arrays that met a Masked.

    Args:
        what: The function, e.g. `jnp.mean`.
        masked: What it met.
    """
    op = op_for(what)
    way = f"use {op} (padding skipped), or " if op else ""
    return MaskError(
        f"{what} would lose the mask of a {masked.shape} sequence",
        fix=f"{way}unmask(x) for plain data",
    )


def expand_to(mask: Array, rank: int) -> Array:
    """Appends axes of size 1 to a mask until it has `rank` axes."""
    return lax.expand_dims(mask, range(mask.ndim, rank))


def fill_masked(x: Array, mask: Array | None, fill: ArrayLike = 0) -> Array:
    """Returns `x` with `fill` at masked positions, which then get a gradient of exactly zero.

    >>> fill_masked(jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]]))
    Array([[1., 0.]], dtype=float32)
    """
    if mask is None:
        return x
    return jnp.where(expand_to(mask, x.ndim), x, np.asarray(fill, x.dtype))


def extent(mask: Array) -> tuple[Array, Array]:
    """Finds the first valid step of each row and the one after its last: `(start, stop)`.

    `mask` is `(..., T)`; both results are `(...)` int32. Rows without a valid step give (0, 0).

    >>> start, stop = extent(jnp.array([[False, True, False, True, False], [False] * 5]))
    >>> start.tolist(), stop.tolist()
    ([1, 0], [4, 0])
    """
    steps = mask.shape[-1]
    position = lax.iota(jnp.int32, steps)
    stop = jnp.max(jnp.where(mask, position + 1, 0), axis=-1, initial=0)
    start = jnp.min(jnp.where(mask, position, stop[..., None]), axis=-1, initial=steps)
    return start, stop


class Masked:
    """Data and mask of a batch of sequences.

    Args:
        data: `(B, T, ...)`. Masked positions become zeros, so that padding is always finite.
        mask: Booleans whose shape is a prefix of the data's. With data that are Masked already,
            both must hold.

    `m[..., 0] = values` assigns to features of whole time; the mask stays, and steps that masked
    values lack keep what they hold. `m[m < 0] = number` assigns to entries.

    Functions of jnp and numpy refuse it (they would lose the mask); `ops.*`, operators and layers
    know what to do. `np.asarray(m)`, `m.data` and `unmask(m)` are the ways out.

    In `jax.grad`, pass `.data`: the mask is boolean. `jax.vmap(in_axes=...)` and `jax.tree.map`
    see data and mask as two arrays.

    >>> m = Masked(jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[True, True, False]]))
    >>> m.lengths
    Array([2], dtype=int32)
    """

    __slots__ = ("data", "mask", "whole")
    data: Array
    mask: Array
    # What this is a part of, and where: set by indexing.
    whole: "tuple[Masked, Any]"
    # Operators and methods beyond these are put in by `alphorn.ops`.
    __hash__ = object.__hash__

    def __init__(self, data: Any, mask: Any):
        given = mask_of(data)
        data, mask = jnp.asarray(unmask(data)), jnp.asarray(unmask(mask))
        check_mask("Masked", data.shape, mask)
        if given is not None:
            rank = max(given.ndim, mask.ndim)
            mask = expand_to(given, rank) & expand_to(mask, rank)
        self.data = fill_masked(data, mask)
        self.mask = mask

    @classmethod
    def trusted(cls, data: Any, mask: Any) -> "Masked":
        """Makes one whose padding is known to be finite and whose mask is known to fit."""
        self = object.__new__(cls)
        self.data = data
        self.mask = mask
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """The data's shape."""
        return self.data.shape

    @property
    def dtype(self) -> Any:
        """The data's type."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """The data's number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """The data's number of entries, padding included."""
        return self.data.size

    @property
    def lengths(self) -> Array:
        """Each row's own length, from its first to its last valid step, along the last mask axis."""
        start, stop = extent(self.mask)
        return stop - start

    @property
    def extent(self) -> tuple[Array, Array]:
        """The first valid step and the one after the last, along the mask's last axis."""
        return extent(self.mask)

    def fill(self, value: Any) -> Array:
        """Returns plain data with `value` at masked positions."""
        return fill_masked(self.data, self.mask, value)

    @property
    def __jax_array__(self) -> Callable[[], Array]:
        return refuses_arrays(self)

    def refusal(self, what: str) -> MaskError:
        """Returns the error that says why `what` cannot take this."""
        return loses_mask(what, self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.data, dtype)

    def __array_function__(self, func: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        if func.__name__ in ("shape", "ndim", "size"):
            return func(self.data, *args[1:], **kwargs)
        raise loses_mask(as_written(func.__module__, func.__name__), self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return answer_ufunc(self, ufunc, method, inputs, kwargs)

    def __bool__(self) -> bool:
        raise MaskError(
            f"the truth of a {self.shape} sequence has no one answer",
            fix="reduce it first: ops.any(x), ops.all(x), or use ops.where(condition, a, b)",
        )

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        return take_index(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        assign_index(self, index, unwrap(value))
        if hasattr(self, "whole"):
            whole, at = self.whole
            part = Masked.trusted(whole.data[at], whole.mask[at[: whole.mask.ndim]])
            assign_index(part, index, unwrap(value))
            whole[at] = part.data

    def __repr__(self) -> str:
        return f"Masked(shape={self.shape}, dtype={self.dtype}, mask={self.mask.shape})"


jax.tree_util.register_pytree_with_keys(
    Masked,
    lambda m: (
        ((jax.tree_util.GetAttrKey("data"), m.data), (jax.tree_util.GetAttrKey("mask"), m.mask)),
        None,
    ),
    lambda _, children: Masked.trusted(*children),
    lambda m: ((m.data, m.mask), None),
)


canonicalize_value_handlers[Masked] = refuse_canonicalization


def check_mask(where: str, shape: tuple[int, ...], mask: Any) -> None:
    """Raises ShapeError unless `mask` is boolean and its shape is a prefix of `shape`."""
    if tuple(mask.shape) != tuple(shape[: mask.ndim]) or mask.ndim == 0:
        raise ShapeError(
            f"{where}: the mask does not fit the data",
            received=f"mask {tuple(mask.shape)} with data {tuple(shape)}",
            expected=f"a prefix of the data's shape, e.g. {tuple(shape[:2])}",
            fix="a mask says of each step whether it exists: drop its feature axis",
        )
    if mask.dtype != jnp.bool_:
        raise ShapeError(
            f"{where}: the mask is not boolean",
            received=mask.dtype.name,
            expected="bool, True where a step is valid",
            fix="mask.astype(bool), or mask > 0",
        )


def unmask(x: Any) -> Any:
    """Returns the plain data of `x`: a mask ends here on purpose. Padding holds what stood there.

    >>> unmask(Masked(jnp.ones((1, 2)), jnp.array([[True, False]])))
    Array([[1., 0.]], dtype=float32)
    """
    return x.data if isinstance(x, Masked) else x


def mask_of(x: Any) -> Any:
    """Returns the mask of `x`, or None."""
    return x.mask if isinstance(x, Masked) else None


def is_masked(x: Any) -> bool:
    """Returns whether `x` is a Masked; for `jax.tree.map(..., is_leaf=is_masked)`."""
    return isinstance(x, Masked)


def with_mask(data: Any, mask: Any) -> Any:
    """Returns `data` with `mask`, or plain where there is none."""
    return data if mask is None else Masked.trusted(data, mask)


def has_masked(tree: Any) -> bool:
    """Returns whether a Masked stands anywhere in `tree`."""
    return any(isinstance(x, Masked) for x in jax.tree.leaves(tree, is_leaf=is_masked))


def map_data(f: Callable, x: Masked) -> Masked:
    """Applies `f` to the data, step by step; the mask stays."""
    return Masked.trusted(f(x.data), x.mask)


def step_mask(x: Masked) -> Array:
    """Returns the mask with axes of size 1 appended, so that it broadcasts against the data."""
    return expand_to(x.mask, x.ndim)


_TIME_INDEX = (
    "ops.first(x) or ops.last(x) for one step, ops.take_steps(x, start, stop) for several:"
    " they count within each row's own extent; ops.unstack(x, axis=1) for one after the other;"
    " unmask(x) for plain data"
)


def take_index(x: Masked, index: Any) -> Any:
    """Answers `x[index]`: rows and features freely; time only whole."""
    if any(isinstance(e, Masked) for e in (index if isinstance(index, tuple) else (index,))):
        raise MaskError(
            "indexing by a Masked gives rows of unequal numbers of steps",
            fix="keep the steps and mask them: ops.where(condition, x, 0)",
        )
    entries, mask_index = _entries(x, index, _TIME_INDEX)
    mask = x.mask[mask_index]
    data = x.data[entries]
    if mask.ndim == 0:
        return data
    part = Masked.trusted(data, mask)
    if is_basic(entries) and None not in entries:
        part.whole = (x, entries)
    return part


def _entries(x: Masked, index: Any, way_out: str) -> tuple[tuple, tuple]:
    """Returns an index as entries for the data and for the mask.

    Raises:
        MaskError: where it picks steps by their place in the padded batch.
    """
    entries = list(plain(index)) if isinstance(index, tuple) else [plain(index)]
    if any(e is Ellipsis for e in entries):
        at = next(i for i, e in enumerate(entries) if e is Ellipsis)
        missing = x.ndim - sum(e is not None and e is not Ellipsis for e in entries)
        entries[at : at + 1] = [slice(None)] * missing
    axis, mask_index = 0, []
    for entry in entries:
        if axis >= x.mask.ndim:
            break
        if entry is None:
            mask_index.append(None)
            continue
        if getattr(entry, "dtype", None) == jnp.bool_ and np.ndim(entry) > 1:
            raise MaskError("a boolean index over time gives unequal rows", fix=way_out)
        if axis and not (isinstance(entry, slice) and entry == slice(None)):
            raise MaskError(
                f"x[{index!r}] of a {x.shape} sequence takes padding for steps: it counts in the padded batch",
                fix=way_out,
            )
        mask_index.append(entry)
        axis += 1
    return tuple(entries), tuple(mask_index)


_TIME_ASSIGNMENT = (
    "x = ops.where(steps, value, x), where `steps`, (batch, time, 1), says which steps of each row"
    " (ops.cumsum(ops.ones_like(x[..., :1]), 1) numbers them); unmask(x) for plain data"
)


def assign_index(x: Masked, index: Any, value: Any) -> None:
    """Does `x[index] = value`: rows and features freely, time only whole; the mask stays.

    Raises:
        MaskError: where it would write to steps by their place in the padded batch.
    """
    given, value = mask_of(value), jnp.asarray(unmask(value)).astype(x.dtype)
    if isinstance(index, Masked):
        if value.ndim or index.dtype != jnp.bool_:
            raise MaskError(
                "x[masked index] = array would need to know how many entries each row has",
                fix="x = ops.where(condition, values, x), with values in the shape of x",
            )
        chosen = expand_to(index.fill(False), x.ndim)
        x.data = fill_masked(jnp.where(chosen, value, x.data), x.mask)
        return
    entries, _ = _entries(x, index, _TIME_ASSIGNMENT)
    if given is not None:  # an absent value leaves what stands there
        old = x.data[entries]
        value = jnp.where(expand_to(given, value.ndim), value, jnp.broadcast_to(old, value.shape))
    x.data = fill_masked(x.data.at[entries].set(value), x.mask)
