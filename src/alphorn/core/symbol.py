"""Symbol: an array that is not there yet, with a shape (None where unknown) and a history."""

import contextvars
import re
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.config import floatx
from alphorn.core.masked import Masked, is_masked
from alphorn.core.refusal import (
    answer_ufunc,
    as_written,
    op_for,
    refuse_canonicalization,
    refuses_arrays,
)
from alphorn.core.scope import shapes_of
from alphorn.core.variable import canonicalize_value_handlers
from alphorn.errors import AssignmentError, MaskError, ShapeError
from alphorn.naming import auto_name

Shape = tuple[int | None, ...]

# Unknown sizes are tried as pairs of these: (batch, other). Large and highly composite, so that
# strides, slices and reshapes act as on any size; others follow for a layer that makes an axis of
# just that size, and small ones where memory does not hold the large.
_STAND_INS = (
    ((24, 5040), (60, 7560)),
    ((36, 9240), (48, 13860)),
    ((24, 240), (60, 360)),
)
_standing_in: contextvars.ContextVar[tuple[int, int] | None] = contextvars.ContextVar(
    "standing_in", default=None
)


class Symbol:
    """A place in a graph of layers.

    Args:
        shape: With None for sizes that are not known, the batch among them.
        dtype: By default `floatx()`.
        masked: The rank of the mask that will be there, 0 for none.
        name: For errors and `summary()`.

    >>> Symbol((None, 10))
    <Symbol shape=(None, 10), dtype=float32>
    """

    def __init__(
        self, shape: Iterable[int | None], dtype: Any = None, masked: int = 0, name: str = ""
    ):
        self.shape: Shape = tuple(None if s is None else int(s) for s in shape)
        self.dtype = jnp.dtype(dtype or floatx()).name
        self.masked = masked
        self.name = name or auto_name("symbol")
        self.node: Node | None = None
        self.index = 0
        # The models that begin here.
        self.graphs: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def __jax_array__(self) -> Callable:
        return refuses_arrays(self)

    def refusal(self, what: str) -> MaskError:
        """Returns the error that says why `what`, e.g. `jnp.mean`, cannot take this."""
        op = op_for(what)
        use = f"use {op}, which becomes a part of the graph, or " if op else ""
        return MaskError(
            f"{what} cannot take a symbolic input of shape {self.shape}",
            fix=f"{use}write it in a Lambda or a layer of your own, which get arrays",
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise self.refusal("np.asarray")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return answer_ufunc(self, ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        raise self.refusal(as_written(func.__module__, func.__name__))

    def __bool__(self) -> bool:
        raise ShapeError(
            "a symbolic input has no truth value: its numbers come later",
            fix="use ops.where(condition, a, b) instead of `if`",
        )

    def __setitem__(self, index: Any, value: Any) -> None:
        raise AssignmentError(
            f"a symbolic input of shape {self.shape} has no items to assign yet",
            fix="write the assignment in a Lambda or a layer of your own, which get arrays",
        )

    def __len__(self) -> int:
        if not self.shape or self.shape[0] is None:
            raise ShapeError("len() of a symbolic input", self.shape, "a known first size")
        return self.shape[0]

    def __iter__(self) -> Any:
        raise ShapeError(
            "a symbolic input cannot be iterated over", fix="index it, or use ops.split"
        )

    def __repr__(self) -> str:
        mask = f", masked={self.masked}" if self.masked else ""
        return f"<Symbol shape={self.shape}, dtype={self.dtype}{mask}>"


canonicalize_value_handlers[Symbol] = refuse_canonicalization


class Node:
    """One call in the graph: an operation, its arguments (with Symbols inside) and its outputs.

    Args:
        operation: A layer, or any callable of arrays.
        args: Positional arguments.
        kwargs: Keyword arguments.
        outputs: A structure of Symbols.
    """

    __slots__ = ("args", "kwargs", "operation", "outputs")

    def __init__(self, operation: Any, args: tuple, kwargs: dict, outputs: Any):
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.outputs = outputs
        for index, symbol in enumerate(symbols_in(outputs)):
            symbol.node, symbol.index = self, index

    @property
    def inputs(self) -> list[Symbol]:
        """The Symbols among the arguments."""
        return symbols_in((self.args, self.kwargs))


def is_symbol(x: Any) -> bool:
    """Returns whether `x` is a Symbol."""
    return isinstance(x, Symbol)


def symbols_in(tree: Any) -> list[Symbol]:
    """Returns the Symbols in a structure, in order."""
    if isinstance(tree, Symbol):
        return [tree]
    return [x for x in jax.tree.leaves(tree) if isinstance(x, Symbol)]


def topological_order(outputs: Iterable[Symbol], stop: Iterable[Symbol] = ()) -> list[Node]:
    """Returns the nodes behind `outputs`, each after those that it needs.

    Args:
        outputs: Where the walk begins.
        stop: Symbols whose history does not count: the inputs.
    """
    ends = {id(s) for s in stop}
    done: set[int] = set()
    order: list[Node] = []
    for output in outputs:
        stack = [(output, False)]
        while stack:
            symbol, visited = stack.pop()
            node = symbol.node
            if node is None or id(symbol) in ends or id(node) in done:
                continue
            if visited:
                done.add(id(node))
                order.append(node)
            else:
                stack.append((symbol, True))
                stack.extend((s, False) for s in reversed(node.inputs))
    return order


def unknown_sizes(shape: Iterable[int | None]) -> Shape:
    """Returns `shape` with None for sizes that are left open.

    That is where a stand-in for an unknown size stands, or a multiple of it, and where
    `jax.export` writes a name.
    """
    shape = tuple(s if isinstance(s, int) else None for s in shape)
    sizes = _standing_in.get()
    if sizes is None:
        return shape
    batch, other = sizes
    return tuple(
        None if (s and s % other == 0) or (axis == 0 and s == batch) else s
        for axis, s in enumerate(shape)
    )


def unknown_sizes_in(text: str) -> str:
    """Returns a message with None for the stand-ins that it names.

    >>> unknown_sizes_in("a (24, 5040) sequence")
    'a (24, 5040) sequence'
    """
    batch = (_standing_in.get() or (None, None))[0]

    def known(found: re.Match) -> str:
        size = int(found[0])
        return str(None if size == batch else unknown_sizes((1, size))[1])

    return re.sub(r"\b\d+\b", known, text)


def symbols_like(tree: Any) -> Any:
    """Returns Symbols for the arrays in a structure: any batch, any number of steps under a mask."""

    def like(x: Any) -> Any:
        if isinstance(x, Symbol) or not (hasattr(x, "shape") and hasattr(x, "dtype")):
            return x
        rank = x.mask.ndim if is_masked(x) else 0
        known = unknown_sizes(tuple(x.shape))[max(rank, 1) :]
        any_size = [None] * min(max(rank, 1), x.ndim)
        return Symbol((*any_size, *known), x.dtype, rank, name="seen")

    return jax.tree.map(like, tree, is_leaf=is_masked)


def _concrete(symbol: Symbol, sizes: tuple[int, int]) -> Any:
    shape = tuple(sizes[axis > 0] if s is None else s for axis, s in enumerate(symbol.shape))
    data = jax.ShapeDtypeStruct(shape, jnp.dtype(symbol.dtype))
    if not symbol.masked:
        return data
    return Masked.trusted(data, jax.ShapeDtypeStruct(shape[: symbol.masked], jnp.bool_))


def _shapes_at(fn: Callable, leaves: list, treedef: Any, sizes: tuple[int, int]) -> Any:
    symbols = [_concrete(x, sizes) for x in leaves if isinstance(x, Symbol)]

    def run(values: list) -> Any:
        given = iter(values)
        filled = [next(given) if isinstance(x, Symbol) else x for x in leaves]
        args, kwargs = jax.tree.unflatten(treedef, filled)
        return fn(*args, **kwargs)

    token = _standing_in.set(sizes)
    try:
        return shapes_of(run, symbols)
    finally:
        _standing_in.reset(token)


def infer(fn: Callable, args: tuple, kwargs: dict) -> Any:
    """Returns what `fn(*args, **kwargs)` gives, as Symbols, without computing it.

    Sizes that change with the stand-ins for unknown ones are unknown in the result.
    """
    leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=lambda x: x is None or is_masked(x))
    known = {n for x in leaves if isinstance(x, Symbol) for n in x.shape}
    free = [pair for pair in _STAND_INS if not known & {n for sizes in pair for n in sizes}]
    failure: Exception | None = None
    for pair in free or _STAND_INS:
        try:
            small, large = (_shapes_at(fn, leaves, treedef, sizes) for sizes in pair)
            return jax.tree.map(_merged, small, large, is_leaf=is_masked)
        except Exception as error:
            if failure is None:
                failure = error
                batch, other = pair[0]
                error.add_note(f"(an unknown batch size stood as {batch}, other sizes as {other})")
    assert failure is not None
    raise failure


def _merged(small: Any, large: Any) -> Symbol:
    masked = small.mask.ndim if is_masked(small) else 0
    shape = (m if m == n else None for m, n in zip(small.shape, large.shape, strict=True))
    return Symbol(shape, small.dtype, masked)


def apply(operation: Any, args: tuple, kwargs: dict) -> Any:
    """Calls `operation` on Symbols: infers the outputs and writes the call into the graph."""
    outputs = infer(operation, args, kwargs)
    Node(operation, args, kwargs, outputs)
    return outputs
