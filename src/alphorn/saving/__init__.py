"""Files: whole models, weights, configs."""

import alphorn.saving.export  # noqa: F401  (gives models their `export`)
from alphorn.naming import (
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from alphorn.saving.archive import load_model, save_model
from alphorn.saving.weights import load_weights, save_weights
from alphorn.serialization import deserialize_keras_object, serialize_keras_object

CustomObjectScope = custom_object_scope

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
