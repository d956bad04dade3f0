"""Scores of columns: F scores of classes, and the share of the variance that is explained."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.core.masked import expand_to, is_masked
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError, ShapeError, StateError
from alphorn.fields import attribute
from alphorn.losses.pairs import counted, cut_mask, plain_pair, weights_for
from alphorn.metrics.base import Metric

__all__ = ["F1Score", "FBetaScore", "R2Score"]

_TINY = 1e-7


def _width(y_pred: Any) -> int:
    """Returns how many columns there are: one where the mask reaches the last axis."""
    mask = y_pred.mask.ndim if is_masked(y_pred) else int(getattr(y_pred, "masked", 0))
    shape = tuple(getattr(y_pred, "shape", None) or np.shape(y_pred))
    return 1 if len(shape) <= max(mask, 1) else shape[-1]


class _ByColumns(Metric):
    """State with a number a column, made when the first batch says how many there are."""

    if TYPE_CHECKING:
        sums: dict[str, Variable] = attribute()

    def prepare(self, y_true: Any, y_pred: Any) -> None:
        """Makes the sums."""
        if "sums" not in vars(self):
            width = _width(y_pred)
            self.can_prepare("the number of columns")
            self.sums = self._make_sums(width)
            for name, variable in self.sums.items():
                setattr(self, name, variable)

    def _make_sums(self, width: int) -> dict[str, Variable]:
        raise ArgumentError(f"{type(self).__name__} has no sums")

    def _columns(
        self, y_true: Any, y_pred: Any, sample_weight: Any
    ) -> tuple[Array, Array, Array, Array]:
        """Returns targets, predictions, weights and what exists, `(entries, columns)` each."""
        true, pred, mask = plain_pair(y_true, y_pred, counted(sample_weight, y_pred))
        if true.shape != pred.shape:
            raise ShapeError(
                f"{type(self).__name__}: targets and predictions do not fit together",
                received=f"y_true {tuple(true.shape)}, y_pred {tuple(pred.shape)}",
                expected="equal shapes: (batch, columns)",
            )
        width = _width(y_pred)
        true, pred = (v.astype(self.dtype) for v in (true, pred))
        weight = weights_for(pred, mask, sample_weight)
        weight = jnp.ones(pred.shape, self.dtype) if weight is None else weight
        exists = jnp.ones(pred.shape, self.dtype)
        if mask is not None:
            exists = exists * expand_to(cut_mask(mask, pred.ndim), pred.ndim)
        true, pred, weight, exists = (v.reshape(-1, width) for v in (true, pred, weight, exists))
        return true, pred, weight, exists

    def _seen(self) -> list[Array]:
        if "sums" not in vars(self):
            raise StateError(
                f"{type(self).__name__} '{self.name}' has seen nothing yet",
                fix="update_state first",
            )
        return [v.value for v in self.sums.values()]


def _divide(a: Array, b: Array) -> Array:
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


class FBetaScore(_ByColumns):
    """The weighted harmonic mean of precision and recall, of each class.

    Args:
        average: None for a figure a class; "micro" counts all classes together, "macro" is the
            mean over classes, "weighted" that by how often they are.
        beta: How much more recall counts than precision.
        threshold: Above it a class is predicted; None: the likeliest is.
        name, dtype: As for all metrics.

    Takes `(batch, classes)`, or `(batch, time, classes)`: every valid step counts once.

    >>> metric = FBetaScore(beta=2.0, threshold=0.5)
    >>> metric(jnp.array([[1, 1], [1, 0]]), jnp.array([[0.9, 0.2], [0.6, 0.1]])).round(3)
    Array([1., 0.], dtype=float32)
    """

    if TYPE_CHECKING:
        axis: int | None = attribute()
    average: str | None = None
    beta: float = 1.0
    threshold: float | None = None
    name: str = "fbeta_score"
    dtype: Any = None

    def after_init(self) -> None:
        """Checks the arguments."""
        Metric.__init__(self, self.dtype, self.name)
        where = type(self).__name__
        if self.average not in (None, "micro", "macro", "weighted"):
            raise ArgumentError(
                f"{where}: average", repr(self.average), "None, 'micro', 'macro' or 'weighted'"
            )
        if not isinstance(self.beta, float) or self.beta <= 0:
            raise ArgumentError(f"{where}: beta", repr(self.beta), "a float above 0")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ArgumentError(
                f"{where}: threshold", repr(self.threshold), "above 0 and at most 1, or None"
            )
        self.axis = None if self.average == "micro" else 0

    def _make_sums(self, width: int) -> dict[str, Variable]:
        shape = () if self.average == "micro" else (width,)
        names = ("true_positives", "false_positives", "false_negatives", "intermediate_weights")
        return {name: self.add_variable(shape, name=name) for name in names}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        self.prepare(y_true, y_pred)
        true, pred, weight, _ = self._columns(y_true, y_pred, sample_weight)
        if self.threshold is None:
            called = (pred >= pred.max(-1, keepdims=True)) & (jnp.abs(pred) > 1e-9)
        else:
            called = pred > self.threshold
        called = called.astype(self.dtype)
        found = (called * true, called * (1 - true), (1 - called) * true, true)
        for variable, values in zip(self.sums.values(), found, strict=True):
            variable.assign_add(jnp.sum(jnp.where(weight == 0, 0, values * weight), self.axis))

    def result(self) -> Array:
        """Returns the score of each class, or of all."""
        hits, wrong, missed, weights = self._seen()
        precision, recall = hits / (hits + wrong + _TINY), hits / (hits + missed + _TINY)
        square = self.beta**2
        scores = (1 + square) * precision * recall / (square * precision + recall + _TINY)
        if self.average == "weighted":
            return jnp.sum(scores * weights / (jnp.sum(weights) + _TINY))
        return scores if self.average is None else jnp.mean(scores)


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall, of each class.

    Args:
        average: None for a figure a class; "micro" counts all classes together, "macro" is the
            mean over classes, "weighted" that by how often they are.
        threshold: Above it a class is predicted; None: the likeliest is.
        name, dtype: As for all metrics.
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str = "f1_score",
        dtype: Any = None,
    ):
        super().__init__(average=average, threshold=threshold, name=name, dtype=dtype)


class R2Score(_ByColumns):
    """The share of the targets' variance that predictions explain, R².

    Args:
        class_aggregation: "uniform_average" for the mean over columns,
            "variance_weighted_average" for that by their variance, None for a figure a column.
        num_regressors: How many features were used, for the adjusted score; 0 for the plain one.
        name, dtype: As for all metrics.

    Takes `(batch, columns)`, or `(batch, time, columns)`: every valid step counts once. A column
    whose targets do not vary has the score 0.

    >>> metric = R2Score()
    >>> metric(jnp.array([[1.0], [4.0], [3.0]]), jnp.array([[2.0], [4.0], [4.0]])).round(4)
    Array(0.5714, dtype=float32)
    """

    class_aggregation: str | None = "uniform_average"
    num_regressors: int = 0
    name: str = "r2_score"
    dtype: Any = None

    def after_init(self) -> None:
        """Checks the arguments, and makes what does not depend on the columns."""
        Metric.__init__(self, self.dtype, self.name)
        known = (None, "uniform_average", "variance_weighted_average")
        if self.class_aggregation not in known:
            raise ArgumentError(
                "R2Score: class_aggregation",
                repr(self.class_aggregation),
                ", ".join(map(repr, known)),
            )
        if self.num_regressors < 0:
            raise ArgumentError("R2Score: num_regressors", repr(self.num_regressors), "from 0")
        self.num_samples = self.add_variable(name="num_samples")

    def _make_sums(self, width: int) -> dict[str, Variable]:
        names = ("squared_sum", "sum", "total_mse", "count")
        return {name: self.add_variable((width,), name=name) for name in names}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes a batch in."""
        self.prepare(y_true, y_pred)
        true, pred, weight, exists = self._columns(y_true, y_pred, sample_weight)
        found = (true * true, true, jnp.square(true - pred), jnp.ones_like(true))
        for variable, values in zip(self.sums.values(), found, strict=True):
            variable.assign_add(jnp.sum(jnp.where(weight == 0, 0, values * weight), 0))
        self.num_samples.assign_add(jnp.sum(exists))

    def result(self) -> Array:
        """Returns the score."""
        squares, total, errors, count = self._seen()
        spread = squares - total * _divide(total, count)
        scores = jnp.where(spread == 0, 0, 1 - _divide(errors, spread))
        if self.class_aggregation == "uniform_average":
            scores = jnp.mean(scores)
        elif self.class_aggregation == "variance_weighted_average":
            scores = _divide(jnp.sum(spread * scores), jnp.sum(spread))
        if not self.num_regressors:
            return scores
        free = self.num_samples.value - self.num_regressors - 1
        adjusted = 1 - (1 - scores) * (self.num_samples.value - 1) / jnp.where(free > 0, free, 1)
        return jnp.where(free > 0, adjusted, scores)  # too few rows: the plain score
