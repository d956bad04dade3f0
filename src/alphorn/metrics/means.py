"""Metrics that are means: accuracies, errors and crossentropies."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from alphorn import losses
from alphorn.metrics.base import Mean, MeanMetricWrapper
from alphorn.naming import register

__all__: list[str] = []


def _matches(y_true: Array, y_pred: Array) -> Array:
    return (y_true.astype(y_pred.dtype) == y_pred).astype(jnp.float32)


def _function(*names: str) -> Callable[[Callable], Callable]:
    def decorate(function: Callable) -> Callable:
        __all__.append(function.__name__)
        return register("metrics", function, function.__name__, *names)

    return decorate


@_function()
def binary_accuracy(y_true: Array, y_pred: Array, threshold: float = 0.5) -> Array:
    """Returns 1 where a probability is on the right side of the threshold."""
    return _matches(y_true, (y_pred > threshold).astype(y_pred.dtype))


@_function()
def categorical_accuracy(y_true: Array, y_pred: Array) -> Array:
    """Returns 1 where the likeliest class is that of the one-hot target."""
    return (jnp.argmax(y_true, -1) == jnp.argmax(y_pred, -1)).astype(jnp.float32)


def _labels(y_true: Array, y_pred: Array) -> Array:
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    return y_true.astype(jnp.int32)


@_function()
def sparse_categorical_accuracy(y_true: Array, y_pred: Array) -> Array:
    """Returns 1 where the likeliest class is the target."""
    return (_labels(y_true, y_pred) == jnp.argmax(y_pred, -1)).astype(jnp.float32)


def _among_best(labels: Array, y_pred: Array, k: int) -> Array:
    own = jnp.take_along_axis(y_pred, labels[..., None], -1)
    return (jnp.sum(y_pred > own, -1) < k).astype(jnp.float32)


@_function()
def top_k_categorical_accuracy(y_true: Array, y_pred: Array, k: int = 5) -> Array:
    """Returns 1 where the one-hot target's class is among the `k` likeliest."""
    return _among_best(jnp.argmax(y_true, -1), y_pred, k)


@_function()
def sparse_top_k_categorical_accuracy(y_true: Array, y_pred: Array, k: int = 5) -> Array:
    """Returns 1 where the target is among the `k` likeliest classes."""
    return _among_best(_labels(y_true, y_pred), y_pred, k)


def _mean_metric(cls_name: str, function: Callable, doc: str, name: str, **options: Any) -> Any:
    """Makes a metric class of a function, with the arguments that Keras gives it."""
    first = "".join(f"{k}={v!r}, " for k, v in options.items() if k in ("threshold", "k"))
    parts = {"name": repr(name), "dtype": "None"} | {
        k: repr(v) for k, v in options.items() if k not in ("threshold", "k")
    }
    order = ", ".join(f"{k}={v}" for k, v in parts.items())
    if "threshold" in options:
        first, order = "", f"name={name!r}, dtype=None, threshold={options['threshold']!r}"
    passed = ", ".join(f"{k}={k}" for k in options)
    stored = "\n".join(f"    self.{k} = {k}" for k in options)
    source = (
        f"def __init__(self, {first}{order}):\n"
        f"    Base.__init__(self, function, name, dtype{', ' if passed else ''}{passed})\n{stored}"
    )
    scope: dict[str, Any] = {"Base": MeanMetricWrapper, "function": function}
    exec(source, scope)  # from the table below
    namespace = {"__init__": scope["__init__"], "__doc__": doc, "__module__": __name__}
    __all__.append(cls_name)
    return type(cls_name, (MeanMetricWrapper,), namespace)


def _accuracy(y_true: Array, y_pred: Array) -> Array:
    return _matches(y_true, y_pred)


