"""The door through which every call of a layer goes: conversion, building, masks, state, graph."""

import contextlib
import copy
import functools
import inspect
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from alphorn.config import DTypePolicy
from alphorn.core import symbol as symbols
from alphorn.core.assignment import assignable, call_assigning, is_assigning, without_assigning
from alphorn.core.context import (
    current_path,
    running_layer,
    set_context,
    training_now,
    training_phase,
)
from alphorn.core.given_masks import attach_mask
from alphorn.core.input_spec import check_inputs
from alphorn.core.masked import (
    Masked,
    fill_masked,
    has_masked,
    is_masked,
    mask_of,
    unmask,
    with_mask,
)
from alphorn.core.rules import Call, Rule, same_data
from alphorn.core.scope import BakedReadError, attempt, current_scope, eager_reads
from alphorn.core.signature import CallSpec, call_spec
from alphorn.core.symbol import Symbol, symbols_in, unknown_sizes
from alphorn.core.tracking import Tracked
from alphorn.core.variable import Variable, autocast_to, unwrap
from alphorn.core.watching import watched
from alphorn.distribution.current import distribution
from alphorn.distribution.placing import laid
from alphorn.errors import MaskError, StateError, UnexpectedArgumentError
from alphorn.fields import attribute

_build_lock = threading.RLock()


