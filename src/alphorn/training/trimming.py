"""Whether padding may be cut off a model's inputs, shown from its graph and the layers' rules.

A cut is exact where an input meets nothing but layers that make a mask of it, and every layer behind
carries that mask or ends it together with the steps: each holds the promise that more padding
changes nothing. Code of the user's own promises nothing, so that a model with any on the way is
left as it is.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alphorn.core.any_size import any_size
from alphorn.core.masked import is_masked
from alphorn.core.symbol import Symbol, infer, symbols_in
from alphorn.layers.embedding import Embedding, Masking
from alphorn.layers.noise import _Noise
from alphorn.layers.recurrent import _Recurrent
from alphorn.layers.wrappers import Bidirectional, TimeDistributed
from alphorn.ops.table import Operation
from alphorn.training.known import (
    draws,
    goes_by_steps,
    has_moments,
    members,
    named,
    overridden,
    own_code,
)

Maker = Callable[[np.ndarray], np.ndarray]
# Rows whose mask is made at a time.
_ROWS = 4096


@dataclass(frozen=True)
class Cut:
    """How one input may be cut.

    Args:
        place: Of the input in the model's graph.
        axes: Of its data: `(1,)` for steps, `(1, 2)` for steps inside steps as well.
        makers: Functions from the data to their masks; none where the data bring one.
    """

    place: int
    axes: tuple[int, ...]
    makers: tuple[Maker, ...] = ()

    def valid(self, data: Any) -> np.ndarray:
        """Returns which steps any layer takes for valid: `(rows, time)`, or one axis more."""
        rank = 1 + max(self.axes)

        def of(part: Any) -> np.ndarray:
            if is_masked(part):
                mask = np.asarray(part.mask)
            else:
                masks = [make(np.asarray(part)) for make in self.makers]
                mask = functools.reduce(np.logical_or, masks)
            return np.asarray(mask.any(tuple(range(rank, mask.ndim))))

        parts = [of(data[i : i + _ROWS]) for i in range(0, len(data), _ROWS)]
        return np.concatenate(parts)

    @property
    def padding(self) -> Any:
        """What no layer takes for valid; None where they want different things."""
        found = {getattr(make, "keywords", {}).get("value", 0) for make in self.makers}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Trimming:
    """What may be cut of a model's inputs.

    Args:
        cuts: By input.
        outputs: For each output, whether its steps are cut as well.
        shifts: Whether a layer on the way counts steps anew, so that their places depend on where
            a row begins.
        draws: Whether a layer on the way draws for each step, by its place, while training.
        why: Why nothing is cut, or less than could be.
    """

    cuts: tuple[Cut, ...] = ()
    outputs: tuple[bool, ...] = ()
    shifts: bool = False
    draws: bool = False
    why: str = ""


class _UnprovenError(Exception):
    """Says which layer stands in the way."""


@dataclass(frozen=True)
class _Value:
    """A place in the graph: its Symbol with None for what a cut changes; whether a cut changes it,
    and whether it is an input's own data, of which no mask was made yet.
    """

    symbol: Symbol
    cut: bool = False
    raw: bool = False


def trimming_of(model: Any, masked: Sequence[int]) -> Trimming:
    """Returns what may be cut.

    Args:
        model: Any model.
        masked: For each input the rank of the mask that its data bring, 0 for none.
    """
    graph = getattr(model, "graph", None)
    if graph is None:
        return Trimming(why=f"the call of '{model.name}' is code of your own")
    own = overridden(model, "__call__", "call")
    if own:
        return Trimming(why=f"{own} of '{model.name}' is code of your own")
    why = ""
    for deepest in (2, 1):
        starts, cuts = [], []
        for place, (symbol, rank) in enumerate(zip(graph.input_symbols, masked, strict=True)):
            cut, reason = _first_cut(graph, place, symbol, rank, deepest)
            why = why or reason
            if cut is None:
                starts.append(_Value(symbol))
            else:
                cuts.append(cut)
                starts.append(_Value(_opened(symbol, cut.axes, rank), True, not rank))
        if not cuts:
            return Trimming(why=why or "no layer makes a mask of an input")
        try:
            with any_size():
                ends = _walk(graph, starts, met := set())
        except _UnprovenError as problem:
            why = str(problem)
            continue
        outputs = tuple(v.cut for v in ends)
        return Trimming(tuple(cuts), outputs, "shifts" in met, "draws" in met, why)
    return Trimming(why=why)


def _first_cut(
    graph: Any, place: int, symbol: Symbol, rank: int, deepest: int
) -> tuple[Cut | None, str]:
    """Returns how an input could be cut, or None and the layer that takes its padding for data."""
    if rank > 1:
        return Cut(place, _axes(rank, deepest)), ""
    if len(symbol.shape) < 2 or rank == 1:
        return None, ""
    try:
        makers, ranks = _makers(graph, symbol)
    except _UnprovenError as problem:
        masks = any(isinstance(layer, Embedding | Masking) for layer in graph.layers)
        return None, str(problem) if masks else ""
    axes = _axes(min(ranks), deepest)
    return (Cut(place, axes, tuple(makers)), "") if axes else (None, "")


def _axes(rank: int, deepest: int) -> tuple[int, ...]:
    """Returns the axes that a mask of `rank` covers, the batch axis left out."""
    return tuple(range(1, min(rank, deepest + 1)))


def _makers(graph: Any, symbol: Symbol) -> tuple[list[Maker], list[int]]:
    """Returns the makers of masks that an input meets, and the ranks of those masks."""
    makers, ranks = [], []
    for node in graph.nodes:
        if any(s is symbol for s in node.inputs):
            if len(node.inputs) > 1:
                raise _UnprovenError(f"{named(node.operation)} takes padding for data")
            found, rank = _maker(node.operation, len(symbol.shape))
            makers += found
            ranks += rank
    if not makers or any(s is symbol for s in graph.output_symbols):
        raise _UnprovenError("an input is an output as well")
    return makers, ranks


def _maker(layer: Any, rank: int) -> tuple[list[Maker], list[int]]:
    """Returns what a layer that takes raw data makes of them: masks, and their ranks."""
    if isinstance(layer, Embedding) and layer.mask_zero and not layer.user_defined:
        return [_nonzero], [rank]
    if isinstance(layer, Masking) and not layer.user_defined:
        return [functools.partial(_differs, value=layer.mask_value)], [rank - 1]
    if isinstance(layer, TimeDistributed) and not layer.user_defined:
        makers, ranks = _maker(layer.layer, rank - 1)
        return makers, [r + 1 for r in ranks]
    graph = getattr(layer, "graph", None)
    if graph is not None and len(graph.input_symbols) == 1 and not layer.user_defined:
        return _makers(graph, graph.input_symbols[0])
    raise _UnprovenError(f"{named(layer)} takes padding for data")


def _nonzero(ids: np.ndarray) -> np.ndarray:
    return ids != 0


def _differs(data: np.ndarray, value: Any) -> np.ndarray:
    return (data != np.asarray(value, data.dtype)).any(-1)


def _opened(symbol: Symbol, axes: Sequence[int], masked: int) -> Symbol:
    shape = [None if a in axes else s for a, s in enumerate(symbol.shape)]
    return Symbol(shape, symbol.dtype, masked, name="cut")


def _walk(graph: Any, starts: Sequence[_Value], met: set[str]) -> list[_Value]:
    """Returns what the outputs of a graph are.

    Args:
        graph: Of a model.
        starts: What its inputs are.
        met: Takes "shifts" and "draws", as in `Trimming`.

    Raises:
        _UnprovenError: at the first layer that might see a difference.
    """
    values = {id(s): v for s, v in zip(graph.input_symbols, starts, strict=True)}
    for node in graph.nodes:
        given = [values[id(s)] for s in node.inputs]
        outputs = symbols_in(node.outputs)
        if not any(v.cut for v in given):
            values.update((id(s), _Value(s)) for s in outputs)
            continue
        found = _after(node, given, met)
        values.update((id(s), v) for s, v in zip(outputs, found, strict=True))
    return [values[id(s)] for s in graph.output_symbols]


def _after(node: Any, given: list[_Value], met: set[str]) -> list[_Value]:
    operation, value = node.operation, given[0]
    why = own_code(operation)
    if why:
        raise _UnprovenError(why)
    if isinstance(operation, Operation) and not goes_by_steps(operation.op):
        raise _UnprovenError(f"{named(operation)} may depend on the number of steps")
    if any(getattr(m, "unroll", False) for m in getattr(operation, "_family", list)()):
        raise _UnprovenError(f"{named(operation)} is unrolled: it has a fixed number of steps")
    whole = len(value.symbol.shape) < 3 or value.symbol.masked > 2
    if whole and isinstance(operation, _Noise) and draws(operation):
        raise _UnprovenError(f"{named(operation)} draws for all steps at once")
    if any(not v.cut and None in v.symbol.shape[1:] for v in given):
        raise _UnprovenError(f"{named(operation)} joins steps that are not cut")
    inner = getattr(operation, "graph", None)
    if inner is not None and len(given) == len(inner.input_symbols):
        return _walk(inner, given, met)
    if isinstance(operation, TimeDistributed):
        _check_distributed(operation, value, met)
    met.update(_kinds(operation))
    return [_judged(operation, symbol) for symbol in _outputs(node, given)]


def _kinds(operation: Any) -> Iterator[str]:
    """Yields what a layer does by the places of steps."""
    for member in members(operation):
        rule = member.masking
        if rule is not None and rule.name in ("resample", "carries"):
            yield "shifts"
    recurrent = isinstance(operation, _Recurrent | Bidirectional)  # draws once for all steps
    if not recurrent and draws(operation):
        yield "draws"


def _outputs(node: Any, given: list[_Value]) -> list[Symbol]:
    """Returns what a node gives, with None for the sizes that a cut changes."""
    known = list(zip(node.inputs, given, strict=True))
    if all(
        v.symbol is s or (v.symbol.shape == s.shape and v.symbol.masked == s.masked)
        for s, v in known
    ):
        return symbols_in(node.outputs)
    new = {id(s): v.symbol for s, v in known}
    args, kwargs = _replaced((node.args, node.kwargs), new)
    operation = node.operation
    run = operation if isinstance(operation, Operation) else operation._enter
    try:
        return symbols_in(infer(run, args, kwargs))
    except Exception as error:  # whatever it says: it does not take another number of steps
        raise _UnprovenError(f"{named(operation)} has a fixed number of steps") from error


def _replaced(tree: Any, new: dict[int, Symbol]) -> Any:
    if isinstance(tree, Symbol):
        return new[id(tree)]
    if isinstance(tree, dict):
        return {k: _replaced(v, new) for k, v in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_replaced(v, new) for v in tree)
    return tree


def _judged(operation: Any, symbol: Symbol) -> _Value:
    """Returns an output of a layer that saw cut data: without steps, or with a mask on all."""
    free = [axis for axis, size in enumerate(symbol.shape) if axis and size is None]
    if not free and symbol.masked < 2:
        return _Value(symbol)
    if not free:
        raise _UnprovenError(f"{named(operation)} gives a fixed number of steps")
    if max(free) >= symbol.masked:
        raise _UnprovenError(f"{named(operation)} ends the mask, and the steps stay")
    return _Value(symbol, cut=True)


def _check_distributed(layer: TimeDistributed, value: _Value, met: set[str]) -> None:
    """Raises _UnprovenError where the inner layer might see a cut of the outer or the inner steps."""
    inner, symbol = layer.layer, value.symbol
    if symbol.shape[1] is None and draws(inner):
        raise _UnprovenError(f"{named(layer)} draws for all steps at once")
    if symbol.shape[1] is None and value.raw and has_moments(inner):
        raise _UnprovenError(f"{named(layer)} measures steps that hold nothing")
    graph = getattr(inner, "graph", None)
    if graph is not None and len(symbol.shape) > 2 and symbol.shape[2] is None:
        part = Symbol((None, *symbol.shape[2:]), symbol.dtype, max(symbol.masked - 1, 0))
        _walk(graph, [_Value(part, True, value.raw)], met)
