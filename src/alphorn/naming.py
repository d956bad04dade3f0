"""Names: public name to object and back, automatic names, and the configs that files hold."""

import contextlib
import difflib
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from alphorn.config import DTypePolicy
from alphorn.errors import ArgumentError, FileError
from alphorn.loading import note_read, note_written, shared

# kind ("layers", "losses", ...) -> public name -> class or function
_registry: dict[str, dict[str, Any]] = {}
_custom: dict[str, Any] = {}
_registered_names: dict[Any, str] = {}
_counters: dict[str, int] = {}
_counter_lock = threading.Lock()


def register(kind: str, target: Any, *names: str) -> Any:
    """Makes `target` known under its own name and `names`; returns it."""
    table = _registry.setdefault(kind, {})
    for name in names or (target.__name__,):
        table[name] = target
    return target


def names_of(kind: str) -> dict[str, Any]:
    """Returns a copy of the names of one kind."""
    return dict(_registry.get(kind, {}))


def lookup(kind: str, name: str) -> Any:
    """Returns what `name` stands for, custom objects first.

    Raises:
        ArgumentError: naming the nearest known names.
    """
    if name in _custom:
        return _custom[name]
    table = _registry.get(kind, {})
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, 3, 0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ArgumentError(
        f"unknown name in {kind}",
        received=repr(name),
        expected=f"one of {', '.join(sorted(n for n in table if n[0].islower()) or sorted(table))}",
        fix=f"{hint}your own goes in as an object, or by custom_object_scope",
    )


# Keras's own class has another name than its public one, and layers and files are named by that.
_OTHERWISE = {"GroupQueryAttention": "grouped_query_attention"}


def snake_case(name: str) -> str:
    """Returns a class name as Keras spells it in automatic names.

    >>> snake_case("Conv1D"), snake_case("LSTM"), snake_case("MaxPooling1D")
    ('conv1d', 'lstm', 'max_pooling1d')
    """
    if name in _OTHERWISE:
        return _OTHERWISE[name]
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().lstrip("_") or "layer"


def auto_name(prefix: str) -> str:
    """Returns `prefix`, then `prefix_1`, `prefix_2`, ..."""
    with _counter_lock:
        count = _counters.get(prefix, 0)
        _counters[prefix] = count + 1
    return f"{prefix}_{count}" if count else prefix


def reset_names() -> None:
    """Starts the automatic names again."""
    with _counter_lock:
        _counters.clear()


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable:
    """Returns a decorator under which files find a class or function of yours.

    Args:
        package: The prefix, so that two libraries may use one class name.
        name: The name in files; by default the object's own.

    >>> @register_keras_serializable("mine")
    ... def double(x):
    ...     return 2 * x
    >>> get_registered_name(double)
    'mine>double'
    """

    def decorate(target: Any) -> Any:
        registered = f"{package}>{name or target.__name__}"
        if inspect.isclass(target) and not hasattr(target, "get_config"):
            raise ArgumentError(
                f"register_keras_serializable on {target.__name__}",
                received="a class without get_config",
                expected="a class that files can describe",
                fix="derive from a class of alphorn, or write get_config()",
            )
        _custom[registered] = target
        _registered_names[target] = registered
        return target

    return decorate


def get_registered_name(obj: Any) -> str:
    """Returns the name of a class or function in files."""
    return _registered_names.get(obj, getattr(obj, "__name__", str(obj)))


def get_registered_object(
    name: str, custom_objects: dict | None = None, module_objects: dict | None = None
) -> Any:
    """Returns what is registered under `name`, or None."""
    for table in (_custom, custom_objects or {}, module_objects or {}):
        if name in table:
            return table[name]
    return None


def get_custom_objects() -> dict[str, Any]:
    """Returns the living table of custom objects."""
    return _custom


@contextlib.contextmanager
def custom_object_scope(custom_objects: dict[str, Any] | None) -> Iterator[None]:
    """Makes objects known by their names while the context lasts."""
    before = dict(_custom)
    _custom.update(custom_objects or {})
    try:
        yield
    finally:
        _custom.clear()
        _custom.update(before)


def kind_of(target: Any) -> str | None:
    """Returns the kind under which a class or function is registered, or None."""
    for kind, table in _registry.items():
        if table.get(getattr(target, "__name__", "")) is target:
            return kind
    return None


