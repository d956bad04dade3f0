"""The built-in losses as objects: a function, its options, and how its values are reduced."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jax import Array

from alphorn.fields import fields
from alphorn.losses import functions
from alphorn.losses.base import Loss
from alphorn.losses.pairs import values_of
from alphorn.naming import register

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
]

_MEAN = "sum_over_batch_size"
_classes: dict[Callable, type[Loss]] = {}


def class_of(function: Any) -> type[Loss] | None:
    """Returns the class of a built-in function, or None."""
    return _classes.get(function)


class _FunctionLoss(Loss):
    """A loss whose fields are the options of a function of `functions`."""

    if TYPE_CHECKING:
        function = staticmethod(functions.mean_squared_error)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ == __name__:
            register("losses", cls)
            _classes[cls.function] = cls

    def after_init(self) -> None:
        """Checks the reduction and finds the type."""
        self.settle()

    def values(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> tuple[Array, Array | None]:
        """Returns the loss of each sample or step, and which are valid."""
        options = {k: getattr(self, k) for k in fields(type(self)) if k not in _COMMON}
        return values_of(self.function, y_true, y_pred, sample_weight, options, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the function's values."""
        options = {k: getattr(self, k) for k in fields(type(self)) if k not in _COMMON}
        return self.function(y_true, y_pred, **options)


_COMMON = ("reduction", "name", "dtype")


class MeanSquaredError(_FunctionLoss):
    """Mean of squared errors."""

    function = staticmethod(functions.mean_squared_error)
    reduction: str | None = _MEAN
    name: str = "mean_squared_error"
    dtype: Any = None


class MeanAbsoluteError(_FunctionLoss):
    """Mean of errors."""

    function = staticmethod(functions.mean_absolute_error)
    reduction: str | None = _MEAN
    name: str = "mean_absolute_error"
    dtype: Any = None


class MeanAbsolutePercentageError(_FunctionLoss):
    """Mean of errors in percent."""

    function = staticmethod(functions.mean_absolute_percentage_error)
    reduction: str | None = _MEAN
    name: str = "mean_absolute_percentage_error"
    dtype: Any = None


class MeanSquaredLogarithmicError(_FunctionLoss):
    """Mean of squared errors of logarithms."""

    function = staticmethod(functions.mean_squared_logarithmic_error)
    reduction: str | None = _MEAN
    name: str = "mean_squared_logarithmic_error"
    dtype: Any = None


class Huber(_FunctionLoss):
    """Squares near 0, straight lines beyond `delta`."""

    function = staticmethod(functions.huber)
    delta: float = 1.0
    reduction: str | None = _MEAN
    name: str = "huber_loss"
    dtype: Any = None


class LogCosh(_FunctionLoss):
    """Logarithm of the hyperbolic cosine of the error."""

    function = staticmethod(functions.log_cosh)
    reduction: str | None = _MEAN
    name: str = "log_cosh"
    dtype: Any = None


class Hinge(_FunctionLoss):
    """Margin of 1 for labels -1 and 1."""

    function = staticmethod(functions.hinge)
    reduction: str | None = _MEAN
    name: str = "hinge"
    dtype: Any = None


class SquaredHinge(_FunctionLoss):
    """Squared margin."""

    function = staticmethod(functions.squared_hinge)
    reduction: str | None = _MEAN
    name: str = "squared_hinge"
    dtype: Any = None


class CategoricalHinge(_FunctionLoss):
    """Margin between the right class and the largest wrong one."""

    function = staticmethod(functions.categorical_hinge)
    reduction: str | None = _MEAN
    name: str = "categorical_hinge"
    dtype: Any = None


class KLDivergence(_FunctionLoss):
    """Kullback-Leibler divergence."""

    function = staticmethod(functions.kl_divergence)
    reduction: str | None = _MEAN
    name: str = "kl_divergence"
    dtype: Any = None


class Poisson(_FunctionLoss):
    """Negative log likelihood of counts."""

    function = staticmethod(functions.poisson)
    reduction: str | None = _MEAN
    name: str = "poisson"
    dtype: Any = None


class CosineSimilarity(_FunctionLoss):
    """Minus the cosine of the angle between targets and predictions."""

    function = staticmethod(functions.cosine_similarity)
    axis: int = -1
    reduction: str | None = _MEAN
    name: str = "cosine_similarity"
    dtype: Any = None


class BinaryCrossentropy(_FunctionLoss):
    """Crossentropy of yes-or-no targets with probabilities, or logits.

    >>> loss = BinaryCrossentropy(from_logits=True)
    >>> loss([[1.0], [0.0]], [[20.0], [-20.0]]).item() < 1e-6
    True
    """

    function = staticmethod(functions.binary_crossentropy)
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str | None = _MEAN
    name: str = "binary_crossentropy"
    dtype: Any = None


class CategoricalCrossentropy(_FunctionLoss):
    """Crossentropy of one-hot targets."""

    function = staticmethod(functions.categorical_crossentropy)
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str | None = _MEAN
    name: str = "categorical_crossentropy"
    dtype: Any = None


class SparseCategoricalCrossentropy(_FunctionLoss):
    """Crossentropy of class numbers; those of `ignore_class` do not count."""

    function = staticmethod(functions.sparse_categorical_crossentropy)
    from_logits: bool = False
    ignore_class: int | None = None
    reduction: str | None = _MEAN
    axis: int = -1
    name: str = "sparse_categorical_crossentropy"
    dtype: Any = None
