"""Objects as plain data in the form of Keras 3's files, and back, on terms that are safe."""

import contextlib
from collections.abc import Iterator
from typing import Any

from alphorn.errors import AlphornError, FileError
from alphorn.loading import reading
from alphorn.naming import deserialize, serialize

__all__ = ["deserialize_keras_object", "serialize_keras_object"]


def serialize_keras_object(obj: Any) -> Any:
    """Returns an object as plain data, in the form of Keras 3's files.

    >>> from alphorn.layers import Dense
    >>> serialize_keras_object(Dense(3))["class_name"]
    'Dense'
    """
    return serialize(obj)


def deserialize_keras_object(
    config: Any, custom_objects: dict | None = None, safe_mode: bool = True, **kwargs: Any
) -> Any:
    """Returns the object that `serialize_keras_object` described.

    Args:
        config: Plain data.
        custom_objects: Classes and functions of your own, by their names.
        safe_mode: False lets code that stands in the config run: only for files that you trust.
        **kwargs: `module_objects`, more names, as in Keras 2.

    Raises:
        FileError: for what is not known here, or is damaged.
    """
    known = kwargs.pop("module_objects", None) or {}
    if kwargs:
        raise FileError("deserialize_keras_object", ", ".join(kwargs), "its own arguments")
    with reading(safe_mode, anew=False), told("a config"):
        return deserialize(config, None, {**known, **(custom_objects or {})})


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Turns what goes wrong with a config into an error that says where it stood."""
    try:
        yield
    except AlphornError:
        raise
    except Exception as error:
        raise FileError(
            f"{where} cannot be made into a model",
            received=f"{type(error).__name__}: {error}",
            expected="a config that fits the classes it names",
            fix="the file is damaged, or from_config of a class of yours raised this error",
        ) from error
