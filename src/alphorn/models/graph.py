"""Graph: the calls between symbolic inputs and outputs, in an order in which they can run."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.core.any_size import takes_any_size
from alphorn.core.masked import Masked, is_masked, unmask
from alphorn.core.rules import same_data
from alphorn.core.symbol import (
    Node,
    Symbol,
    is_symbol,
    symbols_in,
    topological_order,
    unknown_sizes,
)
from alphorn.core.tracking import Tracked
from alphorn.core.variable import Variable
from alphorn.core.watching import watched
from alphorn.errors import ArgumentError, DataError, ShapeError


class Graph:
    """The nodes from `inputs` to `outputs`.

    Args:
        inputs: A structure of Symbols, or arrays of a layer's `input`.
        outputs: A structure of Symbols.
        losses: Symbols that are computed beside the outputs.

    Raises:
        ArgumentError: where an output does not come from the inputs.
    """

    def __init__(self, inputs: Any, outputs: Any, losses: Sequence[Symbol] = ()):
        self.inputs, self.outputs, self.losses = inputs, outputs, list(losses)
        self.input_symbols = _all_symbols("inputs", inputs)
        self.output_symbols = _all_symbols("outputs", outputs)
        self.nodes = topological_order([*self.output_symbols, *self.losses], self.input_symbols)
        self._check_connected()
        self.input_nodes = [s.node for s in self.input_symbols if s.node is not None]
        self.operations = self._by_depth()
        self.layers: list[Any] = [o for o in self.operations if isinstance(o, Tracked)]
        arguments = [(node.args, node.kwargs) for node in self.nodes]
        leaves = jax.tree.leaves(arguments, is_leaf=lambda x: isinstance(x, Variable))
        self.variables = [x for x in leaves if isinstance(x, Variable)]
        others = [o for o in self.operations if not isinstance(o, Tracked)]
        self.variables += [v for o in others for v in getattr(o, "variables", ())]

    def _check_connected(self) -> None:
        known = {id(s) for s in self.input_symbols}
        for node in self.nodes:
            for symbol in node.inputs:
                if id(symbol) not in known:
                    raise ArgumentError(
                        "Model: an output depends on an Input that is not among `inputs`",
                        received=f"'{symbol.name}' of shape {symbol.shape}",
                        expected="every Input on the way to the outputs",
                        fix="add it to inputs=[...]",
                    )
            if not node.inputs:
                for symbol in symbols_in(node.outputs):
                    raise ArgumentError(
                        "Model: an output depends on an Input that is not among `inputs`",
                        received=f"'{symbol.name}' of shape {symbol.shape}",
                        expected="every Input on the way to the outputs",
                        fix="add it to inputs=[...]",
                    )
            known.update(id(s) for s in symbols_in(node.outputs))

    def _by_depth(self) -> list[Any]:
        """Layers and ops from the inputs to the outputs, those of one depth as they were met:
        Keras's order, and so the order of weights.
        """
        ends = {id(s) for s in self.input_symbols}
        met: dict[int, int] = {}
        seen: set[int] = set()
        stack = [*reversed(self.losses), *reversed(self.output_symbols)]
        while stack:
            symbol = stack.pop()
            node = symbol.node
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            met.setdefault(id(node.operation), len(met))
            if id(symbol) not in ends:
                stack.extend(reversed(node.inputs))
        node_depth: dict[int, int] = {}
        depth: dict[int, int] = {}
        operations: dict[int, Any] = {}
        for node in [*reversed(self.nodes), *self.input_nodes]:
            key = id(node.operation)
            operations[key] = node.operation
            level = max(node_depth.get(id(node), 0), depth.get(key, 0))
            depth[key] = node_depth[id(node)] = level
            for symbol in node.inputs:
                if symbol.node is not None:
                    parent = id(symbol.node)
                    node_depth[parent] = max(level + 1, node_depth.get(parent, 0))
        return sorted(operations.values(), key=lambda o: (-depth[id(o)], met.get(id(o), -1)))

    def run(self, inputs: Any, where: str, call: Callable | None = None) -> Any:
        """Computes the outputs from arrays, Masked sequences or Symbols; arguments as in `values`."""
        return self.outputs_in(self.values(inputs, where, call))

    def outputs_in(self, values: dict[int, Any]) -> Any:
        """Returns the outputs among computed values."""
        return jax.tree.map(
            lambda x: values[id(x)] if is_symbol(x) else x, self.outputs, is_leaf=is_symbol
        )

    def values(self, inputs: Any, where: str, call: Callable | None = None) -> dict[int, Any]:
        """Returns what stands for each Symbol of the graph, by the Symbol's id.

        Args:
            inputs: In the structure of the graph's inputs, or a dict by input names.
            where: The model's name, for errors.
            call: `(node, args, kwargs) -> outputs`; by default the node's operation is called.
        """
        return self.computed(self.fitted_inputs(inputs, where), call or called)

    def fitted_inputs(self, inputs: Any, where: str) -> list[Any]:
        """Returns the inputs' values in the inputs' order, ranks and types."""
        given = zip(self.flatten(inputs, where), self.input_symbols, strict=True)
        return [fitted(value, symbol, where) for value, symbol in given]

    def computed(self, inputs: Sequence[Any], call: Callable) -> dict[int, Any]:
        """Returns what stands for each Symbol, from the values of the inputs in their order."""
        values = {id(s): value for s, value in zip(self.input_symbols, inputs, strict=True)}

        def at(x: Any) -> Any:
            return values[id(x)] if is_symbol(x) else x

        for node in self.nodes:
            args, kwargs = jax.tree.map(
                at, (node.args, node.kwargs), is_leaf=lambda x: is_masked(x) or is_symbol(x)
            )
            out = call(node, args, kwargs)
            expected = symbols_in(node.outputs)
            given = (
                [out]
                if len(expected) == 1 and not isinstance(out, list | tuple | dict)
                else (jax.tree.leaves(out, is_leaf=lambda x: is_masked(x) or is_symbol(x)))
            )
            values.update((id(s), v) for s, v in zip(expected, given, strict=True))
        return values

    def flatten(self, inputs: Any, where: str) -> list[Any]:
        """Returns the values for the input symbols, in their order."""
        names = [s.name for s in self.input_symbols]
        if isinstance(inputs, dict):
            keys = list(self.inputs) if isinstance(self.inputs, dict) else names
            if isinstance(self.inputs, dict) and not set(keys) <= set(inputs):
                keys = [s.name for s in self.inputs.values()]
            missing = [k for k in keys if k not in inputs]
            if missing:
                raise DataError(
                    f"{where}: inputs by name",
                    received=f"{list(inputs)}",
                    expected=f"{keys}",
                    fix=f"{', '.join(map(str, missing))} is missing",
                )
            if isinstance(self.inputs, dict):  # jax flattens dicts by sorted keys
                keys = [k for _, k in sorted(zip(self.inputs, keys, strict=True))]
            return [inputs[k] for k in keys]
        values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if len(values) != len(names):
            raise DataError(
                f"{where}: number of inputs", len(values), f"{len(names)}: {', '.join(names)}"
            )
        return values


def called(node: Node, args: tuple, kwargs: dict) -> Any:
    """Calls what a node calls on values."""
    operation: Any = node.operation
    if isinstance(node.operation, Tracked):  # a layer's own door tells who watches
        return operation(*args, **kwargs)
    given = (args, kwargs)
    return watched(operation, given, given, lambda: operation(*args, **kwargs))


def _all_symbols(what: str, tree: Any) -> list[Symbol]:
    leaves = jax.tree.leaves(tree)
    wrong = [x for x in leaves if not is_symbol(x)]
    if wrong or not leaves:
        raise ArgumentError(
            f"Model: {what}",
            received=f"{wrong[0]!r}" if wrong else "nothing",
            expected="what Input(...) and calls of layers on it return",
        )
    return leaves


def fitted(value: Any, symbol: Symbol, where: str) -> Any:
    """Returns `value` in the rank and type of the input `symbol`.

    Raises:
        ShapeError: naming the input.
    """
    if is_symbol(value):
        return value
    if isinstance(value, Masked):
        data = fitted(value.data, symbol, where)
        if data is value.data:
            return value
        return Masked.trusted(data, value.mask)
    value = value if hasattr(value, "ndim") else np.asarray(value)
    rank = len(symbol.shape)
    if value.ndim == rank - 1 and symbol.shape[-1] == 1:
        value = value[..., None]
    elif value.ndim == rank + 1 and value.shape[-1] == 1:
        value = value[..., 0]
    free = takes_any_size()  # steps, and steps inside steps
    fits = value.ndim == rank and all(
        s is None or s == n or (free and axis in (1, 2))
        for axis, (s, n) in enumerate(zip(symbol.shape, value.shape, strict=True))
    )
    if not fits:
        raise ShapeError(
            f"{where}: input '{symbol.name}'",
            received=f"shape {unknown_sizes(value.shape)}",
            expected=f"shape {symbol.shape}",
            fix="None stands for any size; the first axis is the batch",
        )
    target = jnp.dtype(symbol.dtype)
    if value.dtype != target:
        return same_data(value, jnp.asarray(unmask(value)).astype(target))
    return value


def nodes_of(graph: Graph) -> list[Node]:
    """Returns input nodes, then the others in running order."""
    return [*graph.input_nodes, *graph.nodes]