class Door(Tracked):
    """What happens around a layer's `call`."""

    masking: ClassVar[Rule | None] = None
    supports_masking = False
    user_defined: ClassVar[bool] = False
    default_input_dtype: ClassVar[str | None] = None
    # Variables that bodies of scans, conds and stored jits read when the layer is called eagerly.
    _read_in_bodies = cast("dict[Variable, None]", MappingProxyType({}))
    if TYPE_CHECKING:
        name: str = attribute()
        built: bool = attribute()
        dtype_policy: DTypePolicy = attribute()
        autocast: bool = attribute()
        activity_regularizer: Any = attribute()
        building: bool = attribute()
        inbound_nodes: list[Any] = attribute()
        call: Callable[..., Any] = attribute()
        build: Callable[..., None] = attribute()
        build_shapes: dict[str, Any] = attribute()
        input_spec: Any = attribute()
        add_loss: Callable[[Any], None] = attribute()
        _eager_losses: list[Any] = attribute()
        _family: Callable[[], list[Any]] = attribute()
        _initial_weights: Any = attribute()

        @property
        def compute_dtype(self) -> str:
            """The type of the computation."""
            ...

        @property
        def variable_dtype(self) -> str:
            """The type of the weights."""
            ...

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
        if current_path.get():
            if is_assigning():  # what comes out may be assigned to as well
                return assignable(without_assigning(self._enter, args, kwargs))
            return self._enter(*args, **kwargs)
        return self._enter_first(args, kwargs)

    def _enter_first(self, args: tuple, kwargs: dict) -> Any:
        """Enters from outside all layers; again where JAX's caches could keep what was read."""
        self._check_initialized()
        while True:
            for member in self._family() if self._eager_losses or self._layers else (self,):
                member._eager_losses = []
            if current_scope() is not None:
                return self._enter(*args, **kwargs)
            with attempt() as undo, eager_reads(self._read_in_bodies):
                try:
                    return self._enter(*args, **kwargs)
                except BakedReadError as error:
                    if error.scope is not None:
                        raise
                    undo()
                    known = dict.fromkeys([error.variable, *self.weights])
                    self._read_in_bodies = self._read_in_bodies | known

    def _call_on_symbols(self, args: tuple, kwargs: dict) -> Any:
        node = self.node_on(args, kwargs)
        self.inbound_nodes.append(node)
        return node.outputs

    def node_on(self, args: tuple, kwargs: dict) -> symbols.Node:
        """Returns a call on Symbols as a node that the layer itself does not remember."""
        self._check_initialized()
        if "mask" in kwargs and kwargs["mask"] is None:
            kwargs = {k: v for k, v in kwargs.items() if k != "mask"}
        self._ensure_built(self._bind(args, kwargs))
        if type(self).compute_output_shape is Door.compute_output_shape:
            outputs = symbols.infer(self._enter, args, kwargs)
        else:
            outputs = self._declared_outputs(args, kwargs)
        return symbols.Node(self, args, kwargs, outputs)

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
        kwargs = dict(kwargs)
        if "mask" in kwargs and spec.first is not None:
            mask = kwargs.pop("mask")
        if not spec.has_training:
            kwargs.pop("training", None)
        arguments = spec.bind(self._described(), args, kwargs)
        if mask is not None:
            first = spec.first
            assert first is not None
            if first not in arguments:
                raise UnexpectedArgumentError(f"{self.name}: mask= came without an input")
            arguments[first] = attach_mask(self._described(), arguments[first], mask)
        return arguments

    def _enter(self, *args: Any, **kwargs: Any) -> Any:
        self._check_initialized()
        spec = self._spec
        arguments = {k: self._converted(v) for k, v in self._bind(args, kwargs).items()}
        training = arguments.get("training", kwargs.get("training"))
        if training is None:
            training = training_now()
        if training is None and spec.has_training:
            training = spec.signature.parameters["training"].default
            training = None if training is inspect.Parameter.empty else training
        if spec.has_training:
            arguments["training"] = training
        self._ensure_built(arguments)
        cast = self.compute_dtype if self.compute_dtype != self.variable_dtype else None
        with contextlib.ExitStack() as stack:
            stack.enter_context(set_context(current_path, self._scope_path()))
            stack.enter_context(set_context(running_layer, self))
            stack.enter_context(autocast_to(cast))
            if training is not None:
                stack.enter_context(training_phase(training))
            outputs = watched(
                self, (args, kwargs), arguments, lambda: self._dispatch(spec, arguments)
            )
            if distribution() is not None:
                outputs = laid(outputs, "/".join(current_path.get()))
            if self.activity_regularizer is not None:
                for leaf in jax.tree.leaves(outputs, is_leaf=is_masked):
                    self.add_loss(_penalty(self.activity_regularizer, leaf))
        return outputs

    def _converted(self, value: Any) -> Any:
        if isinstance(value, Masked):
            data = self._converted(value.data)
            return value if data is value.data else Masked.trusted(data, value.mask)
        value = unwrap(value)
        if isinstance(value, np.ndarray | np.generic):
            value = jnp.asarray(value)
        if isinstance(value, jax.Array):
            target = jnp.dtype(self.compute_dtype)
            if (
                self.autocast
                and jnp.issubdtype(value.dtype, jnp.floating)
                and value.dtype != target
            ):
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
        if self.input_spec is not None and self._spec.first in arguments:
            check_inputs(self._described(), self.input_spec, arguments[self._spec.first])
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
            if rule is None and self.user_defined and self._makes_masks and spec.first in arguments:
                return self._by_protocol(spec, arguments)
            return self._run(spec, arguments)
        if rule is not None:
            return self._ruled(spec, arguments, rule)
        if self.speaks_masks(spec):
            return self._by_protocol(spec, arguments)
        return self._run(spec, arguments)

    def speaks_masks(self, spec: CallSpec) -> bool:
        """Whether the class follows Keras's own mask protocol."""
        return bool(spec.mask_arguments) or self.supports_masking or self._makes_masks

    @property
    def _makes_masks(self) -> bool:
        return type(self).compute_mask is not Door.compute_mask

    def _run(self, spec: CallSpec, arguments: dict[str, Any]) -> Any:
        args, kwargs = spec.unbind(arguments)
        if self.user_defined:
            return call_assigning(self._described, self.call, args, kwargs, _with_own_masked)
        return self.call(*args, **kwargs)

    def _described(self) -> str:
        return f"{type(self).__name__} '{self.name}'"

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
        assert first is not None
        given = masks.get(first)
        if self._makes_masks:
            mask = self.compute_mask(plain[first], given)
            joined = self._joined(outputs, mask)
            # A new mask may lie on junk, which must not reach gradients.
            return jax.tree.map(
                lambda x: Masked(x.data, x.mask) if isinstance(x, Masked) else x,
                joined,
                is_leaf=is_masked,
            )
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
        where = self._described()
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

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Returns the mask of the output for `inputs` and their mask."""
        out = self(inputs) if previous_mask is None else self(inputs, mask=previous_mask)
        return jax.tree.map(mask_of, out, is_leaf=is_masked)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the shape of the output, None for sizes that are not known.

        Args:
            *args: The shapes of what `call` takes.
            **kwargs: The same by name: `input_shape`, or `value_shape` for an argument `value`.
        """
        given = {k.removesuffix("_shape"): symbols_of(self, v) for k, v in kwargs.items()}
        if "input" in given and "input" not in self._spec.names and self._spec.first:
            given[self._spec.first] = given.pop("input")
        spec = self.compute_output_spec(*(symbols_of(self, a) for a in args), **given)
        return jax.tree.map(lambda s: s.shape, spec)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Returns Symbols like the output, without writing a node."""
        layer = self if self.built else copy.deepcopy(self)
        layer._ensure_built(layer._bind(args, kwargs))
        return symbols.infer(layer._enter, args, kwargs)

    def _check_initialized(self) -> None:
        if "dtype_policy" not in vars(self):
            raise StateError(
                f"{type(self).__name__} is not initialized",
                fix="call super().__init__(**kwargs) first in its __init__",
            )

    def _scope_path(self) -> tuple[str, ...]:
        path = current_path.get()
        return path if path and path[-1] == self.name else (*path, self.name)


def scoped_build(build: Callable) -> Callable:
    """Wraps a class's `build`: names of weights, recorded shapes, first weights."""

    @functools.wraps(build)
    def scoped(self: Door, *args: Any, **kwargs: Any) -> None:
        self._check_initialized()
        outermost = "building" not in vars(self)
        if outermost:
            self.building = True
            names = [p for p in inspect.signature(build).parameters][1:]
            self.build_shapes = dict(zip(names, args, strict=False)) | kwargs
        try:
            path = set_context(current_path, self._scope_path())
            with path, set_context(running_layer, None):
                build(self, *args, **kwargs)
            self.built = True
        finally:
            if outermost:
                del self.building
        if outermost and self._initial_weights is not None:
            self.set_weights(self._initial_weights)

    return scoped


