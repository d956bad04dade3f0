"""The config of a functional model: its layers and how they are called, as Keras 3 writes it."""

from collections.abc import Iterator
from typing import Any

import jax

from alphorn.core.symbol import Symbol, is_symbol
from alphorn.core.tracking import Tracked
from alphorn.errors import FileError
from alphorn.models.graph import Graph, nodes_of
from alphorn.models.operations import is_operation, operation_entry, operation_from
from alphorn.naming import deserialize, serialize, serialize_object
from alphorn.ops.table import Operation

Place = tuple[str, int]


def graph_config(graph: Graph) -> dict[str, Any]:
    """Returns layers, inputs and outputs as plain data."""
    places: dict[int, Place] = {}
    calls: dict[int, list[Any]] = {}
    owners: dict[int, Any] = {}
    taken = {layer.name for layer in graph.layers}
    names: dict[int, str] = {}
    for node in nodes_of(graph):
        layer = isinstance(node.operation, Tracked)
        key = id(node.operation) if layer else id(node)  # each call of an op stands by itself
        if key not in owners:
            owners[key] = node.operation
            name, count = node.operation.name, 0
            while not layer and (f"{name}_{count}" if count else name) in taken:
                count += 1
            names[key] = f"{name}_{count}" if count else name
            taken.add(names[key])
        before = calls.setdefault(key, [])
        places[id(node)] = (names[key], len(before))
        before.append(node)

    def history(symbol: Symbol) -> list[Any]:
        return [*places[id(symbol.node)], symbol.index]

    def written(x: Any) -> Any:
        if is_symbol(x):
            config = {"shape": list(x.shape), "dtype": x.dtype, "keras_history": history(x)}
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(x, list | tuple):
            return [written(v) for v in x]
        if isinstance(x, dict):
            return {k: written(v) for k, v in x.items()}
        return serialize(x)

    layers = []
    for key, owner in owners.items():
        nodes = [(n.args, n.kwargs) for n in calls[key] if n.inputs]
        if isinstance(owner, Operation):
            entry, given, options = operation_entry(owner, *nodes[0])
            entry["config"]["name"] = names[key]
            nodes = [(given, options)]
        else:
            entry = serialize_object(owner)
        entry["name"] = names[key]
        entry["inbound_nodes"] = [
            {
                "args": [written(a) for a in args],
                "kwargs": {k: written(v) for k, v in kwargs.items()},
            }
            for args, kwargs in nodes
        ]
        layers.append(entry)

    def end(symbol: Symbol) -> list[Any]:
        name, index, place = history(symbol)
        return [name, index + _before(symbol.node and symbol.node.operation), place]

    added = {"losses": [end(s) for s in graph.losses]} if graph.losses else {}
    return added | {
        "layers": layers,
        "input_layers": jax.tree.map(end, graph.inputs, is_leaf=is_symbol),
        "output_layers": jax.tree.map(end, graph.outputs, is_leaf=is_symbol),
    }


def _before(layer: Any) -> int:
    """Returns from where Keras counts the calls of a layer, where it names inputs and outputs."""
    return getattr(layer, "nodes_before", 0)


def graph_from_config(
    config: dict[str, Any], custom_objects: dict | None = None
) -> tuple[Any, Any, list[Symbol]]:
    """Returns `(inputs, outputs, losses)` of the graph that `graph_config` described."""
    revival = _Revival(config, custom_objects)
    outputs = revival.find(config["output_layers"])
    losses = [revival.find(history) for history in config.get("losses", ())]
    return revival.find(config["input_layers"]), outputs, losses


def _histories(x: Any) -> Iterator[list[Any]]:
    """Yields where the symbols in an argument of a call come from."""
    if isinstance(x, dict):
        if x.get("class_name") == "__keras_tensor__":
            yield x["config"]["keras_history"]
        else:
            for value in x.values():
                yield from _histories(value)
    elif isinstance(x, list):
        for value in x:
            yield from _histories(value)


def _is_mask(name: str) -> bool:
    return name == "mask" or (name.endswith("_mask") and name not in _OF_USERS)


_OF_USERS = ("attention_mask", "use_causal_mask")


