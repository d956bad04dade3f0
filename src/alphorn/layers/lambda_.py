"""Lambda: a function as a layer."""

import base64
import importlib
import inspect
import marshal
import sys
import types
import uuid
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphorn import ops
from alphorn.core.assignment import assignable_here, plain
from alphorn.core.layer import Layer
from alphorn.core.masked import is_masked, mask_of, unmask, with_mask
from alphorn.errors import ArgumentError
from alphorn.loading import is_safe
from alphorn.naming import (
    custom_object_scope,
    deserialize,
    get_custom_objects,
    lookup,
    names_of,
    serialize,
)

__all__ = ["Lambda"]


class Lambda(Layer):
    """Applies a function.

    The function gets a `Masked` where the input has a mask: written on `ops` it needs no mask code
    (`Lambda(lambda x: ops.mean(x, axis=1))` is the mean of the valid steps). It may assign to parts
    of its input, `x[..., 0] = v`: that changes a copy of its own.

    Files hold a function by its module and name: give `register_keras_serializable` or
    `custom_objects` what cannot be imported, and lambda expressions a `def` of their own.

    Args:
        function: Of the inputs; it may also take `mask` and `training`.
        output_shape: Without the batch axis, or a function of the input's shape; found by itself.
        mask: The mask of the output, or `(inputs, mask) -> mask`; by default what comes out has.
        arguments: Further keyword arguments of the function.

    >>> import numpy as np
    >>> Lambda(lambda x, by: x * by, arguments={"by": 2.0})(np.ones((1, 2), "float32"))
    Array([[2., 2.]], dtype=float32)
    """

    function: Callable
    output_shape: Any = None
    mask: Any = None
    arguments: Any = None

    def after_init(self) -> None:
        """Checks the function."""
        if not callable(self.function):
            raise ArgumentError("Lambda: function", repr(self.function), "a function")
        self.arguments = dict(self.arguments or {})

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns what the function gives."""
        names = _names(self.function)
        options = dict(self.arguments)
        if "training" in names[1:]:
            options.setdefault("training", training)
        if "mask" in names[1:]:
            masks = jax.tree.map(mask_of, inputs, is_leaf=is_masked)
            options.setdefault("mask", masks)
            inputs = jax.tree.map(
                lambda x: assignable_here(x.data) if is_masked(x) else x, inputs, is_leaf=is_masked
            )
        out = self.function(inputs, **options)
        if self.mask is None:
            return out
        given = options.get("mask", jax.tree.map(mask_of, inputs, is_leaf=is_masked))
        data = jax.tree.map(unmask, inputs, is_leaf=is_masked)
        mask = self.mask(plain(data), given) if callable(self.mask) else self.mask
        return with_mask(plain(unmask(out)), mask if mask is None else jnp.asarray(mask, bool))

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Returns `output_shape` with the batch axis, or what the function gives."""
        if self.output_shape is None:
            return super().compute_output_shape(*args, **kwargs)
        shape = args[0] if args else next(iter(kwargs.values()))
        if callable(self.output_shape):
            return self.output_shape(shape)
        batch = shape[0] if not isinstance(shape[0], list | tuple) else shape[0][0]
        return _with_batch(self.output_shape, batch)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments; functions by module and name."""
        functions = {n: v for n in _FUNCTIONS if callable(v := getattr(self, n))}
        rest = {n: getattr(self, n) for n in (*_FUNCTIONS, "arguments") if n not in functions}
        described = {n: _described(f) for n, f in functions.items()}
        return self.base_config() | described | {k: serialize(v) for k, v in rest.items()}

    @property
    def is_known_here_alone(self) -> bool:
        """Whether no other process can find one of its functions by the name in a file."""
        config = self.get_config()
        return any("here" in c for n in _FUNCTIONS if isinstance(c := config.get(n), dict))

    @classmethod
    def from_config(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        config: dict[str, Any],
        custom_objects: dict[str, Any] | None = None,
        safe_mode: bool | None = None,
    ) -> "Lambda":
        """Makes a layer from `get_config()`.

        Args:
            config: The arguments.
            custom_objects: Functions by their names.
            safe_mode: False lets a function be imported by its module and name, and the byte code
                run that Keras writes for lambda expressions. By default what the caller of
                `load_model` said; a file cannot say it.

        Raises:
            ArgumentError: where a function is not known here, with what to do.
        """
        trusted = (is_safe() if safe_mode is None else safe_mode) is False
        with custom_object_scope(custom_objects):
            found = {
                name: _function(name, value, trusted, str(config.get("name")))
                for name, value in config.items()
                if name in _FUNCTIONS and isinstance(value, dict) and "class_name" in value
            }
            if isinstance(config["function"], str):
                found["function"] = lookup("functions", config["function"])
            shape = config.get("output_shape")
            if isinstance(shape, list) and all(s is None or isinstance(s, int) for s in shape):
                found["output_shape"] = tuple(shape)
            return super().from_config(config | found)


_FUNCTIONS = ("function", "output_shape", "mask")
# Functions that Lambdas of this process described, by their description; and what only it knows.
_living: weakref.WeakValueDictionary[tuple[str, str], Any] = weakref.WeakValueDictionary()
_process = uuid.uuid4().hex


def _names(function: Callable) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # of C, without a signature
        return []


def _with_batch(shape: Any, batch: Any) -> Any:
    if isinstance(shape, dict):
        return {k: _with_batch(v, batch) for k, v in shape.items()}
    if any(isinstance(s, list | tuple | dict) for s in shape):
        return [_with_batch(s, batch) for s in shape]
    return (batch, *shape)


def _described(function: Callable) -> Any:
    """Returns a function's description in Keras 3's form."""
    config = serialize(function)
    if not isinstance(config, dict) or config.get("class_name") != "function":
        return config  # one of the library, or an object with a config
    if config["registered_name"] in get_custom_objects():
        return config
    config["module"] = str(getattr(function, "__module__", "builtins"))
    if _imported(config["module"], config["config"]) is not function:
        config["here"] = f"{_process}/{id(function)}"
    _living[_key(config)] = function
    return config


def _key(config: dict[str, Any]) -> tuple[str, str]:
    return str(config.get("module")), str(config.get("here", config["config"]))


def _imported(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)


def _function(argument: str, config: dict[str, Any], trusted: bool, layer: str) -> Any:
    """Returns the function that a description names."""
    kind = config["class_name"]
    if kind not in ("function", "__lambda__"):
        return deserialize(config)
    name = config["config"] if kind == "function" else "<lambda>"
    custom = get_custom_objects()
    known_as = (layer, *(("<lambda>",) if kind == "__lambda__" else (name,)))
    for known in (config.get("registered_name"), *known_as):
        if known in custom:
            return custom[known]
    if kind == "function":
        found = _living.get(_key(config)) or names_of("functions").get(name)
        module = str(config.get("module"))
        if found is None and trusted and module != "builtins":
            importlib.import_module(module)
            found = _imported(module, name)
        if callable(found):
            return found
    elif trusted:
        return _from_byte_code(**config["config"])
    raise ArgumentError(
        f"Lambda '{layer}': {argument}, from a config",
        received=f"{name!r} of module {config.get('module', '__main__')}, which is not known here",
        expected="a function that is known by its name: code in files is not run",
        fix=f"custom_objects={{{layer!r}: function}} at loading;"
        " @register_keras_serializable() above its `def`; or, for a file that you trust,"
        " safe_mode=False, which imports modules and runs byte code that stand in it",
    )


def _from_byte_code(code: str, defaults: Any = None, closure: Any = None) -> Callable:
    """Returns the lambda expression that Keras wrote as byte code, for a caller who trusts it."""
    made = marshal.loads(base64.b64decode(code))
    names = {
        "np": np,
        "jax": jax,
        "jnp": jnp,
        "ops": ops,
        "K": ops,
        "keras": sys.modules["alphorn"],
    }
    cells = tuple(types.CellType(value) for value in closure or ())
    defaults = tuple(defaults) if defaults is not None else None
    known = names | vars(sys.modules["__main__"])
    return types.FunctionType(made, known, made.co_name, defaults, cells or None)


# Its function is the user's: stored jits inside must not keep values of another scope.
Lambda.user_defined = True
