"""Layer: the base of all layers, and the door through which every call goes.

A built-in layer is fields, `build`, `call` and one `masking` line. A user's layer is what it is in
Keras; without a mask rule it receives the `Masked` itself.
"""

import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.config import DTypePolicy, as_policy
from alphorn.core import symbol as symbols
from alphorn.core.masked import (
    Masked,
    check_mask,
    fill_masked,
    has_masked,
    is_masked,
    mask_of,
    unmask,
    with_mask,
)
from alphorn.core.rules import Call, Rule, same_data
from alphorn.core.symbol import Symbol, symbols_in, unknown_sizes
from alphorn.core.tracking import Tracked
from alphorn.core.variable import (
    Variable,
    autocast_to,
    current_scope,
    functional,
    scope_token,
)
from alphorn.errors import MaskError, ShapeError, StateError, UnexpectedArgumentError
from alphorn.naming import auto_name, deserialize, register, resolve, serialize, snake_case

_training: contextvars.ContextVar[bool | None] = contextvars.ContextVar("training", default=None)
_path: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("path", default=())
_build_lock = threading.RLock()


@contextlib.contextmanager
def _set(variable: contextvars.ContextVar, value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def training_phase(training: bool | None) -> contextlib.AbstractContextManager:
    """Returns a context in which calls that say nothing about `training` get this."""
    return _set(_training, training)


class CallSpec:
    """What the signature of a `call` says: argument names, mask arguments, defaults."""

    def __init__(self, call: Callable):
        self.signature = inspect.signature(call)
        parameters = list(self.signature.parameters.values())[1:]
        self.plain = not any(p.kind in (p.VAR_POSITIONAL, p.KEYWORD_ONLY) for p in parameters)
        self.open = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.names = [
            p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        self.first = next((p.name for p in parameters if p.kind is not p.VAR_KEYWORD), None)
        self.has_training = "training" in self.names
        named = set(self.names)
        self.mask_arguments = {n: f"{n}_mask" for n in self.names if f"{n}_mask" in named}
        if "mask" in named and self.first:
            self.mask_arguments[self.first] = "mask"

    def bind(self, where: str, args: tuple, kwargs: dict) -> dict[str, Any]:
        """Returns the arguments by name; those of `*args` stand under its name as a tuple."""
        try:
            bound = self.signature.bind(None, *args, **kwargs).arguments
        except TypeError as error:
            raise UnexpectedArgumentError(
                f"{where}: {error}", expected=f"call{self.signature}"
            ) from None
        bound.pop(next(iter(bound)))
        for name, p in self.signature.parameters.items():
            if p.kind is p.VAR_KEYWORD:
                bound.update(bound.pop(name, {}))
        return dict(bound)

    def unbind(self, arguments: dict[str, Any]) -> tuple[tuple, dict]:
        """Returns `(args, kwargs)` for the call."""
        args: list[Any] = []
        rest = dict(arguments)
        for name, p in list(self.signature.parameters.items())[1:]:
            if p.kind is p.VAR_POSITIONAL:
                args.extend(rest.pop(name, ()))
            elif p.kind is p.POSITIONAL_ONLY and name in rest:
                args.append(rest.pop(name))
            elif p.kind is p.POSITIONAL_OR_KEYWORD and name in rest and len(args) is not None:
                if any(q.kind is q.VAR_POSITIONAL for q in self.signature.parameters.values()):
                    args.append(rest.pop(name))
        return tuple(args), rest


@functools.lru_cache(maxsize=4096)
def call_spec(call: Callable) -> CallSpec:
    """Returns what the signature of `call` says, looked at once a function."""
    return CallSpec(call)


class Layer(Tracked):
    """A function with weights.

    Args:
        activity_regularizer: Adds a penalty on the output to the losses.
        trainable: Whether training changes the weights.
        dtype: A type or policy, e.g. `"mixed_bfloat16"`; by default the global policy.
        autocast: Whether float inputs are cast to the compute type.
        name: By default the class name in snake case, counted.

    Write `build(input_shape)` for weights and `call(inputs)`, with `training` and `mask` arguments
    where they matter. On `ops`, masks need no code.

    >>> class Scale(Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones")
    ...     def call(self, x):
    ...         return x * self.factor
    >>> Scale()(np.ones((1, 2), "float32"))
    Array([[1., 1.]], dtype=float32)
    """

    masking: ClassVar[Rule | None] = None
    refusal_hint: ClassVar[str] = "unmask(x) ends the mask on purpose"
    supports_masking: bool = False
    default_input_dtype: ClassVar[str | None] = None
    user_defined: ClassVar[bool] = False
    untracked: ClassVar[frozenset[str]] = frozenset({"_captured", "inbound_nodes", "_eager_losses"})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers the class and gives its `build` a scope of names."""
        super().__init_subclass__(**kwargs)
        cls.user_defined = not cls.__module__.startswith("alphorn.")
        if not cls.user_defined and not cls.__name__.startswith("_"):
            register("layers", cls)
        if "build" in cls.__dict__:
            cls.build = _scoped_build(cls.__dict__["build"])

    def __init__(self, **kwargs: Any):
        self.convert_arguments(kwargs)
        self.setup(**kwargs)

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
        if unknown:
            raise UnexpectedArgumentError(
                type(self).__name__,
                received=", ".join(f"{k}={v!r}" for k, v in unknown.items()),
                expected=f"{type(self).__name__}{inspect.signature(type(self).__init__)}",
            )
        self.name = str(name or auto_name(snake_case(type(self).__name__)))
        self.built = False
        self._trainable = bool(trainable)
        self.dtype_policy: DTypePolicy = as_policy(dtype)
        self.autocast = autocast
        self.activity_regularizer = resolve("regularizers", activity_regularizer)
        self.inbound_nodes: list[Any] = []
        self._eager_losses: list[Any] = []
        self.build_shapes: dict[str, Any] = {}
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
        with _set(_path, self._scope_path()):
            variable = Variable(
                resolve("initializers", initializer),
                tuple(int(s) for s in shape),
                dtype,
                trainable,
                autocast,
                aggregation,
                name=name or auto_name("variable"),
            )
            variable.path = "/".join((*_path.get(), variable.name))
        variable.regularizer = resolve("regularizers", regularizer)
        variable.constraint = resolve("constraints", constraint)
        variable.overwrite_with_gradient = overwrite_with_gradient
        variable.born_trainable = trainable  # pyright: ignore[reportAttributeAccessIssue]
        vars(self).setdefault("_weights", []).append(variable)
        return variable

    def add_loss(self, loss: Any) -> None:
        """Adds a scalar, or several, to what training minimizes."""
        scope = current_scope()
        for value in loss if isinstance(loss, list | tuple) else [loss]:
            if scope is not None:
                scope.losses.append((self, value))
            else:
                self._eager_losses.append(value)

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

    def _scope_path(self) -> tuple[str, ...]:
        path = _path.get()
        return path if path and path[-1] == self.name else (*path, self.name)

    def _check_initialized(self) -> None:
        if "dtype_policy" not in vars(self):
            raise StateError(
                f"{type(self).__name__} is not initialized",
                fix="call super().__init__(**kwargs) first in its __init__",
            )

    @property
    def path(self) -> str:
        """The name, below those of the layers that are being called."""
        return "/".join(self._scope_path())

    @property
    def dtype(self) -> str:
        """The type of the weights."""
        return self.dtype_policy.variable_dtype

    variable_dtype = dtype

    @property
    def compute_dtype(self) -> str:
        """The type of the computation."""
        return self.dtype_policy.compute_dtype

    @property
    def trainable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether training changes the weights; setting it sets all parts."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
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
            self.build(**{k: _as_shape(v) for k, v in shapes.items()})
        else:
            self.build(_as_shape(shapes["input_shape"]))

    # --- the door

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer on arrays, Masked sequences or Symbols.

        Args:
            *args: The inputs, then what `call` takes.
            **kwargs: What `call` takes; `mask=` goes with the first input, and `training=`.

        Returns:
            What `call` gives; a `Masked` where the output has a mask.
        """
        if symbols_in((args, kwargs)):
            return self._call_on_symbols(args, kwargs)
        if not _path.get():
            for member in self._family() if self._eager_losses or self._layers else (self,):
                member._eager_losses = []
        return self._enter(*args, **kwargs)

    def _call_on_symbols(self, args: tuple, kwargs: dict) -> Any:
        self._check_initialized()
        if "mask" in kwargs and kwargs["mask"] is None:
            kwargs = {k: v for k, v in kwargs.items() if k != "mask"}
        self._ensure_built(self._bind(args, kwargs))
        if type(self).compute_output_shape is Layer.compute_output_shape:
            outputs = symbols.infer(self._enter, args, kwargs)
        else:
            outputs = self._declared_outputs(args, kwargs)
        node = symbols.Node(self, args, kwargs, outputs)
        self.inbound_nodes.append(node)
        return outputs

    def _declared_outputs(self, args: tuple, kwargs: dict) -> Any:
        arguments = self._bind(args, kwargs)
        shapes = [_shapes(arguments[self._spec.first])] if self._spec.first else []
        declared = self.compute_output_shape(*shapes)
        try:
            inferred = symbols.infer(self._enter, args, kwargs)
        except (TypeError, ValueError, StateError):
            inferred = None
        if _is_shape(declared):
            if isinstance(inferred, Symbol) and len(inferred.shape) == len(declared):
                return Symbol(declared, inferred.dtype, inferred.masked)
            return Symbol(declared, self.compute_dtype)
        return jax.tree.map(
            lambda s: Symbol(s, self.compute_dtype), declared, is_leaf=lambda s: _is_shape(s)
        )

    @property
    def _spec(self) -> CallSpec:
        return call_spec(type(self).call)

    def _bind(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        spec = self._spec
        mask = None
        if "mask" in kwargs and spec.first is not None:
            kwargs = dict(kwargs)
            mask = kwargs.pop("mask")
        arguments = spec.bind(f"{type(self).__name__} '{self.name}'", args, kwargs)
        if mask is not None:
            first = spec.first
            assert first is not None
            if first not in arguments:
                raise UnexpectedArgumentError(f"{self.name}: mask= came without an input")
            arguments[first] = self._attach(arguments[first], mask)
        return arguments

    def _attach(self, inputs: Any, mask: Any) -> Any:
        if isinstance(inputs, list | tuple) and isinstance(mask, list | tuple):
            return type(inputs)(self._attach(x, m) for x, m in zip(inputs, mask, strict=True))
        if isinstance(inputs, dict) and isinstance(mask, dict):
            return {k: self._attach(x, mask.get(k)) for k, x in inputs.items()}
        if mask is None or isinstance(inputs, Symbol) or isinstance(mask, Symbol):
            return inputs
        mask = jnp.asarray(unmask(mask))
        if mask.dtype != jnp.bool_:
            mask = mask.astype(bool)
        data = jnp.asarray(unmask(inputs))
        check_mask(f"{type(self).__name__} '{self.name}'", data.shape, mask)
        return Masked(data, mask)

    def _enter(self, *args: Any, **kwargs: Any) -> Any:
        self._check_initialized()
        spec = self._spec
        arguments = {k: self._converted(v) for k, v in self._bind(args, kwargs).items()}
        training = arguments.get("training")
        if training is None:
            training = _training.get()
        if training is None and spec.has_training:
            training = spec.signature.parameters["training"].default
            training = None if training is inspect.Parameter.empty else training
        if spec.has_training:
            arguments["training"] = training
        else:
            arguments.pop("training", None) if "training" not in spec.names else None
        self._ensure_built(arguments)
        cast = self.compute_dtype if self.compute_dtype != self.variable_dtype else None
        with contextlib.ExitStack() as stack:
            stack.enter_context(_set(_path, self._scope_path()))
            stack.enter_context(autocast_to(cast))
            if training is not None:
                stack.enter_context(_set(_training, training))
            if self.user_defined and current_scope() is not None:
                stack.enter_context(scope_token(id(current_scope())))
            outputs = self._dispatch(spec, arguments)
            if self.activity_regularizer is not None:
                for leaf in jax.tree.leaves(outputs, is_leaf=is_masked):
                    self.add_loss(
                        self.activity_regularizer(
                            leaf.fill(0) if isinstance(leaf, Masked) else leaf
                        )
                    )
        return outputs

    def _converted(self, value: Any) -> Any:
        if isinstance(value, Masked):
            data = self._converted(value.data)
            return value if data is value.data else Masked.trusted(data, value.mask)
        if isinstance(value, Variable):
            value = value.value
        if isinstance(value, np.ndarray | np.generic):
            value = jnp.asarray(value)
        if isinstance(value, jax.Array):
            target = jnp.dtype(self.compute_dtype)
            if self.autocast and jnp.issubdtype(value.dtype, jnp.floating) and value.dtype != target:
                return same_data(value, value.astype(target))
            return value
        if isinstance(value, list | tuple):
            if value and all(isinstance(v, int | float | list) for v in value):
                with contextlib.suppress(ValueError):
                    return self._converted(np.asarray(value))
            if type(value) in (list, tuple):
                return type(value)(self._converted(v) for v in value)
        if isinstance(value, dict):
            return {k: self._converted(v) for k, v in value.items()}
        return value

    def _ensure_built(self, arguments: dict[str, Any]) -> None:
        if self.built:
            return
        with _build_lock:
            if self.built:
                return
            shapes = {
                f"{name}_shape": _shapes(value)
                for name, value in arguments.items()
                if _holds_arrays(value) and name not in self._spec.mask_arguments.values()
            }
            parameters = list(inspect.signature(self.build).parameters.values())
            takes_all = len(parameters) == 1 and parameters[0].kind is inspect.Parameter.VAR_KEYWORD
            if takes_all:
                self.build(**shapes)
            elif len(parameters) == 1:
                self.build(next(iter(shapes.values()), None))
            else:
                known = {p.name for p in parameters}
                self.build(**{k: v for k, v in shapes.items() if k in known})
            self.built = True

    def _dispatch(self, spec: CallSpec, arguments: dict[str, Any]) -> Any:
        rule = self.masking
        if not has_masked(arguments) or (rule is not None and rule.raw):
            if rule is not None and rule.births:
                return self._ruled(spec, arguments, rule)
            return self._run(spec, arguments)
        if rule is not None:
            return self._ruled(spec, arguments, rule)
        if self.speaks_masks(spec):
            return self._by_protocol(spec, arguments)
        return self._run(spec, arguments)

    def speaks_masks(self, spec: CallSpec) -> bool:
        """Whether the class follows Keras's own mask protocol."""
        overrides = type(self).compute_mask is not Layer.compute_mask
        return bool(spec.mask_arguments) or self.supports_masking or overrides

    def _run(self, spec: CallSpec, arguments: dict[str, Any]) -> Any:
        args, kwargs = spec.unbind(arguments)
        return self.call(*args, **kwargs)

    def _split(
        self, spec: CallSpec, arguments: dict[str, Any], steps: bool, fill: float | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the arguments as plain data, and the masks of each by name."""
        masks: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for name, value in arguments.items():
            if not has_masked(value):
                plain[name] = value
                continue

            def mask_for(x: Any) -> Any:
                mask = mask_of(x)
                if mask is not None and steps and mask.ndim == 1 and x.ndim > 1:
                    return jnp.broadcast_to(mask[:, None], x.shape[:2])
                return mask

            masks[name] = jax.tree.map(mask_for, value, is_leaf=is_masked)
            plain[name] = jax.tree.map(
                lambda x: unmask(x) if fill is None else fill_masked(unmask(x), mask_of(x), fill),
                value,
                is_leaf=is_masked,
            )
        for name, mask_name in spec.mask_arguments.items():
            if name in masks and plain.get(mask_name) is None:
                plain[mask_name] = masks[name]
        return plain, masks

    def _ruled(self, spec: CallSpec, arguments: dict[str, Any], rule: Rule) -> Any:
        first = next((n for n in arguments if has_masked(arguments[n])), spec.first)
        primary = spec.first if spec.first in arguments else first
        assert primary is not None
        fill = rule.fill
        if getattr(self, "touches_last_axis", False):
            x = jax.tree.leaves(arguments[primary], is_leaf=is_masked)[0]
            fill = 0.0 if isinstance(x, Masked) and x.mask.ndim == x.ndim else fill
        plain, masks = self._split(spec, arguments, rule.steps, fill)
        outputs = self._run(spec, plain)
        given = Call(plain[primary], masks.get(primary), outputs)
        if rule.name == "reduce":
            given = Call(plain[primary], mask_of(arguments[primary]), outputs)
        return self._joined(outputs, rule.output_mask(self, given))

    def _by_protocol(self, spec: CallSpec, arguments: dict[str, Any]) -> Any:
        plain, masks = self._split(spec, arguments, False, None)
        outputs = self._run(spec, plain)
        first = spec.first
        given = masks.get(first) if first else None
        if type(self).compute_mask is not Layer.compute_mask:
            return self._joined(outputs, self.compute_mask(plain[first], given))
        mask = next(iter(jax.tree.leaves(given)), None)
        leaves = jax.tree.leaves(outputs)
        inputs = jax.tree.leaves(plain[first])
        if not self.supports_masking and leaves and leaves[0].ndim < inputs[0].ndim:
            return outputs  # it used the mask, and time is gone
        return self._joined(outputs, mask)

    def _joined(self, outputs: Any, mask: Any) -> Any:
        """Puts masks onto outputs: one for all that it fits, or a structure like theirs."""
        if mask is None:
            return outputs
        where = f"{type(self).__name__} '{self.name}'"
        if isinstance(outputs, list | tuple):
            masks = mask if isinstance(mask, list | tuple) else [mask] + [None] * (len(outputs) - 1)
            pairs = zip(outputs, masks, strict=True)
            return type(outputs)(self._joined(o, m) for o, m in pairs)
        if isinstance(outputs, dict):
            masks = mask if isinstance(mask, dict) else dict.fromkeys(outputs, mask)
            return {k: self._joined(v, masks.get(k)) for k, v in outputs.items()}
        if isinstance(outputs, Masked):
            return outputs
        if mask.ndim > outputs.ndim or tuple(mask.shape) != tuple(outputs.shape[: mask.ndim]):
            raise MaskError(
                f"{where}: the mask that it passes on does not fit its output",
                received=f"mask {tuple(mask.shape)}, output {tuple(outputs.shape)}",
                expected="a mask whose shape is a prefix of the output's",
                fix="write compute_mask(self, inputs, mask) in the layer: None where time is gone",
            )
        return with_mask(outputs, mask)

    # --- what a layer says of itself

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Returns the mask of the output for `inputs` and their mask."""
        out = self(inputs) if previous_mask is None else self(inputs, mask=previous_mask)
        return jax.tree.map(mask_of, out, is_leaf=is_masked)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the output, None for sizes that are not known."""
        return jax.tree.map(lambda s: s.shape, self.compute_output_spec(_symbols(self, input_shape)))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Returns Symbols like the output, without writing a node."""
        layer = self if self.built else type(self).from_config(self.get_config())
        layer._ensure_built(layer._bind(args, kwargs))
        return symbols.infer(layer._enter, args, kwargs)

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

    @property
    def input(self) -> Any:
        """The symbolic input of the first call."""
        node = self._first_node()
        return node.args[0] if node.args else node.inputs[0]

    @property
    def output(self) -> Any:
        """The symbolic output of the first call."""
        return self._first_node().outputs

    def _first_node(self) -> Any:
        if not self.inbound_nodes:
            raise StateError(
                f"{type(self).__name__} '{self.name}' has no symbolic input or output",
                fix="call it on an Input first",
            )
        return self.inbound_nodes[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={vars(self).get('built')}>"


def _scoped_build(build: Callable) -> Callable:
    """Wraps a class's `build`: names of weights, recorded shapes, first weights."""

    @functools.wraps(build)
    def scoped(self: Layer, *args: Any, **kwargs: Any) -> None:
        self._check_initialized()
        outermost = "building" not in vars(self)
        if outermost:
            self.building = True
            names = [p for p in inspect.signature(build).parameters][1:]
            self.build_shapes = dict(zip(names, args, strict=False)) | kwargs
        try:
            with _set(_path, self._scope_path()):
                build(self, *args, **kwargs)
            self.built = True
        finally:
            if outermost:
                del self.building
        if outermost and self._initial_weights is not None:
            self.set_weights(self._initial_weights)

    return scoped


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(
        s is None or isinstance(s, int | np.integer) for s in value
    )


def _as_shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _as_shape(v) for k, v in value.items()}
    return tuple(value) if _is_shape(value) else value and [_as_shape(v) for v in value]


def _holds_arrays(value: Any) -> bool:
    leaves = jax.tree.leaves(value, is_leaf=is_masked)
    return bool(leaves) and all(hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves)


def _shapes(value: Any) -> Any:
    def shape(x: Any) -> Any:
        return unknown_sizes(tuple(x.shape)) if hasattr(x, "shape") else None

    return jax.tree.map(shape, value, is_leaf=is_masked)


def _symbols(layer: Layer, shapes: Any) -> Any:
    dtype = layer.default_input_dtype or layer.compute_dtype
    return jax.tree.map(lambda s: Symbol(s, dtype), shapes, is_leaf=_is_shape)
