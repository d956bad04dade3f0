"""Optimizers: Keras's names and arguments, Optax's update rules."""

from typing import Any

from alphorn.errors import ArgumentError
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import names_of, resolve, serialize_object
from alphorn.optimizers import schedules
from alphorn.optimizers.base import Optimizer
from alphorn.optimizers.rules import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    LazyAdam,
    Lion,
    Nadam,
    RMSprop,
)
from alphorn.optimizers.scaling import LossScaleOptimizer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LazyAdam",
    "Lion",
    "LossScaleOptimizer",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]


def get(identifier: Any) -> Optimizer:
    """Returns the optimizer behind a name, a config, a class or an object."""
    if isinstance(identifier, str) and identifier.lower() in names_of("optimizers"):
        identifier = identifier.lower()
    found = resolve("optimizers", identifier)
    if not isinstance(found, Optimizer):
        raise ArgumentError(
            "optimizer",
            received=repr(identifier),
            expected="a name such as 'adam', or an Optimizer",
        )
    return found


def serialize(optimizer: Optimizer) -> dict:
    """Returns a description of an optimizer for files."""
    return serialize_object(optimizer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the optimizer that `serialize` described."""
    return _deserialize(config, "optimizers", custom_objects)
