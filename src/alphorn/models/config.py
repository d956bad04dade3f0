"""The config of a functional model: its layers and how they are called, as Keras 3 writes it."""

from typing import Any

import jax

from alphorn.core.symbol import Symbol, is_symbol
from alphorn.errors import ArgumentError
from alphorn.models.graph import Graph, nodes_of
from alphorn.naming import deserialize, serialize, serialize_object


def graph_config(graph: Graph) -> dict[str, Any]:
    """Returns layers, inputs and outputs as plain data."""
    places: dict[int, tuple[str, int]] = {}
    calls: dict[int, list[Any]] = {}
    operations: dict[int, Any] = {}
    for node in nodes_of(graph):
        key = id(node.operation)
        operations[key] = node.operation
        calls.setdefault(key, [])
        places[id(node)] = (node.operation.name, len(calls[key]))
        calls[key].append(node)

    def history(symbol: Symbol) -> list[Any]:
        name, index = places[id(symbol.node)]
        return [name, index, symbol.index]

    def written(x: Any) -> Any:
        if is_symbol(x):
            config = {"shape": list(x.shape), "dtype": x.dtype, "keras_history": history(x)}
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(x, list | tuple):
            items = [written(v) for v in x]
            return items if isinstance(x, list) else {"class_name": "__tuple__", "items": items}
        if isinstance(x, dict):
            return {k: written(v) for k, v in x.items()}
        return serialize(x)

    layers = []
    for key, operation in operations.items():
        nodes = [] if not calls[key][0].inputs else calls[key]
        layers.append(
            serialize_object(operation)
            | {
                "name": operation.name,
                "inbound_nodes": [
                    {
                        "args": [written(a) for a in node.args],
                        "kwargs": {k: written(v) for k, v in node.kwargs.items()},
                    }
                    for node in nodes
                ],
            }
        )
    added = {"losses": [history(s) for s in graph.losses]} if graph.losses else {}
    return added | {
        "layers": layers,
        "input_layers": jax.tree.map(history, graph.inputs, is_leaf=is_symbol),
        "output_layers": jax.tree.map(history, graph.outputs, is_leaf=is_symbol),
    }


def graph_from_config(
    config: dict[str, Any], custom_objects: dict | None = None
) -> tuple[Any, Any, list[Symbol]]:
    """Returns `(inputs, outputs, losses)` of the graph that `graph_config` described."""
    made: dict[str, Any] = {}
    outputs: dict[tuple[str, int], list[Symbol]] = {}
    waiting: list[tuple[str, int, dict]] = []
    for entry in config["layers"]:
        name = entry.get("name") or entry["config"]["name"]
        layer = made[name] = deserialize(entry, "layers", custom_objects)
        if not entry["inbound_nodes"]:
            outputs[name, 0] = [layer.output]
        for index, node in enumerate(entry["inbound_nodes"]):
            waiting.append((name, index, node))

    def ready(x: Any) -> bool:
        if isinstance(x, dict):
            if x.get("class_name") == "__keras_tensor__":
                name, index, _ = x["config"]["keras_history"]
                return (name, index) in outputs
            return all(ready(v) for v in x.values())
        return all(ready(v) for v in x) if isinstance(x, list) else True

    def read(x: Any) -> Any:
        if isinstance(x, dict):
            if x.get("class_name") == "__keras_tensor__":
                return at(x["config"]["keras_history"])
            if x.get("class_name") == "__tuple__":
                return tuple(read(v) for v in x["items"])
            if "class_name" in x:
                return deserialize(x)
            return {k: read(v) for k, v in x.items()}
        return [read(v) for v in x] if isinstance(x, list) else x

    def at(history: Any) -> Symbol:
        name, index, place = history
        return outputs[name, index][place]

    while waiting:
        left = []
        for name, index, node in waiting:
            if ready(node) and (index == 0 or (name, index - 1) in outputs):
                args, kwargs = read(node["args"]), read(node["kwargs"])
                out = made[name](*args, **kwargs)
                outputs[name, index] = jax.tree.leaves(out)
            else:
                left.append((name, index, node))
        if len(left) == len(waiting):
            raise ArgumentError(
                "the config of a model",
                received=f"calls of {', '.join(sorted({n for n, *_ in left}))} without inputs",
                expected="every layer that a call refers to",
            )
        waiting = left

    def find(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {k: find(v) for k, v in tree.items()}
        if len(tree) == 3 and isinstance(tree[0], str) and isinstance(tree[1], int):
            return at(tree)
        return [find(v) for v in tree]

    losses = [at(history) for history in config.get("losses", ())]
    return find(config["input_layers"]), find(config["output_layers"]), losses
