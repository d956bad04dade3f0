"""Symbols inside models that are called in another: written out from the outer inputs."""

from collections.abc import Iterable
from typing import Any

import jax

from alphorn.core.masked import is_masked
from alphorn.core.symbol import Node, Symbol, is_symbol, symbols_in, topological_order
from alphorn.core.tracking import Tracked
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError


def connected(inputs: Any, outputs: Any) -> Any:
    """Returns `outputs` as they come from `inputs`.

    `inner.get_layer("h").output` hangs on the inner model's own input. Where that model is called
    on what comes from `inputs`, the way from there to the Symbol is called again, on the same
    layers. Symbols that come from `inputs` already, or do not at all, stay as they are.

    Args:
        inputs: A structure of Symbols.
        outputs: A structure of Symbols.

    Raises:
        ArgumentError: where the inner model is called several times, so that it could be any.
    """
    ends = symbols_in(inputs)

    def reached(x: Any) -> Any:
        found = _reached(x, ends) if is_symbol(x) else None
        return x if found is None else found

    return jax.tree.map(reached, outputs, is_leaf=lambda x: isinstance(x, Symbol | Variable))


def begin_of(symbol: Symbol, ends: Iterable[Symbol] = ()) -> list[Symbol]:
    """Returns the Symbols with which the history of one begins, each once, beside `ends`."""
    known = {id(s) for s in ends}
    order = topological_order([symbol], ends)
    born = {id(s) for node in order if node.inputs for s in symbols_in(node.outputs)}
    found = [s for node in order if not node.inputs for s in symbols_in(node.outputs)]
    used = [symbol, *(s for node in order for s in node.inputs)]
    found += [s for s in used if s.node is None and id(s) not in born]
    return list({id(s): s for s in found if id(s) not in known}.values())


def _reached(symbol: Symbol, ends: list[Symbol]) -> Symbol | None:
    strange = begin_of(symbol, ends)
    if not strange:
        return symbol
    begins = {id(s) for s in strange}
    ways = []
    for model in strange[0].graphs:
        own = model.graph.input_symbols
        if not begins <= {id(s) for s in own}:
            continue
        for node in model.inbound_nodes:
            given = model.graph.flatten(node.args[0], f"Model '{model.name}'")
            if all(is_symbol(x) for x in given):
                found = [_reached(x, ends) for x in given]
                if all(x is not None for x in found):
                    ways.append((model, own, found))
    if len(ways) > 1:
        raise ArgumentError(
            f"'{symbol.name}' inside '{ways[0][0].name}', which is called {len(ways)} times",
            expected="one call of the inner model on the way from the inputs",
            fix="model.capture(x, layers=[...]) gives what a layer puts out at each call",
        )
    if not ways:
        return None
    _, own, found = ways[0]
    return _again(symbol, dict(zip(map(id, own), found, strict=True)), own)


def _again(symbol: Symbol, values: dict[int, Any], ends: Iterable[Symbol]) -> Symbol:
    """Calls the way from `ends` to `symbol` again, on what stands for the ends in `values`."""

    def at(x: Any) -> Any:
        return values.get(id(x), x) if is_symbol(x) else x

    for node in topological_order([symbol], ends):
        args, kwargs = jax.tree.map(
            at, (node.args, node.kwargs), is_leaf=lambda x: is_masked(x) or is_symbol(x)
        )
        operation: Any = node.operation
        if isinstance(operation, Tracked):
            made: Node = operation.node_on(args, kwargs)  # pyright: ignore[reportAttributeAccessIssue]
            outputs = made.outputs
        else:
            outputs = operation(*args, **kwargs)
        pairs = zip(symbols_in(node.outputs), symbols_in(outputs), strict=True)
        values.update((id(old), new) for old, new in pairs)
    return values[id(symbol)]