def _with_own_masked(tree: Any) -> Any:
    """Returns the arguments of a call, with copies of each Masked: the call may assign to them."""

    def own(x: Any) -> Any:
        return Masked.trusted(x.data, x.mask) if isinstance(x, Masked) else x

    return jax.tree.map(own, tree, is_leaf=is_masked)


def _penalty(regularizer: Callable[[Any], Any], output: Any) -> Any:
    """A penalty on valid steps, a row: rows without a step (folded padding) do not count."""
    if isinstance(output, Masked):
        rows = jnp.any(output.mask, range(1, output.mask.ndim))
        total = regularizer(output.fill(0))
        return total / jnp.maximum(jnp.sum(rows), 1).astype(total.dtype)
    return regularizer(output) / max(output.shape[0] if output.ndim else 1, 1)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(
        s is None or isinstance(s, int | np.integer) for s in value
    )


def as_shape(value: Any) -> Any:
    """Returns a shape that came from a file (a list) as a tuple; in lists and dicts as well."""
    if isinstance(value, dict):
        return {k: as_shape(v) for k, v in value.items()}
    return tuple(value) if _is_shape(value) else value and [as_shape(v) for v in value]


def _holds_arrays(value: Any) -> bool:
    leaves = jax.tree.leaves(value, is_leaf=is_masked)
    return bool(leaves) and all(hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves)


def _shapes(value: Any) -> Any:
    def shape(x: Any) -> Any:
        return unknown_sizes(tuple(x.shape)) if hasattr(x, "shape") else None

    return jax.tree.map(shape, value, is_leaf=is_masked)


def symbols_of(layer: Door, shapes: Any) -> Any:
    """Returns Symbols of the shapes, in the type that the layer takes."""
    dtype = layer.default_input_dtype or layer.compute_dtype
    return jax.tree.map(lambda s: Symbol(s, dtype), shapes, is_leaf=_is_shape)