def serialize(value: Any) -> Any:
    """Returns `value` as plain data, in the form that Keras 3 writes into files.

    Objects with `get_config` become a dict of module, class name, config and registered name;
    functions of ours their name.

    >>> serialize((1, [2.0, "three"]))
    (1, [2.0, 'three'])
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return tuple(serialize(v) for v in value)
    if isinstance(value, list):
        return [serialize(v) for v in value]
    if isinstance(value, dict):
        return {k: serialize(v) for k, v in value.items()}
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, bytes):
        return {"class_name": "__bytes__", "config": {"value": value.decode("utf-8")}}
    if value is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(value, slice):
        return {
            "class_name": "__slice__",
            "config": {n: serialize(getattr(value, n)) for n in ("start", "stop", "step")},
        }
    if isinstance(value, np.ndarray) or (hasattr(value, "tolist") and hasattr(value, "dtype")):
        array = np.asarray(value)
        return {
            "class_name": "__numpy__",
            "config": {"value": array.tolist(), "dtype": array.dtype.name},
        }
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, DTypePolicy):
        return _described(value, "keras", value.get_config())
    if hasattr(value, "get_config"):
        return serialize_object(value)
    if callable(value):
        return _serialize_function(value)
    raise ArgumentError(
        "serialize",
        received=f"{value!r} of {type(value).__name__}",
        expected="plain data, or an object with get_config()",
    )


# Where Keras keeps a kind that has no room of its own at the top.
_ROOMS = {"schedules": "keras.optimizers.schedules"}


def serialize_object(target: Any) -> dict:
    """Returns the Keras 3 description of an object that has `get_config`.

    With it stand the shapes that a layer was built with and what a model was compiled with.
    """
    kind = kind_of(type(target))
    module = _ROOMS.get(kind, f"keras.{kind}") if kind else None
    described = _described(target, module, target.get_config())
    described |= getattr(target, "file_identity", None) or {}
    for part in ("build_config", "compile_config"):
        found = getattr(target, f"get_{part}", lambda: None)()
        if found is not None:
            described[part] = serialize(found)
    return note_written(target, described)


def _described(target: Any, module: str | None, config: dict) -> dict:
    cls = type(target)
    own = None if cls.__module__ == "__main__" else cls.__module__
    return {
        "module": module or own,
        "class_name": cls.__name__,
        "config": config,
        "registered_name": None if module else get_registered_name(cls),
    }


def serialize_function(function: Callable) -> dict:
    """Returns the Keras 3 description of a function."""
    name = get_registered_name(function)
    return {
        "module": "builtins",
        "class_name": "function",
        "config": name,
        "registered_name": name,
    }


def _serialize_function(function: Callable) -> Any:
    if function in _registered_names or kind_of(function) is None:
        return serialize_function(function)
    return function.__name__


def deserialize(config: Any, kind: str | None = None, custom_objects: dict | None = None) -> Any:
    """Returns the value that `serialize` described; living objects pass as they are.

    Args:
        config: What `serialize` returned, nested as it may be.
        kind: Where a bare class name is looked up; None for the kind that the config names.
        custom_objects: Names of your own that hold for this call.
    """
    with custom_object_scope(custom_objects) if custom_objects else contextlib.nullcontext():
        return _revive(config, kind)


def _revive(config: Any, kind: str | None = None) -> Any:
    if isinstance(config, list):
        return [_revive(v) for v in config]
    if isinstance(config, tuple):
        return tuple(_revive(v) for v in config)
    if not isinstance(config, dict):
        return config
    name = config.get("class_name")
    if not isinstance(name, str) or not ({"config", "items"} & set(config)):
        return {k: _revive(v) for k, v in config.items()}
    if name == "__tuple__":
        return tuple(_revive(v) for v in config["items"])
    inner = config["config"]
    if name in _PLAIN:
        return _PLAIN[name](inner)
    if name == "DTypePolicy":
        return DTypePolicy(**inner)
    return _revive_object(config, name, inner, kind)


def _array(inner: dict) -> np.ndarray:
    dtype = str(inner["dtype"])
    if dtype != "bfloat16" and not re.fullmatch(r"bool|(u?int|float|complex)\d{1,3}", dtype):
        raise FileError("an array in a config", f"of type {dtype!r}", "numbers")
    return np.array(inner["value"], dtype=dtype)


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "__slice__": lambda inner: slice(*(_revive(inner[n]) for n in ("start", "stop", "step"))),
    "__numpy__": _array,
    "__tensor__": _array,
    "__bytes__": lambda inner: inner["value"].encode("utf-8"),
    "__ellipsis__": lambda inner: Ellipsis,
}


def _revive_object(config: dict, name: str, inner: Any, kind: str | None) -> Any:
    registered = config.get("registered_name") or name
    if name == "function":
        known = _registry.get(kind or "", {}) | _custom
        return known[inner] if inner in known else lookup("functions", inner)
    target = _custom.get(registered, _custom.get(name))
    if target is None:
        module = str(config.get("module") or "")
        kinds = [kind, *reversed(module.removeprefix("keras.").split(".")), *_registry]
        tables = [_registry[k] for k in kinds if k in _registry and k != "functions"]
        target = next((t[name] for t in tables if name in t), None)
    if not inspect.isclass(target):
        raise FileError(
            f"a config names the class {name!r}",
            received=f"module {config.get('module')!r}, which is not imported: files run no code",
            expected="a class of the library, or one that you made known",
            fix=f"custom_objects={{{name!r}: {name}}}, or @register_keras_serializable() above it",
        )
    made = shared(config, target)
    if made is None:
        made = getattr(target, "from_config", lambda given: target(**given))(inner)
        build = getattr(made, "build_from_config", None)
        if config.get("build_config") and build and not getattr(made, "built", True):
            build(config["build_config"])
        compile_again = getattr(made, "compile_from_config", None)
        if config.get("compile_config") and compile_again:
            compile_again(config["compile_config"])
        note_read(config, made)
    return made


def resolve(kind: str, identifier: Any) -> Any:
    """Returns the object behind a name, a config, a class or an object of one kind; None as it is.

    Args:
        kind: E.g. "initializers".
        identifier: What a user may write where such an object is wanted.
    """
    if isinstance(identifier, str):
        identifier = lookup(kind, identifier)
    elif isinstance(identifier, dict):
        identifier = deserialize(identifier, kind)
    return identifier() if inspect.isclass(identifier) else identifier
