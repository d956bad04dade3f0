"""Metrics that are means: accuracies, errors and crossentropies."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from alphorn.fields import fields
from alphorn.losses import functions
from alphorn.losses.pairs import pair_function
from alphorn.metrics import accuracies, correlations
from alphorn.metrics.base import MeanMetricWrapper

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "ConcordanceCorrelation",
    "CosineSimilarity",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "PearsonCorrelation",
    "Poisson",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SquaredHinge",
    "TopKCategoricalAccuracy",
]


class _MeanOf(MeanMetricWrapper):
    """The mean of a built-in function, whose options are the fields."""

    if TYPE_CHECKING:
        function = staticmethod(functions.mean_squared_error)

    def after_init(self) -> None:
        """Makes the sums."""
        options = {k: getattr(self, k) for k in fields(type(self)) if k not in ("name", "dtype")}
        MeanMetricWrapper.__init__(self, self.function, self.name, self.dtype, **options)


class Accuracy(_MeanOf):
    """How often predictions equal targets."""

    function = staticmethod(accuracies.accuracy)
    name: str = "accuracy"
    dtype: Any = None


class BinaryAccuracy(_MeanOf):
    """How often a probability is on the right side of the threshold."""

    function = staticmethod(accuracies.binary_accuracy)
    name: str = "binary_accuracy"
    dtype: Any = None
    threshold: float = 0.5


class CategoricalAccuracy(_MeanOf):
    """How often the likeliest class is that of the one-hot target."""

    function = staticmethod(accuracies.categorical_accuracy)
    name: str = "categorical_accuracy"
    dtype: Any = None


class SparseCategoricalAccuracy(_MeanOf):
    """How often the likeliest class is the target."""

    function = staticmethod(accuracies.sparse_categorical_accuracy)
    name: str = "sparse_categorical_accuracy"
    dtype: Any = None


class TopKCategoricalAccuracy(_MeanOf):
    """How often the one-hot target is among the `k` likeliest."""

    function = staticmethod(accuracies.top_k_categorical_accuracy)
    k: int = 5
    name: str = "top_k_categorical_accuracy"
    dtype: Any = None


class SparseTopKCategoricalAccuracy(_MeanOf):
    """How often the target is among the `k` likeliest."""

    function = staticmethod(accuracies.sparse_top_k_categorical_accuracy)
    k: int = 5
    name: str = "sparse_top_k_categorical_accuracy"
    dtype: Any = None
    from_sorted_ids: bool = False


class MeanSquaredError(_MeanOf):
    """Mean of squared errors."""

    function = staticmethod(functions.mean_squared_error)
    name: str = "mean_squared_error"
    dtype: Any = None


class MeanAbsoluteError(_MeanOf):
    """Mean of errors."""

    function = staticmethod(functions.mean_absolute_error)
    name: str = "mean_absolute_error"
    dtype: Any = None


class MeanAbsolutePercentageError(_MeanOf):
    """Mean of errors in percent."""

    function = staticmethod(functions.mean_absolute_percentage_error)
    name: str = "mean_absolute_percentage_error"
    dtype: Any = None


class MeanSquaredLogarithmicError(_MeanOf):
    """Mean of squared errors of logarithms."""

    function = staticmethod(functions.mean_squared_logarithmic_error)
    name: str = "mean_squared_logarithmic_error"
    dtype: Any = None


class RootMeanSquaredError(_MeanOf):
    """Root of the mean of squared errors."""

    function = staticmethod(functions.mean_squared_error)
    name: str = "root_mean_squared_error"
    dtype: Any = None

    def result(self) -> Array:
        """Returns the root."""
        return jnp.sqrt(super().result())


class LogCoshError(_MeanOf):
    """Logarithm of the hyperbolic cosine of the error."""

    function = staticmethod(functions.log_cosh)
    name: str = "logcosh"
    dtype: Any = None


class CosineSimilarity(_MeanOf):
    """Cosine of the angle between targets and predictions: 1 for alike ones."""

    function = staticmethod(pair_function("compared")(functions.cosine))
    name: str = "cosine_similarity"
    dtype: Any = None
    axis: int = -1


class PearsonCorrelation(_MeanOf):
    """Pearson's correlation along `axis`, the mean of all; 0 where nothing varies."""

    function = staticmethod(correlations.pearson_correlation)
    name: str = "pearson_correlation"
    dtype: Any = None
    axis: int = -1


class ConcordanceCorrelation(_MeanOf):
    """Lin's concordance correlation along `axis`, the mean of all: 1 for equal ones."""

    function = staticmethod(correlations.concordance_correlation)
    name: str = "concordance_correlation"
    dtype: Any = None
    axis: int = -1


class Hinge(_MeanOf):
    """Margin of 1 for labels -1 and 1."""

    function = staticmethod(functions.hinge)
    name: str = "hinge"
    dtype: Any = None


class SquaredHinge(_MeanOf):
    """Squared margin."""

    function = staticmethod(functions.squared_hinge)
    name: str = "squared_hinge"
    dtype: Any = None


class CategoricalHinge(_MeanOf):
    """Margin between the right class and the largest wrong one."""

    function = staticmethod(functions.categorical_hinge)
    name: str = "categorical_hinge"
    dtype: Any = None


class KLDivergence(_MeanOf):
    """Kullback-Leibler divergence."""

    function = staticmethod(functions.kl_divergence)
    name: str = "kl_divergence"
    dtype: Any = None


class Poisson(_MeanOf):
    """Negative log likelihood of counts."""

    function = staticmethod(functions.poisson)
    name: str = "poisson"
    dtype: Any = None


class BinaryCrossentropy(_MeanOf):
    """Crossentropy of yes-or-no targets."""

    function = staticmethod(functions.binary_crossentropy)
    name: str = "binary_crossentropy"
    dtype: Any = None
    from_logits: bool = False
    label_smoothing: float = 0


class CategoricalCrossentropy(_MeanOf):
    """Crossentropy of one-hot targets."""

    function = staticmethod(functions.categorical_crossentropy)
    name: str = "categorical_crossentropy"
    dtype: Any = None
    from_logits: bool = False
    label_smoothing: float = 0
    axis: int = -1


class SparseCategoricalCrossentropy(_MeanOf):
    """Crossentropy of class numbers; those of `ignore_class` do not count."""

    function = staticmethod(functions.sparse_categorical_crossentropy)
    name: str = "sparse_categorical_crossentropy"
    dtype: Any = None
    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1