Accuracy = _mean_metric("Accuracy", _accuracy, "How often predictions equal targets.", "accuracy")
BinaryAccuracy = _mean_metric(
    "BinaryAccuracy",
    binary_accuracy,
    "How often a probability is on the right side.",
    "binary_accuracy",
    threshold=0.5,
)
CategoricalAccuracy = _mean_metric(
    "CategoricalAccuracy",
    categorical_accuracy,
    "How often the likeliest class is that of the one-hot target.",
    "categorical_accuracy",
)
SparseCategoricalAccuracy = _mean_metric(
    "SparseCategoricalAccuracy",
    sparse_categorical_accuracy,
    "How often the likeliest class is the target.",
    "sparse_categorical_accuracy",
)
TopKCategoricalAccuracy = _mean_metric(
    "TopKCategoricalAccuracy",
    top_k_categorical_accuracy,
    "How often the one-hot target is among the likeliest.",
    "top_k_categorical_accuracy",
    k=5,
)
SparseTopKCategoricalAccuracy = _mean_metric(
    "SparseTopKCategoricalAccuracy",
    sparse_top_k_categorical_accuracy,
    "How often the target is among the likeliest.",
    "sparse_top_k_categorical_accuracy",
    k=5,
)
MeanSquaredError = _mean_metric(
    "MeanSquaredError", losses.mean_squared_error, "Mean of squared errors.", "mean_squared_error"
)
MeanAbsoluteError = _mean_metric(
    "MeanAbsoluteError", losses.mean_absolute_error, "Mean of errors.", "mean_absolute_error"
)
MeanAbsolutePercentageError = _mean_metric(
    "MeanAbsolutePercentageError",
    losses.mean_absolute_percentage_error,
    "Mean of errors in percent.",
    "mean_absolute_percentage_error",
)
MeanSquaredLogarithmicError = _mean_metric(
    "MeanSquaredLogarithmicError",
    losses.mean_squared_logarithmic_error,
    "Mean of squared errors of logarithms.",
    "mean_squared_logarithmic_error",
)
CosineSimilarity = _mean_metric(
    "CosineSimilarity",
    losses.cosine_similarity,
    "Cosine of the angle between targets and predictions.",
    "cosine_similarity",
    axis=-1,
)
BinaryCrossentropy = _mean_metric(
    "BinaryCrossentropy",
    losses.binary_crossentropy,
    "Crossentropy of yes-or-no targets.",
    "binary_crossentropy",
    from_logits=False,
    label_smoothing=0,
)
CategoricalCrossentropy = _mean_metric(
    "CategoricalCrossentropy",
    losses.categorical_crossentropy,
    "Crossentropy of one-hot targets.",
    "categorical_crossentropy",
    from_logits=False,
    label_smoothing=0,
    axis=-1,
)
SparseCategoricalCrossentropy = _mean_metric(
    "SparseCategoricalCrossentropy",
    losses.sparse_categorical_crossentropy,
    "Crossentropy of class numbers.",
    "sparse_categorical_crossentropy",
    from_logits=False,
    axis=-1,
)
KLDivergence = _mean_metric(
    "KLDivergence", losses.kl_divergence, "Kullback-Leibler divergence.", "kl_divergence"
)
Poisson = _mean_metric("Poisson", losses.poisson, "Log likelihood of counts.", "poisson")
LogCoshError = _mean_metric("LogCoshError", losses.log_cosh, "Logarithm of cosh.", "logcosh")
Hinge = _mean_metric("Hinge", losses.hinge, "Margin of 1.", "hinge")
SquaredHinge = _mean_metric(
    "SquaredHinge", losses.squared_hinge, "Squared margin.", "squared_hinge"
)
CategoricalHinge = _mean_metric(
    "CategoricalHinge", losses.categorical_hinge, "Margin between classes.", "categorical_hinge"
)


class RootMeanSquaredError(MeanMetricWrapper):
    """Root of the mean of squared errors."""

    def __init__(self, name: str | None = "root_mean_squared_error", dtype: Any = None):
        super().__init__(losses.mean_squared_error, name, dtype)

    def result(self) -> Array:
        """Returns the root."""
        return jnp.sqrt(super().result())


__all__ += ["Mean", "RootMeanSquaredError"]
for _short, _class in (
    ("mse", MeanSquaredError),
    ("MSE", MeanSquaredError),
    ("mean_squared_error", MeanSquaredError),
    ("mae", MeanAbsoluteError),
    ("MAE", MeanAbsoluteError),
    ("mean_absolute_error", MeanAbsoluteError),
    ("mape", MeanAbsolutePercentageError),
    ("msle", MeanSquaredLogarithmicError),
    ("rmse", RootMeanSquaredError),
    ("root_mean_squared_error", RootMeanSquaredError),
    ("cosine_similarity", CosineSimilarity),
    ("binary_crossentropy", BinaryCrossentropy),
    ("bce", BinaryCrossentropy),
    ("categorical_crossentropy", CategoricalCrossentropy),
    ("sparse_categorical_crossentropy", SparseCategoricalCrossentropy),
    ("kl_divergence", KLDivergence),
    ("poisson", Poisson),
    ("hinge", Hinge),
    ("mean", Mean),
):
    register("metrics", _class, _short)
