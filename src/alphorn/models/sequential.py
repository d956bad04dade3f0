"""Sequential: layers one after another."""

from collections.abc import Sequence
from typing import Any

from alphorn.core.layer import Layer
from alphorn.core.rules import nest
from alphorn.errors import ArgumentError
from alphorn.layers.core import Input, InputLayer
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
            elif graph is not None:
                first = graph.input_symbols[0]
                self._begin = Input(batch_shape=first.shape, dtype=first.dtype)
        self._stack.append(layer)
        if rebuild:
            self._rebuild()

    def pop(self, rebuild: bool = True) -> Layer:
        """Takes the last layer away and returns it."""
        if not self._stack:
            raise ArgumentError(f"Sequential '{self.name}': pop", "no layers", "at least one")
        layer = self._stack.pop()
        self.graph, self.built = None, False
        if rebuild:
            self._rebuild()
        return layer

    def _rebuild(self) -> None:
        self.graph = None
        vars(self).pop("programs", None)
        if self._begin is None or not self._stack:
            return
        x = self._begin
        for layer in self._stack:
            x = layer(x)
        self._set_graph(self._begin, x)

    def build(self, input_shape: Any = None) -> None:
        """Builds all layers for inputs of a shape, the batch axis included."""
        if self.graph is not None or not self._stack or input_shape is None:
            return
        if isinstance(input_shape, list) and input_shape and not isinstance(input_shape[0], int):
            input_shape = tuple(input_shape) if input_shape[0] is None else input_shape[0]
        first = self._stack[0]
        dtype = first.default_input_dtype or first.compute_dtype
        self._begin = Input(batch_shape=(None, *tuple(input_shape)[1:]), dtype=dtype)
        self._rebuild()

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Runs the layers."""
        if self.graph is not None:
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

    def get_config(self) -> dict[str, Any]:
        """Returns the layers."""
        begin = [] if self._begin is None else [self._begin.node.operation]
        return self.base_config() | {"layers": [serialize(x) for x in [*begin, *self._stack]]}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict | None = None
    ) -> "Sequential":
        """Makes a model from `get_config()`."""
        layers = [deserialize(x, "layers", custom_objects) for x in config["layers"]]
        return cls(layers, name=config.get("name"))


register("layers", Sequential, "Sequential")
