"""Models as JSON: written, and read on the terms of a stranger's file."""

import json
import os
from typing import Any

from alphorn.errors import FileError
from alphorn.loading import reading, writing
from alphorn.models.model import Model
from alphorn.naming import deserialize, serialize
from alphorn.serialization import told

__all__ = ["model_from_json"]

# Deeper than any model: each inner model adds four levels.
_DEPTH = 200


def model_json(model: Any, **options: Any) -> str:
    """Returns what makes a model again, without its weights, as JSON.

    Args:
        model: Any model.
        **options: For `json.dumps`.
    """
    with writing():
        config = serialize(model)
    return json.dumps(config, **options)


def model_from_json(
    json_string: str, custom_objects: dict | None = None, safe_mode: bool = True
) -> Any:
    """Returns the model that `to_json` described, with weights of its own.

    Args:
        json_string: Of `model.to_json()`, here or in Keras 3.
        custom_objects: Classes and functions of your own, by their names.
        safe_mode: False lets code that stands in the text run: only for texts that you trust.

    Raises:
        FileError: for what is no model, names what is not known here, or asks for more memory than
            the machine has.
    """
    config = parsed(json_string, "model_from_json")
    return model_from(config, "model_from_json", custom_objects, True, safe_mode, _memory())


def _memory() -> int:
    """Returns how many bytes of weights a machine can hold at most."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 1 << 40


def model_from(
    config: Any,
    where: str,
    custom_objects: dict | None,
    compile: bool,
    safe_mode: bool,
    budget: int | None = None,
) -> Any:
    """Returns the model of a config that came from outside.

    Args:
        config: As Keras 3 writes it; older ones are brought into that form before.
        where: The file, for errors.
        custom_objects: Classes and functions by their names.
        compile: Whether it is compiled as it was.
        safe_mode: Whether nothing in it may run as code.
        budget: Bytes of weights that it may make.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise FileError(where, "no config of a model", "what model.to_json() or save() wrote")
    if not compile:
        config = {k: v for k, v in config.items() if k != "compile_config"}
    with reading(safe_mode, budget), told(where):
        model = deserialize(config, "layers", custom_objects)
    if not isinstance(model, Model):
        raise FileError(where, f"a {type(model).__name__}", "a model")
    return model


def parsed(text: str | bytes, where: str) -> Any:
    """Returns JSON as plain data, if it is not nested too deeply to be read."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(where, f"no JSON: {error}", "the whole of what was written") from None
    level, depth = [config], 0
    while level:
        depth += 1
        if depth > _DEPTH:
            raise FileError(where, f"a config nested more than {_DEPTH} deep", "that of a model")
        level = [
            inner
            for x in level
            if isinstance(x, dict | list)
            for inner in (x.values() if isinstance(x, dict) else x)
        ]
    return config


Model.json_writer = staticmethod(model_json)
