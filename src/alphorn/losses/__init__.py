"""Losses: what training minimizes. Valid steps count, padding never does."""

from inspect import isfunction
from typing import Any

from alphorn.errors import ArgumentError
from alphorn.losses import alignment, batches, classes, functions
from alphorn.losses.alignment import *  # noqa: F403
from alphorn.losses.base import Loss, LossFunctionWrapper
from alphorn.losses.batches import *  # noqa: F403
from alphorn.losses.classes import *  # noqa: F403
from alphorn.losses.classes import class_of
from alphorn.losses.functions import *  # noqa: F403
from alphorn.naming import custom_object_scope, lookup, serialize_function
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import serialize as _serialize

__all__ = sorted(
    [
        "Loss",
        "deserialize",
        "get",
        "serialize",
        *classes.__all__,
        *functions.__all__,
        *alignment.__all__,
        *batches.__all__,
    ]
)


def get(identifier: Any) -> Any:
    """Returns the loss behind a name, a config, a class, a function or an object; None as it is."""
    if isinstance(identifier, str):
        identifier = lookup("losses", identifier)
    elif isinstance(identifier, dict):
        identifier = deserialize(identifier)
    return identifier() if isinstance(identifier, type) else identifier


def as_loss(identifier: Any) -> Loss | None:
    """Returns any form of a loss as an object."""
    found = get(identifier)
    if found is None or isinstance(found, Loss):
        return found
    if not callable(found):
        raise ArgumentError("loss", received=repr(identifier), expected="a name, function or Loss")
    cls = class_of(found)
    return LossFunctionWrapper(found) if cls is None else cls(name=found.__name__)


def serialize(loss: Any) -> Any:
    """Returns a description of a loss for files."""
    return serialize_function(loss) if isfunction(loss) else _serialize(loss)


def deserialize(name: Any, custom_objects: dict | None = None) -> Any:
    """Returns the loss that `serialize` described."""
    if isinstance(name, str):
        with custom_object_scope(custom_objects):
            return get(name)
    return _deserialize(name, "losses", custom_objects)
