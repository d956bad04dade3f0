"""The built-in losses as objects: a function, its options, and how its values are reduced."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array

from alphorn.errors import ArgumentError
from alphorn.fields import attribute, fields
from alphorn.losses import batches, functions
from alphorn.losses.alignment import ctc
from alphorn.losses.base import Loss
from alphorn.losses.pairs import unit_axis_dropped, values_of
from alphorn.naming import register

__all__ = [
    "CTC",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "Circle",
    "CosineSimilarity",
    "Dice",
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
    "Tversky",
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
        if cls.__module__ == __name__ and not cls.__name__.startswith("_"):
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


class BinaryFocalCrossentropy(_FunctionLoss):
    """Crossentropy of yes-or-no targets, in which what is nearly right hardly counts.

    Args:
        apply_class_balancing: Whether yes weighs `alpha` and no `1 - alpha`.
        alpha: The weight of yes.
        gamma: How much less the easy ones count.
        from_logits: Whether predictions are logits.
        label_smoothing: How far targets are drawn towards 0.5.
        axis: Whose mean is taken.
        reduction, name, dtype: As for all losses.
    """

    function = staticmethod(functions.binary_focal_crossentropy)
    apply_class_balancing: bool = False
    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str | None = _MEAN
    name: str = "binary_focal_crossentropy"
    dtype: Any = None


class CategoricalFocalCrossentropy(_FunctionLoss):
    """Crossentropy of one-hot targets, in which likely classes hardly count.

    Args:
        alpha: A factor of all.
        gamma: How much less likely classes count.
        from_logits: Whether predictions are logits.
        label_smoothing: How far targets are drawn towards equal shares.
        axis: That of the classes.
        reduction, name, dtype: As for all losses.
    """

    function = staticmethod(functions.categorical_focal_crossentropy)
    alpha: float = 0.25
    gamma: float = 2.0
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1
    reduction: str | None = _MEAN
    name: str = "categorical_focal_crossentropy"
    dtype: Any = None


class CategoricalGeneralizedCrossEntropy(_FunctionLoss):
    """Crossentropy of class numbers that wrong labels disturb less: `(1 - p ** q) / q`.

    Args:
        q: Between 0 (crossentropy) and 1 (mean absolute error), both excluded.
        reduction, name, dtype: As for all losses.
    """

    function = staticmethod(functions.categorical_generalized_cross_entropy)
    q: float = 0.5
    reduction: str | None = _MEAN
    name: str = "categorical_generalized_cross_entropy"
    dtype: Any = None

    def after_init(self) -> None:
        """Checks the arguments."""
        super().after_init()
        if not 0 < self.q < 1:
            raise ArgumentError(f"{type(self).__name__}: q", repr(self.q), "between 0 and 1")


class CTC(_FunctionLoss):
    """Minus the log likelihood of label sequences that say nothing of which step they belong to.

    Takes labels `(batch, labels)`, in which 0 and what is masked is no label, and logits
    `(batch, time, classes)`, of which class 0 is the blank. Masked steps do not exist: each row's
    lengths are its own.

    >>> labels, logits = np.array([[1, 2, 0]]), np.zeros((1, 2, 3))
    >>> round(CTC()(labels, logits).item(), 3)  # two steps for two labels: log(3) each
    2.197
    """

    function = staticmethod(ctc)
    reduction: str | None = _MEAN
    name: str = "ctc"
    dtype: Any = None


class Circle(_FunctionLoss):
    """Draws embeddings of one class together and those of others apart.

    Args:
        gamma: How steep it is.
        margin: How far classes should be apart.
        remove_diagonal: Whether a row is no partner of itself.
        reduction, name, dtype: As for all losses.

    Takes class numbers `(batch,)` and embeddings `(batch, features)` of length 1; with steps,
    `(batch, time)` and `(batch, time, features)`, every valid step is a partner of every other. The
    mean is over those that have something to learn, whose value is above 0.
    """

    function = staticmethod(batches.circle)
    gamma: float = 80.0
    margin: float = 0.4
    remove_diagonal: bool = True
    reduction: str | None = _MEAN
    name: str = "circle"
    dtype: Any = None


class _Overlap(_FunctionLoss):
    if TYPE_CHECKING:
        axis: Any = attribute()

    def weights(self, values: Array, mask: Array | None, sample_weight: Any) -> Array | None:
        """Returns the weight of each value; what is summed over is weighed inside the sums."""
        if sample_weight is not None:
            given = unit_axis_dropped(sample_weight, values.ndim)
            sample_weight = None if np.ndim(given) > values.ndim else given
        return super().weights(values, mask, sample_weight)


class Dice(_Overlap):
    """1 minus the Dice coefficient, twice the overlap by the sum of both.

    Args:
        reduction, name, dtype: As for all losses.
        axis: Which axes are summed over; None for all of the batch together.

    Sample weights of what is summed over weigh inside the sums.
    """

    function = staticmethod(batches.dice)
    reduction: str | None = _MEAN
    name: str = "dice"
    axis: Any = None
    dtype: Any = None


class Tversky(_Overlap):
    """1 minus the Tversky index: Dice with weights for what is missed and what is too much.

    Args:
        alpha: Of targets that are not predicted.
        beta: Of predictions that are no targets.
        reduction, name, dtype: As for all losses.
        axis: Which axes are summed over; None for all of the batch together.

    Sample weights of what is summed over weigh inside the sums.
    """

    function = staticmethod(batches.tversky)
    alpha: float = 0.5
    beta: float = 0.5
    reduction: str | None = _MEAN
    name: str = "tversky"
    axis: Any = None
    dtype: Any = None
