"""Ops that cut, turn, choose and list entries."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from alphorn.core.masked import Masked
from alphorn.ops.rules import per_step, refusal, refuse, unused
from alphorn.ops.shape import JOINED, TURNED, concatenated, split_parts, turn
from alphorn.ops.table import TABLE, Op, Rule, row

_SPLIT = "follows its steps; refused where it cannot."


def _split_along(axis: int) -> Rule:
    return Rule(
        lambda op, arguments: split_parts(op, arguments, axis if arguments["x"].ndim > axis else 0),
        _SPLIT,
    )


@row(_split_along(1))
def hsplit(x: Any, indices_or_sections: Any) -> Any:
    """Returns a list of parts along the second axis (the first, of a vector)."""
    return jnp.hsplit(x, indices_or_sections)


@row(_split_along(0))
def vsplit(x: Any, indices_or_sections: Any) -> Any:
    """Returns a list of parts along the first axis."""
    return jnp.vsplit(x, indices_or_sections)


@row(_split_along(2))
def dsplit(x: Any, indices_or_sections: Any) -> Any:
    """Returns a list of parts along the third axis."""
    return jnp.dsplit(x, indices_or_sections)


@row(Rule(concatenated, JOINED), arrays=("xs",))
def hstack(xs: Any) -> Any:
    """Returns arrays joined along their second axis (the first, of vectors)."""
    return jnp.hstack(xs)


@row(Rule(concatenated, JOINED), arrays=("xs",))
def vstack(xs: Any) -> Any:
    """Returns arrays joined along their first axis."""
    return jnp.vstack(xs)


def _append(op: Op, arguments: dict[str, Any]) -> Any:
    xs = [arguments["x1"], arguments["x2"]]
    return TABLE["concatenate"].masked({"xs": xs, "axis": arguments["axis"]})


@row(Rule(_append, JOINED), arrays=("x1", "x2"))
def append(x1: Any, x2: Any, axis: int | None = None) -> Any:
    """Returns `x2` after `x1`, along an axis or flat."""
    return jnp.append(x1, x2, axis)


@row(Rule(concatenated, JOINED), arrays=("xs",))
def dstack(xs: Any) -> Any:
    """Returns arrays joined along their third axis."""
    return jnp.dstack(xs)


@row(Rule(lambda op, arguments: turn(op, arguments["x"], 1, None), TURNED))
def fliplr(x: Any) -> Any:
    """Returns `x` backwards along its second axis."""
    return jnp.fliplr(x)


@row(Rule(lambda op, arguments: turn(op, arguments["x"], 0, None), TURNED))
def flipud(x: Any) -> Any:
    """Returns `x` backwards along its first axis."""
    return jnp.flipud(x)


@row(refuse, arrays=("array",))
def rot90(array: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """Returns `array` turned by 90 degrees `k` times, in the plane of two axes."""
    return jnp.rot90(array, k, tuple(axes))


@row(refuse)
def diagflat(x: Any, k: int = 0) -> Any:
    """Returns a matrix with the entries of `x` on a diagonal."""
    return jnp.diagflat(x, k)


def _select(op: Op, arguments: dict[str, Any]) -> Any:
    out = arguments["default"]
    pairs = list(zip(arguments["condlist"], arguments["choicelist"], strict=True))
    for condition, choice in reversed(pairs):
        given = {"condition": condition, "x1": choice, "x2": jnp.asarray(_plain_or(out))}
        given["x2"] = out if isinstance(out, Masked) else given["x2"]
        masked = any(isinstance(v, Masked) for v in given.values())
        where = TABLE["where"]
        out = where.masked(given) if masked else where.call_plain(given)
    return out


def _plain_or(value: Any) -> Any:
    return value.data if isinstance(value, Masked) else value


@row(Rule(_select, "stays; as in `where`."), arrays=("condlist", "choicelist", "default"))
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """Returns, for each entry, the choice of the first condition that holds, or `default`."""
    return jnp.select(condlist, choicelist, default)


@row(per_step((0,)))
def argpartition(x: Any, kth: int, axis: int = -1) -> Any:
    """Returns places along `axis` so that the `kth` is in order, smaller before, larger after."""
    return jnp.argpartition(x, kth, axis)


@row(refuse)
def unique(
    x: Any,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """Returns the different entries, in order; on request their places, the way back and counts.

    Under jit give `size`, how many there may be; `fill_value` stands for those that are fewer.
    """
    return jnp.unique(
        x, return_index, return_inverse, return_counts, axis, size=size, fill_value=fill_value
    )


@row(refuse)
def histogram(x: Any, bins: int = 10, range: Any = None) -> Any:
    """Returns how many entries are in each of `bins` equal parts of `range`, and their edges."""
    return jnp.histogram(x, bins, range)


@row(refuse, arrays=("x1", "x2"))
def allclose(
    x1: Any, x2: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Any:
    """Returns whether `|x1 - x2| <= atol + rtol * |x2|` everywhere."""
    return jnp.allclose(x1, x2, rtol, atol, equal_nan)


@row(refuse, arrays=("indices",))
def unravel_index(indices: Any, shape: Any) -> Any:
    """Returns flat places as a tuple of places along each axis of `shape`."""
    return jnp.unravel_index(indices, tuple(shape))


@row(refuse)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Returns the matrix of the powers of a vector."""
    return jnp.vander(x, N, increasing)


