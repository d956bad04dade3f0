"""Metrics: figures that are watched while a model trains, and measured when it is evaluated."""

from typing import Any

from alphorn.errors import ArgumentError
from alphorn.metrics import base, confusion, means
from alphorn.metrics.base import Mean, MeanMetricWrapper, Metric, Sum
from alphorn.metrics.confusion import (
    AUC,
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from alphorn.metrics.means import *  # noqa: F403
from alphorn.naming import deserialize as _deserialize
from alphorn.naming import lookup, serialize_object

__all__ = sorted(
    {*base.__all__, *means.__all__, *confusion.__all__, "deserialize", "get", "serialize"}
)


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
    return MeanMetricWrapper(found, name)


def serialize(metric: Metric) -> dict:
    """Returns a description of a metric for files."""
    return serialize_object(metric)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """Returns the metric that `serialize` described."""
    return _deserialize(config, "metrics", custom_objects)
