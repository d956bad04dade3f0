"""Metrics: figures that are watched while a model trains, and measured when it is evaluated."""

from inspect import isfunction
from typing import Any

from alphorn.errors import ArgumentError
from alphorn.losses import functions
from alphorn.losses.functions import *  # noqa: F403
from alphorn.metrics import (
    accuracies,
    base,
    confusion,
    correlations,
    means,
    overlaps,
    scores,
    tradeoffs,
)
from alphorn.metrics.accuracies import *  # noqa: F403
from alphorn.metrics.base import *  # noqa: F403
from alphorn.metrics.base import MeanMetricWrapper, Metric, function_of
from alphorn.metrics.confusion import *  # noqa: F403
from alphorn.metrics.correlations import *  # noqa: F403
from alphorn.metrics.means import *  # noqa: F403
from alphorn.metrics.overlaps import *  # noqa: F403
from alphorn.metrics.scores import *  # noqa: F403
from alphorn.metrics.tradeoffs import *  # noqa: F403
from alphorn.naming import (
    custom_object_scope,
    lookup,
    names_of,
    register,
    serialize_function,
    snake_case,
)
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import serialize as _serialize

# Of the losses' functions, the first has another sign as a metric, the second is none.
_OTHERS = ("cosine_similarity", "categorical_generalized_cross_entropy")
_SHARED = [name for name in functions.__all__ if name not in _OTHERS]
_ROOMS = (base, means, confusion, tradeoffs, overlaps, scores, accuracies, correlations)
__all__ = sorted(
    ["deserialize", "get", "serialize", *_SHARED, *(n for room in _ROOMS for n in room.__all__)]
)
_SHORT = {
    "mse": "MeanSquaredError",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "msle": "MeanSquaredLogarithmicError",
    "bce": "BinaryCrossentropy",
    "rmse": "RootMeanSquaredError",
}
for _name, _class in names_of("metrics").items():
    register("metrics", _class, snake_case(_name))
for _name, _full in _SHORT.items():
    register("metrics", names_of("metrics")[_full], _name, _name.upper())


def get(identifier: Any) -> Any:
    """Returns the metric behind a name, a config, a class, a function or an object; None as it is."""
    if isinstance(identifier, str):
        identifier = lookup("metrics", identifier)
    elif isinstance(identifier, dict):
        identifier = deserialize(identifier)
    return identifier() if isinstance(identifier, type) else identifier


def as_metric(identifier: Any, name: str | None = None) -> Metric:
    """Returns any form of a metric as an object."""
    found = get(identifier)
    if isinstance(found, Metric):
        return found
    if not callable(found):
        raise ArgumentError(
            "metric", received=repr(identifier), expected="a name, a function or a Metric"
        )
    return MeanMetricWrapper(found, name or getattr(found, "__name__", None))


def serialize(metric: Any) -> Any:
    """Returns a description of a metric for files."""
    return serialize_function(metric) if isfunction(metric) else _serialize(metric)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the metric that `serialize` described."""
    with custom_object_scope(custom_objects):
        if isinstance(config, str):
            return get(config)
        if isinstance(config, dict) and config.get("class_name") == "function":
            return function_of(config)
        return _deserialize(config, "metrics")
