"""Model: layers and how they are trained."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from alphorn.core.door import symbols_of
from alphorn.core.layer import Layer
from alphorn.core.masked import fill_masked, mask_of, unmask
from alphorn.core.rules import nest
from alphorn.core.symbol import Symbol, infer, is_symbol, symbols_in, symbols_like
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError, StateError
from alphorn.kernels.device import for_any_device
from alphorn.models.capture import Capturing
from alphorn.models.config import graph_config, graph_from_config
from alphorn.models.graph import Graph
from alphorn.models.legacy_configs import graph_of_keras2, is_keras2
from alphorn.models.nested import connected
from alphorn.models.older import Older
from alphorn.models.row_groups import values_of
from alphorn.naming import auto_name, register
from alphorn.training.compile_config import compile_config, compile_from_config
from alphorn.training.loop import Trainer

__all__ = ["Functional", "Model", "clone_model"]


class Model(Capturing, Older, Trainer, Layer):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Layers that are trained together.

    Either functional, `Model(inputs, outputs)`, from Symbols that `Input` and calls of layers
    gave; or a subclass that makes layers in `__init__` and uses them in `call`.

    Args:
        inputs: A Symbol, or a list or dict of them.
        outputs: As inputs.
        name: By default `functional`, or the class's name.

    >>> from alphorn.layers.core import Input
    >>> from alphorn.layers.dense import Dense
    >>> x = Input((3,))
    >>> Model(x, Dense(2)(x)).count_params()
    8
    """

    untracked = Layer.untracked | Trainer.trainer_attributes | {"graph", "seen_arguments"}
    annotations_are_fields = False  # a model is made from layers or from Symbols
    graph: Graph | None = None
    # The arguments of the last call, as Symbols, one with masks where there was one.
    seen_arguments: dict[str, Any] | None = None

    def __init__(self, *args: Any, inputs: Any = None, outputs: Any = None, **kwargs: Any):
        if len(args) > 0:
            inputs = args[0]
        if len(args) > 1:
            outputs = args[1]
        if len(args) > 2:
            kwargs["name"] = args[2]
        inputs = kwargs.pop("input", inputs)  # the names in Keras 1
        outputs = kwargs.pop("output", outputs)
        if (inputs is None) != (outputs is None):
            raise ArgumentError(
                type(self).__name__,
                received="inputs without outputs" if outputs is None else "outputs without inputs",
                expected="both, or none in a subclass with a call of its own",
            )
        if inputs is not None and type(self) is Model:
            kwargs.setdefault("name", None)
            kwargs["name"] = kwargs["name"] or auto_name("functional")
        super().__init__(**kwargs)
        if inputs is not None:
            self._set_graph(inputs, outputs)

    def _set_graph(self, inputs: Any, outputs: Any, losses: Sequence[Symbol] = ()) -> None:
        outputs, losses = connected(inputs, (outputs, list(losses)))
        self.graph = Graph(inputs, outputs, losses)
        for symbol in self.graph.input_symbols:
            symbol.graphs.add(self)
        self.masking = nest  # pyright: ignore[reportAttributeAccessIssue]
        self.built = True
        names: dict[str, Any] = {}
        for layer in self.graph.layers:
            if names.setdefault(layer.name, layer) is not layer:
                raise ArgumentError(
                    f"Model '{self.name}': two layers have one name",
                    received=repr(layer.name),
                    expected="a name of its own for each layer",
                    fix="give one of them another: Dense(4, name='...')",
                )

    # --- what it is made of

    @property
    def layers(self) -> list[Any]:
        """The layers, from the inputs to the outputs."""
        if self.graph is not None:
            return self.graph.layers
        return [layer for layer in super()._layers if isinstance(layer, Layer)]

    @property
    def _layers(self) -> list[Any]:
        own = super()._layers
        if self.graph is None:
            return own
        known = {id(layer) for layer in self.graph.layers}
        return [*self.graph.layers, *(layer for layer in own if id(layer) not in known)]

    def _own_variables(self) -> list[Variable]:
        """Also those that stand in the graph (`x * scale`) and belong to no layer of it."""
        own = super()._own_variables()
        if self.graph is None or not self.graph.variables:
            return own
        held = {id(v) for layer in self.graph.layers for v in layer.variables}
        return own + [v for v in self.graph.variables if id(v) not in held]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Returns a layer by its name or its place."""
        layers = self.layers
        if (name is None) == (index is None):
            raise ArgumentError(
                f"get_layer of '{self.name}'", f"name={name!r}, index={index}", "a name or an index"
            )
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ArgumentError(
                    f"get_layer of '{self.name}'", f"index {index}", f"below {len(layers)}"
                )
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ArgumentError(
            f"get_layer of '{self.name}'",
            received=repr(name),
            expected=f"one of {', '.join(layer.name for layer in layers)}",
        )

    def _graph(self, what: str) -> Graph:
        if self.graph is None:
            raise StateError(
                f"'{self.name}' has no {what}",
                expected="a functional model",
                fix="make it by Model(inputs, outputs), or call it on an Input",
            )
        return self.graph

    @property
    def inputs(self) -> list[Symbol]:
        """The input Symbols."""
        return self._graph("inputs").input_symbols

    @property
    def outputs(self) -> list[Symbol]:
        """The output Symbols."""
        return self._graph("outputs").output_symbols

    @property
    def input(self) -> Any:
        """The symbolic inputs in their structure."""
        return self._graph("input").inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs in their structure."""
        return self._graph("output").outputs

    @property
    def input_shape(self) -> Any:
        """The shapes of the inputs."""
        return jax.tree.map(lambda s: s.shape, self.input, is_leaf=is_symbol)

    @property
    def output_shape(self) -> Any:
        """The shapes of the outputs."""
        return jax.tree.map(lambda s: s.shape, self.output, is_leaf=is_symbol)

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs."""
        return [s.name for s in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """The names of the layers that give the outputs."""
        return [s.node.operation.name for s in self.outputs if s.node is not None]

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Runs the graph."""
        if self.graph is None:
            raise StateError(
                f"{type(self).__name__} '{self.name}' has no call()",
                fix="write `def call(self, inputs): ...`, or make it by Model(inputs, outputs)",
            )
        values = values_of(self.graph, inputs, f"Model '{self.name}'")
        for loss in self.graph.losses:
            value = values[id(loss)]
            Layer.add_loss(self, jnp.sum(fill_masked(unmask(value), mask_of(value))))
        return self.graph.outputs_in(values)

    def add_loss(self, loss: Any) -> None:
        """Adds a scalar, or several, to what training minimizes.

        Args:
            loss: An array, in a `call`; for a functional model a Symbol that comes from its
                inputs. What is no scalar counts by the sum of its valid entries.
        """
        if self.graph is None or not symbols_in(loss):
            super().add_loss(loss)
            return
        self._set_graph(
            self.graph.inputs, self.graph.outputs, [*self.graph.losses, *symbols_in(loss)]
        )
        vars(self).pop("programs", None)

    def get_config(self) -> dict[str, Any]:
        """Returns layers and calls of a functional model, or the arguments of a subclass."""
        if self.graph is None or type(self).__init__ is not Model.__init__:
            return super().get_config()
        return self.base_config() | graph_config(self.graph)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> "Model":
        """Makes a model from `get_config()`, with weights of its own."""
        if "input_layers" not in config:
            return super().from_config(config)  # pyright: ignore[reportReturnType]
        if is_keras2(config):
            config = graph_of_keras2(config)
        inputs, outputs, losses = graph_from_config(config, custom_objects)
        model = cls(inputs, outputs, name=config.get("name"))
        if losses:
            model.add_loss(losses)
        if not config.get("trainable", True):
            model.trainable = False
        return model

    @property
    def file_identity(self) -> dict[str, Any] | None:
        """The names under which Keras's files hold this class; None for its own."""
        if type(self) is not Model or self.graph is None:
            return None
        module, name = "keras.src.models.functional", "Functional"
        return {"module": module, "class_name": name, "registered_name": name}

    @property
    def nodes_before(self) -> int:
        """Where Keras begins to count calls: its functional models have one from their birth."""
        return int(self.graph is not None)

    def get_build_config(self) -> dict[str, Any] | None:
        """Returns the shape of the data that a subclass has seen, for files."""
        if self.graph is not None or not self.seen_arguments:
            return None if self.graph is not None else super().get_build_config()
        shapes = jax.tree.map(lambda s: list(s.shape), self.seen_arguments, is_leaf=is_symbol)
        if len(shapes) == 1:
            return {"input_shape": next(iter(shapes.values()))}
        return {"shapes_dict": {f"{k}_shape": v for k, v in shapes.items()}}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds a subclass for data of the shapes of `get_build_config()`."""
        shapes = config.get("shapes_dict")
        if shapes is None or "call" not in type(self).__dict__:
            super().build_from_config(config)
            return
        given = {k.removesuffix("_shape"): symbols_of(self, v) for k, v in shapes.items()}
        infer(self._enter, (), given | {"training": False})
        self.built = True

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile` as plain data, nothing before it was called."""
        return compile_config(self)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles by what `get_compile_config` gave."""
        compile_from_config(self, config)

    def copied(self, again: Callable, inputs: Any = None, call: Callable | None = None) -> "Model":
        """Returns a model like this of the layers that `again(layer)` gives; for `clone_model`."""
        if self.graph is None:
            if inputs is not None or call is not None:
                raise ArgumentError(
                    f"clone_model of '{self.name}'",
                    received="input_tensors or call_function",
                    expected="neither: a subclass says in its own call how layers are called",
                )
            return type(self).from_config(self.get_config())
        if inputs is None:
            begin = [again(s.node.operation).output for s in self.inputs if s.node is not None]
        else:
            begin = jax.tree.leaves(inputs)

        def called(node: Any, args: tuple, kwargs: dict) -> Any:
            layer = again(node.operation)
            return layer(*args, **kwargs) if call is None else call(layer, *args, **kwargs)

        values = self.graph.values(begin, f"clone of '{self.name}'", called)
        structure = jax.tree.structure(self.graph.inputs)
        made = self._like(jax.tree.unflatten(structure, begin), self.graph.outputs_in(values))
        if self.graph.losses:
            made.add_loss([values[id(s)] for s in self.graph.losses])
        return made

    def _like(self, inputs: Any, outputs: Any) -> "Model":
        """Returns a model of this class, where its constructor takes inputs and outputs."""
        parameters = inspect.signature(type(self).__init__).parameters.values()
        kinds = {p.kind for p in parameters}
        names = {p.name for p in parameters}
        free = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
        made = type(self) if free or {"inputs", "outputs", "name"} <= names else Model
        return made(inputs=inputs, outputs=outputs, name=self.name)

    def build(self, input_shape: Any = None) -> None:
        """Builds the layers of a subclass for inputs of a shape, the batch axis included."""
        self.built = True
        if self.graph is None and input_shape is not None:
            infer(self._enter, (symbols_of(self, input_shape),), {"training": False})

    def _ensure_built(self, arguments: dict[str, Any]) -> None:
        self._note(arguments)
        if type(self).build is Model.build:
            self.built = True  # a subclass's layers build themselves when its call uses them
        else:
            super()._ensure_built(arguments)

    def _note(self, arguments: dict[str, Any]) -> None:
        if for_any_device():  # an export is no call
            return
        now = {k: symbols_like(v) for k, v in arguments.items()}
        now = {k: v for k, v in now.items() if symbols_in(v)}
        before = any(s.masked for s in symbols_in(self.seen_arguments or {}))
        if now and (not before or any(s.masked for s in symbols_in(now))):
            self.seen_arguments = now

    # --- files

    def save(
        self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
    ) -> None:
        """Writes the model to a `.keras` archive: config, weights, compile state; see `load_model`."""
        Model.model_writer(self, filepath, overwrite, zipped, **kwargs)

    def to_json(self, **kwargs: Any) -> str:
        """Returns what makes the model again, without weights; see `models.model_from_json`."""
        return Model.json_writer(self, **kwargs)

    def save_weights(
        self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None
    ) -> None:
        """Writes the weights to a `.weights.h5` file, to shards of it, or to `.safetensors`."""
        Model.weights_writer(self, filepath, overwrite, max_shard_size)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Reads the weights from such a file, or from a `.keras` archive; also `by_name=True`."""
        Model.weights_reader(self, filepath, skip_mismatch, **kwargs)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Writes a program that runs without this library: `format="stablehlo"`.

        Args:
            filepath: Of the file.
            format: "stablehlo"; Keras's default is TensorFlow's, which is not written here.
            verbose: Whether it says what the program takes and gives; by default it does.
            input_signature: What stands for the inputs; see `docs/export.md`.
            **kwargs: `platforms=("cpu", "cuda")`.
        """
        Model.exporter(self, filepath, format, verbose, input_signature, **kwargs)

    exporter: ClassVar[Callable[..., None]]
    model_writer: ClassVar[Callable[..., None]]
    json_writer: ClassVar[Callable[..., str]]
    weights_writer: ClassVar[Callable[..., None]]
    weights_reader: ClassVar[Callable[..., None]]

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], None] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
        masks: bool | None = None,
    ) -> None:
        """Prints the layers, their outputs, masks and weights.

        A mask is born, carried, resampled, joined, used or ended by a layer, or refused; an inner
        model, or one of your own after a call, shows it for each of its layers.

        Args:
            line_length: Width of the table.
            positions: Where each column ends: shares of the width, or numbers of characters.
            print_fn: Takes the text instead of the screen.
            expand_nested: Whether layers of inner models are listed.
            show_trainable: Whether a column says what training changes.
            layer_range: Names of the first and the last layer to list, or patterns of them.
            masks: Whether a column shows masks; by default where there are any.
        """
        Model.summary_printer(
            self,
            line_length,
            positions,
            print_fn,
            expand_nested,
            show_trainable,
            layer_range,
            masks,
        )

    summary_printer: ClassVar[Callable[..., None]]


Functional = Model
register("layers", Model, "Model", "Functional")


def clone_model(
    model: Model,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: Callable | None = None,
    recursive: bool = False,
    **kwargs: Any,
) -> Model:
    """Returns a model of the same layers with weights of its own.

    Args:
        model: Functional or Sequential.
        input_tensors: Symbols to begin from, instead of new ones.
        clone_function: Makes a layer from a layer; by default from its config.
        call_function: `(layer, *args, **kwargs)`, how the new layers are called.
        recursive: Whether models inside are cloned layer by layer as well.
        **kwargs: None.
    """
    if kwargs:
        raise ArgumentError("clone_model", ", ".join(kwargs), "its own arguments")
    made: dict[int, Any] = {}

    def again(layer: Any) -> Any:
        if not isinstance(layer, Layer):
            return layer
        if id(layer) not in made:
            if recursive and isinstance(layer, Model) and layer.graph is not None:
                made[id(layer)] = clone_model(layer, None, clone_function, call_function, True)
            elif clone_function is not None:
                made[id(layer)] = clone_function(layer)
            elif isinstance(layer, Model) and layer.graph is not None:
                made[id(layer)] = clone_model(layer)
            else:
                made[id(layer)] = type(layer).from_config(layer.get_config())
        return made[id(layer)]

    return model.copied(again, input_tensors, call_function)