class _Revival:
    """Calls the layers of a config again, each when its inputs are there.

    Keras 3 writes into its files how it computed each mask. Here a mask goes with its sequence, by
    the rules of the layers: such masks are left out, those of the user's own making stay.
    """

    def __init__(self, config: dict[str, Any], custom_objects: dict | None):
        self.entries: dict[str, dict] = {}
        self.made: dict[str, Any] = {}
        self.outputs: dict[Place, list[Symbol]] = {}
        self.born: set[tuple] = set()  # what a mask was made of
        for entry in config["layers"]:
            name = entry.get("name") or entry["config"]["name"]
            if name in self.entries:
                raise FileError(
                    "the config of a model", f"two layers named {name!r}", "a name of its own each"
                )
            self.entries[name] = entry
            if is_operation(entry):
                self.made[name] = operation_from(entry)
                continue
            self.made[name] = layer = deserialize(entry, "layers", custom_objects)
            if not entry["inbound_nodes"]:
                self.outputs[name, 0] = [layer.output]

    def find(self, tree: Any) -> Any:
        """Returns the Symbols in the structure of `input_layers` or `output_layers`."""
        if isinstance(tree, dict):
            return {k: self.find(v) for k, v in tree.items()}
        if len(tree) == 3 and isinstance(tree[0], str) and isinstance(tree[1], int):
            name, index, place = tree
            index -= _before(self.made.get(name))
            self.compute((name, index))
            return self.at([name, index, place])
        return [self.find(v) for v in tree]

    def at(self, history: list[Any]) -> Symbol:
        name, index, place = history
        return self.outputs[name, index][place]

    def node(self, place: Place) -> dict:
        name, index = place
        nodes = self.entries[name]["inbound_nodes"] if name in self.entries else []
        if not isinstance(index, int) or not 0 <= index < len(nodes):
            raise FileError(
                "the config of a model",
                received=f"the output of call {index} of {name!r}",
                expected="every layer that a call refers to",
                fix="the file is damaged",
            )
        return nodes[index]

    def compute(self, wanted: Place) -> None:
        """Makes the calls up to `wanted`, without recursion: graphs may be deep."""
        stack = [wanted]
        waiting: set[Place] = set()
        while stack:
            place = stack[-1]
            if place in self.outputs:
                stack.pop()
                continue
            missing = [p for p in self.needs(place) if p not in self.outputs]
            if not missing:
                self.call(place)
                stack.pop()
            elif place in waiting and waiting & set(missing):
                raise FileError(
                    "the config of a model",
                    received=f"calls of {place[0]} that wait for themselves",
                    expected="calls from inputs to outputs",
                    fix="the file is damaged",
                )
            else:
                waiting.add(place)
                stack.extend(missing)

    def needs(self, place: Place) -> list[Place]:
        node = self.node(place)
        plain = {k: v for k, v in node["kwargs"].items() if not _is_mask(k)}
        needed = [(h[0], h[1]) for h in _histories([node["args"], plain])]
        if place[1]:
            needed.append((place[0], place[1] - 1))
        if all(p in self.outputs for p in needed):
            needed += [(h[0], h[1]) for h in _histories(self.own_masks(node))]
        return needed

    def own_masks(self, node: dict) -> dict[str, Any]:
        """Returns the masks of a call that the user gave."""
        return {
            k: v
            for k, v in node["kwargs"].items()
            if _is_mask(k) and not all(map(self.automatic, _histories(v)))
        }

    def automatic(self, history: list[Any]) -> bool:
        """Returns whether a mask is what Keras computed where a mask was born."""
        stack, seen = [tuple(history)], set()
        if not is_operation(self.entries.get(history[0], {})):
            return False
        while stack:
            here = stack.pop()
            if here in seen:
                continue
            seen.add(here)
            if is_operation(self.entries.get(here[0], {})):
                node = self.node((here[0], here[1]))
                stack.extend(tuple(h) for h in _histories([node["args"], node["kwargs"]]))
            elif here not in self.born:
                return False
        return True

    def call(self, place: Place) -> None:
        node, name = self.node(place), place[0]
        masks = self.own_masks(node)
        args = self.read(node["args"])
        kwargs = {
            k: self.read(v) for k, v in node["kwargs"].items() if not _is_mask(k) or k in masks
        }
        out = jax.tree.leaves(self.made[name](*args, **kwargs))
        self.outputs[place] = out
        given = [h for h in _histories([node["args"], node["kwargs"]])]
        if any(is_symbol(s) and s.masked for s in out):
            known = [tuple(h) for h in given if (h[0], h[1]) in self.outputs]
            self.born.update(h for h in known if not self.at(list(h)).masked)

    def read(self, x: Any) -> Any:
        if isinstance(x, dict):
            if x.get("class_name") == "__keras_tensor__":
                return self.at(x["config"]["keras_history"])
            if x.get("class_name") == "__tuple__":
                return tuple(self.read(v) for v in x["items"])
            if "class_name" in x:
                return deserialize(x)
            return {k: self.read(v) for k, v in x.items()}
        return [self.read(v) for v in x] if isinstance(x, list) else x
