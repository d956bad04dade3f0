"""Layer: the base of all layers, and the door through which every call goes.

A built-in layer is fields, `build`, `call` and one `masking` line. A user's layer is what it is in
Keras; without a mask rule it receives the `Masked` itself.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax.numpy as jnp

from alphorn.config import DTypePolicy, as_policy
from alphorn.core.calls import Calls
from alphorn.core.context import current_path, set_context
from alphorn.core.door import Door, as_shape, scoped_build
from alphorn.core.scope import current_scope, record
from alphorn.core.transforms import functional
from alphorn.core.variable import Variable, unwrap
from alphorn.errors import ArgumentError, ShapeError, StateError, UnexpectedArgumentError
from alphorn.fields import accepts, keyword
from alphorn.naming import auto_name, deserialize, register, resolve, serialize, snake_case

_ABSENT = {
    "quantization_config": None,
    "gptq_unpacked_column_size": None,
    "lora_rank": None,
    "lora_alpha": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "rms_scaling": False,
}


class Layer(Calls, Door):
    """A function with weights.

    Args:
        activity_regularizer: Adds a penalty on the output to the losses.
        trainable: Whether training changes the weights.
        dtype: A type or policy, e.g. `"mixed_bfloat16"`; by default the global policy.
        autocast: Whether float inputs are cast to the compute type.
        name: By default the class name in snake case, counted.

    Write `build(input_shape)` for weights and `call(inputs)`, with `training` and `mask` arguments
    where they matter. On `ops`, masks need no code.

    >>> import numpy as np
    >>> class Scale(Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones")
    ...     def call(self, x):
    ...         return x * self.factor
    >>> Scale()(np.ones((1, 2), "float32"))
    Array([[1., 1.]], dtype=float32)
    """

    refusal_hint: ClassVar[str] = "unmask(x) ends the mask on purpose"
    untracked: ClassVar[frozenset[str]] = frozenset({"_captured", "inbound_nodes", "_eager_losses"})

    # What arguments were called in older Keras.
    old_names: ClassVar[dict[str, str]] = {}

    # Attributes that Keras's files hold by another name.
    file_names: ClassVar[dict[str, str]] = {}

    if TYPE_CHECKING:  # what every layer takes by name, beside its own fields
        _given_name: str | None = keyword(alias="name", default=None, kw_only=True)
        _given_trainable: bool = keyword(alias="trainable", default=True, kw_only=True)
        _given_dtype: Any = keyword(alias="dtype", default=None, kw_only=True)
        _given_autocast: bool = keyword(alias="autocast", default=True, kw_only=True)
        _given_regularizer: Any = keyword(alias="activity_regularizer", default=None, kw_only=True)
        _given_shape: Any = keyword(alias="input_shape", default=None, kw_only=True)
        _given_batch_shape: Any = keyword(alias="batch_input_shape", default=None, kw_only=True)
        _given_batch_size: int | None = keyword(alias="batch_size", default=None, kw_only=True)
        _given_input_dim: int | None = keyword(alias="input_dim", default=None, kw_only=True)
        _given_length: int | None = keyword(alias="input_length", default=None, kw_only=True)
        _given_input_dtype: Any = keyword(alias="input_dtype", default=None, kw_only=True)
        _given_weights: Any = keyword(alias="weights", default=None, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers the class and gives its `build` a scope of names."""
        super().__init_subclass__(**kwargs)
        cls.user_defined = not cls.__module__.startswith("alphorn.")
        if not cls.user_defined and not cls.__name__.startswith("_"):
            register("layers", cls)
        if "build" in cls.__dict__:
            cls.build = scoped_build(cls.__dict__["build"])

    def __init__(self, **kwargs: Any):
        self.convert_arguments(kwargs)
        self.setup(**kwargs)

    def convert_arguments(self, kwargs: dict[str, Any]) -> None:
        """Renames arguments of older Keras, in place."""
        for old, new in self.old_names.items():
            if old in kwargs:
                kwargs[new] = kwargs.pop(old)
        if "dim_ordering" in kwargs and not self.user_defined:
            first = kwargs.pop("dim_ordering") == "th"
            kwargs["data_format"] = "channels_first" if first else "channels_last"

    def setup(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        input_dim: int | None = None,
        input_length: int | None = None,
        input_dtype: Any = None,
        weights: list[Any] | None = None,
        **unknown: Any,
    ) -> None:
        """Takes the arguments that every layer has."""
        # What Keras writes into every file, for what there is none of here.
        unknown = {k: v for k, v in unknown.items() if k not in _ABSENT or v != _ABSENT[k]}
        if unknown:
            raise UnexpectedArgumentError(
                type(self).__name__,
                received=", ".join(f"{k}={v!r}" for k, v in unknown.items()),
                expected=f"{type(self).__name__}{inspect.signature(type(self).__init__)}",
            )
        if name is not None and (not isinstance(name, str) or "/" in name):
            raise ArgumentError(
                f"{type(self).__name__}: name",
                received=repr(name),
                expected="a string without '/', which parts names in paths",
            )
        self.name = name or auto_name(snake_case(type(self).__name__))
        self.built = False
        self._trainable = bool(trainable)
        self.dtype_policy: DTypePolicy = as_policy(dtype)
        self.autocast = autocast
        self.activity_regularizer = resolve("regularizers", activity_regularizer)
        self.inbound_nodes: list[Any] = []
        self._eager_losses: list[Any] = []
        self.build_shapes: dict[str, Any] = {}
        self.input_spec: Any = None
        self._initial_weights = weights
        if input_dim is not None and input_shape is None:
            input_shape = (input_dim,) if input_length is None else (input_length, input_dim)
        if input_shape is not None and batch_input_shape is None:
            batch_input_shape = (batch_size, *input_shape)
        self.batch_input_shape = batch_input_shape and tuple(batch_input_shape)
        self.declared_input_dtype = input_dtype

    # --- what a layer is made of

    def build(self, input_shape: Any) -> None:
        """Makes the weights; override it."""
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the output; override it."""
        raise StateError(
            f"{type(self).__name__} '{self.name}' has no call()",
            fix="write `def call(self, inputs): ...` in the class",
        )

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        overwrite_with_gradient: bool = False,
        name: str | None = None,
    ) -> Variable:
        """Makes a Variable that this layer owns.

        Args:
            shape: `()` by default.
            initializer: By default glorot_uniform for floats, zeros for the rest.
            dtype: By default the policy's variable dtype.
            trainable: Whether training changes it.
            autocast: Whether it reads in the compute dtype.
            regularizer: Adds a penalty to the losses.
            constraint: Applied after each update.
            aggregation: As in Keras.
            overwrite_with_gradient: Whether the gradient itself becomes the next value.
            name: For files and errors.
        """
        self._check_initialized()
        shape = (shape,) if isinstance(shape, int) else tuple(shape or ())
        if any(s is None for s in shape):
            raise ShapeError(
                f"{type(self).__name__} '{self.name}': weight '{name}'",
                received=f"shape {shape}",
                expected="known sizes",
                fix="the size of this axis of the input must be known: name it in Input(shape=...)",
            )
        dtype = jnp.dtype(dtype or self.variable_dtype)
        if initializer is None:
            initializer = "glorot_uniform" if jnp.issubdtype(dtype, jnp.floating) else "zeros"
        with set_context(current_path, self._scope_path()):
            variable = Variable(
                resolve("initializers", initializer),
                tuple(int(s) for s in shape),
                dtype,
                trainable,
                autocast,
                aggregation,
                name=name or auto_name("variable"),
            )
        variable.regularizer = resolve("regularizers", regularizer)
        variable.constraint = resolve("constraints", constraint)
        variable.overwrite_with_gradient = overwrite_with_gradient
        variable.born_trainable = trainable
        vars(self).setdefault("_weights", []).append(variable)
        return variable

    def add_field_weight(
        self, name: str, shape: Sequence[int], fields: str = "", **options: Any
    ) -> Variable:
        """Makes the weight that fields of the layer describe: `kernel_initializer` and the like.

        Args:
            name: Of the weight, and of its fields.
            shape: Of the weight.
            fields: What the fields' names begin with, if not with `name`.
            **options: As in `add_weight`; they win.
        """
        kinds = ("initializer", "regularizer", "constraint")
        described: dict[str, Any] = {k: getattr(self, f"{fields or name}_{k}", None) for k in kinds}
        return self.add_weight(shape, **described | options, name=name)

    def add_loss(self, loss: Any) -> None:
        """Adds a scalar, or several, to what training minimizes."""
        scope = current_scope()
        for value in loss if isinstance(loss, list | tuple) else [loss]:
            if scope is not None:
                scope.losses.append((self, unwrap(value)))
                record(scope.losses.pop)
            else:
                self._eager_losses.append(unwrap(value))
                record(self._eager_losses.pop)

    @property
    def losses(self) -> list[Any]:
        """What `add_loss` and the regularizers give, this layer's parts included."""
        family = self._family()
        scope = current_scope()
        if scope is not None:
            members = {id(m) for m in family}
            found = [value for layer, value in scope.losses if id(layer) in members]
        else:
            found = [value for member in family for value in member._eager_losses]
        return found + [
            v.regularizer(v.value) for v in self.trainable_variables if v.regularizer is not None
        ]

    def _family(self) -> list["Layer"]:
        """This layer and all layers within."""
        found: dict[int, Layer] = {}
        stack: list[Layer] = [self]
        while stack:
            layer = stack.pop()
            if id(layer) not in found:
                found[id(layer)] = layer
                stack.extend(m for m in reversed(layer._layers) if isinstance(m, Layer))
        return list(found.values())

    # --- names, types, switches

    @property
    def path(self) -> str:
        """The name, below those of the layers that are being called."""
        return "/".join(self._scope_path())

    @property
    def dtype(self) -> str:
        """The type of the weights."""
        return self.dtype_policy.variable_dtype

    @property
    def variable_dtype(self) -> str:
        """The type of the weights."""
        return self.dtype_policy.variable_dtype

    @property
    def compute_dtype(self) -> str:
        """The type of the computation."""
        return self.dtype_policy.compute_dtype

    @property
    def trainable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether training changes the weights; setting it sets all parts."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._trainable = bool(value)
        for variable in self._own_variables():
            if getattr(variable, "born_trainable", False):
                variable.trainable = bool(value)
        for layer in self._layers:
            layer.trainable = bool(value)

    def base_config(self) -> dict[str, Any]:
        """Returns name, trainable and dtype policy."""
        self._check_initialized()
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": serialize(self.dtype_policy),
        }
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = serialize(self.activity_regularizer)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes a layer from `get_config()`; it shares nothing with the first."""
        # A class whose `__init__` takes only its own arguments has a name all the same.
        left = {k: config[k] for k in ("name", "trainable", "dtype") if k in config}
        left = {k: v for k, v in left.items() if not accepts(cls, k)}
        made = super().from_config({k: v for k, v in config.items() if k not in left})
        made.name = left.get("name", made.name)
        if not left.get("trainable", True):
            made.trainable = False
        return made

    def get_build_config(self) -> dict[str, Any] | None:
        """Returns the shapes that the layer was built with, for files."""
        if not self.build_shapes:
            return None
        if len(self.build_shapes) == 1:
            return {"input_shape": next(iter(self.build_shapes.values()))}
        return {"shapes_dict": dict(self.build_shapes)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds with the shapes of `get_build_config()`."""
        shapes = deserialize(config.get("shapes_dict") or {"input_shape": config["input_shape"]})
        if "shapes_dict" in config:
            self.build(**{k: as_shape(v) for k, v in shapes.items()})
        else:
            self.build(as_shape(shapes["input_shape"]))

    def stateless_call(
        self,
        trainable_variables: Sequence[Any],
        non_trainable_variables: Sequence[Any],
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Calls the layer as a pure function of its Variables' values.

        Args:
            trainable_variables: Values for `self.trainable_variables`.
            non_trainable_variables: Values for `self.non_trainable_variables`.
            *args: What the layer takes.
            return_losses: Whether the losses are wanted as well.
            **kwargs: What the layer takes.

        Returns:
            `(outputs, non_trainable_values)`, with the losses as a third where they are wanted.
        """
        if not self.built:
            raise StateError(
                f"stateless_call of {type(self).__name__} '{self.name}', which is not built",
                fix="call it once on data, or build(input_shape)",
            )
        trainable = self.trainable_variables
        others = self.non_trainable_variables

        def run() -> Any:
            outputs = self(*args, **kwargs)
            return outputs, (self.losses if return_losses else None)

        values = [*trainable_variables, *non_trainable_variables]
        (outputs, losses), new = functional(run, [*trainable, *others])(values)
        state = new[len(trainable) :]
        return (outputs, state, losses) if return_losses else (outputs, state)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={vars(self).get('built')}>"


if TYPE_CHECKING:

    class Family(Layer):
        """The base of layers of one family, whose fields are those of the subclasses."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Family = Layer