def _view(op: Op, arguments: dict[str, Any]) -> Any:
    x, dtype = arguments["x"], jnp.dtype(arguments["dtype"] or arguments["x"].dtype)
    if dtype.itemsize != x.dtype.itemsize:
        raise refusal(op, "numbers of another size", "ops.cast(x, dtype), or unmask(x)")
    return Masked(x.data.view(dtype), x.mask)


@row(Rule(_view, "stays, between number types of one size."))
def view(x: Any, dtype: Any = None) -> Any:
    """Returns the same bits as numbers of another type."""
    return x.view(dtype)


@row(Rule(unused.apply, "has none: it makes plain data."), arrays=())
def geomspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0
) -> Any:
    """Returns `num` numbers in equal ratios, from `start` to `stop`."""
    return jnp.geomspace(start, stop, num, endpoint, dtype, axis)


@row(unused, arrays=(), symbolic=False)
def vectorize(pyfunc: Callable, *, excluded: Any = None, signature: str | None = None) -> Any:
    """Returns a function of arrays from one of single entries, or of those that `signature` names."""
    return jnp.vectorize(pyfunc, excluded=excluded or set(), signature=signature)


def depth_blocks(name: str, x: Any, block_size: int, data_format: str) -> Any:
    """Returns `x` as channels last, and the way back."""
    if x.ndim != 4 or data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"ops.{name}: expected four axes, channels_last or channels_first")
    first = data_format == "channels_first"
    return jnp.moveaxis(x, 1, -1) if first else x, (
        (lambda y: jnp.moveaxis(y, -1, 1)) if first else (lambda y: y)
    )


@row(refuse)
def depth_to_space(x: Any, block_size: int, data_format: str = "channels_last") -> Any:
    """Returns `(N, H * b, W * b, C / b²)` of `(N, H, W, C)`: channels become blocks of pixels."""
    x, back = depth_blocks("depth_to_space", x, block_size, data_format)
    n, h, w, c = x.shape
    b = block_size
    if data_format == "channels_first":
        y = x.reshape(n, h, w, c // b**2, b, b).transpose(0, 1, 4, 2, 5, 3)
    else:
        y = x.reshape(n, h, w, b, b, c // b**2).transpose(0, 1, 3, 2, 4, 5)
    return back(y.reshape(n, h * b, w * b, c // b**2))


@row(refuse)
def space_to_depth(x: Any, block_size: int, data_format: str = "channels_last") -> Any:
    """Returns `(N, H / b, W / b, C * b²)` of `(N, H, W, C)`: blocks of pixels become channels."""
    x, back = depth_blocks("space_to_depth", x, block_size, data_format)
    n, h, w, c = x.shape
    b = block_size
    y = x.reshape(n, h // b, b, w // b, b, c)
    order = (0, 1, 3, 5, 2, 4) if data_format == "channels_first" else (0, 1, 3, 2, 4, 5)
    return back(y.transpose(order).reshape(n, h // b, w // b, c * b**2))
