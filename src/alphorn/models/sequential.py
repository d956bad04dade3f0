"""Sequential: layers one after another."""

from collections.abc import Callable, Sequence
from typing import Any

from alphorn.core.any_size import takes_any_size
from alphorn.core.layer import Layer
from alphorn.core.rules import nest
from alphorn.core.symbol import unknown_sizes
from alphorn.errors import ArgumentError, ShapeError
from alphorn.layers.core import Input, InputLayer
from alphorn.models.graph import Graph
from alphorn.models.legacy_configs import is_keras2, layers_of_keras2
from alphorn.models.model import Model
from alphorn.naming import auto_name, deserialize, register, serialize

__all__ = ["Sequential"]


class Sequential(Model):
    """Layers one after another.

    Args:
        layers: Begin with an `Input`, or a layer with `input_shape=`; else the model is built by
            the first data that it sees.
        trainable: Whether training changes the weights.
        name: By default `sequential`, ...

    >>> from alphorn.layers.dense import Dense
    >>> model = Sequential([Input((4,)), Dense(3), Dense(1)])
    >>> model.output_shape
    (None, 1)
    """

    masking = nest

    def __init__(
        self, layers: Sequence[Any] | None = None, trainable: bool = True, name: str | None = None
    ):
        Layer.__init__(self, trainable=trainable, name=name or auto_name("sequential"))
        self._stack: list[Layer] = []
        self._begin: Any = None
        self._deferred = False  # whether the input's shape is only that of the data seen so far
        for layer in layers or ():
            self.add(layer, rebuild=False)
        self._rebuild()

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Puts a layer at the end."""
        if hasattr(layer, "node"):  # an Input
            layer = layer.node.operation
        if isinstance(layer, InputLayer):
            if self._stack or self._begin is not None:
                raise ArgumentError(
                    f"Sequential '{self.name}'", "an Input after layers", "the Input first"
                )
            self._begin = layer.output
            return
        if not isinstance(layer, Layer):
            raise ArgumentError(
                f"Sequential '{self.name}': add", repr(layer), "a layer, e.g. layers.Dense(4)"
            )
        if any(layer is known or layer.name == known.name for known in self._stack):
            raise ArgumentError(
                f"Sequential '{self.name}': two layers have one name",
                received=repr(layer.name),
                expected="a name of its own for each layer",
                fix="a layer can stand only once in a Sequential; make a new one, or use Model",
            )
        if not self._stack and self._begin is None:
            shape = layer.batch_input_shape
            graph = getattr(layer, "graph", None)
            if shape is not None:
                dtype = layer.declared_input_dtype or layer.default_input_dtype
                self._begin = Input(batch_shape=shape, dtype=dtype or layer.compute_dtype)
            elif steps := getattr(layer, "input_length", None):
                shape = (None, *steps) if isinstance(steps, list | tuple) else (None, steps)
                self._begin = Input(batch_shape=shape, dtype=layer.default_input_dtype)
                self._deferred = True
            elif graph is not None:
                first = graph.input_symbols[0]
                self._begin = Input(batch_shape=first.shape, dtype=first.dtype)
        if rebuild and self.graph is not None:
            outputs = layer(self.graph.outputs)
            self._stack.append(layer)
            self._forget_programs()
            self._set_graph(self._begin, outputs)
            return
        self._stack.append(layer)
        if rebuild:
            self._rebuild()

    def pop(self, rebuild: bool = True) -> Layer:
        """Takes the last layer away and returns it."""
        if not self._stack:
            raise ArgumentError(f"Sequential '{self.name}': pop", "no layers", "at least one")
        layer = self._stack.pop()
        before, self.graph, self.built = self.graph, None, False
        if rebuild:
            self._rebuild()
        _forget_calls(before)
        return layer

    def _forget_programs(self) -> None:
        for remembered in ("programs", "_prepared"):
            vars(self).pop(remembered, None)

    def _rebuild(self) -> None:
        before, self.graph = self.graph, None
        self._forget_programs()
        if self._begin is None or not self._stack:
            return
        x = self._begin
        for layer in self._stack:
            x = layer(x)
        self._set_graph(self._begin, x)
        _forget_calls(before)

    def build(self, input_shape: Any = None) -> None:
        """Builds all layers for inputs of a shape, the batch axis included."""
        if self.graph is not None or not self._stack or input_shape is None:
            return
        if isinstance(input_shape, list) and input_shape and not isinstance(input_shape[0], int):
            input_shape = tuple(input_shape) if input_shape[0] is None else input_shape[0]
        first = self._stack[0]
        dtype = first.default_input_dtype or first.compute_dtype
        self._begin = Input(batch_shape=(None, *tuple(input_shape)[1:]), dtype=dtype)
        self._deferred = True
        self._rebuild()

    def _widen(self, shape: Any) -> None:
        """Makes sizes unknown in which new data differ from those that the model was built on."""
        known = self._begin.shape
        if len(shape) != len(known) or all(
            k in (None, n) for k, n in zip(known, shape, strict=True)
        ):
            return
        before, graph = self._begin, self.graph
        wider = (k if k == n else None for k, n in zip(known, shape, strict=True))
        try:
            self._begin = Input(batch_shape=tuple(wider), dtype=before.dtype)
            self._rebuild()
        except ShapeError:  # a weight depends on that size: the graph itself says so
            self._begin, self.graph = before, graph

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Runs the layers."""
        if self.graph is not None:
            if self._deferred and hasattr(inputs, "shape") and not takes_any_size():
                self._widen(unknown_sizes(inputs.shape))
            return super().call(inputs, training)
        for layer in self._stack:
            inputs = layer(inputs)
        return inputs

    @property
    def layers(self) -> list[Any]:
        """The layers, without the input."""
        return list(self._stack)

    @property
    def _layers(self) -> list[Any]:
        return list(self._stack)

    def copied(self, again: Callable, inputs: Any = None, call: Callable | None = None) -> Model:
        """Returns a Sequential of the layers that `again(layer)` gives; for `clone_model`."""
        if inputs is not None or call is not None:
            return super().copied(again, inputs, call)
        begin = [] if self._begin is None else [again(self._begin.node.operation)]
        made = type(self) if type(self).__init__ is Sequential.__init__ else Sequential
        return made([*begin, *map(again, self._stack)], name=self.name)

    def _like(self, inputs: Any, outputs: Any) -> Model:
        return Model(inputs, outputs, name=self.name)

    @property
    def nodes_before(self) -> int:
        """Where Keras begins to count calls of a Sequential."""
        return 0

    @property
    def file_identity(self) -> dict[str, Any] | None:
        """The names under which Keras's files hold this class; None for its own."""
        return {"module": "keras"} if type(self) is Sequential else None

    def get_config(self) -> dict[str, Any]:
        """Returns the layers."""
        begin = [] if self._begin is None else [self._begin.node.operation]
        return self.base_config() | {"layers": [serialize(x) for x in [*begin, *self._stack]]}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict | None = None
    ) -> "Sequential":
        """Makes a model from `get_config()`."""
        if isinstance(config, list):  # Keras 2 before 2.2
            config = {"layers": config}
        if is_keras2(config):
            config = config | {"layers": layers_of_keras2(config["layers"])}
        layers = [deserialize(x, "layers", custom_objects) for x in config["layers"]]
        model = cls(layers, name=config.get("name"))
        begin = model._begin
        if begin is not None and begin.shape[0] is not None and config.get("build_input_shape"):
            # Keras notes the batch that built a model; only state over batches depends on it.
            model._deferred = not any(getattr(x, "stateful", False) for x in model.layers)
        if not config.get("trainable", True):
            model.trainable = False
        return model


def _forget_calls(graph: Graph | None) -> None:
    """Takes from layers their calls in a graph that is a part of no model any more."""
    if graph is not None:
        gone = set(map(id, graph.nodes))
        for layer in graph.layers:
            layer.inbound_nodes = [n for n in layer.inbound_nodes if id(n) not in gone]


register("layers", Sequential, "Sequential")
